//! Functions of values of several operands, which are repeated along axes where they have one place.

use rayon::prelude::*;

/// Values of a piece of work.
const PIECE: usize = 1 << 14;

/// Applies `function` to the operands' values at each place of `shape`.
///
/// An operand's shape is `shape` from its end, with 1 where it is repeated; axes may be missing at
/// its beginning.
///
/// # Panics
/// When lengths do not fit.
pub fn broadcast<const N: usize>(
    operands: [(&[f32], &[usize]); N],
    shape: &[usize],
    output: &mut [f32],
    function: impl Fn([f32; N]) -> f32 + Sync,
) {
    assert_eq!(output.len(), shape.iter().product::<usize>());
    let Some((&line, outer)) = shape.split_last() else {
        output[0] = function(operands.map(|(values, _)| values[0]));
        return;
    };
    if output.is_empty() {
        return;
    }
    let steps = operands.map(|(values, own)| {
        assert_eq!(values.len(), own.iter().product::<usize>());
        steps_of(own, shape)
    });
    output
        .par_chunks_mut(line)
        .with_min_len((PIECE / line).max(1))
        .enumerate()
        .for_each_init(
            || std::array::from_fn::<_, N, _>(|_| Vec::new()),
            |lines: &mut [Vec<f32>; N], (number, output)| {
                let mut at = [0; N];
                let mut rest = number;
                for axis in (0..outer.len()).rev() {
                    let place = rest % outer[axis];
                    rest /= outer[axis];
                    for (at, steps) in at.iter_mut().zip(&steps) {
                        *at += place * steps[axis];
                    }
                }
                for ((buffer, steps), (at, (values, _))) in
                    lines.iter_mut().zip(&steps).zip(at.iter().zip(&operands))
                {
                    buffer.clear();
                    if steps[outer.len()] == 0 {
                        buffer.resize(line, values[*at]);
                    } else {
                        buffer.extend_from_slice(&values[*at..at + line]);
                    }
                }
                let lines = lines.each_ref().map(|line| &line[..output.len()]);
                for (n, to) in output.iter_mut().enumerate() {
                    *to = function(lines.map(|line| line[n]));
                }
            },
        );
}

/// Steps of an operand along the axes of the whole; 0 where it is repeated.
fn steps_of(own: &[usize], shape: &[usize]) -> Vec<usize> {
    let missing = shape.len() - own.len();
    let (mut steps, mut step) = (vec![0; shape.len()], 1);
    for (axis, n) in own.iter().enumerate().rev() {
        assert!(
            *n == 1 || *n == shape[axis + missing],
            "{own:?} is repeated to {shape:?}"
        );
        if *n > 1 {
            steps[axis + missing] = step;
        }
        step *= n;
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn operands_are_repeated_along_their_axes_of_one(
            shape in proptest::collection::vec(1_usize..5, 0..5),
            ones in any::<[u8; 2]>(),
            missing in any::<[u8; 2]>(),
        ) {
            let own = |n: usize| -> Vec<usize> {
                let skip = usize::from(missing[n]) % (shape.len() + 1);
                let kept = shape.iter().enumerate().skip(skip);
                kept.map(|(a, s)| if ones[n] >> a & 1 == 1 { 1 } else { *s }).collect()
            };
            let (a, b) = (own(0), own(1));
            let values = |own: &[usize], by: usize| -> Vec<f32> {
                (0..own.iter().product()).map(|n: usize| (n * by) as f32 + 0.5).collect()
            };
            let (x, y) = (values(&a, 3), values(&b, 7));
            let mut output = vec![f32::NAN; shape.iter().product()];
            broadcast([(&x, &a), (&y, &b)], &shape, &mut output, |[x, y]| x - 2.0 * y);
            for (number, got) in output.iter().enumerate() {
                let (mut rest, mut at) = (number, vec![0; shape.len()]);
                for axis in (0..shape.len()).rev() {
                    at[axis] = rest % shape[axis];
                    rest /= shape[axis];
                }
                let of = |values: &[f32], own: &[usize]| {
                    let at = &at[shape.len() - own.len()..];
                    values[at.iter().zip(own).fold(0, |n, (i, s)| n * s + i % s)]
                };
                prop_assert_eq!(*got, of(&x, &a) - 2.0 * of(&y, &b));
            }
        }
    }
}
