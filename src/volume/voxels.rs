//! A volume: geometry, stored values, their meaning, where they came from, and doubts.

use super::{ModalityLut, NamedWindow, Quantity};
use crate::geometry::{DVec3, VolumeGeometry};
use crate::redact::Sensitive;
use crate::study::{Issue, Uid};

/// Stored values, i fastest, then j, then k.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Unsigned 8 bit.
    U8(Vec<u8>),
    /// Signed 16 bit (also narrower signed values).
    I16(Vec<i16>),
    /// Unsigned 16 bit (also 9 to 15 bit).
    U16(Vec<u16>),
    /// Float, and integers beyond 16 bit (exact up to 2^24).
    F32(Vec<f32>),
    /// Color, red, green, blue.
    Rgb8(Vec<[u8; 3]>),
}

impl Voxels {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Rgb8(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether voxels are colors, without a modality value.
    pub const fn is_color(&self) -> bool {
        matches!(self, Self::Rgb8(_))
    }

    /// Stored value as a number; the luma (BT.601) of colors.
    pub fn stored(&self, index: usize) -> f32 {
        match self {
            Self::U8(v) => f32::from(v[index]),
            Self::I16(v) => f32::from(v[index]),
            Self::U16(v) => f32::from(v[index]),
            Self::F32(v) => v[index],
            Self::Rgb8(v) => {
                let [r, g, b] = v[index].map(f32::from);
                0.299 * r + 0.587 * g + 0.114 * b
            }
        }
    }
}

/// How the slices belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One grid in the patient: all planes can be shown, 3-D models can run.
    Volumetric,
    /// Plain images (radiograph, cine, color, localizers): only the stored plane is shown, and
    /// the geometry's k axis has no meaning in the patient.
    Images,
}

/// What a millimeter in the image plane means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calibration {
    /// Pixel Spacing in the patient.
    Patient,
    /// Imager Pixel Spacing: at the detector, larger than in the patient.
    Detector,
    /// None: lengths are pixels, never mm.
    Unknown,
}

/// Where a slice came from; exports refer to it.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceImage {
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Frame of a multi-frame instance, from 0; `None` for single-frame instances.
    pub frame: Option<u32>,
    /// Instance Number.
    pub number: Option<i32>,
    /// Image Position (Patient), LPS mm. Where slices are uneven it differs from the grid, and
    /// exports that refer to this image repeat it.
    pub position_lps: Option<DVec3>,
    /// View Position of a radiograph, e.g. `PA`; empty when nobody says.
    pub view: String,
}

/// The series a volume was made from, with what an export of the same study must repeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceSeries {
    /// `None` for volumes from NIfTI.
    pub study_instance_uid: Option<Uid>,
    /// `None` for volumes from NIfTI.
    pub series_instance_uid: Option<Uid>,
    /// Frame of Reference UID.
    pub frame_of_reference_uid: Option<Uid>,
    /// Series Description.
    pub description: String,
    /// Series Number.
    pub number: Option<i32>,
    /// Body Part Examined.
    pub body_part: String,
    /// Study attributes that PS3.3 wants repeated in derived objects: (keyword, value),
    /// e.g. `("PatientName", …)`, `("StudyDate", …)`.
    pub patient_study: Vec<(String, Sensitive<String>)>,
    /// One per slice, in the order of k; empty for NIfTI. `None`: no image is known there, the
    /// slice is empty and stands for a missing one.
    pub images: Vec<Option<SourceImage>>,
}

impl SourceSeries {
    /// The image of slice `k`.
    pub fn image(&self, k: usize) -> Option<&SourceImage> {
        self.images.get(k).and_then(Option::as_ref)
    }

    /// The images that exist, in the order of k.
    pub fn known_images(&self) -> impl Iterator<Item = &SourceImage> {
        self.images.iter().flatten()
    }
}

