//! A procedure's networks on a conformed volume: prepare, move the patch, reduce, the way back;
//! in a cascade, stage after stage.

use std::sync::{Arc, Mutex, PoisonError};

use super::elsewhere::{Patches, Traffic, patch_bytes, patches_traffic};
use super::native::Native;
use super::plan::RunPlan;
use super::procedure::{
    Accumulator, Error as ProcedureError, Grids, Image, Labels, NetworkError, PatchNetwork,
    PreviousStage, Procedure, StreamPlan, plan_stream, predict_streamed, prepare,
};
use super::tensor::Program;
use super::{Error, Settings};
use crate::geometry::VolumeGeometry;
use crate::kernels::Rates;
use crate::model::graph::Graph;
use crate::model::{Network, VerifiedPackage};
use crate::task::Task;

/// A model's stages, first to last. Plans need no weights; they are packed for this machine at the
/// first run and stay for the next.
#[derive(Debug)]
pub struct Stages {
    list: Vec<Stage>,
    weights: Mutex<Weights>,
}

/// What runs need of a package: its tensors, or what was packed of them. Never both for long.
#[derive(Debug)]
enum Weights {
    Read(Box<VerifiedPackage>),
    Packed(Packed),
}

/// What packing changes of the memory that is held.
#[derive(Clone, Copy, Default)]
struct ToPack {
    /// Of all packed weights.
    packed_bytes: u64,
    /// Of the package, which goes.
    freed_bytes: u64,
}

/// Memory of threads and of the allocator beside what is counted.
const BESIDE_BYTES: u64 = 1 << 20;

/// Passes over a window's logits: out of blocks, weighted, added up.
pub(super) const WINDOW: f64 = 6.0;
/// Passes over the image before it is resampled: conforming, cropping, normalizing.
pub(super) const PREPARE: f64 = 40.0;
/// Passes that resampling by splines is worth, for each voxel before and after.
pub(super) const RESAMPLE: f64 = 80.0;
/// Passes over the scan for each class: resampling logits, finding the largest.
pub(super) const EMIT: f64 = 6.0;
/// Passes over the packed weights that transforming and packing them is worth.
const PACK: f64 = 100.0;

/// Networks by stage and fold.
type Packed = Arc<Vec<Vec<Native>>>;

#[derive(Debug)]
struct Stage {
    name: String,
    procedure: Procedure,
    graph: Arc<Graph>,
    /// Prefixes of the folds' tensors.
    folds: Vec<String>,
    /// One fold without its weights.
    outline: Native,
}

