//! Functions of each value on its own.

use candle_core::{Result, Tensor};

use crate::model::graph::Function;

/// The function of each value.
pub fn unary(x: &Tensor, function: Function) -> Result<Tensor> {
    match function {
        Function::Abs => x.abs(),
        Function::Neg => x.neg(),
        Function::Reciprocal => x.recip(),
        Function::Sqrt => x.sqrt(),
        Function::Exp => x.exp(),
        Function::Log => x.log(),
        Function::Erf => x.erf(),
        // Written so that large values do not overflow.
        Function::Softplus => x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?,
        Function::HardSigmoid { alpha, beta } => x
            .affine(f64::from(alpha), f64::from(beta))?
            .clamp(0.0_f32, 1.0_f32),
        Function::Clip { low, high } => x.clamp(
            low.unwrap_or(f32::NEG_INFINITY),
            high.unwrap_or(f32::INFINITY),
        ),
    }
}

/// a to the power of b. Negative values have whole powers too, so not by logarithms.
pub fn power(a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let flat = |t: &Tensor| t.broadcast_as(shape)?.flatten_all()?.to_vec1::<f32>();
    let (a, b) = (flat(a)?, flat(b)?);
    let values: Vec<f32> = a.iter().zip(b).map(|(a, b)| a.powf(b)).collect();
    Tensor::from_vec(values, shape, &candle_core::Device::Cpu)
}
