//! Operations on plain rows of values, as transformers have them: norms, activations, other orders
//! of axes, and the ways between rows of channels and blocks of eight.

use rayon::prelude::*;

use super::blocked::BLOCK;
use super::pointwise::{Activation, exp};
use super::simd::{Instructions, Job, Lanes, dispatch};

/// Values of a piece of work.
const PIECE: usize = 1 << 14;

/// Layer norm of each row of `width` values, in place; `weight` and `bias` per value or empty.
pub fn layer_norm_rows(
    values: &mut [f32],
    width: usize,
    epsilon: f32,
    [weight, bias]: [&[f32]; 2],
    instructions: Instructions,
) {
    let rows = (PIECE / width.max(1)).max(1);
    values
        .par_chunks_mut((rows * width).max(1))
        .for_each(|values| {
            let job = Norm {
                values,
                width,
                epsilon,
                weight,
                bias,
            };
            dispatch(instructions, job);
        });
}

/// An activation of each value, in place.
pub fn activate_rows(values: &mut [f32], activation: Activation, instructions: Instructions) {
    values
        .par_chunks_mut(PIECE)
        .for_each(|values| dispatch(instructions, Activate { values, activation }));
}

/// Softmax of each row of `width` values, in place.
pub fn softmax_wide(values: &mut [f32], width: usize, instructions: Instructions) {
    let rows = (PIECE / width.max(1)).max(1);
    values
        .par_chunks_mut((rows * width).max(1))
        .for_each(|values| dispatch(instructions, Soft { values, width }));
}

/// `values + other`, in place; `other` is repeated as often as it fits.
///
/// # Panics
/// When it does not fit.
pub fn add_rows(values: &mut [f32], other: &[f32]) {
    assert!(
        !other.is_empty() && values.len().is_multiple_of(other.len()),
        "the other fits a whole number of times"
    );
    if other.len() >= PIECE {
        for values in values.chunks_exact_mut(other.len()) {
            let pieces = values.par_chunks_mut(PIECE).zip(other.par_chunks(PIECE));
            pieces.for_each(|(to, from)| plus(to, from));
        }
        return;
    }
    let piece = PIECE / other.len() * other.len();
    values.par_chunks_mut(piece).for_each(|values| {
        for to in values.chunks_exact_mut(other.len()) {
            plus(to, other);
        }
    });
}

