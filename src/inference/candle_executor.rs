//! The reference executor: candle's tensors, with the 3-D convolution that candle lacks as a
//! custom op over the same kernels. Whole tensors, no tricks.

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};

use super::Error;
use super::network::Network;
use crate::kernels::{Activation, Conv3d, Instructions, Planes, conv3d};
use crate::task::{Cancelled, Task};

/// "Same" 3-D convolution of `[ci, k, j, i]` by weights `[co, ci, kz, ky, kx]` and bias `[co]`.
struct Conv3dOp {
    dilation: usize,
}

impl CustomOp3 for Conv3dOp {
    fn name(&self) -> &'static str {
        "conv3d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = |storage: &CpuStorage, layout: &Layout| -> Result<Vec<f32>> {
            let (start, end) = layout
                .contiguous_offsets()
                .ok_or_else(|| candle_core::Error::Msg("conv3d needs contiguous tensors".into()))?;
            Ok(storage.as_slice::<f32>()?[start..end].to_vec())
        };
        let (ci, nk, nj, ni) = x_layout.shape().dims4()?;
        let (co, _, size, _, _) = w_layout.shape().dims5()?;
        let (weights, bias) = (values(w, w_layout)?, values(b, b_layout)?);
        let conv = Conv3d::new(
            &weights,
            &bias,
            [co, ci],
            size,
            self.dilation,
            Activation::Linear,
        );
        let dims = [nk, nj, ni];
        let input = Planes::from_channels(&values(x, x_layout)?, dims, ci, conv.reach());
        let mut output = Planes::zeros(dims, co, 0);
        // Never stopped: candle has no way to say so.
        let _ = conv3d(&conv, &input, &mut output, Instructions::detect(), &|| true);
        Ok((
            CpuStorage::F32(output.to_channels()),
            Shape::from((co, nk, nj, ni)),
        ))
    }
}

/// Labels of a box of values, `[k][j][i]`.
///
/// # Errors
/// [`Error::Candle`], [`Cancelled`] between layers.
pub fn forward(
    network: &Network,
    values: Vec<f32>,
    [nk, nj, ni]: [usize; 3],
    task: &Task,
) -> std::result::Result<Vec<u8>, Error> {
    let device = Device::Cpu;
    let mut x = Tensor::from_vec(values, (1, nk, nj, ni), &device)?;
    let count = network.steps().len();
    task.begin("Layers", count);
    for (n, step) in network.steps().iter().enumerate() {
        task.check().map_err(|Cancelled| Cancelled)?;
        let (c, s) = (&step.conv, step.conv.size);
        let weights = Tensor::from_slice(&step.raw.0, (c.output, c.input, s, s, s), &device)?;
        let bias = if step.raw.1.is_empty() {
            vec![0.0; c.output]
        } else {
            step.raw.1.clone()
        };
        let bias = Tensor::from_vec(bias, c.output, &device)?;
        x = x.contiguous()?.apply_op3(
            &weights,
            &bias,
            Conv3dOp {
                dilation: c.dilation,
            },
        )?;
        x = activate(&x, c.activation)?;
        if let Some((epsilon, activation)) = step.norm {
            let flat = x.reshape((c.output, ()))?;
            let mean = flat.mean_keepdim(D::Minus1)?;
            let centered = flat.broadcast_sub(&mean)?;
            let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
            let scaled = centered.broadcast_div(&(variance + f64::from(epsilon))?.sqrt()?)?;
            x = activate(&scaled.reshape((c.output, nk, nj, ni))?, activation)?;
        }
        task.report(n + 1, count);
    }
    let labels = x.argmax(0)?.flatten_all()?.to_vec1::<u32>()?;
    Ok(labels.into_iter().map(|l| l as u8).collect())
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Linear => Ok(x.clone()),
        Activation::Relu => x.relu(),
        Activation::Elu => x.elu(1.0),
        Activation::Gelu => x.gelu_erf(),
        Activation::LeakyRelu(slope) => x.relu()? - (x.neg()?.relu()? * f64::from(slope))?,
        Activation::Silu => x.silu(),
        Activation::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
        Activation::Tanh => x.tanh(),
    }
}
