//! MONAI's transforms before the network, and the way back of its output through them (`Invertd`).
//!
//! Grids are those of MONAI's reader, `[i][j][k]`, and the affine is its own: voxel indices to RAS mm.

use std::ops::Range;

use super::Error;
use super::array::{Image, Labels, volume};
use super::labels::Decision;
use super::monai_intensity::intensity;
use super::resample::along;
use super::spline::Axis;
use super::stream::{PatchNetwork, predict_image};
use super::stream_plan::{Accumulator, MOST_VOXELS, Route, Rules, StreamPlan, Weights, plan};
use super::windows::monai_window_starts;
use crate::model::monai::{MonaiDecision, MonaiProcedure, MonaiTransform};
use crate::task::Task;

/// Spacings closer than this are the same (`AFFINE_TOL`).
const SAME_MM: f64 = 1e-3;
/// Added to a place before it is rounded to the nearest voxel, so that it is rounded down.
const DOWN: f64 = -0.5 + 1e-9;

/// The network's input, and the way that it took.
#[derive(Clone, Debug)]
pub struct MonaiPrepared {
    /// After all transforms.
    pub image: Image,
    /// The reader's grid.
    reader: [usize; 3],
    /// Axis `a` now is axis `from[a]` of the reader, turned around or not.
    from: [usize; 3],
    turned: [bool; 3],
    /// Cuts before and after the change of spacing.
    cuts: [Cut; 2],
    /// Where voxels after the change lie before it: so many voxels each, and where the first lies.
    step: [(f64, f64); 3],
    /// After `Resize`: voxels after / before. Nearest neighbors are rounded down.
    resized: Option<[f64; 3]>,
    /// The image itself is left out; only grids are known.
    dry: bool,
    /// Most samples that one step takes in and gives out.
    most: usize,
    /// The grids that both cuts start from.
    sizes: [[usize; 3]; 2],
    spaced: bool,
}

/// What crops and pads kept of a grid.
#[derive(Clone, Debug)]
struct Cut {
    /// Voxel of the grid that the first voxel stands for.
    start: [isize; 3],
    /// Voxels of the grid that were never cut away.
    held: [Range<isize>; 3],
}

impl Cut {
    fn none(dims: [usize; 3]) -> Self {
        Self {
            start: [0; 3],
            held: dims.map(|size| 0..size as isize),
        }
    }

    /// Cuts to the box that begins at `start` of what is there now.
    fn to(&mut self, start: [isize; 3], dims: [usize; 3]) {
        for axis in 0..3 {
            self.start[axis] += start[axis];
            let (first, size) = (self.start[axis], dims[axis] as isize);
            let held = &mut self.held[axis];
            *held = held.start.max(first)..held.end.min(first + size);
        }
    }
}

/// Carries out the transforms.
///
/// `affine`: rows of the matrix from voxel indices of the image to RAS mm.
///
/// # Errors
/// [`Error::Unsupported`] for a second change of orientation or spacing, [`Error::Mismatch`] where nothing
/// of the image is left, [`Error::Cancelled`].
pub fn prepare_monai(
    image: Image,
    affine: [[f64; 4]; 3],
    transforms: &[MonaiTransform],
    task: &Task,
) -> Result<MonaiPrepared, Error> {
    start(image, affine, transforms, false, task)
}

/// The grids that an image will have, without one: a crop to the foreground is taken to keep everything.
///
/// # Errors
/// As [`prepare_monai`].
pub fn outline_monai(
    channels: usize,
    dims: [usize; 3],
    affine: [[f64; 4]; 3],
    transforms: &[MonaiTransform],
) -> Result<MonaiPrepared, Error> {
    check_size(channels, dims)?;
    let data = Vec::new();
    let image = Image {
        channels,
        dims,
        data,
    };
    start(image, affine, transforms, true, &Task::new())
}