fn plus(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// A box of the values with a corner at `start`; what lies outside of them is `fill`.
///
/// # Panics
/// When lengths do not fit.
pub fn cut_box(
    values: &[f32],
    shape: &[usize],
    start: &[isize],
    fill: f32,
    new: &[usize],
    output: &mut [f32],
) {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    assert_eq!(output.len(), new.iter().product::<usize>());
    let (Some((&line, outer)), Some((&from_line, from_outer))) =
        (new.split_last(), shape.split_last())
    else {
        output.copy_from_slice(values);
        return;
    };
    if line == 0 {
        return;
    }
    // Samples of the line that lie inside.
    let first = start[outer.len()];
    let inside = |at: usize| (at as isize + first).clamp(0, from_line as isize) as usize;
    let (from, to) = (inside(0), inside(line));
    let before = from.saturating_add_signed(-first).min(line);
    output
        .par_chunks_mut(line)
        .with_min_len((PIECE / line).max(1))
        .enumerate()
        .for_each(|(number, out)| {
            let (mut rest, mut row, mut stride, mut there) = (number, 0, 1, true);
            for axis in (0..outer.len()).rev() {
                let at = (rest % outer[axis]) as isize + start[axis];
                rest /= outer[axis];
                there &= (0..from_outer[axis] as isize).contains(&at);
                row += at.max(0) as usize * stride;
                stride *= from_outer[axis];
            }
            if !there || from >= to {
                out.fill(fill);
                return;
            }
            out[..before].fill(fill);
            let after = before + to - from;
            let row = &values[row * from_line..][..from_line];
            out[before..after].copy_from_slice(&row[from..to]);
            out[after..].fill(fill);
        });
}

/// The values with axis `order[n]` of the old order as axis n.
///
/// # Panics
/// When lengths do not fit.
pub fn permute(values: &[f32], shape: &[usize], order: &[usize], output: &mut [f32]) {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    assert_eq!(values.len(), output.len());
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    // What stays together at the end is copied together.
    let mut kept = shape.len();
    while kept > 0 && order[kept - 1] == kept - 1 {
        kept -= 1;
    }
    let run: usize = shape[kept..].iter().product();
    let Some((&last, outer)) = order[..kept].split_last() else {
        output.copy_from_slice(values);
        return;
    };
    let (length, stride) = (shape[last], strides[last]);
    let line = length * run;
    if line == 0 {
        return;
    }
    output
        .par_chunks_mut(line)
        .with_min_len((PIECE / line).max(1))
        .enumerate()
        .for_each(|(number, to)| {
            let (mut rest, mut from) = (number, 0);
            for &axis in outer.iter().rev() {
                from += rest % shape[axis] * strides[axis];
                rest /= shape[axis];
            }
            if run == 1 {
                for (to, from) in to.iter_mut().zip(values[from..].iter().step_by(stride)) {
                    *to = *from;
                }
            } else {
                for (n, to) in to.chunks_exact_mut(run).enumerate() {
                    to.copy_from_slice(&values[from + n * stride..][..run]);
                }
            }
        });
}

/// Points of a grid as rows of their channels, from blocks of eight.
///
/// # Panics
/// When lengths do not fit.
pub fn rows_from_blocks(blocks: &[f32], voxels: usize, channels: usize, rows: &mut [f32]) {
    assert_eq!(blocks.len(), voxels * channels.next_multiple_of(BLOCK));
    assert_eq!(rows.len(), voxels * channels);
    let piece = (PIECE / channels.max(1)).max(1);
    rows.par_chunks_mut((piece * channels).max(1))
        .enumerate()
        .for_each(|(n, rows)| {
            for (block, from) in blocks.chunks_exact((voxels * BLOCK).max(1)).enumerate() {
                let points = from.as_chunks::<BLOCK>().0[n * piece..].iter();
                let first = block * BLOCK;
                let used = BLOCK.min(channels - first);
                for (row, point) in rows.chunks_exact_mut(channels).zip(points) {
                    row[first..first + used].copy_from_slice(&point[..used]);
                }
            }
        });
}

/// One channel after another, from blocks of eight.
pub fn channels_from_blocks(blocks: &[f32], voxels: usize, channels: &mut [f32]) {
    channels
        .par_chunks_mut(voxels.max(1))
        .enumerate()
        .for_each(|(c, to)| {
            let from = blocks[c / BLOCK * voxels * BLOCK + c % BLOCK..].iter();
            for (to, from) in to.iter_mut().zip(from.step_by(BLOCK)) {
                *to = *from;
            }
        });
}

/// Blocks of eight from points as rows of their channels.
///
/// # Panics
/// When lengths do not fit.
pub fn blocks_from_rows(rows: &[f32], voxels: usize, channels: usize, blocks: &mut [f32]) {
    assert_eq!(blocks.len(), voxels * channels.next_multiple_of(BLOCK));
    assert_eq!(rows.len(), voxels * channels);
    blocks
        .par_chunks_mut((voxels * BLOCK).max(1))
        .enumerate()
        .for_each(|(block, to)| {
            let first = block * BLOCK;
            let used = BLOCK.min(channels - first);
            let points = to.as_chunks_mut::<BLOCK>().0.iter_mut();
            for (point, row) in points.zip(rows.chunks_exact(channels)) {
                point[..used].copy_from_slice(&row[first..first + used]);
                point[used..].fill(0.0);
            }
        });
}

struct Norm<'a> {
    values: &'a mut [f32],
    width: usize,
    epsilon: f32,
    weight: &'a [f32],
    bias: &'a [f32],
}

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Norm<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let width = self.width.max(1);
        for row in self.values.chunks_exact_mut(width) {
            // Long sums keep their digits in f64.
            let mean = in_lanes(row, |x| x) / width as f64;
            let variance = in_lanes(row, |x| (x - mean) * (x - mean)) / width as f64;
            let scale = (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32;
            let mean = mean as f32;
            for x in &mut *row {
                *x = (*x - mean) * scale;
            }
            if !self.weight.is_empty() {
                for (x, w) in row.iter_mut().zip(self.weight) {
                    *x *= w;
                }
            }
            if !self.bias.is_empty() {
                for (x, b) in row.iter_mut().zip(self.bias) {
                    *x += b;
                }
            }
        }
    }
}

