//! Small words to build a data set: elements, codes, decimal strings, colors, the study's repeated
//! attributes, and the file around it.

use std::io::Write;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use crate::geometry::{self, DVec3};
use crate::redact::Sensitive;
use crate::study::{CodedConcept, Uid};

/// This program as a writer of files (PS3.10 section 7.1); a UUID-derived UID of its own.
pub(super) const IMPLEMENTATION_CLASS_UID: &str = "2.25.251826450287106735318217438526104213719";
/// At most 16 characters.
pub(super) const IMPLEMENTATION_VERSION_NAME: &str = concat!("NSCOPE_", env!("CARGO_PKG_VERSION"));

/// Why an object cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The system refused.
    #[error("writing failed: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file; empty when there is none.
        path: PathBuf,
    },
    /// The encoder refused.
    #[error("the data set cannot be encoded")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A derived object belongs to a study.
    #[error("a DICOM object of a result needs a DICOM study: the source is no DICOM series")]
    NoStudy,
    /// Images without position.
    #[error("a DICOM segmentation needs images with position and orientation")]
    NoGeometry,
    /// Rows and columns at no right angle: no Image Orientation says this.
    #[error("rows and columns of the grid meet at {degrees:.2}°, DICOM images need 90°")]
    NotRectangular {
        /// Angle found.
        degrees: f64,
    },
    /// Beyond what the format's fields hold.
    #[error("{what} of {found} is beyond the limit of {limit}")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// Found.
        found: u64,
        /// Allowed.
        limit: u64,
    },
    /// The label map has another number of slices than the source has images.
    #[error("the label map has {slices} slices, its source {images} images")]
    SourceMismatch {
        /// Slices of the map.
        slices: usize,
        /// Source images.
        images: usize,
    },
    /// A label without a segment.
    #[error("label {label} occurs in the map but has no segment")]
    UnknownLabel {
        /// The label.
        label: u8,
    },
    /// Two segments with one label, or label 0.
    #[error("label {label} cannot be used for a segment: 0 is background, others occur once")]
    BadLabel {
        /// The label.
        label: u8,
    },
    /// The image that findings are about is not among the source's.
    #[error("image {image} is not among the {images} images of the source")]
    NoSourceImage {
        /// Index, from 0.
        image: usize,
        /// Source images.
        images: usize,
    },
    /// A report must not tell a number that is none.
    #[error("{what} of finding {finding} is {value}, not from 0 to 1")]
    NotAProbability {
        /// The quantity.
        what: &'static str,
        /// Index of the finding, from 1.
        finding: usize,
        /// Found.
        value: f64,
    },
    /// CT and MR images hold one number per pixel.
    #[error("a color volume cannot be written as {modality} images")]
    Color {
        /// Modality asked for.
        modality: String,
    },
    /// No image kind for this modality.
    #[error("modality {modality:?} cannot be written: CT and MR can")]
    Modality {
        /// Modality asked for.
        modality: String,
    },
}

impl From<std::io::Error> for WriteError {
    fn from(source: std::io::Error) -> Self {
        Self::Io {
            source,
            path: PathBuf::new(),
        }
    }
}

impl WriteError {
    pub(super) fn at(self, to: &std::path::Path) -> Self {
        match self {
            Self::Io { source, .. } => Self::Io {
                source,
                path: to.to_owned(),
            },
            other => other,
        }
    }
}

/// A data set under construction.
#[derive(Debug)]
pub(super) struct Composer(InMemDicomObject);

impl Composer {
    pub(super) fn new() -> Self {
        Self(InMemDicomObject::new_empty())
    }

    /// A text element with the dictionary's VR.
    pub(super) fn text(&mut self, tag: Tag, value: impl Into<String>) -> &mut Self {
        self.0.put(DataElement::new(
            tag,
            vr_of(tag),
            PrimitiveValue::from(value.into()),
        ));
        self
    }

    /// A text element that is present but empty (type 2).
    pub(super) fn empty(&mut self, tag: Tag) -> &mut Self {
        self.0
            .put(DataElement::new(tag, vr_of(tag), PrimitiveValue::Empty));
        self
    }

    /// Text of a long string (64 characters), with what would split or end it taken out.
    pub(super) fn long_string(&mut self, tag: Tag, value: &str) -> &mut Self {
        self.text(tag, one_value(value, 64))
    }

    pub(super) fn uid(&mut self, tag: Tag, uid: &Uid) -> &mut Self {
        self.text(tag, uid.as_str())
    }

    pub(super) fn unsigned(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.0
            .put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        self
    }

