//! A model on a volume, from conforming to the patient's grid.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conform::{Conformed, conform, target};
use super::elsewhere::{self, Elsewhere};
use super::envelope::envelope_issues;
use super::native::Native;
use super::network::Network;
use super::normalize::{normalize, range};
use super::plan::RunPlan;
use super::predict::Stages;
use super::{
    Error, GrayPlane, candle_executor, channels, has_weights, largest_component, layers,
    predict_monai,
};
use crate::findings::{AlgorithmType, Provenance, ReviewState, Segment, Segmentation};
use crate::geometry::VolumeGeometry;
use crate::kernels::Instructions;
use crate::model::{Crop, Manifest, OutputKind, VerifiedPackage};
use crate::study::Issue;
use crate::task::{Cancelled, Task};
use crate::volume::{LabelMap, Layout, Volume, resample_labels};

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Executor {
    /// The project's kernels.
    #[default]
    Native,
    /// candle's tensors around the same convolution: the reference.
    Candle,
}

/// A mask that is still being computed.
#[derive(Clone, Debug)]
pub struct Preview {
    /// How far the run is, in words.
    pub stage: String,
    /// On the volume's own grid; not yet cleaned up.
    pub segmentation: Segmentation,
}

/// Who wants to see a mask before the run ends.
#[derive(Clone)]
pub struct Watch(pub Arc<dyn Fn(Preview) + Send + Sync>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// What a caller decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What computes.
    pub executor: Executor,
    /// Memory that may be taken; a run that needs more is refused.
    pub available_bytes: u64,
    /// Averages mirrored passes where the model's plans ask for them; off: one pass for each window.
    pub mirroring: bool,
    /// Start, RFC 3339, for the record.
    pub started: String,
    /// Sees masks that are still being computed.
    pub watch: Option<Watch>,
    /// Runs the networks on another machine; all else stays here.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
}

impl Default for Settings {
    /// As the model's plans say, in whatever memory it takes.
    fn default() -> Self {
        Self {
            executor: Executor::Native,
            available_bytes: u64::MAX,
            mirroring: true,
            started: String::new(),
            watch: None,
            elsewhere: None,
        }
    }
}

/// A model ready to run, with the model that finds its box, if it needs one.
#[derive(Clone, Debug)]
pub struct Model {
    manifest: Arc<Manifest>,
    body: Body,
}

/// All images as they are shown: a model of pictures has learned from what people see, with black
/// and white in their places.
fn shown(volume: &Volume) -> Vec<f32> {
    let [.., images] = volume.geometry.dims();
    (0..images)
        .flat_map(|k| GrayPlane::of_slice(volume, k).values)
        .collect()
}

/// What computes, and around what.
#[derive(Clone, Debug)]
enum Body {
    /// Layers over the whole conformed grid.
    Layers {
        network: Network,
        region: Option<Box<Model>>,
    },
    /// Graphs, moved over the scan by procedures; each with its folds.
    Stages(Arc<Stages>),
    /// A graph, moved over the scan by MONAI's rules.
    Monai(Native),
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Found {
    /// On the volume's own grid.
    pub segmentation: Segmentation,
    /// What was computed.
    pub plan: RunPlan,
}

impl Model {
    /// Builds a model; `load` finds the package of a pre-model by id.
    ///
    /// # Errors
    /// [`Error::Network`], also for a pre-model that cannot be found.
    pub fn new(
        package: VerifiedPackage,
        load: &dyn Fn(&str) -> Result<VerifiedPackage, String>,
    ) -> Result<Self, Error> {
        let manifest = Arc::new(package.manifest().clone());
        if manifest.procedure.is_some() {
            let body = Body::Stages(Arc::new(Stages::new(package)?));
            return Ok(Self { manifest, body });
        }
        if manifest.output.kind == OutputKind::Classification {
            return Err(Error::Input(
                "it classifies whole images and gives no segmentation".to_owned(),
            ));
        }
        if manifest.monai.is_some() {
            let body = Body::Monai(predict_monai::member(&package)?);
            return Ok(Self { manifest, body });
        }
        let network = Network::new(&package)?;
        let crop = manifest.input.crop.as_ref();
        let region = match crop.and_then(|c| c.pre_model.as_ref()) {
            None => None,
            Some(id) => {
                let found = load(id).map_err(|reason| {
                    Error::Network(format!(
                        "it needs the model {id:?} to find its region: {reason}"
                    ))
                })?;
                // One step only: a pre-model runs on the whole grid and needs none itself.
                let body = Body::Layers {
                    network: Network::new(&found)?,
                    region: None,
                };
                let manifest = Arc::new(found.manifest().clone());
                Some(Box::new(Self { manifest, body }))
            }
        };
        let body = Body::Layers { network, region };
        Ok(Self { manifest, body })
    }

