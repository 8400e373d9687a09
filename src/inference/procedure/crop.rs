//! nnU-Net's crop to the voxels that are not zero, and the mask of these voxels.

use rayon::prelude::*;

use super::array::Image;

/// Half-open box on a grid `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Box3 {
    /// First voxel.
    pub start: [usize; 3],
    /// One past the last.
    pub end: [usize; 3],
}

impl Box3 {
    /// The whole grid.
    pub fn whole(dims: [usize; 3]) -> Self {
        Self {
            start: [0; 3],
            end: dims,
        }
    }

    /// Voxels along each axis.
    pub fn size(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.end[axis] - self.start[axis])
    }
}

/// The smallest box around every voxel that any channel has nonzero; the whole grid where there is none.
pub fn crop_box(image: &Image) -> Box3 {
    box_around(image, &|v| v != 0.0).unwrap_or(Box3::whole(image.dims))
}

/// The smallest box around every voxel that any channel has chosen.
pub(super) fn box_around(image: &Image, chosen: &(dyn Fn(f32) -> bool + Sync)) -> Option<Box3> {
    let [_, rows, columns] = image.dims;
    let plane = rows * columns;
    // Per slice: the bounds of y and x, empty as start > end.
    let bounds: Vec<_> = (0..image.dims[0])
        .into_par_iter()
        .map(|z| {
            let mut found = [usize::MAX, 0, usize::MAX, 0];
            for channel in 0..image.channels {
                let slice = &image.channel(channel)[z * plane..(z + 1) * plane];
                for (y, row) in slice.chunks_exact(columns).enumerate() {
                    let Some(first) = row.iter().position(|&v| chosen(v)) else {
                        continue;
                    };
                    let last = row.iter().rposition(|&v| chosen(v)).unwrap_or(first);
                    found = [
                        found[0].min(y),
                        found[1].max(y + 1),
                        found[2].min(first),
                        found[3].max(last + 1),
                    ];
                }
            }
            found
        })
        .collect();
    let mut whole = Box3 {
        start: [usize::MAX; 3],
        end: [0; 3],
    };
    for (z, found) in bounds.iter().enumerate() {
        if found[1] > 0 {
            let (start, end) = (&mut whole.start, &mut whole.end);
            *start = [
                start[0].min(z),
                start[1].min(found[0]),
                start[2].min(found[2]),
            ];
            *end = [z + 1, end[1].max(found[1]), end[2].max(found[3])];
        }
    }
    (whole.end[0] > 0).then_some(whole)
}

/// Where any channel is nonzero, with holes filled (`binary_fill_holes`: what the border cannot reach
/// through faces).
///
/// The mask of a cropped image is the crop of the mask: outside the box all is zero and reaches the border.
pub fn nonzero_mask(image: &Image) -> Vec<bool> {
    let mut mask = vec![false; image.voxels()];
    for channel in 0..image.channels {
        mask.par_iter_mut()
            .with_min_len(1 << 14)
            .zip(image.channel(channel))
            .for_each(|(inside, &value)| *inside |= value != 0.0);
    }
    fill_holes(&mut mask, image.dims);
    mask
}

/// Fills what the border cannot reach, run by run along x.
fn fill_holes(mask: &mut [bool], dims: [usize; 3]) {
    let [depth, rows, columns] = dims;
    let mut outside = vec![false; mask.len()];
    let mut runs = Vec::new();
    // Takes the whole run of free voxels around `x`; gives where it ends.
    let take = |outside: &mut [bool], runs: &mut Vec<_>, z: usize, y: usize, x: usize| {
        let base = (z * rows + y) * columns;
        let free = |outside: &[bool], x: usize| !mask[base + x] && !outside[base + x];
        let (mut first, mut end) = (x, x + 1);
        while first > 0 && free(outside, first - 1) {
            first -= 1;
        }
        while end < columns && free(outside, end) {
            end += 1;
        }
        outside[base + first..base + end].fill(true);
        runs.push((z, y, first, end));
        end
    };
    let scan =
        |outside: &mut [bool], runs: &mut Vec<_>, z: usize, y: usize, from: usize, to: usize| {
            let base = (z * rows + y) * columns;
            let mut x = from;
            while x < to {
                if mask[base + x] || outside[base + x] {
                    x += 1;
                } else {
                    x = take(outside, runs, z, y, x);
                }
            }
        };
    for z in 0..depth {
        for y in 0..rows {
            if z == 0 || z + 1 == depth || y == 0 || y + 1 == rows {
                scan(&mut outside, &mut runs, z, y, 0, columns);
            } else {
                scan(&mut outside, &mut runs, z, y, 0, 1);
                scan(&mut outside, &mut runs, z, y, columns - 1, columns);
            }
            while let Some((z, y, from, to)) = runs.pop() {
                if z > 0 {
                    scan(&mut outside, &mut runs, z - 1, y, from, to);
                }
                if z + 1 < depth {
                    scan(&mut outside, &mut runs, z + 1, y, from, to);
                }
                if y > 0 {
                    scan(&mut outside, &mut runs, z, y - 1, from, to);
                }
                if y + 1 < rows {
                    scan(&mut outside, &mut runs, z, y + 1, from, to);
                }
            }
        }
    }
    for (inside, out) in mask.iter_mut().zip(outside) {
        *inside = !out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_shell_is_filled_and_an_open_one_is_not() {
        let dims = [5, 5, 6];
        let shell = |open: bool| {
            let mut data = vec![0.0; 150];
            for z in 1..4 {
                for y in 1..4 {
                    for x in 1..5 {
                        let inner = z == 2 && y == 2 && (x == 2 || x == 3);
                        let door = open && z == 2 && y == 2 && x == 1;
                        data[(z * 5 + y) * 6 + x] = f32::from(u8::from(!inner && !door));
                    }
                }
            }
            Image::new(1, dims, data).unwrap()
        };
        let count = |open| nonzero_mask(&shell(open)).iter().filter(|&&m| m).count();
        assert_eq!(count(false), 36);
        assert_eq!(count(true), 33);
        let found = crop_box(&shell(true));
        assert_eq!((found.start, found.end), ([1, 1, 1], [4, 4, 5]));
    }

    #[test]
    fn an_image_of_zeros_keeps_its_grid() {
        let image = Image::new(2, [2, 3, 4], vec![0.0; 48]).unwrap();
        assert_eq!(crop_box(&image), Box3::whole([2, 3, 4]));
    }
}
