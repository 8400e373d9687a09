//! Attention inside shifted windows of a grid.

use rayon::prelude::*;

use crate::model::graph::Op;

/// What is added between tokens that the shift brought together.
const STRANGERS: f32 = -100.0;

/// [`Op::WindowAttention`] on `[…grid, 3 · width]`; the result is `[…grid, width]`.
pub fn windows(op: &Op, table: &[f32], dims: &[usize], values: &[f32]) -> Vec<f32> {
    let Op::WindowAttention {
        heads,
        scale,
        table: reach,
        window,
        shift,
        ..
    } = op
    else {
        unreachable!("called for this operation alone");
    };
    let (grid, width) = (&dims[..dims.len() - 1], dims[dims.len() - 1] / 3);
    let each = width / heads;
    let tokens: usize = window.iter().product();
    let biases = biases(table, *heads, reach, tokens);
    let counts: Vec<usize> = grid.iter().zip(window).map(|(n, w)| n / w).collect();
    let shifted = shift.iter().any(|s| *s > 0);
    let done: Vec<(Vec<usize>, Vec<f32>)> = (0..counts.iter().product())
        .into_par_iter()
        .map(|number: usize| {
            let corner = place(number, &counts);
            let (mut from, mut regions) = (Vec::new(), Vec::new());
            for token in 0..tokens {
                let inside = place(token, window);
                let (mut index, mut region) = (0, 0);
                for a in 0..grid.len() {
                    let at = corner[a] * window[a] + inside[a];
                    index = index * grid[a] + (at + shift[a]) % grid[a];
                    // Seen from the shifted grid's end: beyond the last window, beyond the shift.
                    let from_end = grid[a] - at;
                    let own =
                        usize::from(from_end <= window[a]) + usize::from(from_end <= shift[a]);
                    region = region * 3 + if shift[a] == 0 { 0 } else { own };
                }
                from.push(index);
                regions.push(region);
            }
            let mut result = vec![0.0; tokens * width];
            let (mut keys, mut scores) = (vec![0.0; each * tokens], vec![0.0; tokens]);
            for head in 0..*heads {
                let part = |token: usize, which: usize| {
                    &values[(from[token] * 3 + which) * width + head * each..][..each]
                };
                for token in 0..tokens {
                    for (c, key) in part(token, 1).iter().enumerate() {
                        keys[c * tokens + token] = *key;
                    }
                }
                for token in 0..tokens {
                    let own = &biases[(head * tokens + token) * tokens..][..tokens];
                    scores.fill(0.0);
                    for (query, keys) in part(token, 0).iter().zip(keys.chunks_exact(tokens)) {
                        let query = query * scale;
                        scores
                            .iter_mut()
                            .zip(keys)
                            .for_each(|(s, k)| *s += query * k);
                    }
                    scores.iter_mut().zip(own).for_each(|(s, bias)| *s += bias);
                    if shifted {
                        for (s, region) in scores.iter_mut().zip(&regions) {
                            if *region != regions[token] {
                                *s += STRANGERS;
                            }
                        }
                    }
                    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    for score in &mut scores {
                        *score = (*score - most).exp();
                    }
                    let sum: f32 = scores.iter().sum();
                    let out = &mut result[token * width + head * each..][..each];
                    for (other, score) in scores.iter().enumerate() {
                        let share = score / sum;
                        let values = part(other, 2);
                        out.iter_mut()
                            .zip(values)
                            .for_each(|(o, v)| *o += share * v);
                    }
                }
            }
            (from, result)
        })
        .collect();
    let mut out = vec![0.0; values.len() / 3];
    for (to, result) in done {
        for (to, token) in to.into_iter().zip(result.chunks_exact(width)) {
            out[to * width..(to + 1) * width].copy_from_slice(token);
        }
    }
    out
}

/// Biases of the first tokens of the window that the table was made for, `[head][token][token]`.
fn biases(table: &[f32], heads: usize, reach: &[usize], tokens: usize) -> Vec<f32> {
    let places: Vec<Vec<usize>> = (0..tokens).map(|token| place(token, reach)).collect();
    let mut biases = vec![0.0; heads * tokens * tokens];
    for (a, one) in places.iter().enumerate() {
        for (b, other) in places.iter().enumerate() {
            let row = (0..reach.len()).fold(0, |row, axis| {
                row * (2 * reach[axis] - 1) + one[axis] + reach[axis] - 1 - other[axis]
            });
            for head in 0..heads {
                biases[(head * tokens + a) * tokens + b] = table[row * heads + head];
            }
        }
    }
    biases
}

/// Where a number lies on a grid, last axis fastest.
fn place(mut number: usize, grid: &[usize]) -> Vec<usize> {
    let mut place = vec![0; grid.len()];
    for (at, n) in place.iter_mut().zip(grid).rev() {
        *at = number % n;
        number /= n;
    }
    place
}
