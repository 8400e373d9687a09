//! A MONAI procedure's network on a conformed volume: the reader's axes, transforms, windows, the way back.

use std::sync::Arc;

use super::components::largest_component;
use super::conform::Conformed;
use super::elsewhere::{Patches, Traffic, patch_bytes, patches_traffic};
use super::native::Native;
use super::plan::RunPlan;
use super::predict::{EMIT, PREPARE, RESAMPLE, WINDOW, error, with_rest};
use super::procedure::{
    Accumulator, Image, MonaiPrepared, NetworkError, PatchNetwork, StreamPlan, outline_monai,
    plan_monai, predict_monai, prepare_monai,
};
use super::{Error, Settings};
use crate::geometry::VolumeGeometry;
use crate::kernels::Rates;
use crate::model::graph::Graph;
use crate::model::monai::{KeepLargest, MonaiProcedure};
use crate::model::{Manifest, VerifiedPackage};
use crate::task::Task;

/// MONAI sums in 32 bits.
const SUMS: Accumulator = Accumulator::Single;

/// The network, packed for this machine.
///
/// # Errors
/// [`Error::Network`].
pub fn member(package: &VerifiedPackage) -> Result<Native, Error> {
    let (graph, procedure) = graph_and_procedure(package.manifest())?;
    Native::of_package(package, Arc::new(graph.clone()), "", &procedure.example)
}

fn graph_and_procedure(manifest: &Manifest) -> Result<(&Graph, &MonaiProcedure), Error> {
    match (&manifest.network.graph, &manifest.monai) {
        (Some(graph), Some(procedure)) => Ok((graph, procedure)),
        _ => Err(Error::Network("it has no graph or no procedure".to_owned())),
    }
}

/// Rows of the matrix from voxel indices to RAS mm, as MONAI's readers give it.
fn ras_from_ijk(grid: &VolumeGeometry) -> [[f64; 4]; 3] {
    let affine = grid.lps_from_ijk();
    let columns = [0, 1, 2].map(|c| affine.matrix3.col(c).to_array());
    let origin = affine.translation.to_array();
    // CLINICAL(laterality): LPS and RAS differ in the signs of the first two axes.
    let signs = [-1.0, -1.0, 1.0];
    [0, 1, 2].map(|row: usize| {
        [0, 1, 2, 3].map(|c: usize| signs[row] * columns.get(c).map_or(origin[row], |v| v[row]))
    })
}

/// What a run on a grid would need; at most, where a crop depends on the image.
///
/// # Errors
/// [`Error::Input`] when rules and scan do not fit, [`Error::Memory`] when no plan is small enough.
pub fn plan(
    member: &Native,
    manifest: &Manifest,
    grid: &VolumeGeometry,
    here: bool,
    available_bytes: u64,
) -> Result<RunPlan, Error> {
    let (_, procedure) = graph_and_procedure(manifest)?;
    let outline = outline_monai(
        procedure.input_channels,
        grid.dims(),
        ras_from_ijk(grid),
        &procedure.transforms,
    )
    .map_err(error)?;
    planned(member, procedure, &outline, grid, here, available_bytes).map(|(plan, _)| plan)
}

/// The run's plan, and that of its windows.
fn planned(
    member: &Native,
    procedure: &MonaiProcedure,
    prepared: &MonaiPrepared,
    grid: &VolumeGeometry,
    here: bool,
    available_bytes: u64,
) -> Result<(RunPlan, StreamPlan), Error> {
    let dims = prepared.image.dims;
    let patch = patch(procedure, dims);
    // A grid that the network cannot take, e.g. one whose sizes do not divide.
    let (in_channels, heads) = (procedure.input_channels, procedure.heads());
    let activations = match member.bytes(&patch) {
        Ok(_) if !here => patch_bytes(in_channels, heads, &patch),
        Ok(bytes) => bytes - member.weight_bytes(),
        Err(Error::Network(what)) => return Err(Error::Input(what)),
        Err(other) => return Err(other),
    };
    let channels = procedure.input_channels as u64;
    let image = 4 * channels * dims.iter().map(|n| *n as u64).product::<u64>();
    let around = member.weight_bytes() + activations + image;
    let limit = available_bytes.saturating_sub(around);
    let stream = plan_monai(prepared, procedure, SUMS, limit)
        .map_err(|e| with_rest(e, around, available_bytes))?;
    let reader = 4 * channels * grid.voxel_count() as u64;
    let preparing = member.weight_bytes() + 2 * reader + prepared.prepare_bytes();
    let [i, j, k] = dims;
    let plan = RunPlan {
        needed_bytes: preparing.max(around + stream.bytes),
        flops: member.flops(&patch)? * stream.network_runs as f64,
        seconds: expected_secs(member, procedure, &patch, dims, &stream, here)?,
        traffic: if here {
            Traffic::default()
        } else {
            patches_traffic(stream.network_runs as u64, in_channels, heads, &patch)
        },
        dims: [k, j, i],
    };
    Ok((plan, stream))
}

/// Everything that a run does, on this machine; what is not the network in passes over memory.
fn expected_secs(
    member: &Native,
    procedure: &MonaiProcedure,
    patch: &[usize],
    dims: [usize; 3],
    plan: &StreamPlan,
    here: bool,
) -> Result<f64, Error> {
    let rates = Rates::of_this_machine();
    let runs = plan.network_runs as f64;
    let voxels = dims.iter().product::<usize>() as f64;
    let (channels, heads) = (procedure.input_channels as f64, procedure.heads() as f64);
    let window = patch.iter().product::<usize>() as f64 * (WINDOW * heads + channels);
    let steps = procedure.transforms.len() as f64;
    let prepared = (PREPARE + RESAMPLE + steps) * channels * voxels;
    let floats = runs * window + prepared + EMIT * heads * voxels;
    let network = if here {
        member.expected_secs(patch, &rates)?
    } else {
        0.0
    };
    Ok(runs * network + 4.0 * floats * rates.byte_secs)
}