/// The sum of a function of each value, in eight lanes.
#[expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#[inline(always)]
fn in_lanes(row: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let (chunks, rest) = row.as_chunks::<BLOCK>();
    let mut sums = [0.0_f64; BLOCK];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += of(f64::from(*x));
        }
    }
    let rest: f64 = rest.iter().map(|x| of(f64::from(*x))).sum();
    sums.iter().sum::<f64>() + rest
}

struct Soft<'a> {
    values: &'a mut [f32],
    width: usize,
}

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Soft<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for row in self.values.chunks_exact_mut(self.width.max(1)) {
            let (eights, rest) = row.as_chunks_mut::<BLOCK>();
            let mut most = [f32::NEG_INFINITY; BLOCK];
            for eight in &*eights {
                for (most, x) in most.iter_mut().zip(eight) {
                    *most = if *x > *most { *x } else { *most };
                }
            }
            let most = most.iter().chain(&*rest).copied();
            let most = most.fold(f32::NEG_INFINITY, f32::max);
            let mut sums = [0.0_f32; BLOCK];
            for eight in &mut *eights {
                for (sum, x) in sums.iter_mut().zip(eight) {
                    *x = exp(*x - most);
                    *sum += *x;
                }
            }
            let mut sum = sums.iter().sum::<f32>();
            for x in rest {
                *x = exp(*x - most);
                sum += *x;
            }
            let share = 1.0 / sum;
            for x in row {
                *x *= share;
            }
        }
    }
}

