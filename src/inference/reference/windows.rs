//! What moves a window over the grid, tap by tap: for each tap the whole shifted value.

use candle_core::{Result, Tensor};

use crate::model::graph::Pool;

/// Pads the spatial axes with a value.
pub fn pad(x: &Tensor, padding: &[[usize; 2]], value: f64) -> Result<Tensor> {
    let all: Vec<[usize; 2]> = [[0, 0]; 2].iter().chain(padding).copied().collect();
    pad_all(x, &all, value)
}

/// Pads all axes with a value.
pub fn pad_all(x: &Tensor, padding: &[[usize; 2]], value: f64) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for (axis, [before, after]) in padding.iter().enumerate() {
        let mut parts = Vec::new();
        let filled = |count: usize| -> Result<Tensor> {
            let mut shape = x.dims().to_vec();
            shape[axis] = count;
            Tensor::full(value as f32, shape, x.device())
        };
        if *before > 0 {
            parts.push(filled(*before)?);
        }
        parts.push(x.clone());
        if *after > 0 {
            parts.push(filled(*after)?);
        }
        x = Tensor::cat(&parts, axis)?;
    }
    Ok(x)
}

/// All taps of a kernel, the last axis fastest.
fn taps(kernel: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..kernel.iter().product::<usize>()).map(move |mut n| {
        let mut tap = vec![0; kernel.len()];
        for (at, size) in tap.iter_mut().zip(kernel).rev() {
            *at = n % size;
            n /= size;
        }
        tap
    })
}

/// The values under one tap: along each axis `out` values from `start`, `stride` apart.
fn under(x: &Tensor, start: &[usize], stride: &[usize], out: &[usize]) -> Result<Tensor> {
    let mut x = x.clone();
    for axis in 0..out.len() {
        let reach = (out[axis] - 1) * stride[axis] + 1;
        x = x.narrow(axis + 2, start[axis], reach)?;
        if stride[axis] > 1 {
            let at: Vec<u32> = (0..out[axis]).map(|n| (n * stride[axis]) as u32).collect();
            let at = Tensor::new(at, x.device())?;
            x = x.contiguous()?.index_select(&at, axis + 2)?;
        }
    }
    x.contiguous()
}

/// Convolution of a padded value; the batch is 1.
pub fn conv(
    x: &Tensor,
    weights: &Tensor,
    stride: &[usize],
    dilation: &[usize],
    groups: usize,
    out: &[usize],
) -> Result<Tensor> {
    let (co, ci) = (weights.dims()[0], weights.dims()[1]);
    let kernel = weights.dims()[2..].to_vec();
    let count: usize = out.iter().product();
    let flat = weights.reshape((co, ci, ()))?;
    let mut parts = Vec::new();
    for group in 0..groups {
        let per = co / groups;
        let input = x.narrow(1, group * ci, ci)?;
        let mine = flat.narrow(0, group * per, per)?;
        let mut sum: Option<Tensor> = None;
        for (n, tap) in taps(&kernel).enumerate() {
            let start: Vec<usize> = tap.iter().zip(dilation).map(|(t, d)| t * d).collect();
            let values = under(&input, &start, stride, out)?.reshape((ci, count))?;
            let w = mine.narrow(2, n, 1)?.reshape((per, ci))?;
            let product = w.contiguous()?.matmul(&values)?;
            sum = Some(match sum {
                None => product,
                Some(sum) => (sum + product)?,
            });
        }
        parts.extend(sum);
    }
    let shape: Vec<usize> = [&[1, co], out].concat();
    Tensor::cat(&parts, 0)?.reshape(shape)
}