    pub(super) fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let words: Vec<String> = values.iter().map(|&v| decimal_string(v)).collect();
        self.text(tag, words.join("\\"))
    }

    pub(super) fn value(&mut self, tag: Tag, vr: VR, value: PrimitiveValue) -> &mut Self {
        self.0.put(DataElement::new(tag, vr, value));
        self
    }

    pub(super) fn sequence(&mut self, tag: Tag, items: Vec<Self>) -> &mut Self {
        let items: Vec<InMemDicomObject> = items.into_iter().map(|i| i.0).collect();
        self.0
            .put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
        self
    }

    /// A code sequence with one item (PS3.3 section 8).
    pub(super) fn code(&mut self, tag: Tag, code: &CodedConcept) -> &mut Self {
        let mut item = Self::new();
        // PS3.3 8.2: Code Value is short; longer codes have an attribute of their own.
        if code.value.chars().count() <= 16 {
            item.text(tags::CODE_VALUE, one_value(&code.value, 16));
        } else {
            item.text(tags::LONG_CODE_VALUE, code.value.clone());
        }
        item.text(tags::CODING_SCHEME_DESIGNATOR, one_value(&code.scheme, 16))
            .long_string(tags::CODE_MEANING, &code.meaning);
        self.sequence(tag, vec![item])
    }

    /// Patient and study attributes of the source, then empty ones where PS3.3 wants presence.
    ///
    /// Only attributes of the Patient, Patient Study and General Study modules are taken, and
    /// only values that the standard allows: an invalid age must not make this object invalid.
    pub(super) fn patient_study(
        &mut self,
        attributes: &[(String, Sensitive<String>)],
    ) -> &mut Self {
        for (keyword, value) in attributes {
            let Some(entry) = StandardDataDictionary.by_name(keyword) else {
                continue;
            };
            let tag = entry.tag();
            if PATIENT_STUDY.contains(&tag) && is_valid(vr_of(tag), value.expose()) {
                self.text(tag, value.expose().clone());
            }
        }
        for tag in [
            tags::PATIENT_NAME,
            tags::PATIENT_ID,
            tags::PATIENT_BIRTH_DATE,
            tags::PATIENT_SEX,
            tags::STUDY_DATE,
            tags::STUDY_TIME,
            tags::REFERRING_PHYSICIAN_NAME,
            tags::STUDY_ID,
            tags::ACCESSION_NUMBER,
        ] {
            if self.0.get(tag).is_none() {
                self.empty(tag);
            }
        }
        self.text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192")
    }

    pub(super) fn date_time(
        &mut self,
        date_tag: Tag,
        time_tag: Tag,
        now: DateTime<Utc>,
    ) -> &mut Self {
        self.text(date_tag, now.format("%Y%m%d").to_string())
            .text(time_tag, now.format("%H%M%S").to_string())
    }

    /// This program as the maker (General and Enhanced General Equipment).
    pub(super) fn equipment(&mut self) -> &mut Self {
        self.text(tags::MANUFACTURER, "Negatoscope")
            .text(tags::MANUFACTURER_MODEL_NAME, "Negatoscope")
            .text(tags::DEVICE_SERIAL_NUMBER, "none")
            .text(tags::SOFTWARE_VERSIONS, crate::VERSION)
    }

    /// The whole file, Explicit VR Little Endian.
    pub(super) fn write_file(
        mut self,
        w: &mut dyn Write,
        sop_class_uid: &str,
        sop_instance_uid: &Uid,
    ) -> Result<(), WriteError> {
        self.text(tags::SOP_CLASS_UID, sop_class_uid)
            .uid(tags::SOP_INSTANCE_UID, sop_instance_uid);
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .media_storage_sop_class_uid(sop_class_uid)
            .media_storage_sop_instance_uid(sop_instance_uid.as_str())
            .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
            .implementation_version_name(IMPLEMENTATION_VERSION_NAME);
        let object = self
            .0
            .with_meta(meta)
            .map_err(|e| WriteError::Encode(Box::new(e)))?;
        // The encoder hides an I/O error in its own; a full disk must be told as such.
        let mut w = Watched { w, error: None };
        let done = object.write_all(&mut w);
        if let Some(error) = w.error {
            return Err(error.into());
        }
        done.map_err(|e| WriteError::Encode(Box::new(e)))
    }
}

struct Watched<'a> {
    w: &'a mut dyn Write,
    error: Option<std::io::Error>,
}

impl Watched<'_> {
    fn watch<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.map_err(|e| {
            let kind = e.kind();
            if kind != std::io::ErrorKind::Interrupted && self.error.is_none() {
                self.error = Some(e);
            }
            kind.into()
        })
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.w.write(bytes);
        self.watch(result)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.w.flush();
        self.watch(result)
    }
}

