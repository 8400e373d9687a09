//! What a model was trained on, where its files say so.

/// Bounds outside of which a run is doubtful. What is absent is not known and not checked.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Envelope {
    /// Words of Body Part Examined (DICOM PS3.16, annex L), e.g. `HEAD`, `BRAIN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body_parts: Vec<String>,
    /// View Positions of the radiographs that it has learned from, e.g. `PA`; none where nobody says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
    /// Least and greatest extent of a scan in mm, from its shortest axis to its longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent_mm: Option<[[f64; 2]; 3]>,
    /// Values of what the model looks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
    /// What plain images look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// The mean of a model's training images, each brought to mean 0 and deviation 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Template {
    /// Rows and columns.
    pub size: [usize; 2],
    /// `[y][x]`.
    pub mean: Vec<f32>,
    /// Least correlation of an image that counts as one of the kind.
    pub lowest: f64,
    /// By how much a turned or inverted image must look more alike before it is said to be one.
    #[serde(default = "usual_margin")]
    pub margin: f64,
}

const fn usual_margin() -> f64 {
    0.15
}

impl Template {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self {
            size,
            mean,
            lowest,
            margin,
        } = self;
        let fits = size.iter().all(|n| (2..=64).contains(n))
            && mean.len() == size[0] * size[1]
            && mean.iter().all(|v| v.is_finite())
            && (-1.0..=1.0).contains(lowest)
            && (0.0..=2.0).contains(margin);
        if !fits {
            return Err("a template that is no image".to_owned());
        }
        Ok(())
    }
}

/// A range of modality values.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Values {
    /// Low end, e.g. the 0.5th percentile inside of what was labeled.
    pub low: f64,
    /// High end, e.g. the 99.5th percentile.
    pub high: f64,
    /// `HU` where the values are on a scale of that unit; empty for values without one (MR).
    #[serde(default)]
    pub unit: String,
}

impl Envelope {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Extents around typical ones, by the factors of a guard that doubts only what is far off.
    pub fn around_extent_mm(mut typical: [f64; 3]) -> [[f64; 2]; 3] {
        typical.sort_by(f64::total_cmp);
        typical.map(|mm| [(mm * 0.4).round(), (mm * 2.5).round()])
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let ordered = |[low, high]: [f64; 2]| low.is_finite() && high.is_finite() && low <= high;
        let extent = self.extent_mm.is_none_or(|e| e.into_iter().all(ordered));
        let values = self
            .values
            .as_ref()
            .is_none_or(|v| ordered([v.low, v.high]));
        let code = |v: &String| {
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            (1..=16).contains(&v.len()) && v.bytes().all(plain)
        };
        if !self.views.iter().all(code) {
            return Err("the envelope has a view that is no code string".to_owned());
        }
        if extent && values {
            self.template.as_ref().map_or(Ok(()), Template::check)
        } else {
            Err("the envelope has a range whose ends are not in order".to_owned())
        }
    }
}