/// Transposed convolution: zeros between the values, then a convolution with the mirrored kernel.
pub fn conv_transpose(
    x: &Tensor,
    weights: &Tensor,
    stride: &[usize],
    padding: &[[usize; 2]],
    output_padding: &[usize],
    groups: usize,
    out: &[usize],
) -> Result<Tensor> {
    let axes = stride.len();
    let kernel = weights.dims()[2..].to_vec();
    let mut x = x.contiguous()?;
    for axis in 0..axes {
        let n = x.dims()[axis + 2];
        // [.., n, ..] → [.., n, s, ..] → [.., n·s, ..], cut behind the last value.
        let mut between = x.dims().to_vec();
        between.insert(axis + 3, 1);
        let mut pads = vec![[0, 0]; between.len()];
        pads[axis + 3] = [0, stride[axis] - 1];
        let spread = pad_all(&x.reshape(between)?, &pads, 0.0)?;
        let mut joined = x.dims().to_vec();
        joined[axis + 2] = n * stride[axis];
        let spread = spread.reshape(joined)?;
        x = spread
            .narrow(axis + 2, 0, (n - 1) * stride[axis] + 1)?
            .contiguous()?;
    }
    // Where padding takes more than the kernel reaches, it takes values.
    let mut around = Vec::new();
    for axis in 0..axes {
        let reach = kernel[axis] - 1;
        let [before, after] = padding[axis];
        let (front, back) = (
            reach as i64 - before as i64,
            (reach + output_padding[axis]) as i64 - after as i64,
        );
        let n = x.dims()[axis + 2] as i64;
        let (cut, kept) = ((-front).max(0), n - (-front).max(0) - (-back).max(0));
        x = x
            .narrow(axis + 2, cut as usize, kept as usize)?
            .contiguous()?;
        around.push([front.max(0) as usize, back.max(0) as usize]);
    }
    let x = pad(&x, &around, 0.0)?;
    // [in, out / g, …] → per group [out / g, in / g, …] with every spatial axis mirrored.
    let per = weights.dims()[0] / groups;
    let mut mirrored = Vec::new();
    for group in 0..groups {
        let mut w = weights
            .narrow(0, group * per, per)?
            .transpose(0, 1)?
            .contiguous()?;
        for (axis, size) in kernel.iter().enumerate() {
            let back: Vec<u32> = (0..*size as u32).rev().collect();
            w = w.index_select(&Tensor::new(back, w.device())?, axis + 2)?;
        }
        mirrored.push(w);
    }
    let mirrored = Tensor::cat(&mirrored, 0)?;
    conv(&x, &mirrored, &vec![1; axes], &vec![1; axes], groups, out)
}

/// How much must be added behind so that every window is full.
fn full_padding(x: &Tensor, pool: &Pool, out: &[usize]) -> Vec<[usize; 2]> {
    (0..out.len())
        .map(|a| {
            let reach = (out[a] - 1) * pool.stride[a] + pool.kernel[a];
            let [before, after] = pool.padding[a];
            let there = x.dims()[a + 2] + before;
            [before, after.max(reach.saturating_sub(there))]
        })
        .collect()
}

/// Largest value of each window.
pub fn max_pool(x: &Tensor, pool: &Pool, out: &[usize]) -> Result<Tensor> {
    let padded = pad(x, &full_padding(x, pool, out), f64::NEG_INFINITY)?;
    let mut most: Option<Tensor> = None;
    for tap in taps(&pool.kernel) {
        let values = under(&padded, &tap, &pool.stride, out)?;
        most = Some(match most {
            None => values,
            Some(most) => most.maximum(&values)?,
        });
    }
    Ok(most.expect("a window has a tap"))
}

/// Mean of each window. With `count_padding` zeros of the padding count, but not what lies beyond
/// it (PyTorch's rule for `ceil_mode`).
pub fn average_pool(x: &Tensor, pool: &Pool, count_padding: bool, out: &[usize]) -> Result<Tensor> {
    let full = full_padding(x, pool, out);
    let sum_of = |x: &Tensor| -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for tap in taps(&pool.kernel) {
            let values = under(x, &tap, &pool.stride, out)?;
            sum = Some(match sum {
                None => values,
                Some(sum) => (sum + values)?,
            });
        }
        Ok(sum.expect("a window has a tap"))
    };
    let ones = Tensor::ones_like(x)?;
    let counted = if count_padding {
        let inside = pad(&ones, &pool.padding, 1.0)?;
        let beyond: Vec<[usize; 2]> = full
            .iter()
            .zip(&pool.padding)
            .map(|(full, padding)| [0, full[1] - padding[1]])
            .collect();
        pad(&inside, &beyond, 0.0)?
    } else {
        pad(&ones, &full, 0.0)?
    };
    sum_of(&pad(x, &full, 0.0)?)? / sum_of(&counted)?
}

/// Means of parts from ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉.
pub fn adaptive_average(x: &Tensor, size: &[usize]) -> Result<Tensor> {
    let mut x = x.clone();
    for (axis, m) in size.iter().enumerate() {
        let n = x.dims()[axis + 2];
        let parts = (0..*m)
            .map(|i| {
                let (start, end) = (i * n / m, ((i + 1) * n).div_ceil(*m));
                x.narrow(axis + 2, start, end - start)?
                    .mean_keepdim(axis + 2)
            })
            .collect::<Result<Vec<_>>>()?;
        x = Tensor::cat(&parts, axis + 2)?;
    }
    Ok(x)
}
