//! Images changed at random on their way into training, with their masks.
//!
//! All draws come from the place (seed, epoch, sample), so a run that goes on draws the same.

use super::chance::Chance;

/// What may happen to an image. Ranges are symmetric around "nothing"; 0 turns a change off.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Axes (0 = z, 1 = y, 2 = x) that are mirrored with probability ½, where anatomy allows.
    pub flip: Vec<usize>,
    /// Largest turn in degrees: in the plane, and for volumes around each axis.
    pub rotate_degrees: f64,
    /// Largest change of size, e.g. 0.1 for 0.9 to 1.1.
    pub scale: f64,
    /// Largest shift as a part of the size.
    pub shift: f64,
    /// Standard deviation of elastic displacements in points (knots 32 points apart).
    pub elastic: f64,
    /// Largest change of contrast, e.g. 0.2 for 0.8 to 1.2 around the mean.
    pub contrast: f64,
    /// Largest change of brightness, in standard deviations of the image.
    pub brightness: f64,
    /// Largest change of gamma, e.g. 0.3 for 0.7 to 1.3.
    pub gamma: f64,
    /// Largest standard deviation of added noise, in those of the image.
    pub noise: f64,
    /// Largest standard deviation of smoothing in points.
    pub blur: f64,
    /// Largest part of each axis that a box of the image's mean covers (DeVries and Taylor 2017).
    pub cutout: f64,
}

/// Distance of the knots of elastic displacements.
const KNOTS: f64 = 32.0;

impl Augmentation {
    pub(super) fn check(&self) -> Result<(), String> {
        let parts = [self.scale, self.contrast, self.gamma, self.cutout];
        let all = [
            self.rotate_degrees,
            self.shift,
            self.elastic,
            self.brightness,
            self.noise,
            self.blur,
        ];
        if parts.iter().any(|p| !(0.0..1.0).contains(p))
            || all.iter().any(|p| !(0.0..=360.0).contains(p))
            || self.blur > 8.0
            || self.flip.iter().any(|axis| *axis > 2)
        {
            return Err("an augmentation is out of its range".to_owned());
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        [self.rotate_degrees, self.scale, self.shift, self.elastic]
            .iter()
            .any(|x| *x > 0.0)
    }

    /// Changes an image `[channels][z][y][x]` and its mask.
    pub fn apply(
        &self,
        chance: &mut Chance,
        dims: [usize; 3],
        image: &mut Vec<f32>,
        mask: Option<&mut Vec<u8>>,
    ) {
        let points: usize = dims.iter().product();
        let flips: Vec<usize> = (0..3)
            .filter(|axis| {
                let drawn = chance.happens(0.5);
                drawn && self.flip.contains(axis)
            })
            .collect();
        if self.moves() || !flips.is_empty() {
            let field = Field::draw(self, chance, dims, &flips);
            let places = field.places();
            let moved = image
                .chunks_exact(points)
                .flat_map(|channel| sample_linear(channel, dims, &places))
                .collect();
            *image = moved;
            if let Some(mask) = mask {
                *mask = sample_nearest(mask, dims, &places);
            }
        }
        self.change_values(chance, dims, image);
    }

    fn change_values(&self, chance: &mut Chance, dims: [usize; 3], image: &mut [f32]) {
        let n = image.len() as f64;
        let mean = image.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let spread = |v: &f32| (f64::from(*v) - mean).powi(2);
        let deviation = (image.iter().map(spread).sum::<f64>() / n).sqrt();
        if self.blur > 0.0 {
            let sigma = chance.between(0.0, self.blur);
            let points = dims.iter().product();
            for channel in image.chunks_exact_mut(points) {
                blur(channel, dims, sigma);
            }
        }
        if self.gamma > 0.0 {
            let power = chance.between(1.0 - self.gamma, 1.0 + self.gamma) as f32;
            let low = image.iter().copied().fold(f32::INFINITY, f32::min);
            let high = image.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if high > low {
                for v in image.iter_mut() {
                    *v = low + (high - low) * ((*v - low) / (high - low)).powf(power);
                }
            }
        }
        if self.contrast > 0.0 || self.brightness > 0.0 {
            let factor = chance.between(1.0 - self.contrast, 1.0 + self.contrast);
            let shift = chance.between(-self.brightness, self.brightness) * deviation;
            for v in image.iter_mut() {
                *v = ((f64::from(*v) - mean) * factor + mean + shift) as f32;
            }
        }
        if self.noise > 0.0 {
            let sigma = chance.between(0.0, self.noise) * deviation;
            for v in image.iter_mut() {
                *v += (chance.normal() * sigma) as f32;
            }
        }
        if self.cutout > 0.0 {
            let ends = dims.map(|n| {
                let size = (chance.between(0.0, self.cutout) * n as f64) as usize;
                let first = chance.below(n - size.min(n - 1));
                // A plane is cut along its own axes only.
                if n == 1 {
                    (0, 1)
                } else {
                    (first, first + size)
                }
            });
            let points: usize = dims.iter().product();
            for channel in image.chunks_exact_mut(points) {
                for z in ends[0].0..ends[0].1 {
                    for y in ends[1].0..ends[1].1 {
                        let line = (z * dims[1] + y) * dims[2];
                        channel[line + ends[2].0..line + ends[2].1].fill(mean as f32);
                    }
                }
            }
        }
    }
}

/// Where each point of the result comes from.
struct Field {
    dims: [usize; 3],
    /// Rows of the matrix from result to source, around the middle.
    matrix: [[f64; 3]; 3],
    shift: [f64; 3],
    /// Displacements at knots, per axis, and how many knots there are.
    knots: Option<([usize; 3], Vec<[f32; 3]>)>,
}

impl Field {
    fn draw(rules: &Augmentation, chance: &mut Chance, dims: [usize; 3], flips: &[usize]) -> Self {
        let is_volume = dims[0] > 1;
        let most = rules.rotate_degrees.to_radians();
        let angles: [f64; 3] = std::array::from_fn(|axis| {
            let drawn = chance.between(-most, most);
            if axis == 0 || is_volume { drawn } else { 0.0 }
        });
        let size = chance.between(1.0 - rules.scale, 1.0 + rules.scale);
        let mut matrix = [[0.0; 3]; 3];
        for (axis, row) in matrix.iter_mut().enumerate() {
            let flat = axis == 0 && !is_volume;
            row[axis] = if flat { 1.0 } else { 1.0 / size };
        }
        for (axis, angle) in angles.into_iter().enumerate() {
            let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
            let (sin, cos) = angle.sin_cos();
            let (row_a, row_b) = (matrix[a], matrix[b]);
            for n in 0..3 {
                matrix[a][n] = cos * row_a[n] - sin * row_b[n];
                matrix[b][n] = sin * row_a[n] + cos * row_b[n];
            }
        }
        for axis in flips {
            matrix[*axis].iter_mut().for_each(|m| *m = -*m);
        }
        let shift = dims.map(|n| {
            let drawn = chance.between(-rules.shift, rules.shift);
            if n > 1 { drawn * n as f64 } else { 0.0 }
        });
        let knots = (rules.elastic > 0.0).then(|| {
            let count = dims.map(|n| (n as f64 / KNOTS).ceil() as usize + 1);
            let drawn = (0..count.iter().product())
                .map(|_| {
                    std::array::from_fn(|axis| {
                        let moved = chance.normal() * rules.elastic;
                        if axis > 0 || is_volume {
                            moved as f32
                        } else {
                            0.0
                        }
                    })
                })
                .collect();
            (count, drawn)
        });
        Self {
            dims,
            matrix,
            shift,
            knots,
        }
    }