impl Stages {
    /// Looks at shapes only.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn new(package: VerifiedPackage) -> Result<Self, Error> {
        let manifest = package.manifest();
        let mut list = Vec::new();
        for stage in &manifest.earlier {
            let (network, procedure) = (&stage.network, &stage.procedure);
            list.push(Stage::new(&package, &stage.name, network, procedure)?);
        }
        let (network, procedure) = (&manifest.network, manifest.procedure.as_ref());
        let procedure =
            procedure.ok_or_else(|| Error::Network("it has no procedure".to_owned()))?;
        list.push(Stage::new(&package, "", network, procedure)?);
        let weights = Mutex::new(Weights::Read(Box::new(package)));
        Ok(Self { list, weights })
    }

    /// Names of all networks for another machine.
    pub fn parts(&self) -> Vec<String> {
        self.list.iter().flat_map(Stage::parts).collect()
    }

    /// What a run on a grid would need beyond what is in memory already.
    ///
    /// # Errors
    /// [`Error::Input`] when rules and scan do not fit, [`Error::Memory`] when no plan is small enough.
    pub fn plan(
        &self,
        grid: &VolumeGeometry,
        mirroring: bool,
        here: bool,
        available_bytes: u64,
    ) -> Result<RunPlan, Error> {
        let (dims, spacing) = (kji(grid.dims()), kji(grid.spacing_mm()));
        let to_pack = if here {
            self.to_pack()
        } else {
            ToPack::default()
        };
        let mut whole: Option<RunPlan> = None;
        for stage in &self.list {
            let rule = &stage.procedure.preprocessing;
            let grids = Grids::new(dims, spacing, rule, None).map_err(error)?;
            let (plan, bytes) = stage.plan(&grids, mirroring, here, to_pack, available_bytes)?;
            let per_run = stage.outline.flops(&stage.procedure.windows.patch_size)?;
            let seconds = stage.expected_secs(&grids, &plan, here, to_pack.packed_bytes > 0)?;
            let traffic = if here {
                Traffic::default()
            } else {
                stage.traffic(&plan)
            };
            let before = whole.take();
            whole = Some(RunPlan {
                needed_bytes: bytes.max(before.as_ref().map_or(0, |p| p.needed_bytes)),
                seconds: seconds + before.as_ref().map_or(0.0, |p| p.seconds),
                traffic: traffic.and(before.as_ref().map_or(Traffic::default(), |p| p.traffic)),
                flops: per_run * plan.network_runs as f64 + before.map_or(0.0, |p| p.flops),
                dims: grids.network,
            });
        }
        Ok(whole.expect("a model has a stage"))
    }

    /// What the first run packs; nothing afterwards.
    fn to_pack(&self) -> ToPack {
        let of = |s: &Stage| s.folds.len() as u64 * s.outline.weight_bytes();
        match &*self.lock() {
            Weights::Packed(_) => ToPack::default(),
            Weights::Read(package) => ToPack {
                packed_bytes: self.list.iter().map(of).sum(),
                freed_bytes: package.files().weights.len() as u64,
            },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Weights> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The networks, packed once.
    fn packed(&self, task: &Task) -> Result<Packed, Error> {
        let mut weights = self.lock();
        let package = match &*weights {
            Weights::Packed(ready) => return Ok(Arc::clone(ready)),
            Weights::Read(package) => package,
        };
        task.begin("Getting the model ready", 0);
        let mut all = Vec::new();
        for stage in &self.list {
            let mut folds = Vec::new();
            for fold in &stage.folds {
                task.check()?;
                folds.push(stage.pack(package, fold)?);
            }
            all.push(folds);
        }
        let ready = Arc::new(all);
        *weights = Weights::Packed(Arc::clone(&ready));
        Ok(ready)
    }

    /// Labels on the conformed grid, `[k][j][i]`, and what was computed. `images` gives the values of all
    /// channels on that grid, once for each stage.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(
        &self,
        grid: &VolumeGeometry,
        images: &mut dyn FnMut() -> Result<Vec<f32>, Error>,
        settings: &Settings,
        lap: &mut dyn FnMut(&str),
        seen: &mut Seen<'_>,
        task: &Task,
    ) -> Result<(Vec<u8>, RunPlan), Error> {
        let (mirroring, available_bytes) = (settings.mirroring, settings.available_bytes);
        let here = settings.elsewhere.is_none();
        let whole = self.plan(grid, mirroring, here, available_bytes)?;
        if whole.needed_bytes > available_bytes {
            return Err(Error::Memory {
                needed_bytes: whole.needed_bytes,
                available_bytes,
            });
        }
        let (available_bytes, packed) = if here {
            let ToPack {
                packed_bytes,
                freed_bytes,
            } = self.to_pack();
            let left = available_bytes
                .saturating_add(freed_bytes)
                .saturating_sub(packed_bytes);
            (left, Some(self.packed(task)?))
        } else {
            (available_bytes, None)
        };
        lap("weights");
        let mut before: Option<Labels> = None;
        for (n, stage) in self.list.iter().enumerate() {
            let last = stage.name.is_empty();
            let words = match (last, &before) {
                (true, None) => "Being computed".to_owned(),
                (true, Some(_)) => "Being refined".to_owned(),
                (false, _) => format!("First pass ({})", stage.name.replace('_', " ")),
            };
            let name = |phase: &str| {
                if last {
                    phase.to_owned()
                } else {
                    format!("{} {phase}", stage.name)
                }
            };
            let values = images()?;
            let prepared = stage.prepare(grid, values, before.as_ref(), task)?;
            lap(&name("preprocess"));
            let (stream, _) = stage.plan(
                &prepared.grids,
                mirroring,
                here,
                ToPack::default(),
                available_bytes,
            )?;
            let patch = stage.procedure.windows.patch_size.as_slice();
            let mut networks = Folds {
                patches: match (&settings.elsewhere, &packed) {
                    (Some(other), _) => Patches::There {
                        elsewhere: Arc::clone(other),
                        parts: stage.parts(),
                        heads: stage.procedure.labels.heads(),
                    },
                    (None, Some(packed)) => Patches::here(&packed[n]),
                    (None, None) => unreachable!("the networks are packed where they run here"),
                },
                shape: [&[1, stage.procedure.input_channels], patch].concat(),
                before: before.take(),
                words,
                seen: &mut *seen,
                task,
            };
            let labels =
                predict_streamed(&prepared, &stage.procedure, &stream, &mut networks, task);
            before = Some(labels.map_err(error)?);
            lap(&name("inference"));
        }
        let labels = before.expect("a model has a stage");
        Ok((labels.data, whole))
    }
}

