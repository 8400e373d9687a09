//! Losses in closed form: their value and their gradient by the network's results.
//!
//! Results are `[class][voxel]` per image; an image's classes alone have one voxel.

use rayon::prelude::*;

/// What is minimized.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Which one.
    #[serde(default)]
    pub kind: LossKind,
    /// Part of the target that is spread over all classes, 0 to below 1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Exponent of the focal loss (Lin et al. 2017).
    #[serde(default = "gamma")]
    pub focal_gamma: f64,
    /// Weight of each class; `balanced` in the recipe makes them from counts.
    #[serde(default)]
    pub class_weights: Vec<f64>,
}

const fn gamma() -> f64 {
    2.0
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            kind: LossKind::default(),
            label_smoothing: 0.0,
            focal_gamma: gamma(),
            class_weights: Vec::new(),
        }
    }
}

/// Losses that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// −Σ target · log softmax, averaged by the targets' weights (PyTorch's `CrossEntropyLoss`).
    #[default]
    CrossEntropy,
    /// Cross-entropy times (1 − p)^γ of the target's class.
    Focal,
    /// Cross-entropy plus 1 − Dice of all classes but the first (nnU-Net's, batch Dice, smooth 1e-5).
    DiceCrossEntropy,
}

/// Added to numerator and denominator of the Dice.
const SMOOTH: f64 = 1e-5;

impl Loss {
    /// Mean loss of a batch and its gradient by the results.
    ///
    /// `results`: image by image `[class][voxel]`; `targets`: image by image, a class per voxel,
    /// [`IGNORED`] where none is known. The gradient is empty unless asked for.
    ///
    /// # Panics
    /// When lengths do not fit or a target is no class.
    pub fn of(
        &self,
        results: &[f32],
        targets: &[u8],
        images: usize,
        classes: usize,
        wants_gradient: bool,
    ) -> (f64, Vec<f32>) {
        assert_eq!(results.len(), targets.len() * classes, "a target per voxel");
        assert!(
            targets
                .iter()
                .all(|t| *t == IGNORED || usize::from(*t) < classes),
            "targets are classes"
        );
        let voxels = targets.len() / images.max(1);
        let pieces: Vec<Piece> = (0..images)
            .flat_map(|image| {
                (0..voxels).step_by(PIECE).map(move |first| Piece {
                    image,
                    first,
                    count: PIECE.min(voxels - first),
                })
            })
            .collect();
        let batch = Batch {
            loss: self,
            results,
            targets,
            voxels,
            classes,
        };
        // In the order of the pieces, so that threads do not matter.
        let sums = pieces
            .par_iter()
            .map(|piece| batch.sums(piece))
            .collect::<Vec<_>>();
        let sums = sums.into_iter().fold(Sums::new(classes), Sums::add);
        let (mut loss, weight) = (sums.loss, sums.weight);
        if weight > 0.0 {
            loss /= weight;
        }
        let dice = (self.kind == LossKind::DiceCrossEntropy).then(|| sums.dice());
        if let Some(dice) = &dice {
            loss += 1.0 - dice.iter().map(|d| d.value).sum::<f64>() / dice.len() as f64;
        }
        let mut gradient = Vec::new();
        if wants_gradient {
            gradient.resize(results.len(), 0.0);
            let parts: Vec<Vec<f32>> = pieces
                .par_iter()
                .map(|piece| batch.gradient(piece, weight, dice.as_deref()))
                .collect();
            for (piece, part) in pieces.iter().zip(parts) {
                for (class, values) in part.chunks_exact(piece.count).enumerate() {
                    let at = (piece.image * classes + class) * voxels + piece.first;
                    gradient[at..at + piece.count].copy_from_slice(values);
                }
            }
        }
        (loss, gradient)
    }
}

/// A target that is not known.
pub const IGNORED: u8 = 255;

/// Voxels of a piece of work.
const PIECE: usize = 4096;

struct Piece {
    image: usize,
    first: usize,
    count: usize,
}

struct Batch<'a> {
    loss: &'a Loss,
    results: &'a [f32],
    targets: &'a [u8],
    voxels: usize,
    classes: usize,
}

/// Sums over voxels.
struct Sums {
    loss: f64,
    weight: f64,
    /// Per class: Σ p · t, Σ p, Σ t.
    overlap: Vec<[f64; 3]>,
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self {
            loss: 0.0,
            weight: 0.0,
            overlap: vec![[0.0; 3]; classes],
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.loss += other.loss;
        self.weight += other.weight;
        for (sum, other) in self.overlap.iter_mut().zip(other.overlap) {
            sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        self
    }

    /// Of all classes but the first.
    fn dice(&self) -> Vec<Dice> {
        let of = |[both, p, t]: &[f64; 3]| {
            let below = p + t + SMOOTH;
            let value = (2.0 * both + SMOOTH) / below;
            Dice { value, below }
        };
        self.overlap[1..].iter().map(of).collect()
    }
}

struct Dice {
    value: f64,
    below: f64,
}

impl Batch<'_> {
    fn weight(&self, class: usize) -> f64 {
        self.loss.class_weights.get(class).copied().unwrap_or(1.0)
    }

    /// Logarithms of the softmax at a voxel.
    fn logarithms(&self, image: usize, voxel: usize, to: &mut [f64]) {
        for (class, to) in to.iter_mut().enumerate() {
            let at = (image * self.classes + class) * self.voxels + voxel;
            *to = f64::from(self.results[at]);
        }
        let most = to.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = to.iter().map(|z| (z - most).exp()).sum();
        let shift = most + sum.ln();
        for z in to.iter_mut() {
            *z -= shift;
        }
    }

