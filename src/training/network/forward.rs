//! The forward pass of a batch, with all that the backward pass needs.

use rayon::prelude::*;

use super::norm::{self, Applied};
use super::plan::Work;
use super::tokens::ImageTape;
use super::{Grids, Packed, Planned, each_image, optional, part, slice};
use crate::kernels::{
    BLOCK, Conv, Epilogue, Method, Moments, Prologue, Transposed, View, ViewMut, global_mean,
    normalize_into, pool,
};
use crate::training::Chance;

/// How a forward pass is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics and dropout, drawn at this place (seed and step).
    Training {
        /// What identifies the draws of dropout.
        place: [u64; 2],
    },
    /// Running statistics, nothing dropped, nothing kept.
    Evaluation,
}

/// A forward pass: its results, and what the backward pass needs.
#[derive(Debug)]
pub struct Tape {
    /// Images of the batch.
    pub images: usize,
    /// Image by image, result after result, `[channels][z][y][x]`.
    pub results: Vec<f32>,
    /// New running statistics: place among the parameters, value.
    pub running: Vec<(usize, f32)>,
    pub(super) mode: Mode,
    pub(super) values: Vec<Option<Vec<f32>>>,
    pub(super) norms: Vec<Option<Applied>>,
    pub(super) tokens: Vec<ImageTape>,
}

