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

/// Values as they are broadcast to a shape.
fn spread(x: &Tensor, shape: &[usize]) -> Result<Vec<f32>> {
    x.broadcast_as(shape)?.flatten_all()?.to_vec1()
}

/// a to the power of b. Negative values have whole powers too, so not by logarithms.
pub fn power(a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (base, exponent) = (spread(a, shape)?, spread(b, shape)?);
    let pairs = base.iter().zip(exponent);
    let values: Vec<f32> = pairs.map(|(a, b)| a.powf(b)).collect();
    Tensor::from_vec(values, shape, a.device())
}

/// 1 where a > b, 0 elsewhere.
pub fn greater(a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (left, right) = (spread(a, shape)?, spread(b, shape)?);
    let pairs = left.iter().zip(right);
    let values: Vec<f32> = pairs.map(|(a, b)| f32::from(u8::from(*a > b))).collect();
    Tensor::from_vec(values, shape, a.device())
}

/// The second value where the first is not 0, the third elsewhere.
pub fn select(from: &[Tensor], shape: &[usize]) -> Result<Tensor> {
    let [chosen, a, b] = [0, 1, 2].map(|n| spread(&from[n], shape));
    let (chosen, a, b) = (chosen?, a?, b?);
    let pairs = chosen.iter().zip(a.iter().zip(b));
    let values: Vec<f32> = pairs
        .map(|(chosen, (a, b))| if *chosen == 0.0 { b } else { *a })
        .collect();
    Tensor::from_vec(values, shape, from[0].device())
}