/// Voxels in the patient with their meaning. Immutable once shared (`Arc<Volume>`).
#[derive(Clone, Debug)]
pub struct Volume {
    /// Grid; for [`Layout::Images`] k is only a count.
    pub geometry: VolumeGeometry,
    /// Stored values.
    pub voxels: Voxels,
    /// Stored value → modality value.
    pub modality_lut: ModalityLut,
    /// What modality values are.
    pub quantity: Quantity,
    /// Modality, e.g. `CT`; empty for NIfTI.
    pub modality: String,
    /// How slices belong together.
    pub layout: Layout,
    /// What in-plane lengths mean.
    pub calibration: Calibration,
    /// Stored values mean black at the maximum (MONOCHROME1).
    pub inverted: bool,
    /// Windows from the file, first the default.
    pub windows: Vec<NamedWindow>,
    /// Stored value that marks pixels outside of the image (Pixel Padding Value), inclusive range.
    pub padding: Option<(f32, f32)>,
    /// Frames per second for cine, when the file says so.
    pub frame_rate: Option<f64>,
    /// Origin.
    pub source: SourceSeries,
    /// Doubts, kept with the volume.
    pub issues: Vec<Issue>,
}

impl Volume {
    /// Whether its place in the patient is known well enough for orientation letters.
    // CLINICAL(laterality): no letters on images whose place in the patient is unknown.
    pub fn is_oriented(&self) -> bool {
        (self.layout == Layout::Volumetric || self.calibration == Calibration::Patient)
            && !self.issues.contains(&Issue::NoGeometry)
    }

    /// Modality value of a voxel by memory index (luma for color).
    pub fn value(&self, index: usize) -> f32 {
        let [ni, nj, _] = self.geometry.dims();
        self.modality_lut
            .apply(self.voxels.stored(index), index / (ni * nj))
    }

    /// Modality value at a voxel, `None` outside.
    pub fn value_at(&self, ijk: [i64; 3]) -> Option<f32> {
        let dims = self.geometry.dims();
        let inside = ijk
            .iter()
            .zip(dims)
            .all(|(&x, n)| x >= 0 && (x as usize) < n);
        inside.then(|| {
            self.value(
                self.geometry
                    .index(ijk[0] as usize, ijk[1] as usize, ijk[2] as usize),
            )
        })
    }

    /// All modality values, in memory order. Four bytes a voxel.
    pub fn values(&self) -> Vec<f32> {
        use rayon::prelude::*;
        let [ni, nj, _] = self.geometry.dims();
        let slice = ni * nj;
        let mut out = vec![0.0_f32; self.voxels.len()];
        out.par_chunks_mut(slice).enumerate().for_each(|(k, row)| {
            for (n, value) in row.iter_mut().enumerate() {
                *value = self
                    .modality_lut
                    .apply(self.voxels.stored(k * slice + n), k);
            }
        });
        out
    }

    /// Smallest and largest modality value; `None` if no voxel is finite. Padding counts.
    pub fn range(&self) -> Option<(f32, f32)> {
        use rayon::prelude::*;
        let [ni, nj, nk] = self.geometry.dims();
        let slice = ni * nj;
        let (low, high) = (0..nk)
            .into_par_iter()
            .map(|k| {
                let mut range = (f32::INFINITY, f32::NEG_INFINITY);
                for n in k * slice..(k + 1) * slice {
                    let value = self.modality_lut.apply(self.voxels.stored(n), k);
                    if value.is_finite() {
                        range = (range.0.min(value), range.1.max(value));
                    }
                }
                range
            })
            .reduce(
                || (f32::INFINITY, f32::NEG_INFINITY),
                |a, b| (a.0.min(b.0), a.1.max(b.1)),
            );
        (low <= high).then_some((low, high))
    }

    /// Bytes of the stored values.
    pub fn bytes(&self) -> usize {
        match &self.voxels {
            Voxels::U8(v) => v.len(),
            Voxels::I16(v) => v.len() * 2,
            Voxels::U16(v) => v.len() * 2,
            Voxels::F32(v) => v.len() * 4,
            Voxels::Rgb8(v) => v.len() * 3,
        }
    }
}
