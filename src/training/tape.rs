//! The network and the loss in candle's tape: an operation each, with its own gradient.
//!
//! candle adds up the gradients of a variable through two more copies of it. The network's
//! parameters are one variable and are used once, so their gradient is handed over directly.

use std::sync::{Arc, Mutex};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result as CandleResult, Shape, Tensor, Var,
};

use super::Error;
use super::loss::Loss;
use super::network::{Mode, Network, Tape};

/// What a step gives.
#[derive(Debug)]
pub struct Step {
    /// Mean loss of the batch.
    pub loss: f64,
    /// By all parameters.
    pub gradients: Vec<f32>,
    /// New running statistics: place among the parameters, value.
    pub running: Vec<(usize, f32)>,
    /// The network's results.
    pub results: Vec<f32>,
}

/// Loss and gradients of a batch: forward and backward through candle's tape.
///
/// # Errors
/// [`Error::Candle`].
pub fn step(
    network: &Arc<Network>,
    loss: &Loss,
    parameters: &[f32],
    images: Vec<f32>,
    targets: Vec<u8>,
    mode: Mode,
) -> Result<Step, Error> {
    let device = Device::Cpu;
    let count = images.len() / network.input_floats();
    let classes = network.results().iter().map(|(c, _)| c).sum();
    let shape = (count, network.input_floats());
    let images = Tensor::from_vec(images, shape, &device)?;
    let variable = Var::from_slice(parameters, parameters.len(), &device)?;
    let kept = Arc::new(Mutex::new(Kept::default()));
    let results = images.apply_op2(
        variable.as_tensor(),
        NetworkOperation {
            network: Arc::clone(network),
            mode,
            kept: Arc::clone(&kept),
        },
    )?;
    let value = results.apply_op1(LossOperation {
        loss: loss.clone(),
        targets,
        images: count,
        classes,
        gradient: Mutex::default(),
    })?;
    value.backward()?;
    let plain = results.flatten_all()?.to_vec1()?;
    let mut kept = kept.lock().expect("nobody panics with it");
    Ok(Step {
        loss: value.to_scalar::<f64>()?,
        gradients: std::mem::take(&mut kept.gradients),
        running: std::mem::take(&mut kept.running),
        results: plain,
    })
}

#[derive(Debug, Default)]
struct Kept {
    tape: Option<Tape>,
    gradients: Vec<f32>,
    running: Vec<(usize, f32)>,
}

/// Images and parameters to results.
struct NetworkOperation {
    network: Arc<Network>,
    mode: Mode,
    kept: Arc<Mutex<Kept>>,
}

fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("values are not in a row".to_owned()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

impl CustomOp2 for NetworkOperation {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let images = floats(images, images_layout)?;
        let parameters = floats(parameters, parameters_layout)?;
        let mut tape = self.network.forward(parameters, images, self.mode);
        let results = tape.results.clone();
        let shape = Shape::from((tape.images, self.network.output_floats()));
        let mut kept = self.kept.lock().expect("nobody panics with it");
        kept.running = std::mem::take(&mut tape.running);
        kept.tape = Some(tape);
        Ok((CpuStorage::F32(results), shape))
    }

    fn bwd(
        &self,
        _images: &Tensor,
        parameters: &Tensor,
        _results: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
        let (storage, layout) = parameters.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            return Err(candle_core::Error::Msg(
                "parameters are elsewhere".to_owned(),
            ));
        };
        let mut kept = self.kept.lock().expect("nobody panics with it");
        let tape = kept.tape.take();
        let tape = tape.ok_or_else(|| candle_core::Error::Msg("a second backward".to_owned()))?;
        kept.gradients = self
            .network
            .backward(floats(storage, layout)?, tape, &gradient);
        Ok((None, None))
    }
}

/// Results to one number.
struct LossOperation {
    loss: Loss,
    targets: Vec<u8>,
    images: usize,
    classes: usize,
    gradient: Mutex<Vec<f32>>,
}

impl CustomOp1 for LossOperation {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, results: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let results = floats(results, layout)?;
        let (value, gradient) =
            self.loss
                .of(results, &self.targets, self.images, self.classes, true);
        *self.gradient.lock().expect("nobody panics with it") = gradient;
        Ok((CpuStorage::F64(vec![value]), Shape::from(())))
    }

    fn bwd(
        &self,
        results: &Tensor,
        _value: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<Option<Tensor>> {
        let factor = gradient.to_scalar::<f64>()? as f32;
        let mut values = std::mem::take(&mut *self.gradient.lock().expect("nobody panics"));
        for g in &mut values {
            *g *= factor;
        }
        Tensor::from_vec(values, results.shape(), results.device()).map(Some)
    }
}
