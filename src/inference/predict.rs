//! A procedure's networks on a conformed volume: prepare, move the patch, reduce, the way back.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;
use super::conform::Conformed;
use super::native::{Native, Workspace};
use super::plan::RunPlan;
use super::procedure::{
    Accumulator, Error as ProcedureError, Grids, Image, Labels, NetworkError, PatchNetwork,
    Procedure, plan_stream, predict_streamed, prepare,
};
use super::tensor::{Array, Program};
use crate::geometry::VolumeGeometry;
use crate::model::{Manifest, VerifiedPackage};
use crate::task::Task;

/// The networks of all folds, packed for this machine.
///
/// # Errors
/// [`Error::Network`].
pub fn members(package: &VerifiedPackage) -> Result<Vec<Native>, Error> {
    let manifest = package.manifest();
    let (graph, procedure) = graph_and_procedure(manifest)?;
    let graph = Arc::new(graph.clone());
    manifest
        .network
        .members()
        .into_iter()
        .map(|member| {
            let mut weights = HashMap::new();
            for name in graph.tensors() {
                let (shape, values) = package
                    .array(&format!("{member}{name}"))
                    .ok_or_else(|| Error::Network(format!("tensor {name:?} is missing")))?;
                weights.insert(name.to_owned(), Array::new(&shape, values));
            }
            let patch = &procedure.windows.patch_size;
            Native::new(Program::new(Arc::clone(&graph), weights, patch)?)
        })
        .collect()
}

fn graph_and_procedure(
    manifest: &Manifest,
) -> Result<(&crate::model::graph::Graph, &Procedure), Error> {
    match (&manifest.network.graph, &manifest.procedure) {
        (Some(graph), Some(procedure)) => Ok((graph, procedure)),
        _ => Err(Error::Network("it has no graph or no procedure".to_owned())),
    }
}

/// What a run on a grid would need.
///
/// # Errors
/// [`Error::Input`] when rules and scan do not fit, [`Error::Memory`] when no plan is small enough.
pub fn plan(
    members: &[Native],
    manifest: &Manifest,
    grid: &VolumeGeometry,
    available_bytes: u64,
) -> Result<RunPlan, Error> {
    let (_, procedure) = graph_and_procedure(manifest)?;
    let (dims, spacing) = (kji(grid.dims()), kji(grid.spacing_mm()));
    let grids = Grids::new(dims, spacing, &procedure.preprocessing, None).map_err(error)?;
    let around = around_bytes(members, procedure, &grids)?;
    let limit = available_bytes.saturating_sub(around);
    let stream = plan_stream(&grids, procedure, members.len(), Accumulator::Half, limit)
        .map_err(|e| with_rest(e, around, available_bytes))?;
    let per_run = members[0].flops(&procedure.windows.patch_size)?;
    Ok(RunPlan {
        needed_bytes: needed_bytes(members, procedure, &grids, around + stream.bytes),
        flops: per_run * stream.network_runs as f64,
        dims: grids.network,
    })
}

/// Memory beside the sums of logits while the networks run: they themselves, one's activations,
/// and the prepared image.
fn around_bytes(members: &[Native], procedure: &Procedure, grids: &Grids) -> Result<u64, Error> {
    let patch = &procedure.windows.patch_size;
    let weights: u64 = members.iter().map(Native::weight_bytes).sum();
    let activations = members[0].bytes(patch)? - members[0].weight_bytes();
    Ok(weights + activations + grids.image_bytes(procedure.input_channels))
}

/// Most that the run holds: while preparing (networks are loaded already), or while predicting.
fn needed_bytes(members: &[Native], procedure: &Procedure, grids: &Grids, predicting: u64) -> u64 {
    let weights: u64 = members.iter().map(Native::weight_bytes).sum();
    let preparing = weights + grids.prepare_bytes(&procedure.preprocessing);
    predicting.max(preparing)
}

/// Shown what is known so far: the stage in words, and labels on the conformed grid, `[k][j][i]`.
pub type Seen<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// Labels on the conformed grid, `[k][j][i]`, and what was computed.
///
/// # Errors
/// [`Error`].
pub fn run(
    members: &[Native],
    manifest: &Manifest,
    conformed: &mut Conformed,
    available_bytes: u64,
    lap: &mut dyn FnMut(&str),
    seen: &mut Seen<'_>,
    task: &Task,
) -> Result<(Vec<u8>, RunPlan), Error> {
    let (graph, procedure) = graph_and_procedure(manifest)?;
    let images = procedure.preprocessing.channels.len();
    let plan = plan(members, manifest, &conformed.geometry, available_bytes)?;
    if plan.needed_bytes > available_bytes {
        return Err(Error::Memory {
            needed_bytes: plan.needed_bytes,
            available_bytes,
        });
    }
    let dims = kji(conformed.geometry.dims());
    let image = Image::new(images, dims, std::mem::take(&mut conformed.values)).map_err(error)?;
    let spacing = kji(conformed.geometry.spacing_mm());
    let prepared = prepare(image, spacing, &procedure.preprocessing, None, task).map_err(error)?;
    lap("preprocess");
    let around = around_bytes(members, procedure, &prepared.grids)?;
    let limit = available_bytes.saturating_sub(around);
    let stream = plan_stream(
        &prepared.grids,
        procedure,
        members.len(),
        Accumulator::Half,
        limit,
    )
    .map_err(|e| with_rest(e, around, available_bytes))?;
    let axes = procedure.windows.patch_size.len();
    let mut folds = Folds {
        members,
        shape: [
            &[1, graph.input().map_or(1, |(c, _)| c)],
            &procedure.windows.patch_size[..],
        ]
        .concat(),
        workspace: Workspace::default(),
        seen,
        task,
    };
    debug_assert_eq!(folds.shape.len(), axes + 2);
    let labels =
        predict_streamed(&prepared, procedure, &stream, &mut folds, task).map_err(error)?;
    lap("inference");
    Ok((labels.data, plan))
}

/// The networks as the procedure moves them.
struct Folds<'a> {
    members: &'a [Native],
    /// `[1, channels, …patch]`.
    shape: Vec<usize>,
    workspace: Workspace,
    seen: &'a mut Seen<'a>,
    task: &'a Task,
}

impl PatchNetwork for Folds<'_> {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        let input = Array::new(&self.shape, patch.to_vec());
        let results = self.members[fold].run(&input, &mut self.workspace, self.task)?;
        take(0, &results[0].values);
        Ok(())
    }

    fn seen(&mut self, labels: &Labels) {
        (self.seen)("Being computed", &labels.data);
    }
}

fn kji<T: Copy>([i, j, k]: [T; 3]) -> [T; 3] {
    [k, j, i]
}

fn error(error: ProcedureError) -> Error {
    match error {
        ProcedureError::Cancelled(cancelled) => cancelled.into(),
        ProcedureError::Network(source) => match source.downcast::<Error>() {
            Ok(inner) => *inner,
            Err(other) => Error::Network(other.to_string()),
        },
        other => Error::Input(other.to_string()),
    }
}

/// A refusal with what the rest of the run needs.
fn with_rest(refused: ProcedureError, around: u64, available_bytes: u64) -> Error {
    match refused {
        ProcedureError::Memory { needed_bytes, .. } => Error::Memory {
            needed_bytes: needed_bytes + around,
            available_bytes,
        },
        other => error(other),
    }
}