/// A window's size along the network's own axes.
fn patch(procedure: &MonaiProcedure, dims: [usize; 3]) -> Vec<usize> {
    let sizes = procedure.windows.roi_size.iter().zip(dims);
    let all = sizes.map(|(roi, size)| if *roi == 0 { size } else { *roi });
    all.take(procedure.example.len()).collect()
}

/// Labels on the conformed grid, `[k][j][i]`, and what was computed.
///
/// # Errors
/// [`Error`].
pub fn run(
    member: &Native,
    manifest: &Manifest,
    conformed: &mut Conformed,
    settings: &Settings,
    lap: &mut dyn FnMut(&str),
    task: &Task,
) -> Result<(Vec<u8>, RunPlan), Error> {
    let (_, procedure) = graph_and_procedure(manifest)?;
    let dims = conformed.geometry.dims();
    if procedure.is_2d() && !procedure.slices && dims[2] != 1 {
        return Err(Error::Input(format!(
            "the model takes single images, the series has {} slices",
            dims[2]
        )));
    }
    let here = settings.elsewhere.is_none();
    let available_bytes = settings.available_bytes;
    let first = plan(member, manifest, &conformed.geometry, here, available_bytes)?;
    if first.needed_bytes > available_bytes {
        return Err(Error::Memory {
            needed_bytes: first.needed_bytes,
            available_bytes,
        });
    }
    let [i, j, k] = dims;
    let stored = std::mem::take(&mut conformed.values);
    let channels = stored.chunks_exact(i * j * k);
    let values = channels
        .flat_map(|values| turn(values, [k, j, i]))
        .collect();
    drop(stored);
    let image = Image::new(procedure.input_channels, dims, values).map_err(error)?;
    let affine = ras_from_ijk(&conformed.geometry);
    let prepared = prepare_monai(image, affine, &procedure.transforms, task).map_err(error)?;
    lap("preprocess");
    let grid = &conformed.geometry;
    let (plan, stream) = planned(member, procedure, &prepared, grid, here, available_bytes)?;
    let patch = patch(procedure, prepared.image.dims);
    let mut network = Network {
        patches: match &settings.elsewhere {
            Some(other) => Patches::There {
                elsewhere: Arc::clone(other),
                parts: vec![String::new()],
                heads: procedure.heads(),
            },
            None => Patches::here(std::slice::from_ref(member)),
        },
        shape: [&[1, procedure.input_channels], patch.as_slice()].concat(),
        task,
    };
    let labels = predict_monai(&prepared, &stream, &mut network, task).map_err(error)?;
    let mut labels = turn(&labels.data, dims);
    if let Some(keep) = &procedure.output.keep_largest {
        keep_largest(&mut labels, dims, keep);
    }
    lap("inference");
    Ok((labels, plan))
}

/// The first axis last and the last first.
fn turn<T: Copy>(values: &[T], [a, b, c]: [usize; 3]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for z in 0..c {
        for y in 0..b {
            out.extend((0..a).map(|x| values[(x * b + y) * c + z]));
        }
    }
    out
}

/// `KeepLargestConnectedComponent` on labels `[k][j][i]`.
fn keep_largest(labels: &mut [u8], dims: [usize; 3], keep: &KeepLargest) {
    let mut there = [false; 256];
    for label in labels.iter() {
        there[usize::from(*label)] = true;
    }
    let applied: Vec<u8> = (1..=255)
        .filter(|label| there[usize::from(*label)])
        .filter(|label| keep.labels.is_empty() || keep.labels.contains(label))
        .collect();
    let groups: Vec<Vec<u8>> = if keep.independent {
        applied.into_iter().map(|label| vec![label]).collect()
    } else {
        vec![applied]
    };
    for group in groups {
        let mut part: Vec<u8> = labels
            .iter()
            .map(|label| if group.contains(label) { *label } else { 0 })
            .collect();
        largest_component(&mut part, dims);
        for (label, kept) in labels.iter_mut().zip(&part) {
            if group.contains(label) {
                *label = *kept;
            }
        }
    }
}

/// The network as the procedure moves it.
struct Network<'a> {
    patches: Patches<'a>,
    /// `[1, channels, …patch]`.
    shape: Vec<usize>,
    task: &'a Task,
}

impl PatchNetwork for Network<'_> {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.patches.run(fold, &self.shape, patch, take, self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_turned_and_turned_back() {
        let values: Vec<usize> = (0..24).collect();
        let turned = turn(&values, [2, 3, 4]);
        // [c][b][a]: the second value is one step along the first axis.
        assert_eq!(turned[1], 12);
        assert_eq!(turn(&turned, [4, 3, 2]), values);
    }

    #[test]
    fn the_largest_part_of_each_label_stays() {
        let mut labels = vec![1, 1, 0, 1, 2, 0, 2, 2, 0, 2];
        let keep = |independent| KeepLargest {
            labels: Vec::new(),
            independent,
        };
        let mut union = labels.clone();
        keep_largest(&mut labels, [10, 1, 1], &keep(true));
        assert_eq!(labels, [1, 1, 0, 0, 0, 0, 2, 2, 0, 0]);
        keep_largest(&mut union, [10, 1, 1], &keep(false));
        assert_eq!(union, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
