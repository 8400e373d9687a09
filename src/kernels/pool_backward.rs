//! Gradients of pooling.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::pool::{PoolKind, PoolShape, padded, window};

/// The gradient of a pooling's input: to the first largest value of each window, or in equal parts.
///
/// # Panics
/// When shapes do not fit.
pub fn pool_gradient(shape: &PoolShape, input: View<'_>, gradient: View<'_>, mut to: ViewMut<'_>) {
    let (dims, out) = (input.dims(), gradient.dims());
    assert_eq!(Some(out), shape.output_dims(dims), "the grid of the output");
    assert_eq!(
        (to.dims(), to.channels(), input.lanes(), gradient.lanes()),
        (dims, gradient.channels(), BLOCK, BLOCK),
        "one shape"
    );
    let block = (input.voxels() * BLOCK).max(1);
    let out_block = (gradient.voxels() * BLOCK).max(1);
    to.as_mut_slice()
        .par_chunks_mut(block)
        .zip(input.as_slice().par_chunks(block))
        .zip(gradient.as_slice().par_chunks(out_block))
        .for_each(|((to, x), g)| {
            to.fill(0.0);
            let to = to.as_chunks_mut::<BLOCK>().0;
            let x = x.as_chunks::<BLOCK>().0;
            for (n, g) in g.as_chunks::<BLOCK>().0.iter().enumerate() {
                let at = [n / (out[1] * out[2]), n / out[2] % out[1], n % out[2]];
                one(shape, dims, at, x, g, to);
            }
        });
}

fn one(
    shape: &PoolShape,
    dims: [usize; 3],
    at: [usize; 3],
    x: &[[f32; BLOCK]],
    g: &[f32; BLOCK],
    to: &mut [[f32; BLOCK]],
) {
    let [zs, ys, xs] = [0, 1, 2].map(|a| window(shape, dims, a, at[a]));
    let points = || {
        zs.clone().flat_map(|z| {
            let (ys, xs) = (ys.clone(), xs.clone());
            ys.flat_map(move |y| xs.clone().map(move |x| (z * dims[1] + y) * dims[2] + x))
        })
    };
    match shape.kind {
        PoolKind::Max => {
            let mut best = [f32::NEG_INFINITY; BLOCK];
            let mut place = [usize::MAX; BLOCK];
            for point in points() {
                for n in 0..BLOCK {
                    if x[point][n] > best[n] || place[n] == usize::MAX {
                        best[n] = x[point][n];
                        place[n] = point;
                    }
                }
            }
            for n in 0..BLOCK {
                if place[n] != usize::MAX {
                    to[place[n]][n] += g[n];
                }
            }
        }
        PoolKind::Mean { count_padding } => {
            let count: usize = if count_padding {
                (0..3).map(|a| padded(shape, dims, a, at[a])).product()
            } else {
                points().count()
            };
            for point in points() {
                for n in 0..BLOCK {
                    to[point][n] += g[n] / count as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Blocked, pool};
    use super::*;

    #[test]
    fn pooling_gradients_equal_differences() {
        let (dims, channels) = ([3, 6, 7], 9);
        let count = 126 * channels;
        // Distinct values, so that no window has two largest ones.
        let x: Vec<f32> = (0..count).map(|n| ((n * 7919) % 4099) as f32).collect();
        for kind in [
            PoolKind::Max,
            PoolKind::Mean {
                count_padding: false,
            },
            PoolKind::Mean {
                count_padding: true,
            },
        ] {
            let shape = PoolShape {
                stride: [1, 2, 2],
                padding: [[0; 2], [1; 2], [1; 2]],
                ..PoolShape::new(kind, [2, 3, 3])
            };
            let out = shape.output_dims(dims).unwrap();
            let pooled = |x: &[f32]| {
                let mut y = Blocked::zeros(out, channels);
                let x = Blocked::from_channels(x, dims, channels);
                pool(&shape, x.view(), y.view_mut());
                y.to_channels()
            };
            let before = pooled(&x);
            let g: Vec<f32> = (0..before.len()).map(|n| (n % 17) as f32 - 8.0).collect();
            let mut got = Blocked::zeros(dims, channels);
            pool_gradient(
                &shape,
                Blocked::from_channels(&x, dims, channels).view(),
                Blocked::from_channels(&g, out, channels).view(),
                got.view_mut(),
            );
            let got = got.to_channels();
            for n in (0..count).step_by(11) {
                let mut other = x.clone();
                // Half of the least distance: nothing changes places.
                other[n] += 0.5;
                let want: f32 = pooled(&other)
                    .iter()
                    .zip(&before)
                    .zip(&g)
                    .map(|((a, b), g)| (a - b) * 2.0 * g)
                    .sum();
                assert!(
                    (got[n] - want).abs() < 0.02,
                    "{kind:?} {n}: {} {want}",
                    got[n]
                );
            }
        }
    }
}