/// PS3.3 C.7.1.1, C.7.2.1, C.7.2.2: what a derived object repeats.
const PATIENT_STUDY: &[Tag] = &[
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::PATIENT_SPECIES_DESCRIPTION,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::STUDY_ID,
    tags::STUDY_DESCRIPTION,
    tags::ACCESSION_NUMBER,
    tags::REFERRING_PHYSICIAN_NAME,
];

fn vr_of(tag: Tag) -> VR {
    StandardDataDictionary
        .by_tag(tag)
        .map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// Whether a text is a value of a VR with a strict form (PS3.5 6.2), and not empty.
fn is_valid(vr: VR, text: &str) -> bool {
    let text = text.trim_matches(|c: char| c == '\0' || c == ' ');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match vr {
        _ if text.is_empty() => false,
        VR::AS => text.len() == 4 && text.ends_with(['D', 'W', 'M', 'Y']) && digits(&text[..3]),
        VR::DA => text.len() == 8 && digits(text),
        VR::TM => digits(text.replacen('.', "", 1).as_str()) && text.len() <= 13,
        VR::DS => text.len() <= 16 && text.parse::<f64>().is_ok_and(f64::is_finite),
        VR::CS => {
            text.len() <= 16
                && text
                    .bytes()
                    .all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b' '))
        }
        _ => true,
    }
}

/// One value of at most `longest` characters: no delimiter, no control characters.
pub(super) fn one_value(text: &str, longest: usize) -> String {
    let clean: String = text
        .chars()
        .map(|c| match c {
            '\\' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    clean.trim().chars().take(longest).collect()
}

/// A number as a decimal string: at most 16 characters (PS3.5 6.2), as many digits as fit.
pub(super) fn decimal_string(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let shortest = format!("{value}");
    if shortest.len() <= 16 {
        return if shortest == "-0" {
            "0".to_owned()
        } else {
            shortest
        };
    }
    let scientific = value.abs() < 1e-4 || value.abs() >= 1e15;
    (0..=15)
        .rev()
        .map(|digits| {
            if scientific {
                format!("{value:.digits$e}")
            } else {
                format!("{value:.digits$}")
            }
        })
        .find(|text| text.len() <= 16)
        .unwrap_or_else(|| "0".to_owned())
}

/// Row and column directions of the grid as Image Orientation (Patient).
pub(super) fn image_orientation(
    geometry: &geometry::VolumeGeometry,
) -> Result<[f64; 6], WriteError> {
    let (row, column) = (geometry.direction(0), geometry.direction(1));
    let cosine = row.dot(column);
    // 1e-4: what rounded Image Orientations of real scanners reach.
    if cosine.abs() > 1e-4 {
        return Err(WriteError::NotRectangular {
            degrees: cosine.clamp(-1.0, 1.0).acos().to_degrees(),
        });
    }
    let (r, c) = (clean(row), clean(column));
    Ok([r.x, r.y, r.z, c.x, c.y, c.z])
}

/// Rounding dust of a direction becomes 0: no "1e-17" in a header.
fn clean(direction: DVec3) -> DVec3 {
    DVec3::from(
        direction
            .to_array()
            .map(|x| if x.abs() < 1e-12 { 0.0 } else { x }),
    )
}

/// Distance between slice planes along the normal, above 0, in mm.
pub(super) fn slice_distance_mm(geometry: &geometry::VolumeGeometry) -> f64 {
    let normal = geometry
        .direction(0)
        .cross(geometry.direction(1))
        .normalize();
    geometry.lps_from_ijk().matrix3.z_axis.dot(normal).abs()
}

/// sRGB → PCS values of Recommended Display CIELab Value.
///
/// # Source
/// PS3.3 C.10.7.1.1; IEC 61966-2-1 adapted to D50 (Bradford), CIE 15.
pub(super) fn cielab_from_srgb(rgb: [u8; 3]) -> [u16; 3] {
    let [r, g, b] = rgb.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    });
    let x = 0.436_074_7 * r + 0.385_064_9 * g + 0.143_080_4 * b;
    let y = 0.222_504_5 * r + 0.716_878_6 * g + 0.060_616_9 * b;
    let z = 0.013_932_2 * r + 0.097_104_5 * g + 0.714_173_3 * b;
    let f = |t: f64| {
        if t > 216.0 / 24389.0 {
            t.cbrt()
        } else {
            (24389.0 / 27.0 * t + 16.0) / 116.0
        }
    };
    let (fx, fy, fz) = (f(x / 0.964_22), f(y), f(z / 0.825_21));
    let lab = [116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)];
    [
        (lab[0] / 100.0 * 65535.0).round().clamp(0.0, 65535.0) as u16,
        ((lab[1] + 128.0) / 255.0 * 65535.0)
            .round()
            .clamp(0.0, 65535.0) as u16,
        ((lab[2] + 128.0) / 255.0 * 65535.0)
            .round()
            .clamp(0.0, 65535.0) as u16,
    ]
}

