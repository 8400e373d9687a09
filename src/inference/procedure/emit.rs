//! Finished logits, resampled onto the original grid and reduced to labels at once.

use std::ops::Range;

use rayon::prelude::*;

use super::labels::{Decision, Reducer};
use super::pieces::{Element, Pieces};
use super::spline::Axis;
use super::stream_plan::{StreamPlan, Sweep, mixes};

/// Lines of the result that one thread works on at a time.
const LINES: usize = 16;

/// The last row and line before what is being finished, where neighbors are mixed.
pub(super) struct Borders<E> {
    /// `[head][line][x]`: the row before.
    row: Option<Vec<E>>,
    /// `[head][1 + row][x]`: the line before, for the row before and the rows being finished.
    line: Option<Vec<E>>,
    /// The rows that `line` belongs to.
    rows: Range<usize>,
    lines: Range<usize>,
    width: usize,
    heads: usize,
}

impl<E: Element> Borders<E> {
    pub(super) fn new(sweep: &Sweep, axes: &[Axis; 3], heads: usize) -> Self {
        let lines = sweep.along[1].range.clone();
        let width = sweep.along[2].range.len();
        Self {
            row: mixes(&axes[0]).then(|| vec![E::default(); heads * lines.len() * width]),
            line: mixes(&axes[1]).then(Vec::new),
            rows: 0..0,
            lines,
            width,
            heads,
        }
    }

    /// One line of logits, finished now or kept from before.
    fn fetch<'a>(
        &'a self,
        pieces: &'a Pieces<E>,
        region: &[Range<usize>; 2],
        head: usize,
        row: usize,
        line: usize,
    ) -> &'a [E] {
        let kept = |samples: &'a [E], lines: usize, at: usize| {
            let at = (head * lines + at) * self.width;
            &samples[at..at + self.width]
        };
        if line < region[1].start {
            let samples = self.line.as_deref().expect("mixed lines are kept");
            kept(samples, self.rows.len() + 1, row + 1 - self.rows.start)
        } else if row < region[0].start {
            let samples = self.row.as_deref().expect("mixed rows are kept");
            kept(samples, self.lines.len(), line - self.lines.start)
        } else {
            pieces.line(head, row, line)
        }
    }

    /// Keeps the last line and the last row of what was just finished.
    pub(super) fn keep(&mut self, region: &[Range<usize>; 2], pieces: &Pieces<E>) {
        let [rows, lines] = region;
        let width = self.width;
        if let Some(mut kept) = self.line.take() {
            // The row before is read before it is overwritten below.
            kept.clear();
            for head in 0..self.heads {
                match &self.row {
                    Some(row) => {
                        let at = head * self.lines.len() + lines.end - 1 - self.lines.start;
                        kept.extend_from_slice(&row[at * width..(at + 1) * width]);
                    }
                    None => kept.resize(kept.len() + width, E::default()),
                }
                for row in rows.clone() {
                    kept.extend_from_slice(pieces.line(head, row, lines.end - 1));
                }
            }
            self.line = Some(kept);
            self.rows = rows.clone();
        }
        if let Some(kept) = &mut self.row {
            for head in 0..self.heads {
                for line in lines.clone() {
                    let at = (head * self.lines.len() + line - self.lines.start) * width;
                    kept[at..at + width].copy_from_slice(pieces.line(head, rows.end - 1, line));
                }
            }
        }
    }
}

/// Output samples (within `out`) whose sources are complete with `region`, and were not before.
fn ready(axis: &Axis, offset: usize, out: &Range<usize>, region: &Range<usize>) -> Range<usize> {
    let last = |index: usize| axis.pair(index).0[1] + offset;
    let indices: Vec<usize> = out.clone().collect();
    let from = indices.partition_point(|&index| last(index) < region.start);
    let to = indices.partition_point(|&index| last(index) < region.end);
    out.start + from..out.start + to
}

