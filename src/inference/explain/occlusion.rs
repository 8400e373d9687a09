//! Occlusion: what is lost when a part of the image is blurred away.
//!
//! # Source
//! Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks". It asks nothing
//! of the model but its answers.

use super::{Scorer, blurred, like, plane_of};
use crate::inference::Error;
use crate::inference::tensor::Array;
use crate::task::Task;

/// Cells of the map along each axis; a patch covers two.
const CELLS: usize = 14;

/// Loss of log-odds per cell, the mean over the patches that cover it, gains cut off.
pub fn map(
    scorer: &Scorer<'_>,
    input: &Array,
    task: &Task,
) -> Result<([usize; 2], Vec<f32>), Error> {
    let ([rows, columns], values) = plane_of(input);
    let dims = [CELLS.min(rows), CELLS.min(columns)];
    let without = blurred(input);
    // Patches of two cells each way, one cell apart; those at the edge reach out of the image.
    let [ny, nx] = [dims[0] + 1, dims[1] + 1];
    let hidden = |n: usize| {
        let (py, px) = (n / nx, n % nx);
        let edge = |cell: usize, cells: usize, length: usize| cell * length / cells;
        let bounds = |p: usize, cells: usize, length: usize| {
            let low = edge(p.saturating_sub(1), cells, length);
            low..edge((p + 1).min(cells), cells, length)
        };
        let mut image = values.to_vec();
        for y in bounds(py, dims[0], rows) {
            for x in bounds(px, dims[1], columns) {
                image[y * columns + x] = without[y * columns + x];
            }
        }
        like(input, image)
    };
    task.begin("Occlusion", ny * nx + 1);
    let whole = scorer.log_odds_of(1, &|_| like(input, values.to_vec()), task)?[0];
    let lost = scorer.log_odds_of(ny * nx, &hidden, task)?;
    let mut map = vec![0.0_f32; dims[0] * dims[1]];
    for (n, to) in map.iter_mut().enumerate() {
        let (y, x) = (n / dims[1], n % dims[1]);
        let over = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)];
        let sum: f64 = over.iter().map(|(y, x)| whole - lost[y * nx + x]).sum();
        *to = (sum / 4.0).max(0.0) as f32;
    }
    Ok((dims, map))
}