    /// Source positions of all points, in order.
    fn places(&self) -> Vec<[f32; 3]> {
        let middle = self.dims.map(|n| (n as f64 - 1.0) / 2.0);
        let mut places = Vec::with_capacity(self.dims.iter().product());
        for z in 0..self.dims[0] {
            for y in 0..self.dims[1] {
                for x in 0..self.dims[2] {
                    let p = [z as f64, y as f64, x as f64];
                    let from: [f64; 3] = std::array::from_fn(|n| p[n] - middle[n]);
                    let moved = self.displacement(p);
                    places.push(std::array::from_fn(|n| {
                        let row = self.matrix[n];
                        let turned = row[0] * from[0] + row[1] * from[1] + row[2] * from[2];
                        (turned + middle[n] + self.shift[n] + f64::from(moved[n])) as f32
                    }));
                }
            }
        }
        places
    }

    /// Linear between knots.
    fn displacement(&self, point: [f64; 3]) -> [f32; 3] {
        let Some((count, knots)) = &self.knots else {
            return [0.0; 3];
        };
        let mut sum = [0.0; 3];
        let at = point.map(|p| p / KNOTS);
        for corner in 0..8_usize {
            let mut weight = 1.0;
            let mut index = 0;
            for n in 0..3 {
                let low = at[n].floor();
                let up = (corner >> n) & 1;
                let part = at[n] - low;
                weight *= if up == 1 { part } else { 1.0 - part };
                index = index * count[n] + (low as usize + up).min(count[n] - 1);
            }
            for (sum, knot) in sum.iter_mut().zip(knots[index]) {
                *sum += weight as f32 * knot;
            }
        }
        sum
    }
}

/// Linear between points; beyond the edges the edge repeats.
fn sample_linear(from: &[f32], dims: [usize; 3], places: &[[f32; 3]]) -> Vec<f32> {
    let flat = dims[0] == 1;
    places
        .iter()
        .map(|place| {
            let mut low = [0; 3];
            let mut high = [0; 3];
            let mut part = [0.0; 3];
            for n in 0..3 {
                let most = dims[n] - 1;
                let at = place[n].clamp(0.0, most as f32);
                low[n] = at as usize;
                high[n] = (low[n] + 1).min(most);
                part[n] = at - low[n] as f32;
            }
            let plane = |z: usize| {
                let row = |y: usize| {
                    let line = (z * dims[1] + y) * dims[2];
                    let (a, b) = (from[line + low[2]], from[line + high[2]]);
                    a + (b - a) * part[2]
                };
                let (a, b) = (row(low[1]), row(high[1]));
                a + (b - a) * part[1]
            };
            let a = plane(low[0]);
            if flat {
                a
            } else {
                a + (plane(high[0]) - a) * part[0]
            }
        })
        .collect()
}

fn sample_nearest(from: &[u8], dims: [usize; 3], places: &[[f32; 3]]) -> Vec<u8> {
    let place = |place: &[f32; 3]| {
        let at = |n: usize| (place[n].round().max(0.0) as usize).min(dims[n] - 1);
        from[(at(0) * dims[1] + at(1)) * dims[2] + at(2)]
    };
    places.iter().map(place).collect()
}

/// Gaussian smoothing, axis by axis; edges repeat.
fn blur(values: &mut [f32], dims: [usize; 3], sigma: f64) {
    if sigma < 0.2 {
        return;
    }
    let reach = (3.0 * sigma).ceil() as i64;
    let mut weights: Vec<f64> = (-reach..=reach)
        .map(|n| (-0.5 * (n as f64 / sigma).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    for w in &mut weights {
        *w /= sum;
    }
    let strides = [dims[1] * dims[2], dims[2], 1];
    for axis in 0..3 {
        let (n, stride) = (dims[axis], strides[axis]);
        if n == 1 {
            continue;
        }
        let old = values.to_vec();
        for (at, value) in values.iter_mut().enumerate() {
            let place = (at / stride % n) as i64;
            let first = at as i64 - place * stride as i64;
            let sum: f64 = weights
                .iter()
                .zip(-reach..)
                .map(|(w, d)| {
                    let p = (place + d).clamp(0, n as i64 - 1);
                    w * f64::from(old[(first + p * stride as i64) as usize])
                })
                .sum();
            *value = sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(dims: [usize; 3]) -> (Vec<f32>, Vec<u8>) {
        let mut mask = Vec::new();
        for z in 0..dims[0] {
            for y in 0..dims[1] {
                for x in 0..dims[2] {
                    let far = |p: usize, n: usize, at: f64| (p as f64 - at * n as f64).powi(2);
                    let r = far(y, dims[1], 0.4) + far(x, dims[2], 0.6) + far(z, dims[0], 0.5);
                    mask.push(u8::from(r < 36.0));
                }
            }
        }
        (mask.iter().map(|m| f32::from(*m)).collect(), mask)
    }

    fn strong() -> Augmentation {
        Augmentation {
            flip: vec![1, 2],
            rotate_degrees: 30.0,
            scale: 0.2,
            shift: 0.05,
            elastic: 2.0,
            ..Augmentation::default()
        }
    }

    #[test]
    fn image_and_mask_move_together() {
        for dims in [[1, 40, 36], [20, 24, 22]] {
            for seed in 0..8 {
                let (mut image, mut mask) = disk(dims);
                let mut chance = Chance::at(&[seed]);
                strong().apply(&mut chance, dims, &mut image, Some(&mut mask));
                // The mask is the image at one half, but where the edge passes between points.
                let differ = image
                    .iter()
                    .zip(&mask)
                    .filter(|(i, m)| (**i > 0.5) != (**m == 1))
                    .count();
                let inside: usize = mask.iter().map(|m| usize::from(*m == 1)).sum();
                assert!(inside > 20 && differ * 8 < inside, "{differ} of {inside}");
            }
        }
    }

    #[test]
    fn a_flip_mirrors_exactly() {
        let dims = [1, 5, 7];
        let only = Augmentation {
            flip: vec![2],
            ..Augmentation::default()
        };
        let mut seen = [false; 2];
        for seed in 0..16 {
            let image: Vec<f32> = (0..35).map(|n| n as f32).collect();
            let mut moved = image.clone();
            only.apply(&mut Chance::at(&[seed]), dims, &mut moved, None);
            let mirrored: Vec<f32> = image
                .chunks(7)
                .flat_map(|r| r.iter().rev().copied())
                .collect();
            assert!(moved == image || moved == mirrored);
            seen[usize::from(moved == mirrored)] = true;
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn the_same_place_gives_the_same_image() {
        let all = Augmentation {
            contrast: 0.3,
            brightness: 0.2,
            gamma: 0.3,
            noise: 0.1,
            blur: 1.0,
            cutout: 0.4,
            ..strong()
        };
        let run = |place: &[u64]| {
            let (mut image, mut mask) = disk([1, 32, 32]);
            all.apply(
                &mut Chance::at(place),
                [1, 32, 32],
                &mut image,
                Some(&mut mask),
            );
            assert!(image.iter().all(|v| v.is_finite()));
            (image, mask)
        };
        assert_eq!(run(&[1, 2, 3]), run(&[1, 2, 3]));
        assert_ne!(run(&[1, 2, 3]), run(&[1, 2, 4]));
    }
}
