//! What a run would need, before it starts.

use super::network::Network;
use crate::kernels::Rates;

/// Passes over the conformed grid for conforming, sorting, the component filter and the way back,
/// counted in memory's time.
const AROUND: usize = 110;

/// Memory and work of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPlan {
    /// Peak memory beyond the volume itself.
    pub needed_bytes: u64,
    /// Multiplications and additions.
    pub flops: f64,
    /// Expected time on this machine, everything included.
    pub seconds: f64,
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
        let (grid, scan) = (grid_voxels as u64, scan_voxels as u64);
        // One after the other: conforming; sorting for quantiles and cutting the box; the network
        // with its labels, when the grid's values are gone.
        let computed = dims.iter().product::<usize>() as u64;
        let conforming = 4 * (grid + scan);
        let normalizing = 4 * (2 * grid).max(grid + computed);
        let running = network.bytes(dims) + computed;
        let needed = conforming
            .max(normalizing)
            .max(running)
            .max(2 * grid + scan);
        let rates = Rates::of_this_machine();
        let around = (AROUND * grid_voxels + 2 * scan_voxels) as f64 * 4.0 * rates.byte_secs;
        Self {
            needed_bytes: needed,
            flops: network.flops(dims),
            seconds: network.expected_secs(dims, &rates) + around,
            dims,
        }
    }
}