fn start(
    image: Image,
    affine: [[f64; 4]; 3],
    transforms: &[MonaiTransform],
    dry: bool,
    task: &Task,
) -> Result<MonaiPrepared, Error> {
    let dims = image.dims;
    let norm = |axis: usize| {
        affine
            .iter()
            .map(|row| row[axis].powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let spacing = [0, 1, 2].map(norm);
    if spacing.iter().any(|mm| !(*mm > 0.0 && mm.is_finite())) {
        return Err(Error::Mismatch(format!("voxels of {spacing:?} mm")));
    }
    let mut state = MonaiPrepared {
        image,
        reader: dims,
        from: [0, 1, 2],
        turned: [false; 3],
        cuts: [Cut::none(dims), Cut::none(dims)],
        step: [(1.0, 0.0); 3],
        resized: None,
        dry,
        most: 0,
        sizes: [dims; 2],
        spaced: false,
    };
    let mut columns = [0, 1, 2].map(|c: usize| affine.map(|row| row[c]));
    let mut oriented = false;
    for transform in transforms {
        task.check()?;
        let before = state.image.channels * volume(state.image.dims);
        if !dry && intensity(&mut state.image, transform)? {
            continue;
        }
        match *transform {
            MonaiTransform::Orientation { axcodes } => {
                if oriented || state.spaced || state.image.dims != dims {
                    return Err(Error::Unsupported("orientation after other changes".into()));
                }
                oriented = true;
                let (from, turned) = orientation(affine, axcodes)?;
                state.turn(from, turned);
                columns = [0, 1, 2].map(|axis: usize| {
                    let sign = if turned[axis] { -1.0 } else { 1.0 };
                    columns[from[axis]].map(|v| sign * v)
                });
            }
            MonaiTransform::Spacing { pixdim, linear } => {
                if state.spaced {
                    return Err(Error::Unsupported("a second change of spacing".into()));
                }
                state.space(&columns, pixdim, linear, task)?;
            }
            MonaiTransform::CropForeground {
                margin,
                k_divisible,
                allow_smaller,
            } => {
                let image = (!dry).then_some(&state.image);
                let dims = state.image.dims;
                let (start, to) = foreground(image, dims, margin, k_divisible, allow_smaller)?;
                state.cut(start, to, 0.0)?;
            }
            MonaiTransform::Resize {
                spatial_size,
                linear,
                align_corners,
            } => {
                if state.spaced {
                    return Err(Error::Unsupported("a second change of spacing".into()));
                }
                state.resize(spatial_size, linear, align_corners, task)?;
            }
            MonaiTransform::SpatialPad {
                spatial_size,
                end,
                value,
            } => state.pad(spatial_size, end, value)?,
            MonaiTransform::DivisiblePad { k } => {
                let dims = state.image.dims;
                let to = [0, 1, 2].map(|axis| next_multiple(dims[axis], k[axis]));
                state.pad(to, false, 0.0)?;
            }
            // Intensities were done above.
            _ => {}
        }
        let after = state.image.channels * volume(state.image.dims);
        // Resampling goes axis by axis, through a copy of a channel.
        state.most = state.most.max(2 * (before + after));
    }
    Ok(state)
}

/// For each wanted axis: the reader's axis, and whether it is turned around.
fn orientation(
    affine: [[f64; 4]; 3],
    axcodes: [char; 3],
) -> Result<([usize; 3], [bool; 3]), Error> {
    let nearest = rotation(affine);
    // nibabel's io_orientation: axis by axis, the world axis that it runs along most, each only once.
    let mut runs = [(0, false); 3];
    let mut taken = [false; 3];
    for (axis, run) in runs.iter_mut().enumerate() {
        let along = |world: usize| nearest[world][axis].abs();
        let world = (0..3)
            .filter(|&world| !taken[world])
            .max_by(|&a, &b| along(a).total_cmp(&along(b)).then(b.cmp(&a)))
            .unwrap_or(axis);
        taken[world] = true;
        *run = (world, nearest[world][axis] < 0.0);
    }
    let mut result = ([0; 3], [false; 3]);
    for (to, code) in axcodes.iter().enumerate() {
        let ends = [['L', 'R'], ['P', 'A'], ['I', 'S']];
        let found = ends
            .iter()
            .position(|ends| ends.contains(code))
            .and_then(|world| {
                let axis = runs.iter().position(|run| run.0 == world)?;
                Some((axis, runs[axis].1 == (*code == ends[world][1])))
            });
        match found {
            Some((axis, turned)) if !result.0[..to].contains(&axis) => {
                result.0[to] = axis;
                result.1[to] = turned;
            }
            _ => return Err(Error::Unsupported(format!("the orientation {axcodes:?}"))),
        }
    }
    Ok(result)
}

/// The rotation nearest to an affine's directions (the orthogonal factor of its polar decomposition).
fn rotation(affine: [[f64; 4]; 3]) -> [[f64; 3]; 3] {
    let norms = [0, 1, 2].map(|c: usize| affine.iter().map(|r| r[c].powi(2)).sum::<f64>().sqrt());
    let mut m = affine.map(|row| [0, 1, 2].map(|c: usize| row[c] / norms[c]));
    for _ in 0..50 {
        // Cofactors over the determinant are the transposed inverse.
        let cofactor = |r: usize, c: usize| {
            let (a, b, d, e) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
            m[a][d] * m[b][e] - m[a][e] * m[b][d]
        };
        let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
        if determinant.abs() < 1e-12 {
            break;
        }
        let rows = [0, 1, 2];
        m = rows.map(|r| rows.map(|c| f64::midpoint(m[r][c], cofactor(r, c) / determinant)));
    }
    m
}

/// Without overflow; what is too large is refused later.
fn next_multiple(size: usize, of: usize) -> usize {
    size.checked_next_multiple_of(of.max(1))
        .unwrap_or(usize::MAX / 2)
}

/// Whether one corner of a grid is the first in all directions of the new one (`compute_shape_offset`): there
/// MONAI puts the new grid's first voxel. Rounded matrices of oblique scans are a little sheared and have none.
///
/// `columns`: of the matrix to mm; `step`: voxels of the grid per new voxel.
fn has_corner(columns: &[[f64; 3]; 3], step: &[(f64, f64); 3], dims: [usize; 3]) -> bool {
    /// `numpy.allclose` to 0.
    const NONE: f64 = 1e-8;
    // Cholesky: columns = rotation · zs, zs upper triangular; the new grid is rotation · diagonal.
    let dot = |a: usize, b: usize| (0..3).map(|n| columns[a][n] * columns[b][n]).sum::<f64>();
    let mut zs = [[0.0_f64; 3]; 3];
    for row in 0..3 {
        for column in row..3 {
            let done: f64 = (0..row).map(|n| zs[n][row] * zs[n][column]).sum();
            let left = dot(row, column) - done;
            zs[row][column] = if column == row {
                left.max(f64::MIN_POSITIVE).sqrt()
            } else {
                left / zs[row][row]
            };
        }
    }
    let corners = (0..8).map(|corner: usize| {
        [0, 1, 2].map(|row: usize| {
            let sum: f64 = (0..3)
                .map(|axis| {
                    let far = corner >> axis & 1 == 1;
                    zs[row][axis] * if far { (dims[axis] - 1) as f64 } else { 0.0 }
                })
                .sum();
            sum / (zs[row][row] * step[row].0)
        })
    });
    let corners: Vec<[f64; 3]> = corners.collect();
    corners.iter().any(|first| {
        corners
            .iter()
            .all(|other| (0..3).all(|axis| other[axis] - first[axis] >= -NONE))
    })
}

/// `CropForeground.compute_bounding_box`.
fn foreground(
    image: Option<&Image>,
    dims: [usize; 3],
    margin: [usize; 3],
    k: [usize; 3],
    allow_smaller: bool,
) -> Result<([isize; 3], [usize; 3]), Error> {
    let found = match image {
        Some(image) => super::crop::box_around(image, &|v| v > 0.0)
            .ok_or_else(|| Error::Mismatch("nothing of the image is above 0".into()))?,
        None => super::crop::Box3 {
            start: [0; 3],
            end: dims,
        },
    };
    let (mut start, mut size) = ([0; 3], [0; 3]);
    for axis in 0..3 {
        let mut first = found.start[axis] as isize - margin[axis] as isize;
        let mut end = (found.end[axis] + margin[axis]) as isize;
        if allow_smaller {
            first = first.max(0);
            end = end.min(dims[axis] as isize);
        }
        let length = (end - first) as usize;
        size[axis] = next_multiple(length, k[axis]);
        start[axis] = first - ((size[axis] - length) / 2) as isize;
    }
    Ok((start, size))
}

/// Transforms come from foreign files: none may ask for more than any image needs.
fn check_size(channels: usize, dims: [usize; 3]) -> Result<(), Error> {
    let samples = dims
        .iter()
        .try_fold(channels, |product, &size| product.checked_mul(size));
    match samples {
        Some(1..=MOST_VOXELS) => Ok(()),
        _ => Err(Error::Mismatch(format!("an image of {dims:?} voxels"))),
    }
}

impl MonaiPrepared {
    /// Bytes that preparing holds at most, besides the reader's image.
    pub const fn prepare_bytes(&self) -> u64 {
        4 * self.most as u64
    }

    fn turn(&mut self, from: [usize; 3], turned: [bool; 3]) {
        let old = self.image.dims;
        let dims = from.map(|axis| old[axis]);
        let steps = [old[1] * old[2], old[2], 1];
        let mut data = Vec::with_capacity(self.image.data.len());
        for channel in 0..if self.dry { 0 } else { self.image.channels } {
            let samples = self.image.channel(channel);
            let place = |to: usize, at: usize| {
                let at = if turned[to] { dims[to] - 1 - at } else { at };
                at * steps[from[to]]
            };
            for i in 0..dims[0] {
                for j in 0..dims[1] {
                    let row = place(0, i) + place(1, j);
                    data.extend((0..dims[2]).map(|k| samples[row + place(2, k)]));
                }
            }
        }
        self.image.data = data;
        self.image.dims = dims;
        self.from = from;
        self.turned = turned;
        self.sizes = [dims; 2];
        self.cuts = [Cut::none(dims), Cut::none(dims)];
    }

    fn space(
        &mut self,
        columns: &[[f64; 3]; 3],
        pixdim: [f64; 3],
        linear: bool,
        task: &Task,
    ) -> Result<(), Error> {
        let old = self.image.dims;
        let spacing = columns.map(|c| c.iter().map(|v| v * v).sum::<f64>().sqrt());
        let (mut step, mut dims) = ([(1.0, 0.0); 3], old);
        for axis in 0..3 {
            if pixdim[axis] > 0.0 && (pixdim[axis] - spacing[axis]).abs() > SAME_MM {
                step[axis].0 = pixdim[axis] / spacing[axis];
            }
            let size = ((old[axis] - 1) as f64 / step[axis].0 + 1.0).round_ties_even();
            if !(1.0..=65_536.0).contains(&size) {
                return Err(Error::Mismatch(format!(
                    "{} voxels of {} mm at {} mm",
                    old[axis], spacing[axis], pixdim[axis]
                )));
            }
            dims[axis] = size as usize;
        }
        if !has_corner(columns, &step, old) {
            // The middles of both grids lie on each other.
            for axis in 0..3 {
                let (n, m) = (old[axis] as f64, dims[axis] as f64);
                step[axis].1 = (n - step[axis].0 * m) / 2.0;
            }
        }
        let close = step
            .iter()
            .all(|(step, first)| (step - 1.0).abs() <= SAME_MM && first.abs() <= SAME_MM);
        if close && dims == old {
            step = [(1.0, 0.0); 3];
        }
        self.resample(dims, step, linear, task)
    }

    /// `Resize`.
    fn resize(
        &mut self,
        to: [usize; 3],
        linear: bool,
        align_corners: bool,
        task: &Task,
    ) -> Result<(), Error> {
        let old = self.image.dims;
        let dims = [0, 1, 2].map(|axis| if to[axis] == 0 { old[axis] } else { to[axis] });
        let step = [0, 1, 2].map(|axis| {
            let (n, m) = (old[axis] as f64, dims[axis] as f64);
            match (dims[axis] == old[axis], linear, align_corners) {
                (true, ..) => (1.0, 0.0),
                (_, false, _) => (n / m, DOWN),
                (_, true, true) => ((n - 1.0) / (m - 1.0).max(1.0), 0.0),
                (_, true, false) => (n / m, (n / m - 1.0) / 2.0),
            }
        });
        let ratio = [0, 1, 2].map(|axis| dims[axis] as f64 / old[axis] as f64);
        self.resized = (dims != old).then_some(ratio);
        self.resample(dims, step, linear, task)
    }

    /// Brings the image to a grid whose voxels lie where `step` says.
    fn resample(
        &mut self,
        dims: [usize; 3],
        step: [(f64, f64); 3],
        linear: bool,
        task: &Task,
    ) -> Result<(), Error> {
        let old = self.image.dims;
        check_size(self.image.channels, dims)?;
        self.spaced = true;
        if !(step == [(1.0, 0.0); 3] && dims == old) {
            let mut data = Vec::new();
            for channel in self.image.data.chunks_exact(volume(old)) {
                let (mut one, mut now) = (channel.to_vec(), old);
                for axis in 0..3 {
                    let (size, to) = (old[axis], dims[axis]);
                    let (_, rule) = Axis::scaled(0..to, step[axis], size, 0..size, 0, size, linear);
                    one = along(one, &mut now, axis, &rule, task)?;
                }
                data.extend(one);
            }
            self.image.data = data;
            self.image.dims = dims;
            self.step = step;
        }
        self.sizes[1] = self.image.dims;
        self.cuts[1] = Cut::none(self.image.dims);
        Ok(())
    }

    /// Cuts out a box, which may reach beyond the image.
    fn cut(&mut self, start: [isize; 3], dims: [usize; 3], value: f32) -> Result<(), Error> {
        check_size(self.image.channels, dims)?;
        let old = self.image.dims;
        let samples = self.image.channels * volume(dims);
        let mut data = vec![value; if self.dry { 0 } else { samples }];
        let inside = |axis: usize, at: usize| {
            let at = usize::try_from(at as isize + start[axis]).ok()?;
            (at < old[axis]).then_some(at)
        };
        for (row, to) in data.chunks_exact_mut(dims[2]).enumerate() {
            let (channel, i, j) = (
                row / (dims[0] * dims[1]),
                row / dims[1] % dims[0],
                row % dims[1],
            );
            if let (Some(i), Some(j)) = (inside(0, i), inside(1, j)) {
                let from =
                    &self.image.data[((channel * old[0] + i) * old[1] + j) * old[2]..][..old[2]];
                for (k, to) in to.iter_mut().enumerate() {
                    *to = inside(2, k).map_or(value, |k| from[k]);
                }
            }
        }
        self.image.data = data;
        self.image.dims = dims;
        self.cuts[usize::from(self.spaced)].to(start, dims);
        if !self.spaced {
            self.sizes[1] = dims;
            self.cuts[1] = Cut::none(dims);
        }
        Ok(())
    }

    fn pad(&mut self, least: [usize; 3], end: bool, value: f32) -> Result<(), Error> {
        let old = self.image.dims;
        let to = [0, 1, 2].map(|axis| old[axis].max(least[axis]));
        let start = [0, 1, 2].map(|axis| {
            let before = if end { 0 } else { (to[axis] - old[axis]) / 2 };
            -(before as isize)
        });
        if to == old {
            return Ok(());
        }
        self.cut(start, to, value)
    }

    fn route(&self, linear: bool) -> Result<Route, Error> {
        let [before, after] = &self.cuts;
        let network = self.image.dims;
        let reader = self.reader;
        let steps = [reader[1] * reader[2], reader[2], 1];
        let (mut origin, mut strides) = (0_isize, [0; 3]);
        let mut axes = Vec::new();
        for axis in 0..3 {
            // The voxels of the oriented grid that were kept, counted from the cut's first.
            let start = before.start[axis];
            let kept = &before.held[axis];
            let held = &after.held[axis];
            if kept.is_empty() || held.is_empty() {
                return Err(Error::Mismatch("nothing of the image is left".into()));
            }
            let (step, offset) = self.step[axis];
            let back = match self.resized {
                Some(ratio) if !linear && ratio[axis] != 1.0 => (ratio[axis], DOWN),
                _ => (1.0 / step, -offset / step),
            };
            let (range, rule) = Axis::scaled(
                (kept.start - start) as usize..(kept.end - start) as usize,
                back,
                self.sizes[1][axis],
                held.start as usize..held.end as usize,
                -after.start[axis],
                network[axis],
                linear,
            );
            if range.is_empty() {
                return Err(Error::Mismatch("nothing of the image is left".into()));
            }
            let step = steps[self.from[axis]] as isize;
            let first = range.start as isize + start;
            if self.turned[axis] {
                origin += (self.sizes[0][axis] as isize - 1 - first) * step;
                strides[axis] = -step;
            } else {
                origin += first * step;
                strides[axis] = step;
            }
            axes.push(rule);
        }
        let [i, j, k] = <[Axis; 3]>::try_from(axes).expect("three axes were pushed");
        Ok(Route {
            network,
            axes: [i, j, k],
            reader,
            origin: origin as usize,
            strides,
        })
    }
}

/// Plans a run on a prepared image; see [`super::plan_stream`].
///
/// # Errors
/// As there.
pub fn plan_monai(
    prepared: &MonaiPrepared,
    procedure: &MonaiProcedure,
    accumulator: Accumulator,
    limit_bytes: u64,
) -> Result<StreamPlan, Error> {
    let windows = &procedure.windows;
    let route = prepared.route(procedure.output.linear)?;
    let network = route.network;
    let patch = [0, 1, 2].map(|axis| match windows.roi_size[axis] {
        0 => network[axis],
        size => size,
    });
    if windows
        .overlap
        .iter()
        .any(|part| !(0.0..1.0).contains(part))
    {
        return Err(Error::Mismatch(format!(
            "an overlap of {:?}",
            windows.overlap
        )));
    }
    let starts = [0, 1, 2].map(|axis| {
        monai_window_starts(
            network[axis].max(patch[axis]),
            patch[axis],
            windows.overlap[axis],
        )
    });
    let rules = Rules {
        channels: procedure.input_channels,
        patch,
        starts,
        weights: match windows.gaussian {
            Some(sigma_scale) => Weights::Monai {
                roi: patch.to_vec(),
                sigma_scale,
            },
            None => Weights::Even,
        },
        padding: windows.padding,
        flips: vec![[false; 3]],
        activation: procedure.output.activation,
        decision: match &procedure.output.decision {
            MonaiDecision::Argmax { classes } => Decision::Largest { heads: *classes },
            MonaiDecision::Threshold { order, threshold } => Decision::Reaches {
                order: order.clone(),
                threshold: *threshold,
            },
        },
    };
    plan(route, rules, 1, accumulator, limit_bytes)
}

/// Labels on the reader's grid; see [`super::predict_streamed`].
///
/// # Errors
/// As there.
pub fn predict_monai(
    prepared: &MonaiPrepared,
    plan: &StreamPlan,
    network: &mut dyn PatchNetwork,
    task: &Task,
) -> Result<Labels, Error> {
    predict_image(&prepared.image, None, plan, network, task)
}
