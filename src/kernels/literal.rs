//! The definitions of convolutions, term by term in f64: what the fast versions are held to.

use super::conv::ConvShape;

/// "Same" 3-D convolution (cross-correlation, as in PyTorch) with stride 1.
///
/// `input`: `[ci][z][y][x]`; `weights`: `[co][ci][kz][ky][kx]` with an odd cubic kernel of `size`;
/// `bias`: `[co]` or empty. Returns `[co][z][y][x]`.
pub fn conv3d_literal(
    input: &[f32],
    dims: [usize; 3],
    weights: &[f32],
    bias: &[f32],
    size: usize,
    dilation: usize,
) -> Vec<f64> {
    let [nz, ny, nx] = dims;
    let voxels = nz * ny * nx;
    let ci = input.len() / voxels;
    let co = weights.len() / (ci * size * size * size);
    let half = (size / 2) as i64;
    let mut out = Vec::with_capacity(co * voxels);
    for o in 0..co {
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    let mut sum = bias.get(o).copied().map_or(0.0, f64::from);
                    for i in 0..ci {
                        for kz in 0..size {
                            for ky in 0..size {
                                for kx in 0..size {
                                    let at = |n: usize, k: usize| {
                                        n as i64 + (k as i64 - half) * dilation as i64
                                    };
                                    let (pz, py, px) = (at(z, kz), at(y, ky), at(x, kx));
                                    let inside = (0..nz as i64).contains(&pz)
                                        && (0..ny as i64).contains(&py)
                                        && (0..nx as i64).contains(&px);
                                    if inside {
                                        let n = ((i as i64 * nz as i64 + pz) * ny as i64 + py)
                                            * nx as i64
                                            + px;
                                        let w =
                                            (((o * ci + i) * size + kz) * size + ky) * size + kx;
                                        sum += f64::from(input[n as usize]) * f64::from(weights[w]);
                                    }
                                }
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

/// A convolution of any shape; `input` `[ci][z][y][x]`, `weights` `[co][ci / groups][kz][ky][kx]`,
/// `bias` `[co]` or empty. Returns `[co][z][y][x]`.
///
/// # Panics
/// When lengths do not fit the shape.
pub fn conv_literal(
    shape: &ConvShape,
    input: &[f32],
    dims: [usize; 3],
    weights: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    let [nz, ny, nx] = dims;
    let [oz, oy, ox] = shape.output_dims(dims).expect("the kernel fits");
    let [kz, ky, kx] = shape.kernel;
    let per_group = shape.input / shape.groups;
    let inside = |axis: usize, at: usize, tap: usize| {
        (at * shape.stride[axis] + tap * shape.dilation[axis])
            .checked_sub(shape.padding[axis][0])
            .filter(|p| *p < dims[axis])
    };
    let mut out = Vec::with_capacity(shape.output * oz * oy * ox);
    for o in 0..shape.output {
        let first = o / (shape.output / shape.groups) * per_group;
        for v in 0..oz * oy * ox {
            let (z, y, x) = (v / (oy * ox), v / ox % oy, v % ox);
            let mut sum = bias.get(o).copied().map_or(0.0, f64::from);
            for i in 0..per_group {
                for k in 0..kz * ky * kx {
                    let (tz, ty, tx) = (k / (ky * kx), k / kx % ky, k % kx);
                    if let (Some(z), Some(y), Some(x)) =
                        (inside(0, z, tz), inside(1, y, ty), inside(2, x, tx))
                    {
                        let value = input[(((first + i) * nz + z) * ny + y) * nx + x];
                        let weight = weights[(o * per_group + i) * kz * ky * kx + k];
                        sum += f64::from(value) * f64::from(weight);
                    }
                }
            }
            out.push(sum);
        }
    }
    out
}
