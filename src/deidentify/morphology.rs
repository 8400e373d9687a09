//! Masks in space: distances, parts, holes. For the head's shape, not for measurements.

/// A mask on a grid, x fastest, then y, then z.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Solid {
    pub dims: [usize; 3],
    pub inside: Vec<bool>,
}

impl Solid {
    pub(super) fn new(dims: [usize; 3], inside: Vec<bool>) -> Self {
        Self { dims, inside }
    }

    pub(super) fn count(&self) -> usize {
        self.inside.iter().filter(|v| **v).count()
    }

    fn each(&self, of: impl Fn(usize, bool) -> bool) -> Self {
        let inside = self.inside.iter().enumerate().map(|(n, v)| of(n, *v));
        Self::new(self.dims, inside.collect())
    }

    pub(super) fn and(&self, other: &[bool]) -> Self {
        self.each(|n, v| v && other[n])
    }

    /// Without what lies within a ball's radius (in voxels) of the outside.
    pub(super) fn eroded(&self, radius: usize) -> Self {
        let outside = self.each(|_, v| !v);
        let far = distances_squared(&outside);
        self.each(|n, v| v && far[n] > reach(radius))
    }

    /// With what lies within a ball's radius.
    pub(super) fn dilated(&self, radius: usize) -> Self {
        let far = distances_squared(self);
        self.each(|n, _| far[n] <= reach(radius))
    }

    /// The largest part connected over faces; nothing of nothing.
    pub(super) fn largest_part(&self) -> Self {
        let mut owner = vec![0_u32; self.inside.len()];
        let (mut best, mut best_size, mut id) = (0, 0, 0);
        let mut open = Vec::new();
        for start in 0..self.inside.len() {
            if !self.inside[start] || owner[start] != 0 {
                continue;
            }
            id += 1;
            owner[start] = id;
            open.push(start);
            let mut size = 0;
            while let Some(at) = open.pop() {
                size += 1;
                self.beside(at, |next| {
                    if self.inside[next] && owner[next] == 0 {
                        owner[next] = id;
                        open.push(next);
                    }
                });
            }
            if size > best_size {
                (best, best_size) = (id, size);
            }
        }
        self.each(|n, v| v && owner[n] == best)
    }

    fn beside(&self, at: usize, mut each: impl FnMut(usize)) {
        let mut stride = 1;
        for dim in self.dims {
            let place = at / stride % dim;
            if place > 0 {
                each(at - stride);
            }
            if place + 1 < dim {
                each(at + stride);
            }
            stride *= dim;
        }
    }

    /// With the holes of every plane across an axis filled: what cannot be reached from the plane's edge.
    pub(super) fn filled_across(&self, axis: usize) -> Self {
        let strides = [1, self.dims[0], self.dims[0] * self.dims[1]];
        let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
        let (width, height) = (self.dims[a], self.dims[b]);
        let mut out = self.clone();
        for plane in 0..self.dims[axis] {
            let at = |x: usize, y: usize| plane * strides[axis] + x * strides[a] + y * strides[b];
            let mut reached = vec![false; width * height];
            let mut open: Vec<(usize, usize)> = Vec::new();
            let edge = (0..width)
                .flat_map(|x| [(x, 0), (x, height - 1)])
                .chain((0..height).flat_map(|y| [(0, y), (width - 1, y)]));
            for (x, y) in edge {
                if !self.inside[at(x, y)] && !reached[y * width + x] {
                    reached[y * width + x] = true;
                    open.push((x, y));
                }
            }
            while let Some((x, y)) = open.pop() {
                for (dx, dy) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
                    let x = x.checked_add_signed(dx).filter(|&x| x < width);
                    let y = y.checked_add_signed(dy).filter(|&y| y < height);
                    if let Some((x, y)) = x.zip(y)
                        && !self.inside[at(x, y)]
                        && !reached[y * width + x]
                    {
                        reached[y * width + x] = true;
                        open.push((x, y));
                    }
                }
            }
            for (n, _) in reached.iter().enumerate().filter(|(_, r)| !**r) {
                out.inside[at(n % width, n / width)] = true;
            }
        }
        out
    }
}