    /// The package's manifest; the package itself goes when its weights are packed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names of its networks for another machine: a cascade's stages and folds; one empty name where
    /// there is one network.
    pub fn parts(&self) -> Vec<String> {
        match &self.body {
            Body::Stages(stages) => stages.parts(),
            Body::Layers { .. } | Body::Monai(_) => vec![String::new()],
        }
    }

    /// What a run on this volume would need: exact where the box can be known at once, else
    /// for the whole grid. Takes about a second for a large volume.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn plan(
        &self,
        volume: &Volume,
        settings: &Settings,
        task: &Task,
    ) -> Result<RunPlan, Error> {
        let available_bytes = settings.available_bytes;
        let manifest = &*self.manifest;
        has_weights(manifest, settings)?;
        let grid = target(volume, &manifest.input.conform);
        let (network, region) = match &self.body {
            Body::Layers { network, region } => (network, region),
            Body::Stages(stages) => {
                let here = settings.elsewhere.is_none();
                return stages.plan(&grid, settings.mirroring, here, available_bytes);
            }
            Body::Monai(member) => {
                let here = settings.elsewhere.is_none();
                return predict_monai::plan(member, manifest, &grid, here, available_bytes);
            }
        };
        let (scan, voxels) = (volume.geometry.voxel_count(), grid.voxel_count());
        let whole = kji(grid.dims());
        let dims = if region.is_none() && manifest.input.crop.is_some() {
            let conformed = conform(volume, &manifest.input.conform, task)?;
            kji(self.threshold_box(&conformed).size())
        } else {
            whole
        };
        let mut plan = layers_plan(network, dims, voxels, scan, settings)?;
        if let Some(pre) = region.as_ref().and_then(|r| r.layers()) {
            let before = RunPlan::new(pre, whole, voxels, scan);
            // The values stay while the region is looked for.
            let kept = 4 * voxels as u64;
            plan.needed_bytes = plan.needed_bytes.max(before.needed_bytes + kept);
            plan.flops += before.flops;
            plan.seconds += before.seconds;
        }
        Ok(plan)
    }

    const fn layers(&self) -> Option<&Network> {
        match &self.body {
            Body::Layers { network, .. } => Some(network),
            Body::Stages(_) | Body::Monai(_) => None,
        }
    }

    /// Runs on a volume.
    ///
    /// # Errors
    /// As [`Model::run_channels`].
    pub fn run(&self, volume: &Volume, settings: &Settings, task: &Task) -> Result<Found, Error> {
        self.run_channels(&[volume], settings, task)
    }