struct Activate<'a> {
    values: &'a mut [f32],
    activation: Activation,
}

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Activate<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        self.activation.apply(self.values);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|n| ((n * 7919) % 1009) as f32 / 100.0 + 3.0)
            .collect()
    }

    #[test]
    fn layer_norm_equals_its_definition() {
        for (rows, width) in [(1, 1), (3, 7), (5, 8), (300, 96), (2, 20_000)] {
            let before = values(rows * width);
            let weight = values(width);
            let bias: Vec<f32> = values(width).iter().map(|x| x / 7.0).collect();
            for instructions in Instructions::available() {
                for affine in [[&weight[..], &bias[..]], [&[], &[]]] {
                    let mut got = before.clone();
                    layer_norm_rows(&mut got, width, 1e-5, affine, instructions);
                    for (row, got) in before.chunks(width).zip(got.chunks(width)) {
                        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                        let spread = row.iter().map(|x| (f64::from(*x) - mean).powi(2));
                        let variance = spread.sum::<f64>() / width as f64;
                        for (c, (x, got)) in row.iter().zip(got).enumerate() {
                            let normal = (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
                            let of = |n: usize, none: f64| {
                                affine[n].get(c).map_or(none, |x| f64::from(*x))
                            };
                            let want = normal * of(0, 1.0) + of(1, 0.0);
                            assert!((f64::from(*got) - want).abs() < 3e-5, "{got} {want}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn softmax_equals_its_definition() {
        for (rows, width) in [(1, 1), (3, 7), (5, 8), (40, 343)] {
            let before = values(rows * width);
            for instructions in Instructions::available() {
                let mut got = before.clone();
                softmax_wide(&mut got, width, instructions);
                for (row, got) in before.chunks(width).zip(got.chunks(width)) {
                    let powers = || row.iter().map(|x| (f64::from(*x) - 14.0).exp());
                    let sum: f64 = powers().sum();
                    for (want, got) in powers().zip(got) {
                        assert!((f64::from(*got) - want / sum).abs() < 1e-6);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        #[test]
        fn permuted_values_stand_where_their_axes_went(
            shape in proptest::collection::vec(1_usize..6, 1..6),
            seed in any::<u64>(),
        ) {
            let mut order: Vec<usize> = (0..shape.len()).collect();
            for n in (1..order.len()).rev() {
                order.swap(n, (seed >> (8 * n)) as usize % (n + 1));
            }
            let before = values(shape.iter().product());
            let mut after = vec![f32::NAN; before.len()];
            permute(&before, &shape, &order, &mut after);
            let new: Vec<usize> = order.iter().map(|a| shape[*a]).collect();
            for (number, got) in after.iter().enumerate() {
                let (mut rest, mut at) = (number, vec![0; shape.len()]);
                for n in (0..new.len()).rev() {
                    at[order[n]] = rest % new[n];
                    rest /= new[n];
                }
                let from = at.iter().zip(&shape).fold(0, |from, (at, n)| from * n + at);
                prop_assert_eq!(*got, before[from]);
            }
        }

        #[test]
        fn rows_of_channels_and_blocks_hold_the_same(voxels in 1_usize..300, channels in 1_usize..40) {
            let dims = [1, 1, voxels];
            let plain = values(voxels * channels);
            let blocked = Blocked::from_channels(&plain, dims, channels);
            let mut rows = vec![f32::NAN; plain.len()];
            rows_from_blocks(blocked.view().as_slice(), voxels, channels, &mut rows);
            for (n, x) in rows.iter().enumerate() {
                prop_assert_eq!(*x, plain[n % channels * voxels + n / channels]);
            }
            let mut channel_by_channel = vec![f32::NAN; plain.len()];
            channels_from_blocks(blocked.view().as_slice(), voxels, &mut channel_by_channel);
            prop_assert_eq!(&channel_by_channel, &plain);
            let mut back = vec![f32::NAN; blocked.view().as_slice().len()];
            blocks_from_rows(&rows, voxels, channels, &mut back);
            prop_assert_eq!(&back[..], blocked.view().as_slice());
        }

        #[test]
        fn a_box_holds_what_it_covers(
            axes in proptest::collection::vec((1_usize..5, 1_usize..7, -4_isize..5), 1..5),
        ) {
            let shape: Vec<usize> = axes.iter().map(|a| a.0).collect();
            let new: Vec<usize> = axes.iter().map(|a| a.1).collect();
            let start: Vec<isize> = axes.iter().map(|a| a.2).collect();
            let before = values(shape.iter().product());
            let mut after = vec![f32::NAN; new.iter().product()];
            cut_box(&before, &shape, &start, -7.0, &new, &mut after);
            for (number, got) in after.iter().enumerate() {
                let (mut rest, mut from, mut stride, mut there) = (number, 0, 1, true);
                for n in (0..new.len()).rev() {
                    let at = (rest % new[n]) as isize + start[n];
                    rest /= new[n];
                    there &= at >= 0 && at < shape[n] as isize;
                    from += at * stride;
                    stride *= shape[n] as isize;
                }
                prop_assert_eq!(*got, if there { before[from as usize] } else { -7.0 });
            }
        }

        #[test]
        fn what_is_added_is_repeated(times in 1_usize..40, length in 1_usize..2000) {
            let other = values(length);
            let mut sum = vec![1.0; times * length];
            add_rows(&mut sum, &other);
            for (n, x) in sum.iter().enumerate() {
                prop_assert_eq!(*x, 1.0 + other[n % length]);
            }
        }
    }
}