/// Half a voxel is given away, so that balls are round.
fn reach(radius: usize) -> f32 {
    (radius * radius) as f32 + 0.5
}

/// Squared distance in voxels to the nearest voxel of a solid; infinite when there is none.
///
/// # Source
/// Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", Theory of Computing 8
/// (2012): lower envelope of parabolas, one axis after the other.
pub(super) fn distances_squared(solid: &Solid) -> Vec<f32> {
    let mut far: Vec<f32> = solid
        .inside
        .iter()
        .map(|v| if *v { 0.0 } else { f32::INFINITY })
        .collect();
    let mut stride = 1;
    for dim in solid.dims {
        let mut line = vec![0.0; dim];
        for start in 0..far.len() {
            if start / stride % dim != 0 {
                continue;
            }
            for (n, v) in line.iter_mut().enumerate() {
                *v = far[start + n * stride];
            }
            for (n, v) in envelope(&line).into_iter().enumerate() {
                far[start + n * stride] = v;
            }
        }
        stride *= dim;
    }
    far
}

fn envelope(line: &[f32]) -> Vec<f32> {
    // Apex of each parabola, and from where on it is the lowest.
    let mut lowest: Vec<(usize, f32)> = Vec::new();
    for (q, &f) in line.iter().enumerate() {
        if f.is_infinite() {
            continue;
        }
        let mut from = f32::NEG_INFINITY;
        while let Some(&(p, since)) = lowest.last() {
            let (pf, qf) = (p as f32, q as f32);
            let meet = ((f + qf * qf) - (line[p] + pf * pf)) / (2.0 * (qf - pf));
            if meet > since {
                from = meet;
                break;
            }
            lowest.pop();
        }
        lowest.push((q, from));
    }
    let mut at = 0;
    (0..line.len())
        .map(|n| {
            while at + 1 < lowest.len() && lowest[at + 1].1 <= n as f32 {
                at += 1;
            }
            lowest.get(at).map_or(f32::INFINITY, |&(p, _)| {
                let d = n as f32 - p as f32;
                d * d + line[p]
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(dims: [usize; 3], one_in: u32) -> Solid {
        let mut state = 9_u32;
        let count = dims.iter().product();
        let inside = (0..count).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16).is_multiple_of(one_in)
        });
        Solid::new(dims, inside.collect())
    }

    /// Literal: the least of all distances.
    #[test]
    fn distances_are_the_least_ones() {
        let solid = scattered([7, 5, 6], 19);
        let place = |n: usize| [n % 7, n / 7 % 5, n / 35].map(|v| v as f32);
        let far = distances_squared(&solid);
        for n in 0..far.len() {
            let inside = (0..far.len()).filter(|m| solid.inside[*m]);
            let least = inside
                .map(|m| (0..3).map(|a| (place(n)[a] - place(m)[a]).powi(2)).sum())
                .fold(f32::INFINITY, f32::min);
            assert!((far[n] - least).abs() < 1e-3, "{n}: {} {least}", far[n]);
        }
        let none = Solid::new([2, 2, 2], vec![false; 8]);
        assert!(distances_squared(&none).iter().all(|d| d.is_infinite()));
    }

    #[test]
    fn a_ring_is_filled_across_its_plane_alone() {
        let mut ring = Solid::new([5, 5, 1], vec![false; 25]);
        for (x, y) in [
            (1, 1),
            (2, 1),
            (3, 1),
            (1, 2),
            (3, 2),
            (1, 3),
            (2, 3),
            (3, 3),
        ] {
            ring.inside[y * 5 + x] = true;
        }
        assert_eq!(ring.filled_across(2).count(), 9);
        assert_eq!(ring.filled_across(0).count(), 8);
        assert_eq!(ring.eroded(1).count(), 0);
        assert_eq!(ring.filled_across(2).eroded(1).count(), 1);
        assert_eq!(ring.dilated(1).largest_part().count(), 21);
    }
}