    /// Runs on the images of a patient that the manifest's channels name, in their order; the
    /// result lies on the grid of the first.
    ///
    /// # Errors
    /// [`Error`]; `Cancelled` comes within one row of the network after it was asked for.
    pub fn run_channels(
        &self,
        volumes: &[&Volume],
        settings: &Settings,
        task: &Task,
    ) -> Result<Found, Error> {
        let manifest = &*self.manifest;
        has_weights(manifest, settings)?;
        let doubts = channels::check(manifest, volumes)?;
        let (volume, further) = volumes.split_first().expect("as many as channels");
        let volume = *volume;
        let (mut red, amber) = envelope_issues(manifest, volume);
        red.extend(further.iter().filter_map(|v| unusable(v)));
        if !red.is_empty() {
            return Err(Error::Input(red.join("; ")));
        }
        let mut clock = Clock::default();
        task.begin("Preparing the volume", 0);
        let scan = volume.geometry.voxel_count();
        let grid = target(volume, &manifest.input.conform).voxel_count();
        let images = volumes.len();
        fits((images * grid + scan) as u64 * 4, settings)?;
        let mut conformed = conform(volume, &manifest.input.conform, task)?;
        if manifest.takes_plain_images() {
            conformed.values = shown(volume);
        }
        channels::add(&mut conformed, &volume.geometry, further, task)?;
        clock.lap("conform");
        let back = WayBack {
            geometry: conformed.geometry.clone(),
            untouched: conformed.untouched,
            volume,
        };
        let (mut labels, plan) = match &self.body {
            Body::Layers { network, region } => {
                let region = region.as_deref();
                self.run_layers(
                    network,
                    region,
                    scan,
                    &mut conformed,
                    settings,
                    &mut clock,
                    task,
                )?
            }
            Body::Stages(stages) => {
                // Every stage takes the images as they are, and what it makes of them goes with it.
                let mut first = Some(std::mem::take(&mut conformed.values));
                let mut images = || {
                    if let Some(values) = first.take() {
                        return Ok(values);
                    }
                    let mut again = conform(volume, &manifest.input.conform, task)?;
                    if manifest.takes_plain_images() {
                        again.values = shown(volume);
                    }
                    channels::add(&mut again, &volume.geometry, further, task)?;
                    Ok(again.values)
                };
                stages.run(
                    &conformed.geometry,
                    &mut images,
                    settings,
                    &mut |phase| clock.lap(phase),
                    &mut self.previews(&back, settings, task),
                    task,
                )?
            }
            Body::Monai(member) => predict_monai::run(
                member,
                manifest,
                &mut conformed,
                settings,
                &mut |phase| clock.lap(phase),
                task,
            )?,
        };
        task.begin("Cleaning up", 0);
        if manifest.output.largest_component {
            largest_component(&mut labels, conformed.geometry.dims());
        }
        task.check()?;
        if manifest.output.kind == OutputKind::Mask {
            for label in &mut labels {
                *label = u8::from(*label != 0);
            }
        }
        clock.lap("components");
        let map = back.take(labels, task)?;
        clock.lap("way back");
        let mut issues = volume.issues.clone();
        issues.extend(doubts);
        for reason in amber {
            if !issues.iter().any(|i| i.to_string() == reason) {
                issues.push(Issue::OutsideEnvelope { reason });
            }
        }
        let segmentation = Segmentation {
            map,
            segments: self.segments(),
            algorithm: AlgorithmType::Automatic,
            source: volume.source.clone(),
            provenance: self.provenance(volumes, settings, plan.dims, clock),
            issues,
            review: ReviewState::NotReviewed,
            reviewed: None,
        };
        Ok(Found { segmentation, plan })
    }

