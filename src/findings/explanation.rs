//! Where in an image the evidence for a finding lies, as a map that was itself put to the test.

/// How a map was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExplanationMethod {
    /// Gradient-weighted class activation of the last grid of a convolutional network.
    GradCam,
    /// Attention of a transformer's class token, rolled out over its layers.
    AttentionRollout,
    /// What is lost when a part of the image is hidden; works with any model.
    Occlusion,
}

impl ExplanationMethod {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GradCam, Self::AttentionRollout, Self::Occlusion];

    /// For files and command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GradCam => "grad-cam",
            Self::AttentionRollout => "attention-rollout",
            Self::Occlusion => "occlusion",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::GradCam => "Grad-CAM",
            Self::AttentionRollout => "Attention rollout",
            Self::Occlusion => "Occlusion",
        }
    }

    /// What a map's numbers are.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::GradCam => "log-odds / cell",
            Self::AttentionRollout => "× even share",
            Self::Occlusion => "log-odds lost",
        }
    }
}

/// How well a map's order of points explains the number.
///
/// The image is blurred from the map's highest points down (deletion), and a blurred image made
/// clear in the same order (insertion): areas under the curves (Petsiuk et al. 2018, RISE), here of
/// the log-odds, since probabilities near 0 and 1 hardly move. The same is done with smooth orders by
/// chance.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Faithfulness {
    /// Mean log-odds on the way of deletion; lower is better.
    pub deletion: f64,
    /// Mean log-odds on the way of insertion; higher is better.
    pub insertion: f64,
    /// Mean of insertion − deletion over orders by chance.
    pub chance_mean: f64,
    /// The best of them.
    pub chance_best: f64,
    /// How many there were.
    pub chance_orders: usize,
}

impl Faithfulness {
    /// Insertion − deletion, in log-odds.
    pub fn score(&self) -> f64 {
        self.insertion - self.deletion
    }

    /// Whether the map is better than every order by chance.
    pub fn explains(&self) -> bool {
        self.score() > self.chance_best
    }

    /// For people.
    pub fn words(&self) -> String {
        let numbers = format!(
            "insertion {:+.2}, deletion {:+.2} log-odds; by chance at best {:+.2} against {:+.2}",
            self.insertion,
            self.deletion,
            self.chance_best,
            self.score()
        );
        if self.explains() {
            format!("the map holds: {numbers}")
        } else {
            format!("the map explains nothing: {numbers}")
        }
    }
}

/// A map over an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Name of the finding.
    pub finding: String,
    /// How it was made.
    pub method: ExplanationMethod,
    /// Rows and columns.
    pub dims: [usize; 2],
    /// `[row][column]`, from 0 (no evidence for the finding) up, in [`ExplanationMethod::unit`].
    pub values: Vec<f32>,
    /// The part of the image that it covers, in pixels from the corner of the first one: top, left,
    /// bottom, right.
    pub region_px: [f64; 4],
    /// The test.
    pub faithfulness: Faithfulness,
}

impl Explanation {
    /// The largest value.
    pub fn highest(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The value at a place of the image, in pixels from the corner of the first one, between the
    /// map's points linear; `None` outside of the part that the model saw.
    pub fn at(&self, row_px: f64, column_px: f64) -> Option<f32> {
        let [top, left, bottom, right] = self.region_px;
        if !(top..=bottom).contains(&row_px) || !(left..=right).contains(&column_px) {
            return None;
        }
        let [rows, columns] = self.dims;
        let place = |at: f64, low: f64, high: f64, n: usize| -> (usize, usize, f32) {
            let x = ((at - low) / (high - low) * n as f64 - 0.5).clamp(0.0, (n - 1) as f64);
            let first = x.floor() as usize;
            (first, (first + 1).min(n - 1), (x - x.floor()) as f32)
        };
        let (y0, y1, fy) = place(row_px, top, bottom, rows);
        let (x0, x1, fx) = place(column_px, left, right, columns);
        let v = |y: usize, x: usize| self.values[y * columns + x];
        let upper = v(y0, x0) + (v(y0, x1) - v(y0, x0)) * fx;
        let lower = v(y1, x0) + (v(y1, x1) - v(y1, x0)) * fx;
        Some(upper + (lower - upper) * fy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_at_the_middle_of_their_cells() {
        let faithfulness = Faithfulness {
            deletion: 0.2,
            insertion: 0.7,
            chance_mean: 0.0,
            chance_best: 0.1,
            chance_orders: 19,
        };
        let map = Explanation {
            finding: "x".to_owned(),
            method: ExplanationMethod::Occlusion,
            dims: [2, 3],
            values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            region_px: [10.0, 0.0, 30.0, 60.0],
            faithfulness,
        };
        assert_eq!(map.at(15.0, 10.0), Some(0.0));
        assert_eq!(map.at(15.0, 20.0), Some(0.5));
        assert_eq!(map.at(20.0, 30.0), Some(2.5));
        assert_eq!(map.at(30.0, 60.0), Some(5.0));
        assert_eq!(map.at(9.9, 10.0), None);
        assert!(map.faithfulness.explains());
    }
}
