//! What was put right or is doubtful: stays with the volume, on screen and in every export.

/// One doubt about data. `code()` is for programs, `Display` for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Issue {
    /// Slices are not evenly spaced; the volume uses the median step.
    #[error(
        "slices {} and {} are {gap_mm:.2} mm apart, expected {expected_mm:.2} mm: slices are shown up to {deviation_mm:.1} mm from their true place, lengths across slices and volumes are wrong",
        .before + 1, .after + 1
    )]
    UnevenSpacing {
        /// Index of the slice before the gap, from 0 (people read it from 1).
        before: usize,
        /// Index of the slice after it.
        after: usize,
        /// Distance found.
        gap_mm: f64,
        /// Median distance.
        expected_mm: f64,
        /// Largest distance between a slice's own position and its place in the grid.
        deviation_mm: f64,
    },
    /// A step is a whole multiple of the usual one: the volume has empty slices there, and every
    /// real slice is at its true position.
    #[error(
        "{} missing after slice {} (a gap of {gap_mm:.2} mm): shown empty, volumes and lengths there are doubtful",
        are(*.count, "slice"), .after + 1
    )]
    MissingSlices {
        /// How many are absent there.
        count: usize,
        /// Index k in the volume of the slice before the gap, from 0 (people read it from 1).
        after: usize,
        /// Distance between the slices on both sides.
        gap_mm: f64,
    },
    /// Several images have the same position; the first was kept.
    #[error("{} left out of the volume: the position is taken by another image", were(*.count))]
    DuplicateSlices {
        /// Images left out.
        count: usize,
    },
    /// Slices are not perpendicular to the stack; the affine keeps the shear.
    #[error("gantry tilt of {degrees:.1}°: slices are sheared against the stack")]
    GantryTilt {
        /// Angle between the slice normal and the stack direction.
        degrees: f64,
    },
    /// CT or PET without Rescale Slope/Intercept: stored values are shown as they are.
    #[error("no rescale slope or intercept: values are stored values, not {expected}")]
    RescaleMissing {
        /// The quantity the modality should carry, e.g. `HU`.
        expected: String,
    },
    /// A rescale that cannot be used (slope 0, not a number).
    #[error(
        "rescale slope {slope} and intercept {intercept} cannot be used: values are stored values"
    )]
    RescaleInvalid {
        /// Slope found.
        slope: f64,
        /// Intercept found.
        intercept: f64,
    },
    /// A localizer (scout): not part of a volume.
    #[error("localizer: a planning image, not for measuring")]
    Localizer,
    /// No position or orientation: shown as single images, without patient coordinates.
    #[error("no usable position or orientation: images are shown without patient coordinates")]
    NoGeometry,
    /// No Pixel Spacing: lengths in pixels only.
    #[error("no pixel spacing: lengths are in pixels, not mm")]
    NoPixelSpacing,
    /// Only Imager Pixel Spacing: lengths are at the detector.
    #[error("pixel spacing is measured at the detector: lengths in the patient are smaller")]
    DetectorSpacing,
    /// Images of another size or pixel format than the rest of the series.
    #[error("{} of another size or pixel format set apart as a volume of their own", were(*.count))]
    MixedFormat {
        /// Images split off.
        count: usize,
    },
    /// A single image: no volume for 3-D models.
    #[error("a single slice: no volume")]
    SingleSlice,
    /// Lossy compressed pixels.
    #[error("lossy compression ({method}): values are not the original ones")]
    LossyCompression {
        /// Transfer syntax or Lossy Image Compression Method.
        method: String,
    },
    /// The header contradicts the decoded stream; the stream was believed.
    #[error("the header says {header}, the image data says {stream}: the image data is used")]
    HeaderMismatch {
        /// From the data set.
        header: String,
        /// From the compressed stream.
        stream: String,
    },
    /// Some files of the series could not be read.
    #[error("{} of the series could not be read: {reason}", images(*.count))]
    UnreadableSlices {
        /// Images left out.
        count: usize,
        /// Why the first failed.
        reason: String,
    },
    /// Window values in the file that cannot be used.
    #[error("the window in the file cannot be used")]
    WindowInvalid,
    /// Marked as synthetic (phantom).
    #[error("synthetic data: a phantom, not a patient")]
    Synthetic,
    /// A model ran outside of what its manifest declares.
    #[error("outside of what the model is meant for: {reason}")]
    OutsideEnvelope {
        /// What differs.
        reason: String,
    },
    /// Anything a door found that has no variant of its own yet.
    #[error("{message}")]
    Other {
        /// A stable code, `kebab-case`.
        code: &'static str,
        /// For people.
        message: String,
    },
}

fn are(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what} is"),
        n => format!("{n} {what}s are"),
    }
}

fn were(count: usize) -> String {
    format!(
        "{} {}",
        images(count),
        if count == 1 { "was" } else { "were" }
    )
}

fn images(count: usize) -> String {
    format!("{count} image{}", if count == 1 { "" } else { "s" })
}

impl Issue {
    /// Stable code for scripts and exports.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnevenSpacing { .. } => "uneven-spacing",
            Self::MissingSlices { .. } => "missing-slices",
            Self::DuplicateSlices { .. } => "duplicate-slices",
            Self::GantryTilt { .. } => "gantry-tilt",
            Self::RescaleMissing { .. } => "rescale-missing",
            Self::RescaleInvalid { .. } => "rescale-invalid",
            Self::Localizer => "localizer",
            Self::NoGeometry => "no-geometry",
            Self::NoPixelSpacing => "no-pixel-spacing",
            Self::DetectorSpacing => "detector-spacing",
            Self::MixedFormat { .. } => "mixed-format",
            Self::SingleSlice => "single-slice",
            Self::LossyCompression { .. } => "lossy-compression",
            Self::HeaderMismatch { .. } => "header-mismatch",
            Self::UnreadableSlices { .. } => "unreadable-slices",
            Self::WindowInvalid => "window-invalid",
            Self::Synthetic => "synthetic",
            Self::OutsideEnvelope { .. } => "outside-envelope",
            Self::Other { code, .. } => code,
        }
    }
}