    /// Shows what is known so far, now and then: it must not slow the run.
    fn previews<'a>(
        &'a self,
        back: &'a WayBack<'a>,
        settings: &'a Settings,
        task: &'a Task,
    ) -> impl FnMut(&str, &[u8]) + 'a {
        let mut shown: Option<(String, Instant)> = None;
        let mut pause = Duration::from_millis(1500);
        move |stage: &str, labels: &[u8]| {
            let Some(Watch(watch)) = &settings.watch else {
                return;
            };
            let due = shown
                .as_ref()
                .is_none_or(|(last, at)| last != stage || at.elapsed() >= pause);
            let start = Instant::now();
            // The result brings back what an interrupted preview does not show.
            let Some(map) = due.then(|| back.take(labels.to_vec(), task).ok()).flatten() else {
                return;
            };
            watch(Preview {
                stage: stage.to_owned(),
                segmentation: Segmentation {
                    map,
                    segments: self.segments(),
                    algorithm: AlgorithmType::Automatic,
                    source: back.volume.source.clone(),
                    provenance: self.provenance(&[back.volume], settings, [0; 3], Clock::default()),
                    issues: back.volume.issues.clone(),
                    review: ReviewState::NotReviewed,
                    reviewed: None,
                },
            });
            pause = pause.max(20 * start.elapsed());
            shown = Some((stage.to_owned(), Instant::now()));
        }
    }

    /// Layers over the model's box of the conformed grid.
    fn run_layers(
        &self,
        network: &Network,
        before: Option<&Self>,
        scan: usize,
        conformed: &mut Conformed,
        settings: &Settings,
        clock: &mut Clock,
        task: &Task,
    ) -> Result<(Vec<u8>, RunPlan), Error> {
        let manifest = &*self.manifest;
        let grid = conformed.geometry.voxel_count();
        let region = match (before, &manifest.input.crop) {
            (Some(pre), Some(crop)) => {
                let found = Self::pre_labels(pre, conformed, settings, task)?;
                clock.lap("region model");
                Region::of(conformed.geometry.dims(), crop.padding, |n| found[n] != 0)
            }
            (None, Some(_)) => self.threshold_box(conformed),
            _ => Region::whole(conformed.geometry.dims()),
        };
        let dims = kji(region.size());
        let plan = layers_plan(network, dims, grid, scan, settings)?;
        fits(plan.needed_bytes, settings)?;
        normalize(&mut conformed.values, &manifest.input.normalization);
        let input = region.cut(&conformed.values, conformed.geometry.dims());
        conformed.values = Vec::new();
        clock.lap("preprocess");
        let inner = match &settings.elsewhere {
            Some(other) => elsewhere::layers(other.as_ref(), network, &input, dims, task)?,
            None => forward(network, input, dims, settings.executor, task)?,
        };
        clock.lap("inference");
        Ok((region.paste(&inner, conformed.geometry.dims()), plan))
    }

    fn threshold_box(&self, conformed: &Conformed) -> Region {
        let dims = conformed.geometry.dims();
        let Some(Crop {
            threshold, padding, ..
        }) = &self.manifest.input.crop
        else {
            return Region::whole(dims);
        };
        let (_, max) = range(&conformed.values);
        let above = if *threshold > 0.0 {
            (*threshold as f32) * max
        } else {
            0.0
        };
        Region::of(dims, *padding, |n| conformed.values[n] > above)
    }

    fn pre_labels(
        pre: &Self,
        conformed: &Conformed,
        settings: &Settings,
        task: &Task,
    ) -> Result<Vec<u8>, Error> {
        let Some(network) = pre.layers() else {
            return Err(Error::Network(
                "its region model is of another kind".to_owned(),
            ));
        };
        // The region model sees the whole grid with its own normalization, without its own box
        // and without a component filter.
        let dims = kji(conformed.geometry.dims());
        let voxels = conformed.geometry.voxel_count();
        fits(
            RunPlan::new(network, dims, voxels, voxels).needed_bytes + 4 * voxels as u64,
            settings,
        )?;
        let mut values = conformed.values.clone();
        normalize(&mut values, &pre.manifest.input.normalization);
        forward(network, values, dims, settings.executor, task)
    }

    fn segments(&self) -> Vec<Segment> {
        let labels = self.manifest.labels.iter();
        labels
            .map(|l| Segment {
                label: l.label,
                name: l.name.clone(),
                category: l.category.clone(),
                property: l.property.clone(),
                color: l.color,
            })
            .collect()
    }

    fn provenance(
        &self,
        volumes: &[&Volume],
        settings: &Settings,
        [nk, nj, ni]: [usize; 3],
        clock: Clock,
    ) -> Provenance {
        let manifest = &*self.manifest;
        let mut parameters = vec![
            (
                "conform".to_owned(),
                format!("{:?}", manifest.input.conform),
            ),
            (
                "normalization".to_owned(),
                format!("{:?}", manifest.input.normalization),
            ),
            ("region".to_owned(), format!("{ni} × {nj} × {nk}")),
            (
                "largest_component".to_owned(),
                manifest.output.largest_component.to_string(),
            ),
        ];
        if let Body::Layers {
            region: Some(pre), ..
        } = &self.body
        {
            parameters.push(("region_model".to_owned(), pre.manifest.key()));
        }
        if manifest.mirrors() {
            let words = if settings.mirroring {
                "as the plans say"
            } else {
                "left out"
            };
            parameters.push(("mirroring".to_owned(), words.to_owned()));
        }
        for (name, volume) in manifest.input.channels.iter().zip(volumes) {
            let series = &volume.source.series_instance_uid;
            let which = series.as_ref().map_or("a file", |uid| uid.as_str());
            parameters.push((format!("channel {name}"), which.to_owned()));
        }
        Provenance {
            run: String::new(),
            model_id: manifest.id.clone(),
            model_name: manifest.name.clone(),
            model_version: manifest.version.clone(),
            model_sha256: manifest.weights_sha256.clone(),
            device: match &settings.elsewhere {
                Some(other) => other.device(),
                None => device_name(settings.executor),
            },
            parameters,
            inputs: volumes
                .iter()
                .flat_map(|v| v.source.known_images())
                .map(|i| i.sop_instance_uid.to_string())
                .collect(),
            started: settings.started.clone(),
            elapsed_secs: clock.laps,
            software_version: crate::VERSION.to_owned(),
        }
    }
}

