//! Planes brought to another size, as image libraries do.

use rayon::prelude::*;

/// Resizes a plane `[y][x]` by triangles that widen where it gets smaller, so that nothing is skipped
/// (as image libraries do; edges repeat).
pub fn resize_plane(values: &[f32], [ny, nx]: [usize; 2], [my, mx]: [usize; 2]) -> Vec<f32> {
    if [ny, nx] == [my, mx] {
        return values.to_vec();
    }
    let across = weights(nx, mx);
    let along = weights(ny, my);
    let mut rows = vec![0.0; ny * mx];
    rows.par_chunks_mut(mx.max(1))
        .zip(values.par_chunks(nx.max(1)))
        .for_each(|(to, from)| {
            for (to, (first, w)) in to.iter_mut().zip(&across) {
                *to = w.iter().zip(&from[*first..]).map(|(w, v)| w * v).sum();
            }
        });
    let mut out = vec![0.0; my * mx];
    out.par_chunks_mut(mx.max(1))
        .zip(along.par_iter())
        .for_each(|(to, (first, w))| {
            for (n, w) in w.iter().enumerate() {
                let from = &rows[(first + n) * mx..(first + n + 1) * mx];
                to.iter_mut().zip(from).for_each(|(to, v)| *to += w * v);
            }
        });
    out
}

/// For each of `m` points: the first of `n` points that counts and all weights, whose sum is 1.
fn weights(n: usize, m: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = n as f64 / m as f64;
    let reach = scale.max(1.0);
    (0..m)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - reach).floor().max(0.0) as usize;
            let last = ((center + reach).ceil() as usize).min(n);
            let mut all: Vec<f64> = (first..last)
                .map(|p| (1.0 - ((p as f64 + 0.5 - center) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = all.iter().sum();
            for w in &mut all {
                *w /= sum;
            }
            (first, all.into_iter().map(|w| w as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_resized_as_by_image_libraries() {
        let ramp: Vec<f32> = (0..8 * 12).map(|n| (n % 12) as f32).collect();
        // Pillow 13.0, `resize((7, 5), BILINEAR)` of the same ramp as 32-bit floats: every row.
        let pillow = [
            0.485_714_3,
            2.046_511_7,
            3.853_658_4,
            5.5,
            7.146_341_3,
            8.953_488,
            10.514_286,
        ];
        let got = resize_plane(&ramp, [8, 12], [5, 7]);
        for (n, got) in got.iter().enumerate() {
            assert!((got - pillow[n % 7]).abs() < 1e-5, "{got} at {n}");
        }
        // A whole factor keeps a ramp, away from the edges, which repeat.
        for (ny, nx) in [(16, 24), (4, 6)] {
            let got = resize_plane(&ramp, [8, 12], [ny, nx]);
            for (n, got) in got.iter().enumerate() {
                let want = ((n % nx) as f32 + 0.5) * 12.0 / nx as f32 - 0.5;
                if (2.0..10.0).contains(&want) {
                    assert!((got - want).abs() < 1e-5, "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_mean_survives_shrinking() {
        let values: Vec<f32> = (0..64 * 64).map(|n| ((n * 7919) % 256) as f32).collect();
        let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
        let small = resize_plane(&values, [64, 64], [16, 16]);
        assert!((mean(&small) - mean(&values)).abs() < 2.0);
    }
}
