//! What a run would need, before it starts.

use super::elsewhere::Traffic;
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
    /// Expected time on this machine, everything included that happens here.
    pub seconds: f64,
    /// What is exchanged with another machine; nothing where the networks run here.
    pub traffic: Traffic,
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
            traffic: Traffic::default(),
            dims,
        }
    }

    /// The same with the network on another machine.
    #[must_use]
    pub fn with_network_elsewhere(mut self, network: &Network, traffic: Traffic) -> Self {
        let computed = self.dims.iter().product::<usize>() as u64;
        self.needed_bytes -= network.bytes(self.dims).min(self.needed_bytes);
        // The values of the box, one call's copy and the labels.
        self.needed_bytes += 9 * computed;
        self.seconds -= network.expected_secs(self.dims, &Rates::of_this_machine());
        self.traffic = traffic;
        self
    }
}