/// "cpu (AVX2+FMA, 2 threads)".
pub fn device_name(executor: Executor) -> String {
    let threads = rayon::current_num_threads();
    let name = Instructions::detect().name();
    let plural = if threads == 1 { "" } else { "s" };
    match executor {
        Executor::Native => format!("cpu ({name}, {threads} thread{plural})"),
        Executor::Candle => format!("cpu (candle, {name}, {threads} thread{plural})"),
    }
}

fn kji([i, j, k]: [usize; 3]) -> [usize; 3] {
    [k, j, i]
}

fn layers_plan(
    network: &Network,
    dims: [usize; 3],
    grid: usize,
    scan: usize,
    settings: &Settings,
) -> Result<RunPlan, Error> {
    let plan = RunPlan::new(network, dims, grid, scan);
    Ok(match &settings.elsewhere {
        Some(other) => {
            let traffic = elsewhere::layers_traffic(network, dims, other.most_bytes())?;
            plan.with_network_elsewhere(network, traffic)
        }
        None => plan,
    })
}

fn fits(needed_bytes: u64, settings: &Settings) -> Result<(), Error> {
    if needed_bytes > settings.available_bytes {
        let available_bytes = settings.available_bytes;
        return Err(Error::Memory {
            needed_bytes,
            available_bytes,
        });
    }
    Ok(())
}

/// From the grid that is computed to the volume's own.
struct WayBack<'a> {
    geometry: VolumeGeometry,
    untouched: bool,
    volume: &'a Volume,
}

impl WayBack<'_> {
    fn take(&self, labels: Vec<u8>, task: &Task) -> Result<LabelMap, Cancelled> {
        let geometry = if self.untouched {
            self.volume.geometry.clone()
        } else {
            self.geometry.clone()
        };
        let mut map = LabelMap { geometry, labels };
        if !self.untouched {
            map = resample_labels(&map, &self.volume.geometry, task)?;
        }
        clear_empty_slices(&mut map, self.volume);
        Ok(map)
    }
}