impl Stage {
    fn new(
        package: &VerifiedPackage,
        name: &str,
        network: &Network,
        procedure: &Procedure,
    ) -> Result<Self, Error> {
        let graph = network.graph.clone().map(Arc::new);
        let graph = graph.ok_or_else(|| Error::Network("it has no graph".to_owned()))?;
        let folds: Vec<String> = network.members().into_iter().map(str::to_owned).collect();
        let prefix = folds.first().map_or("", String::as_str);
        let patch = &procedure.windows.patch_size;
        let program = Program::shapes_alone(package, Arc::clone(&graph), prefix, patch)?;
        Ok(Self {
            name: name.to_owned(),
            procedure: procedure.clone(),
            graph,
            folds,
            outline: Native::outline(program)?,
        })
    }

    fn pack(&self, package: &VerifiedPackage, fold: &str) -> Result<Native, Error> {
        let patch = &self.procedure.windows.patch_size;
        Native::of_package(package, Arc::clone(&self.graph), fold, patch)
    }

    /// How the windows run, and the most bytes that this stage holds, with the weights of the whole
    /// model; without `mirroring`, each window is one pass.
    fn plan(
        &self,
        grids: &Grids,
        mirroring: bool,
        here: bool,
        to_pack: ToPack,
        available_bytes: u64,
    ) -> Result<(StreamPlan, u64), Error> {
        let mut rules = self.procedure.clone();
        if !mirroring {
            rules.windows.mirror_axes.clear();
        }
        let patch = &self.procedure.windows.patch_size;
        let rule = &self.procedure.preprocessing;
        let activations = if here {
            self.outline.bytes(patch)? - self.outline.weight_bytes()
        } else {
            let (channels, labels) = (self.procedure.input_channels, &self.procedure.labels);
            patch_bytes(channels, labels.heads(), patch)
        };
        // A stage before this one: its labels on both grids.
        let cascaded = self.procedure.input_channels > rule.channels.len();
        let voxels = |dims: [usize; 3]| dims.iter().product::<usize>() as u64;
        let labels = if cascaded {
            voxels(grids.before_crop) + voxels(grids.network)
        } else {
            0
        };
        let ToPack {
            packed_bytes,
            freed_bytes,
        } = to_pack;
        let images = grids.image_bytes(rule.channels.len());
        let packed_bytes = packed_bytes + BESIDE_BYTES;
        let around = (packed_bytes + activations + images + labels).saturating_sub(freed_bytes);
        let limit = available_bytes.saturating_sub(around);
        let with = |accumulator| plan_stream(grids, &rules, self.folds.len(), accumulator, limit);
        let stream = match with(Accumulator::Half) {
            // Summing folds together rounds otherwise than nnU-Net, and takes one sum in place of many.
            Err(ProcedureError::Memory { .. }) => with(Accumulator::HalfSum),
            other => other,
        };
        let stream = stream.map_err(|e| with_rest(e, around, available_bytes))?;
        let preparing =
            (packed_bytes + grids.prepare_bytes(rule) + 2 * labels).saturating_sub(freed_bytes);
        // The package goes when all is packed.
        let bytes = packed_bytes.max(preparing).max(around + stream.bytes);
        Ok((stream, bytes))
    }

    /// Each fold's name for another machine.
    fn parts(&self) -> Vec<String> {
        let several = self.folds.len() > 1;
        let folds = self.folds.iter();
        folds
            .map(|prefix| part_name(&self.name, prefix, several))
            .collect()
    }

    /// What this stage exchanges when its networks run elsewhere.
    fn traffic(&self, plan: &StreamPlan) -> Traffic {
        let (channels, heads) = (self.procedure.input_channels, self.procedure.labels.heads());
        let patch = &self.procedure.windows.patch_size;
        patches_traffic(plan.network_runs as u64, channels, heads, patch)
    }