    fn sums(&self, piece: &Piece) -> Sums {
        let mut sums = Sums::new(self.classes);
        let mut logs = vec![0.0; self.classes];
        let smoothing = self.loss.label_smoothing;
        for voxel in piece.first..piece.first + piece.count {
            let target = self.targets[piece.image * self.voxels + voxel];
            if target == IGNORED {
                continue;
            }
            let target = usize::from(target);
            self.logarithms(piece.image, voxel, &mut logs);
            let weight = self.weight(target);
            sums.weight += weight;
            if self.loss.kind == LossKind::Focal {
                let p = logs[target].exp();
                sums.loss -= weight * (1.0 - p).powf(self.loss.focal_gamma) * logs[target];
            } else {
                sums.loss -= (1.0 - smoothing) * weight * logs[target];
                if smoothing > 0.0 {
                    let all = logs.iter().enumerate().map(|(c, l)| self.weight(c) * l);
                    sums.loss -= smoothing / self.classes as f64 * all.sum::<f64>();
                }
            }
            if self.loss.kind == LossKind::DiceCrossEntropy {
                for (class, [both, p, t]) in sums.overlap.iter_mut().enumerate() {
                    let probability = logs[class].exp();
                    *p += probability;
                    if class == target {
                        *both += probability;
                        *t += 1.0;
                    }
                }
            }
        }
        sums
    }

    /// `[class][voxel of the piece]`.
    fn gradient(&self, piece: &Piece, weights: f64, dice: Option<&[Dice]>) -> Vec<f32> {
        let mut to = vec![0.0; self.classes * piece.count];
        let (mut logs, mut by_p) = (vec![0.0; self.classes], vec![0.0; self.classes]);
        let smoothing = self.loss.label_smoothing;
        let all: f64 = (0..self.classes).map(|c| self.weight(c)).sum();
        let spread = smoothing / self.classes as f64;
        for n in 0..piece.count {
            let voxel = piece.first + n;
            let target = self.targets[piece.image * self.voxels + voxel];
            if target == IGNORED {
                continue;
            }
            let target = usize::from(target);
            self.logarithms(piece.image, voxel, &mut logs);
            let weight = self.weight(target);
            let focal = (self.loss.kind == LossKind::Focal).then(|| {
                let (p, gamma) = (logs[target].exp(), self.loss.focal_gamma);
                let rest = 1.0 - p;
                // Derivative by p, times p; at p = 1 its limit.
                let slope = if rest > 0.0 {
                    gamma * rest.powf(gamma - 1.0) * logs[target] * p
                } else {
                    0.0
                };
                slope - rest.powf(gamma)
            });
            let mut along = 0.0;
            if let Some(dice) = dice {
                for (class, by_p) in by_p.iter_mut().enumerate().skip(1) {
                    let Dice { value, below } = dice[class - 1];
                    let inside = if class == target { 2.0 } else { 0.0 };
                    *by_p = (value - inside) / below / dice.len() as f64;
                    along += *by_p * logs[class].exp();
                }
            }
            for class in 0..self.classes {
                let p = logs[class].exp();
                let one = if class == target { 1.0 } else { 0.0 };
                let by_entropy = match focal {
                    Some(factor) => weight * factor * (one - p),
                    None => {
                        (1.0 - smoothing) * weight * (p - one)
                            + spread * (p * all - self.weight(class))
                    }
                };
                let by_dice = if dice.is_some() {
                    p * (by_p[class] - along)
                } else {
                    0.0
                };
                to[class * piece.count + n] = (by_entropy / weights + by_dice) as f32;
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> Vec<Loss> {
        let weights = vec![0.7, 1.9, 1.1];
        let mut all = Vec::new();
        for kind in [
            LossKind::CrossEntropy,
            LossKind::Focal,
            LossKind::DiceCrossEntropy,
        ] {
            for (label_smoothing, class_weights) in [(0.0, Vec::new()), (0.1, weights.clone())] {
                all.push(Loss {
                    kind,
                    label_smoothing,
                    class_weights,
                    ..Loss::default()
                });
            }
        }
        all
    }

    #[test]
    fn gradients_equal_differences() {
        let (images, voxels, classes) = (2, 5, 3);
        let results: Vec<f32> = (0..images * voxels * classes)
            .map(|n| ((n * 7919) % 401) as f32 / 100.0 - 2.0)
            .collect();
        let mut targets: Vec<u8> = (0..images * voxels).map(|n| (n * 5 % 3) as u8).collect();
        targets[3] = IGNORED;
        for loss in losses() {
            let (_, gradient) = loss.of(&results, &targets, images, classes, true);
            for n in 0..results.len() {
                let at = |delta: f32| {
                    let mut moved = results.clone();
                    moved[n] += delta;
                    loss.of(&moved, &targets, images, classes, false).0
                };
                // A step that f32 holds exactly.
                let h = 1.0 / 1024.0;
                let want = (at(h) - at(-h)) / f64::from(2.0 * h);
                assert!(
                    (f64::from(gradient[n]) - want).abs() < 2e-6,
                    "{loss:?} {n}: {} {want}",
                    gradient[n]
                );
            }
        }
    }

    #[test]
    fn values_equal_pytorchs() {
        // torch.nn.functional.cross_entropy(z, y, weight=w, label_smoothing=0.1) in f64.
        let results = [2.0_f32, -1.0, 0.5, 0.0, 0.3, -2.0];
        let loss = Loss {
            label_smoothing: 0.1,
            class_weights: vec![0.7, 1.9, 1.1],
            ..Loss::default()
        };
        let (value, _) = loss.of(&results, &[0, 2], 2, 3, false);
        // 0.3 as f32 is 1.2e-8 more.
        assert!((value - 1.9303583469813534).abs() < 1e-8, "{value}");
    }
}