/// The way back, clamped to sRGB.
pub(super) fn srgb_from_cielab(lab: [u16; 3]) -> [u8; 3] {
    let [l, a, b] = lab.map(f64::from);
    let (l, a, b) = (
        l * 100.0 / 65535.0,
        a * 255.0 / 65535.0 - 128.0,
        b * 255.0 / 65535.0 - 128.0,
    );
    let fy = (l + 16.0) / 116.0;
    let (fx, fz) = (fy + a / 500.0, fy - b / 200.0);
    let g = |t: f64| {
        if t > 6.0 / 29.0 {
            t * t * t
        } else {
            (116.0 * t - 16.0) * 27.0 / 24389.0
        }
    };
    let (x, y, z) = (g(fx) * 0.964_22, g(fy), g(fz) * 0.825_21);
    let linear = [
        3.133_856_1 * x - 1.616_866_7 * y - 0.490_614_6 * z,
        -0.978_768_4 * x + 1.916_141_5 * y + 0.033_454_0 * z,
        0.071_945_3 * x - 0.228_991_4 * y + 1.405_242_7 * z,
    ];
    linear.map(|c| {
        let c = c.clamp(0.0, 1.0);
        let c = if c <= 0.003_130_8 {
            c * 12.92
        } else {
            1.055 * c.powf(1.0 / 2.4) - 0.055
        };
        (c * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_16_characters_and_keep_their_digits() {
        for value in [
            0.0,
            -0.0,
            1.0,
            -std::f64::consts::FRAC_1_SQRT_2,
            1.0 / 3.0,
            -123.456_789_012_345_67,
            1e-7 / 3.0,
            -1e-20 / 3.0,
            1e300 / 3.0,
            -65535.1,
            99_999.999_999_999_99,
        ] {
            let text = decimal_string(value);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            // A sign, a point and an exponent leave at least nine digits.
            assert!((back - value).abs() <= 1e-9 * value.abs(), "{text}");
        }
        assert_eq!(decimal_string(-0.0), "0");
    }

    #[test]
    fn colors_have_the_published_lab_values() {
        // sRGB red, green, white, black under D50 (Lindbloom): L a b.
        let check = |rgb, lab: [f64; 3]| {
            let [l, a, b] = cielab_from_srgb(rgb).map(f64::from);
            let got = [
                l * 100.0 / 65535.0,
                a * 255.0 / 65535.0 - 128.0,
                b * 255.0 / 65535.0 - 128.0,
            ];
            for (x, y) in got.iter().zip(lab) {
                assert!((x - y).abs() < 0.1, "{rgb:?} {got:?}");
            }
        };
        check([255, 0, 0], [54.29, 80.81, 69.89]);
        check([0, 255, 0], [87.82, -79.29, 80.99]);
        check([255, 255, 255], [100.0, 0.0, 0.0]);
        check([0, 0, 0], [0.0, 0.0, 0.0]);
    }

    #[test]
    fn colors_survive_a_round_trip() {
        for r in (0..=255).step_by(51) {
            for g in (0..=255).step_by(51) {
                for b in (0..=255).step_by(51) {
                    let rgb = [r as u8, g as u8, b as u8];
                    let back = srgb_from_cielab(cielab_from_srgb(rgb));
                    assert!(
                        rgb.iter().zip(back).all(|(&x, y)| x.abs_diff(y) <= 1),
                        "{rgb:?} {back:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn values_of_the_wrong_form_are_not_repeated() {
        let check = |vr, good: &str, bad: &[&str]| {
            assert!(is_valid(vr, good), "{good}");
            for text in bad {
                assert!(!is_valid(vr, text), "{text}");
            }
        };
        check(VR::AS, "045Y", &["0Y", "45Y", "0é", "xxxY", ""]);
        check(VR::DA, "20260102", &["2026.01.02", "2026", "today---"]);
        check(VR::TM, "101112.5", &["10:11:12", "x", "."]);
        check(VR::DS, "72.5 ", &["heavy", "NaN", "1e999"]);
        check(VR::CS, "F", &["female", "\\"]);
        check(VR::PN, "Müller^Anna", &["", " "]);
    }

    #[test]
    fn a_value_cannot_split_its_element() {
        assert_eq!(one_value("a\\b\u{0}c\nd", 64), "a/b c d");
        assert_eq!(one_value(&"é".repeat(99), 64).chars().count(), 64);
    }
}