impl Tape {
    pub(super) const fn new(mode: Mode) -> Self {
        Self {
            images: 0,
            results: Vec::new(),
            running: Vec::new(),
            mode,
            values: Vec::new(),
            norms: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

impl Grids {
    pub(super) fn forward(&self, parameters: &[f32], images: &[f32], mode: Mode) -> Tape {
        let count = images.len() / self.input_floats();
        let packed = self.packed(parameters);
        let mut tape = Tape {
            images: count,
            values: self.planned.iter().map(|_| None).collect(),
            norms: self.planned.iter().map(|_| None).collect(),
            ..Tape::new(mode)
        };
        let mut found: Vec<Option<Vec<Moments>>> = self.planned.iter().map(|_| None).collect();
        let mut left: Vec<usize> = self.planned.iter().map(|p| p.uses).collect();
        for (n, planned) in self.planned.iter().enumerate() {
            let mut to = self.take(count * planned.floats());
            match &planned.work {
                Work::Norm(work) => {
                    let from = planned.from[0];
                    let source = tape.values[from].as_deref().expect("kept until its use");
                    let moments = found[from].take().unwrap_or_else(|| {
                        norm::image_moments(&self.planned[from], source, self.instructions)
                    });
                    let applied = if mode == Mode::Evaluation {
                        norm::in_evaluation(work, parameters, &moments)
                    } else {
                        norm::in_training(work, parameters, &moments, &mut tape.running)
                    };
                    let floats = planned.floats();
                    each_image(&mut to, floats, |image, to| {
                        normalize_into(
                            planned.view(part(source, image, floats)),
                            &applied.prologue(work, image),
                            planned.view_mut(to),
                            self.instructions,
                        );
                    });
                    tape.norms[n] = Some(applied);
                }
                Work::Input => fill_input(planned, images, &mut to),
                _ => {
                    let from: Vec<&[f32]> = planned
                        .from
                        .iter()
                        .map(|f| tape.values[*f].as_deref().expect("kept until its use"))
                        .collect();
                    found[n] = self.step(n, packed[n].as_ref(), &from, mode, &mut to);
                }
            }
            tape.values[n] = Some(to);
            if mode == Mode::Evaluation {
                for from in &planned.from {
                    left[*from] -= 1;
                    if left[*from] == 0
                        && let Some(piece) = tape.values[*from].take()
                    {
                        self.give(piece);
                    }
                }
            }
        }
        tape.results = self.plain_results(&tape);
        if mode == Mode::Evaluation {
            tape.values
                .iter_mut()
                .filter_map(Option::take)
                .for_each(|piece| self.give(piece));
        }
        tape
    }

    fn packed(&self, parameters: &[f32]) -> Vec<Option<Packed>> {
        self.planned
            .par_iter()
            .map(|planned| match &planned.work {
                Work::Conv {
                    shape,
                    weight,
                    bias,
                    ..
                } => Some(Packed::Conv(Conv::new(
                    *shape,
                    slice(parameters, weight),
                    optional(parameters, bias.as_ref()),
                    Method::Auto,
                ))),
                Work::Up {
                    shape,
                    weight,
                    bias,
                    ..
                } => Some(Packed::Up(Transposed::new(
                    *shape,
                    slice(parameters, weight),
                    optional(parameters, bias.as_ref()),
                ))),
                _ => None,
            })
            .collect()
    }

    fn step(
        &self,
        n: usize,
        packed: Option<&Packed>,
        from: &[&[f32]],
        mode: Mode,
        to: &mut [f32],
    ) -> Option<Vec<Moments>> {
        let planned = &self.planned[n];
        let source = &self.planned[planned.from[0]];
        let (floats, given) = (planned.floats(), source.floats());
        let input = |image: usize| source.view(part(from[0], image, given));
        let epilogue = Epilogue {
            moments: planned.moments,
            ..Epilogue::default()
        };
        match (&planned.work, packed) {
            (Work::Conv { .. } | Work::Up { .. }, Some(packed)) => {
                let moments: Vec<Option<Moments>> = to
                    .par_chunks_mut(floats)
                    .enumerate()
                    .map(|(image, to)| {
                        let (input, to) = (input(image), planned.view_mut(to));
                        let go_on = || true;
                        let run = match packed {
                            Packed::Conv(conv) => {
                                conv.run(input, None, to, &epilogue, self.instructions, &go_on)
                            }
                            Packed::Up(up) => {
                                up.run(input, to, &epilogue, self.instructions, &go_on)
                            }
                        };
                        run.expect("nobody stops it")
                    })
                    .collect();
                return moments.into_iter().collect();
            }
            (Work::Activate(activation), _) => {
                let (ones, zeros) = (vec![1.0; planned.channels], vec![0.0; planned.channels]);
                let norm = Prologue {
                    scale: &ones,
                    offset: &zeros,
                    activation: *activation,
                };
                each_image(to, floats, |image, to| {
                    normalize_into(input(image), &norm, planned.view_mut(to), self.instructions);
                });
            }
            (Work::Pool(shape), _) => each_image(to, floats, |image, to| {
                pool(shape, input(image), planned.view_mut(to));
            }),
            (Work::GlobalMean, _) => each_image(to, floats, |image, to| {
                to.fill(0.0);
                let means = global_mean(input(image));
                to[..means.len()].copy_from_slice(&means);
            }),
            (Work::Add, _) => to
                .par_chunks_mut(1 << 14)
                .enumerate()
                .for_each(|(piece, to)| {
                    let at = piece << 14;
                    let pairs = from[0][at..].iter().zip(&from[1][at..]);
                    for (to, (a, b)) in to.iter_mut().zip(pairs) {
                        *to = a + b;
                    }
                }),
            (Work::Concat, _) => each_image(to, floats, |image, to| {
                if !planned.channels.is_multiple_of(BLOCK) {
                    to.fill(0.0);
                }
                let mut first = 0;
                for (data, f) in from.iter().zip(&planned.from) {
                    let of = &self.planned[*f];
                    let view = of.view(part(data, image, of.floats()));
                    copy_channels(view, 0, planned.view_mut(to), first, of.channels);
                    first += of.channels;
                }
            }),
            (Work::Dropout, _) => {
                if let Mode::Training { place } = mode {
                    drop_some(place, n, self.dropout, from[0], to);
                } else {
                    to.copy_from_slice(from[0]);
                }
            }
            _ => unreachable!("all others are done elsewhere"),
        }
        None
    }

    fn plain_results(&self, tape: &Tape) -> Vec<f32> {
        let per_image = self.output_floats();
        let mut results = vec![0.0; tape.images * per_image];
        each_image(&mut results, per_image, |image, to| {
            let mut at = 0;
            for output in &self.outputs {
                let planned = &self.planned[*output];
                let data = tape.values[*output].as_deref().expect("results are kept");
                let plain = planned
                    .view(part(data, image, planned.floats()))
                    .to_channels();
                to[at..at + plain.len()].copy_from_slice(&plain);
                at += plain.len();
            }
        });
        results
    }
}

fn fill_input(planned: &Planned, images: &[f32], to: &mut [f32]) {
    if planned.plain {
        to.copy_from_slice(images);
        return;
    }
    let per_image = planned.channels * planned.voxels();
    each_image(to, planned.floats(), |image, to| {
        let plain = View::plain(
            part(images, image, per_image),
            planned.dims,
            planned.channels,
        );
        planned.view_mut(to).fill_from(plain);
    });
}

/// Copies channels from a place to another; whole blocks where both begin and end with one.
pub(super) fn copy_channels(
    from: View<'_>,
    from_first: usize,
    mut to: ViewMut<'_>,
    to_first: usize,
    channels: usize,
) {
    let block = from.voxels() * BLOCK;
    let (source, filled) = (from.as_slice(), to.channels());
    let ends = channels.is_multiple_of(BLOCK) || to_first + channels == filled;
    let data = to.as_mut_slice();
    if from_first.is_multiple_of(BLOCK) && to_first.is_multiple_of(BLOCK) && ends {
        let size = channels.div_ceil(BLOCK) * block;
        data[to_first / BLOCK * block..][..size]
            .copy_from_slice(&source[from_first / BLOCK * block..][..size]);
        // A last block of the source may go on with channels that are not wanted.
        if !channels.is_multiple_of(BLOCK) {
            let last = &mut data[(to_first + channels) / BLOCK * block..][..block];
            for point in last.as_chunks_mut::<BLOCK>().0 {
                point[channels % BLOCK..].fill(0.0);
            }
        }
        return;
    }
    for c in 0..channels {
        let (a, b) = (from_first + c, to_first + c);
        let from = source[a / BLOCK * block + a % BLOCK..]
            .iter()
            .step_by(BLOCK);
        let to = data[b / BLOCK * block + b % BLOCK..]
            .iter_mut()
            .step_by(BLOCK);
        for (to, from) in to.zip(from).take(block / BLOCK) {
            *to = *from;
        }
    }
}

/// Sets values to zero by chance and makes up for it in the others.
pub(super) fn drop_some(place: [u64; 2], node: usize, rate: f32, from: &[f32], to: &mut [f32]) {
    const PIECE: usize = 4096;
    let factor = 1.0 / (1.0 - rate);
    to.par_chunks_mut(PIECE)
        .zip(from.par_chunks(PIECE))
        .enumerate()
        .for_each(|(piece, (to, from))| {
            let mut chance = Chance::at(&[place[0], place[1], node as u64, piece as u64]);
            for (to, from) in to.iter_mut().zip(from) {
                let dropped = chance.happens(f64::from(rate));
                *to = if dropped { 0.0 } else { from * factor };
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Blocked;

    #[test]
    fn channels_go_anywhere() {
        let values: Vec<f32> = (0..20 * 6).map(|n| n as f32 + 1.0).collect();
        let from = Blocked::from_channels(&values, [1, 2, 3], 20);
        for (first, channels, total, to_first) in
            [(0, 16, 24, 8), (8, 5, 13, 8), (3, 7, 9, 1), (16, 4, 20, 16)]
        {
            let mut to = Blocked::zeros([1, 2, 3], total);
            copy_channels(from.view(), first, to.view_mut(), to_first, channels);
            let got = to.to_channels();
            assert_eq!(
                got[to_first * 6..(to_first + channels) * 6],
                values[first * 6..(first + channels) * 6]
            );
            for c in total..total.next_multiple_of(BLOCK) {
                assert!((0..6).all(|v| to.view().at(c, v) == 0.0));
            }
        }
    }
}
