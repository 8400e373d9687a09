//! Resizing of grids, with PyTorch's rules for coordinates.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};

/// How values between points come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The point below: `⌊x · in / out⌋`.
    Nearest,
    /// Linear along each axis (bilinear, trilinear).
    Linear {
        /// Whether the first and last points of both grids meet; else their outer edges do.
        align_corners: bool,
    },
}

/// For each output point of an axis, two input points and the weight of the second.
fn taps(how: Interpolation, from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    (0..to)
        .map(|n| match how {
            Interpolation::Nearest => {
                let scale = from as f32 / to as f32;
                let at = ((n as f32 * scale) as usize).min(from - 1);
                (at, at, 0.0)
            }
            Interpolation::Linear { align_corners } => {
                let at = if align_corners {
                    if to > 1 {
                        n as f32 * ((from - 1) as f32 / (to - 1) as f32)
                    } else {
                        0.0
                    }
                } else {
                    ((n as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0)
                };
                let first = (at as usize).min(from - 1);
                let second = (first + 1).min(from - 1);
                (first, second, at - first as f32)
            }
        })
        .collect()
}

/// Resizes into the output's grid.
///
/// # Panics
/// When channels differ, the input is plain, or a grid is empty.
pub fn resize(how: Interpolation, input: View<'_>, mut output: ViewMut<'_>) {
    let (dims, out_dims) = (input.dims(), output.dims());
    assert_eq!(input.channels(), output.channels(), "channels stay");
    assert_eq!(input.lanes(), BLOCK, "blocks of eight");
    assert!(
        dims.iter().chain(&out_dims).all(|n| *n > 0),
        "grids with points"
    );
    let axes: Vec<_> = (0..3)
        .map(|axis| taps(how, dims[axis], out_dims[axis]))
        .collect();
    let data = input.as_slice().as_chunks::<BLOCK>().0;
    let lines = out_dims[0] * out_dims[1];
    let [nz, ny, nx] = dims;
    output
        .as_mut_slice()
        .par_chunks_mut(out_dims[2] * BLOCK)
        .enumerate()
        .for_each_init(
            || vec![[0.0_f32; BLOCK]; nx],
            |line, (n, row)| {
                let (block, z, y) = (n / lines, n % lines / out_dims[1], n % out_dims[1]);
                let (z, y) = (axes[0][z], axes[1][y]);
                let source = |z: usize, y: usize| &data[((block * nz + z) * ny + y) * nx..][..nx];
                // The line between four, then along it.
                let corners = [
                    (source(z.0, y.0), (1.0 - z.2) * (1.0 - y.2)),
                    (source(z.0, y.1), (1.0 - z.2) * y.2),
                    (source(z.1, y.0), z.2 * (1.0 - y.2)),
                    (source(z.1, y.1), z.2 * y.2),
                ];
                line.fill([0.0; BLOCK]);
                for (source, weight) in corners {
                    // A weight of zero does not carry an infinite value over.
                    if weight == 0.0 {
                        continue;
                    }
                    for (to, from) in line.iter_mut().zip(source) {
                        for lane in 0..BLOCK {
                            to[lane] += from[lane] * weight;
                        }
                    }
                }
                for (to, x) in row.as_chunks_mut::<BLOCK>().0.iter_mut().zip(&axes[2]) {
                    let (first, second) = (line[x.0], line[x.1]);
                    if x.2 == 0.0 {
                        *to = first;
                        continue;
                    }
                    for lane in 0..BLOCK {
                        to[lane] = first[lane] * (1.0 - x.2) + second[lane] * x.2;
                    }
                }
            },
        );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::*;

    proptest! {
        #[test]
        fn values_equal_the_definition(
            dims in [1_usize..5, 1_usize..6, 1_usize..7],
            out_dims in [1_usize..9, 1_usize..9, 1_usize..9],
            channels in 1_usize..11,
            how in 0..3,
        ) {
            let how = match how {
                0 => Interpolation::Nearest,
                n => Interpolation::Linear { align_corners: n == 1 },
            };
            let n = dims.iter().product::<usize>();
            let x: Vec<f32> = (0..channels * n).map(|n| ((n * 7919) % 101) as f32 - 50.0).collect();
            let mut out = Blocked::zeros(out_dims, channels);
            resize(how, Blocked::from_channels(&x, dims, channels).view(), out.view_mut());
            let count = out_dims.iter().product::<usize>();
            for (m, got) in out.to_channels().iter().enumerate() {
                let (c, v) = (m / count, m % count);
                let at = [v / (out_dims[1] * out_dims[2]), v / out_dims[2] % out_dims[1], v % out_dims[2]];
                let mut want = 0.0;
                for corner in 0..8 {
                    let (mut weight, mut place) = (1.0, 0);
                    for axis in 0..3 {
                        let (from, to) = (dims[axis] as f64, out_dims[axis] as f64);
                        let p = at[axis] as f64;
                        let p = match how {
                            Interpolation::Nearest => (p * from / to + 1e-9).floor(),
                            Interpolation::Linear { align_corners: true } if to == 1.0 => 0.0,
                            Interpolation::Linear { align_corners: true } => p * (from - 1.0) / (to - 1.0),
                            Interpolation::Linear { .. } => ((p + 0.5) * from / to - 0.5).max(0.0),
                        };
                        let low = p.floor();
                        let high = (corner >> axis) & 1 == 1;
                        weight *= if high { p - low } else { 1.0 - (p - low) };
                        let index = if high { low + 1.0 } else { low }.min(from - 1.0);
                        place = place * dims[axis] + index as usize;
                    }
                    want += weight * f64::from(x[c * n + place]);
                }
                // Coordinates in f32 on values up to 50.
                prop_assert!((f64::from(*got) - want).abs() < 2e-3, "{how:?} {got} {want}");
            }
        }
    }
}
