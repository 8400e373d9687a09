//! Resizing and edge padding: one axis after another by chosen indices.

use candle_core::{Result, Tensor};

use crate::model::graph::{PadMode, ResizeMode, ResizeTo};

/// Resizes the spatial axes with PyTorch's coordinates.
pub fn resize(x: &Tensor, to: &ResizeTo, mode: ResizeMode, out: &[usize]) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for (axis, m) in out.iter().enumerate() {
        let n = x.dims()[axis + 2];
        // A given factor is used as it is, also where the size was rounded.
        let step = match to {
            ResizeTo::Factor(factors) => 1.0 / factors[axis],
            _ => n as f64 / *m as f64,
        };
        x = match mode {
            ResizeMode::Nearest => {
                let at = (0..*m).map(|i| ((i as f64 * step) as usize).min(n - 1));
                select(&x, axis + 2, at)?
            }
            ResizeMode::Linear => linear(&x, axis + 2, *m, |i| ((i + 0.5) * step - 0.5).max(0.0))?,
            ResizeMode::LinearAlignCorners => {
                let step = if *m > 1 {
                    (n - 1) as f64 / (*m - 1) as f64
                } else {
                    0.0
                };
                linear(&x, axis + 2, *m, |i| i * step)?
            }
        };
    }
    Ok(x)
}

fn linear(x: &Tensor, axis: usize, m: usize, source: impl Fn(f64) -> f64) -> Result<Tensor> {
    let n = x.dims()[axis];
    let at: Vec<f64> = (0..m).map(|i| source(i as f64)).collect();
    let low = |at: &f64| (at.floor() as usize).min(n - 1);
    let lower = select(x, axis, at.iter().map(low))?;
    let upper = select(x, axis, at.iter().map(|a| (low(a) + 1).min(n - 1)))?;
    let part: Vec<f32> = at.iter().map(|a| (a - low(a) as f64) as f32).collect();
    let mut shape = vec![1; x.rank()];
    shape[axis] = m;
    let part = Tensor::from_vec(part, shape, x.device())?;
    &lower + (upper - &lower)?.broadcast_mul(&part)?
}

fn select(x: &Tensor, axis: usize, at: impl Iterator<Item = usize>) -> Result<Tensor> {
    let at: Vec<u32> = at.map(|n| n as u32).collect();
    x.contiguous()?
        .index_select(&Tensor::new(at, x.device())?, axis)
}

/// Pads with the value's own edge or its mirror image.
pub fn pad_edge(x: &Tensor, padding: &[[usize; 2]], mode: PadMode) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for (axis, [before, after]) in padding.iter().enumerate() {
        let n = x.dims()[axis] as i64;
        let at = (-(*before as i64)..n + *after as i64).map(|i| {
            let inside = match mode {
                PadMode::Reflect if n > 1 => {
                    let period = 2 * (n - 1);
                    let i = i.rem_euclid(period);
                    i.min(period - i)
                }
                _ => i.clamp(0, n - 1),
            };
            inside as usize
        });
        x = select(&x, axis, at)?;
    }
    Ok(x)
}
