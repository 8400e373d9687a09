//! What a run would need, before it starts.

use super::network::Network;

/// Memory and work of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPlan {
    /// Peak memory beyond the volume itself.
    pub needed_bytes: u64,
    /// Multiplications and additions.
    pub flops: f64,
    /// Grid that is computed, `[k, j, i]`.
    pub dims: [usize; 3],
}

impl RunPlan {
    /// For a network on a box `[k, j, i]` of a grid of `grid_voxels`, from a scan of `scan_voxels`.
    pub fn new(
        network: &Network,
        dims: [usize; 3],
        grid_voxels: usize,
        scan_voxels: usize,
    ) -> Self {
        // The network's own memory, the conformed values twice (with their sorted copy for
        // quantiles), the scan's values, and labels on both grids.
        let floats = 2 * grid_voxels + scan_voxels;
        let needed = network.bytes(dims) + floats as u64 * 4 + (grid_voxels + scan_voxels) as u64;
        Self {
            needed_bytes: needed,
            flops: network.flops(dims),
            dims,
        }
    }

    /// Expected seconds at a rate.
    pub fn seconds(&self, gflops: f64) -> f64 {
        self.flops / (gflops * 1e9)
    }
}