/// Labels of all output voxels that `region` (rows and lines of the padded grid) completes, as
/// `([z, first y], [line][x])`.
pub(super) fn emit<E: Element>(
    sweep: &Sweep,
    plan: &StreamPlan,
    rule: &Decision,
    region: &[Range<usize>; 2],
    pieces: &Pieces<E>,
    borders: &Borders<E>,
) -> Vec<([usize; 2], Vec<u8>)> {
    let [z, y] = [0, 1].map(|axis| {
        ready(
            &plan.route.axes[axis],
            plan.offset[axis],
            &sweep.out[axis],
            &region[axis],
        )
    });
    let units: Vec<[usize; 2]> = z
        .flat_map(|z| y.clone().step_by(LINES).map(move |y| [z, y]))
        .collect();
    let columns = Columns::new(sweep, plan);
    units
        .into_par_iter()
        .map(|at| {
            let lines = at[1]..(at[1] + LINES).min(y.end);
            let fetch = |head, row, line| borders.fetch(pieces, region, head, row, line);
            let labels = unit::<E>(plan, rule, borders.heads, &columns, at[0], lines, &fetch);
            (at, labels)
        })
        .collect()
}

/// Some lines of one output slice.
fn unit<'a, E: Element + 'a>(
    plan: &StreamPlan,
    rule: &Decision,
    heads: usize,
    columns: &Columns,
    z: usize,
    lines: Range<usize>,
    fetch: &dyn Fn(usize, usize, usize) -> &'a [E],
) -> Vec<u8> {
    let [z_axis, y_axis, _] = &plan.route.axes;
    let source = |y: usize, which: usize| y_axis.pair(y).0[which] + plan.offset[1];
    let first = source(lines.start, 0);
    let sources = first..source(lines.end - 1, 1) + 1;
    let (rows, by) = z_axis.pair(z);
    let width = columns.source;
    let mut plane = vec![0.0_f32; sources.len() * width];
    let mut other = vec![0.0_f32; width];
    let mut row = vec![0.0_f32; columns.low.len()];
    let mut reducer = Reducer::new(rule, lines.len(), row.len(), columns.whole);
    for head in 0..heads {
        for (line, to) in sources.clone().zip(plane.chunks_exact_mut(width)) {
            E::load(fetch(head, rows[0] + plan.offset[0], line), to);
            if by[1] == 0.0 {
                scale(to, by[0]);
            } else {
                E::load(fetch(head, rows[1] + plan.offset[0], line), &mut other);
                mix(to, &other, by);
            }
        }
        for (index, y) in lines.clone().enumerate() {
            let (at, by) = y_axis.pair(y);
            let line = |which: usize| {
                let at = at[which] + plan.offset[1] - first;
                &plane[at * width..(at + 1) * width]
            };
            other.copy_from_slice(line(0));
            if by[1] == 0.0 {
                scale(&mut other, by[0]);
            } else {
                mix(&mut other, line(1), by);
            }
            // Most heads are far below the best of the whole line.
            if reducer.is_settled(index, &other) {
                continue;
            }
            columns.resample(&other, &mut row);
            E::round(&mut row);
            reducer.take(head, index, &row);
        }
    }
    reducer.finish()
}

fn mix(to: &mut [f32], other: &[f32], by: [f64; 2]) {
    let [low, high] = by.map(|weight| weight as f32);
    for (to, other) in to.iter_mut().zip(other) {
        *to = *to * low + other * high;
    }
}

/// Beside what was cropped away, a sample mixes with 0.
fn scale(to: &mut [f32], by: f64) {
    if by != 1.0 {
        for to in to {
            *to *= by as f32;
        }
    }
}

/// The last axis, worked out once.
struct Columns {
    source: usize,
    low: Vec<u32>,
    high: Vec<u32>,
    weights: Vec<[f32; 2]>,
    identity: bool,
    /// No axis mixes with what was cropped away.
    whole: bool,
}

impl Columns {
    fn new(sweep: &Sweep, plan: &StreamPlan) -> Self {
        let range = &sweep.along[2].range;
        let axis = &plan.route.axes[2];
        let pairs = || sweep.out[2].clone().map(|x| axis.pair(x));
        let place = |at: usize| (at + plan.offset[2] - range.start) as u32;
        Self {
            source: range.len(),
            low: pairs().map(|(at, _)| place(at[0])).collect(),
            high: pairs().map(|(at, _)| place(at[1])).collect(),
            weights: pairs()
                .map(|(_, by)| by.map(|weight| weight as f32))
                .collect(),
            identity: axis.is_identity(),
            whole: plan.route.axes.iter().all(Axis::is_whole),
        }
    }

    fn resample(&self, from: &[f32], to: &mut [f32]) {
        if self.identity {
            to.copy_from_slice(from);
            return;
        }
        let taps = self.low.iter().zip(&self.high).zip(&self.weights);
        for (to, ((&low, &high), by)) in to.iter_mut().zip(taps) {
            *to = from[low as usize] * by[0] + from[high as usize] * by[1];
        }
    }
}