/// What no channel can be.
fn unusable(volume: &Volume) -> Option<String> {
    if volume.voxels.is_color() {
        Some("color images as a channel".to_owned())
    } else if volume.layout != Layout::Volumetric {
        Some("plain images without positions as a channel".to_owned())
    } else {
        None
    }
}

/// Where the scanner sent no image there is nothing to find.
fn clear_empty_slices(map: &mut LabelMap, volume: &Volume) {
    if volume.source.images.is_empty() {
        return;
    }
    let [ni, nj, _] = volume.geometry.dims();
    for (k, slice) in map.labels.chunks_mut(ni * nj).enumerate() {
        if volume.source.image(k).is_none() {
            slice.fill(0);
        }
    }
}

/// Labels of a box of prepared values, `[k][j][i]`, by layers alone.
///
/// # Errors
/// [`Error::Cancelled`], or what the reference executor fails with.
pub fn forward(
    network: &Network,
    values: Vec<f32>,
    dims: [usize; 3],
    executor: Executor,
    task: &Task,
) -> Result<Vec<u8>, Error> {
    match executor {
        Executor::Native => layers::forward(network, values, dims, task),
        Executor::Candle => candle_executor::forward(network, values, dims, task),
    }
}

/// A box of a grid, half open, by axis i, j, k.
struct Region {
    low: [usize; 3],
    high: [usize; 3],
}

impl Region {
    fn whole(dims: [usize; 3]) -> Self {
        Self {
            low: [0; 3],
            high: dims,
        }
    }

    /// The box of what `counts`, padded and kept inside; the whole grid when nothing counts.
    fn of(dims: [usize; 3], padding: usize, counts: impl Fn(usize) -> bool + Sync) -> Self {
        use rayon::prelude::*;
        let [ni, nj, nk] = dims;
        let none = ([usize::MAX; 3], [0_usize; 3]);
        let join = |a: ([usize; 3], [usize; 3]), b: ([usize; 3], [usize; 3])| {
            (
                std::array::from_fn(|x| a.0[x].min(b.0[x])),
                std::array::from_fn(|x| a.1[x].max(b.1[x])),
            )
        };
        let (low, high) = (0..nk)
            .into_par_iter()
            .map(|k| {
                let mut found = none;
                for j in 0..nj {
                    for i in 0..ni {
                        if counts((k * nj + j) * ni + i) {
                            found = join(found, ([i, j, k], [i + 1, j + 1, k + 1]));
                        }
                    }
                }
                found
            })
            .reduce(|| none, join);
        if high == [0; 3] {
            return Self::whole(dims);
        }
        Self {
            low: low.map(|x| x.saturating_sub(padding)),
            high: std::array::from_fn(|a| (high[a] + padding).min(dims[a])),
        }
    }

    fn size(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.high[a] - self.low[a])
    }

    fn rows(&self, dims: [usize; 3]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        (self.low[2]..self.high[2]).flat_map(move |k| {
            (self.low[1]..self.high[1]).map(move |j| {
                let row = (k * dims[1] + j) * dims[0];
                row + self.low[0]..row + self.high[0]
            })
        })
    }

    fn cut(&self, values: &[f32], dims: [usize; 3]) -> Vec<f32> {
        self.rows(dims)
            .flat_map(|row| &values[row])
            .copied()
            .collect()
    }

    fn paste(&self, labels: &[u8], dims: [usize; 3]) -> Vec<u8> {
        let mut out = vec![0; dims.iter().product()];
        let width = self.size()[0];
        for (n, row) in self.rows(dims).enumerate() {
            out[row].copy_from_slice(&labels[n * width..(n + 1) * width]);
        }
        out
    }
}

/// Seconds by phase.
struct Clock {
    last: Instant,
    laps: Vec<(String, f64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            laps: Vec::new(),
        }
    }
}

impl Clock {
    fn lap(&mut self, name: &str) {
        let now = Instant::now();
        self.laps
            .push((name.to_owned(), (now - self.last).as_secs_f64()));
        self.last = now;
    }
}