    /// Everything that this stage does on this machine.
    fn expected_secs(
        &self,
        grids: &Grids,
        plan: &StreamPlan,
        here: bool,
        pack: bool,
    ) -> Result<f64, Error> {
        let rates = Rates::of_this_machine();
        let rule = &self.procedure.preprocessing;
        let patch = self.procedure.windows.patch_size.as_slice();
        let runs = plan.network_runs as f64;
        let voxels = |dims: [usize; 3]| dims.iter().product::<usize>() as f64;
        let heads = self.procedure.labels.heads() as f64;
        let network = if here {
            self.outline.expected_secs(patch, &rates)?
        } else {
            0.0
        };
        // The rest is counted in passes over memory.
        let in_patch = patch.iter().product::<usize>() as f64;
        let window = in_patch * (WINDOW * heads + self.procedure.input_channels as f64);
        let images = rule.channels.len() as f64;
        let (scan, crop) = (voxels(grids.before_crop), voxels(grids.crop.size()));
        let resampled = if grids.crop.size() == grids.network {
            0.0
        } else {
            RESAMPLE * images * (crop + voxels(grids.network))
        };
        let floats = runs * window + PREPARE * images * scan + resampled + EMIT * heads * crop;
        let weights = if pack {
            PACK * (self.folds.len() as u64 * self.outline.weight_bytes()) as f64
        } else {
            0.0
        };
        Ok(runs * network + (4.0 * floats + weights) * rates.byte_secs)
    }

    fn prepare(
        &self,
        grid: &VolumeGeometry,
        values: Vec<f32>,
        before: Option<&Labels>,
        task: &Task,
    ) -> Result<super::procedure::Prepared, Error> {
        let rule = &self.procedure.preprocessing;
        let (dims, spacing) = (kji(grid.dims()), kji(grid.spacing_mm()));
        let image = Image::new(rule.channels.len(), dims, values).map_err(error)?;
        let further = self.procedure.input_channels - rule.channels.len();
        let foreground: Vec<u8> = (1..=255).take(further).collect();
        let previous = before.map(|labels| PreviousStage {
            labels,
            foreground: &foreground,
        });
        prepare(image, spacing, rule, previous, task).map_err(error)
    }
}

/// The stage and the fold, as far as there are several, of a prefix like `3d_lowres/fold_0/`.
fn part_name(stage: &str, prefix: &str, several: bool) -> String {
    let fold = prefix.strip_prefix(stage).unwrap_or(prefix);
    let fold = fold.trim_matches(['/', '.']).replace('/', ".");
    match (stage, several) {
        (stage, false) => stage.to_owned(),
        ("", true) => fold,
        (stage, true) => format!("{stage}.{fold}"),
    }
}

/// Shown what is known so far: the stage in words, and labels on the conformed grid, `[k][j][i]`.
pub type Seen<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// The networks as the procedure moves them.
struct Folds<'a, 's> {
    patches: Patches<'a>,
    /// `[1, channels, …patch]`.
    shape: Vec<usize>,
    /// What the stage before has found.
    before: Option<Labels>,
    words: String,
    seen: &'a mut Seen<'s>,
    task: &'a Task,
}

impl PatchNetwork for Folds<'_, '_> {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.patches.run(fold, &self.shape, patch, take, self.task)
    }

    fn earlier(&mut self) -> Option<Labels> {
        self.before.take()
    }

    fn seen(&mut self, labels: &Labels) {
        (self.seen)(&self.words, &labels.data);
    }
}

fn kji<T: Copy>([i, j, k]: [T; 3]) -> [T; 3] {
    [k, j, i]
}

pub(super) fn error(error: ProcedureError) -> Error {
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
pub(super) fn with_rest(refused: ProcedureError, around: u64, available_bytes: u64) -> Error {
    match refused {
        ProcedureError::Memory { needed_bytes, .. } => Error::Memory {
            needed_bytes: needed_bytes + around,
            available_bytes,
        },
        other => error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::part_name;

    #[test]
    fn parts_are_named_by_stage_and_fold_where_there_are_several() {
        let cases = [
            ("", "", false, ""),
            ("", "fold_0/", false, ""),
            ("", "fold_1/", true, "fold_1"),
            ("", "net.", true, "net"),
            ("3d_lowres", "3d_lowres/fold_0/", false, "3d_lowres"),
            ("3d_lowres", "3d_lowres/fold_4/", true, "3d_lowres.fold_4"),
        ];
        for (stage, prefix, several, name) in cases {
            assert_eq!(part_name(stage, prefix, several), name, "{stage} {prefix}");
        }
    }
}
