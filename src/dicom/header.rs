//! What the index and the assembly need of a data set: identity, format, and each frame's place.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{Dataset, Item};
use super::error::Error;
use super::pixels::{self, PixelFormat};
use crate::geometry::DVec3;
use crate::study::Uid;

/// Keywords of `SourceSeries::patient_study`, repeated in derived objects.
pub(super) const PATIENT_STUDY: [(&str, Tag); 26] = [
    ("PatientName", tags::PATIENT_NAME),
    ("PatientID", tags::PATIENT_ID),
    ("IssuerOfPatientID", tags::ISSUER_OF_PATIENT_ID),
    ("PatientBirthDate", tags::PATIENT_BIRTH_DATE),
    ("PatientSex", tags::PATIENT_SEX),
    ("PatientAge", tags::PATIENT_AGE),
    ("PatientSize", tags::PATIENT_SIZE),
    ("PatientWeight", tags::PATIENT_WEIGHT),
    ("StudyID", tags::STUDY_ID),
    ("StudyDate", tags::STUDY_DATE),
    ("StudyTime", tags::STUDY_TIME),
    ("StudyDescription", tags::STUDY_DESCRIPTION),
    ("AccessionNumber", tags::ACCESSION_NUMBER),
    ("ReferringPhysicianName", tags::REFERRING_PHYSICIAN_NAME),
    ("Manufacturer", tags::MANUFACTURER),
    ("ManufacturerModelName", tags::MANUFACTURER_MODEL_NAME),
    ("InstitutionName", tags::INSTITUTION_NAME),
    (
        "PositionReferenceIndicator",
        tags::POSITION_REFERENCE_INDICATOR,
    ),
    ("PatientIdentityRemoved", tags::PATIENT_IDENTITY_REMOVED),
    ("DeidentificationMethod", tags::DEIDENTIFICATION_METHOD),
    ("QualityControlImage", tags::QUALITY_CONTROL_IMAGE),
    ("ImageComments", tags::IMAGE_COMMENTS),
    ("SeriesDate", tags::SERIES_DATE),
    ("SeriesTime", tags::SERIES_TIME),
    ("ProtocolName", tags::PROTOCOL_NAME),
    ("Laterality", tags::LATERALITY),
];

/// Modalities whose objects have no pixels (PS3.3 C.7.3.1.1.1).
const OBJECT_MODALITIES: [&str; 24] = [
    "SR",
    "KO",
    "PR",
    "SEG",
    "RTSTRUCT",
    "RTPLAN",
    "RTRECORD",
    "RTINTENT",
    "RTSEGANN",
    "RTRAD",
    "REG",
    "FID",
    "RWV",
    "DOC",
    "PLAN",
    "ECG",
    "EPS",
    "HD",
    "AU",
    "M3D",
    "ANN",
    "STAIN",
    "SMR",
    "TEXTUREMAP",
];

const SEGMENTATION_STORAGE: [&str; 2] = [
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
];

/// Spacing of pixels (Pixel Spacing gives rows first).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PixelSpacing {
    pub between_rows_mm: f64,
    pub between_columns_mm: f64,
}

impl PixelSpacing {
    /// Equal up to rounding: a tenth of a percent is half a pixel over 512.
    pub fn is_about(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.max(b);
        same(self.between_rows_mm, other.between_rows_mm)
            && same(self.between_columns_mm, other.between_columns_mm)
    }

    fn new(values: &[f64]) -> Option<Self> {
        match *values {
            [rows, columns, ..]
                if (1e-6..1e6).contains(&rows) && (1e-6..1e6).contains(&columns) =>
            {
                Some(Self {
                    between_rows_mm: rows,
                    between_columns_mm: columns,
                })
            }
            _ => None,
        }
    }
}

/// Directions of a row (increasing column) and of a column (increasing row), unit, at right angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Orientation {
    pub row: DVec3,
    pub column: DVec3,
}

impl Orientation {
    fn new(values: &[f64]) -> Option<Self> {
        let &[a, b, c, d, e, f, ..] = values else {
            return None;
        };
        let (row, column) = (DVec3::new(a, b, c), DVec3::new(d, e, f));
        let unit = |v: DVec3| v.is_finite() && (0.9..1.1).contains(&v.length());
        if !unit(row) || !unit(column) {
            return None;
        }
        let (row, column) = (row.normalize(), column.normalize());
        // 0.01: half a degree of rounding; the standard asks for right angles.
        (row.dot(column).abs() < 0.01).then_some(Self { row, column })
    }

    pub fn normal(&self) -> DVec3 {
        self.row.cross(self.column).normalize()
    }
}

/// A frame of an image, as its own, the shared and the top-level attributes describe it.
#[derive(Clone, Copy)]
pub(super) struct FrameView<'a> {
    root: Item<'a>,
    shared: Option<Item<'a>>,
    own: Option<Item<'a>>,
    frame: usize,
    frames: usize,
}

/// All frames of a data set.
pub(super) fn frames(dataset: &Dataset, count: usize) -> impl Iterator<Item = FrameView<'_>> {
    let root = dataset.root();
    let shared = root.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let mut own = root.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    (0..count).map(move |frame| FrameView {
        root,
        shared,
        own: own.next(),
        frame,
        frames: count,
    })
}

impl<'a> FrameView<'a> {
    /// Item of a functional group.
    pub fn group(&self, sequence: Tag) -> Option<Item<'a>> {
        self.own
            .and_then(|item| item.item(sequence))
            .or_else(|| self.shared.and_then(|item| item.item(sequence)))
    }

    /// The item that holds `tag`: the functional group, else the data set itself.
    pub fn holder(&self, sequence: Tag, tag: Tag) -> Item<'a> {
        self.group(sequence)
            .filter(|item| item.has(tag))
            .unwrap_or(self.root)
    }

    fn is_enhanced(&self) -> bool {
        self.own.is_some() || self.shared.is_some()
    }

    pub fn position(&self) -> Option<DVec3> {
        let holder = self.holder(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT);
        let position = holder.vector(tags::IMAGE_POSITION_PATIENT)?;
        if self.frames == 1 || self.is_enhanced() {
            return Some(position);
        }
        // RT Dose: frames lie at offsets along the normal (PS3.3 C.8.8.3.2).
        let offsets = self.root.numbers(tags::GRID_FRAME_OFFSET_VECTOR);
        let (first, offset) = (offsets.first()?, offsets.get(self.frame)?);
        let along = if *first == 0.0 {
            *offset
        } else {
            offset - first
        };
        Some(position + self.orientation()?.normal() * along).filter(|p| p.is_finite())
    }

    pub fn orientation(&self) -> Option<Orientation> {
        let tag = tags::IMAGE_ORIENTATION_PATIENT;
        Orientation::new(
            &self
                .holder(tags::PLANE_ORIENTATION_SEQUENCE, tag)
                .numbers(tag),
        )
    }

    pub fn pixel_spacing(&self) -> Option<PixelSpacing> {
        let tag = tags::PIXEL_SPACING;
        PixelSpacing::new(&self.holder(tags::PIXEL_MEASURES_SEQUENCE, tag).numbers(tag))
    }

    /// At the detector: Imager Pixel Spacing.
    pub fn imager_spacing(&self) -> Option<PixelSpacing> {
        PixelSpacing::new(&self.root.numbers(tags::IMAGER_PIXEL_SPACING))
    }

    /// Slice Thickness in mm.
    pub fn thickness_mm(&self) -> Option<f64> {
        let tag = tags::SLICE_THICKNESS;
        self.holder(tags::PIXEL_MEASURES_SEQUENCE, tag)
            .number(tag)
            .filter(|t| (1e-3..1e4).contains(t))
    }

    /// Attributes whose values may set images of one position apart, the most telling first.
    fn keys(&self) -> Vec<(String, String)> {
        let mut keys = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                keys.push((name.to_owned(), value));
            }
        };
        let content = self.group(tags::FRAME_CONTENT_SEQUENCE);
        let in_content = |tag: Tag| content.and_then(|c| c.text_or_number(tag));
        let of = |sequence: Tag, tag: Tag| self.group(sequence).and_then(|g| g.text_or_number(tag));
        let top = |tag: Tag| self.root.text_or_number(tag);
        add("stack", in_content(tags::STACK_ID));
        let frame_type = [
            tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
            tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
            tags::PET_FRAME_TYPE_SEQUENCE,
        ]
        .into_iter()
        .find_map(|sequence| of(sequence, tags::FRAME_TYPE));
        add("type", frame_type.or_else(|| top(tags::IMAGE_TYPE)));
        add(
            "echo time",
            of(tags::MR_ECHO_SEQUENCE, tags::EFFECTIVE_ECHO_TIME).or_else(|| top(tags::ECHO_TIME)),
        );
        add("echo", top(tags::ECHO_NUMBERS));
        let diffusion = self.group(tags::MR_DIFFUSION_SEQUENCE);
        add(
            "b-value",
            diffusion
                .and_then(|d| d.text_or_number(tags::DIFFUSION_B_VALUE))
                .or_else(|| top(tags::DIFFUSION_B_VALUE)),
        );
        let gradient = diffusion
            .and_then(|d| d.item(tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE))
            .and_then(|d| d.text_or_number(tags::DIFFUSION_GRADIENT_ORIENTATION));
        add(
            "direction",
            gradient.or_else(|| top(tags::DIFFUSION_GRADIENT_ORIENTATION)),
        );
        add(
            "phase",
            in_content(tags::TEMPORAL_POSITION_INDEX)
                .or_else(|| top(tags::TEMPORAL_POSITION_IDENTIFIER)),
        );
        add(
            "cardiac phase",
            of(
                tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
                tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME,
            )
            .or_else(|| top(tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE)),
        );
        add("trigger time", top(tags::TRIGGER_TIME));
        add("flip angle", top(tags::FLIP_ANGLE));
        add("inversion time", top(tags::INVERSION_TIME));
        add("kernel", top(tags::CONVOLUTION_KERNEL));
        add("tube voltage", top(tags::KVP));
        add(
            "acquisition",
            in_content(tags::FRAME_ACQUISITION_NUMBER).or_else(|| top(tags::ACQUISITION_NUMBER)),
        );
        add("contrast", top(tags::CONTRAST_BOLUS_AGENT));
        add("acquisition time", top(tags::ACQUISITION_TIME));
        // Any other dimension that the writer declares.
        if let Some(indices) = content.map(|c| c.numbers(tags::DIMENSION_INDEX_VALUES)) {
            for (n, index) in indices.iter().take(8).enumerate() {
                add(&format!("dimension {}", n + 1), Some(index.to_string()));
            }
        }
        keys
    }
}

/// One image of the index.
#[derive(Clone, Debug)]
pub(super) struct ImageInfo {
    pub frame: u32,
    pub position: Option<DVec3>,
    pub orientation: Option<Orientation>,
    /// In the patient, then at the detector.
    pub spacing: [Option<PixelSpacing>; 2],
    pub keys: Vec<(String, String)>,
}

/// One file of the index.
#[derive(Debug)]
pub(super) struct FileInfo {
    pub patient: [String; 4],
    pub study_uid: Option<Uid>,
    /// Date, time, description, ID, accession number, institution.
    pub study: [String; 6],
    pub series_uid: Option<Uid>,
    pub modality: String,
    pub series_number: Option<i32>,
    pub series_description: String,
    pub body_part: String,
    pub protocol: String,
    pub contrast: bool,
    pub frame_of_reference: Option<Uid>,
    pub sop_class: Option<Uid>,
    pub sop_instance: Option<Uid>,
    pub instance_number: Option<i32>,
    /// View Position; empty when nobody says.
    pub view: String,
    pub syntax: String,
    pub lossy: Option<String>,
    pub localizer: bool,
    pub synthetic: bool,
    /// Format and images; `None` for objects without pixels of their own (SR, RTSTRUCT, SEG).
    pub images: Option<(PixelFormat, Vec<ImageInfo>)>,
    /// Why the image cannot be shown though its header is whole: its series must say so.
    pub unreadable: Option<Error>,
}

impl FileInfo {
    pub fn read(dataset: &Dataset) -> Result<Self, Error> {
        let root = dataset.root();
        if root.has(tags::DIRECTORY_RECORD_SEQUENCE) || root.has(tags::FILE_SET_ID) {
            return Err(Error::NotDicom {
                found: "an index (DICOMDIR): the files it lists are read themselves",
            });
        }
        let [meta_class, meta_instance] = dataset.meta_sop.clone();
        let sop_class = root.uid(tags::SOP_CLASS_UID).or(meta_class);
        let is_segmentation = sop_class
            .as_ref()
            .is_some_and(|uid| SEGMENTATION_STORAGE.contains(&uid.as_str()));
        let is_image = dataset.pixels.is_some() || root.has(tags::ROWS) || root.has(tags::COLUMNS);
        let mut unreadable = None;
        let images = if is_image && !is_segmentation {
            match images(dataset) {
                Ok(images) => Some(images),
                Err(error @ Error::ShortPixelData { .. }) => {
                    unreadable = Some(error);
                    None
                }
                Err(error) => return Err(error),
            }
        } else {
            None
        };
        if images.is_none() && dataset.pixels.is_none() {
            if let Some(Error::Truncated {
                tag,
                declared,
                available,
            }) = &dataset.truncated
            {
                return Err(Error::Truncated {
                    tag: tag.clone(),
                    declared: *declared,
                    available: *available,
                });
            }
            let modality = root.line(tags::MODALITY);
            if modality.is_empty() {
                return Err(Error::NotDicom {
                    found: "a data set that is neither an image nor a known object",
                });
            }
            if !OBJECT_MODALITIES.contains(&modality.as_str()) {
                return Err(Error::NoPixelData);
            }
        }
        let image_type = root.texts(tags::IMAGE_TYPE);
        let lossy = dataset
            .syntax
            .is_lossy()
            .then(|| dataset.syntax.name().to_owned())
            .or_else(|| {
                let marked = root.text(tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01");
                let method = root.line(tags::LOSSY_IMAGE_COMPRESSION_METHOD);
                marked.then(|| {
                    if method.is_empty() {
                        "unknown".to_owned()
                    } else {
                        method
                    }
                })
            });
        Ok(Self {
            patient: [
                person_name(&root.line(tags::PATIENT_NAME)),
                root.line(tags::PATIENT_ID),
                root.line(tags::PATIENT_BIRTH_DATE),
                root.line(tags::PATIENT_SEX),
            ],
            study_uid: root.uid(tags::STUDY_INSTANCE_UID),
            study: [
                root.line(tags::STUDY_DATE),
                root.line(tags::STUDY_TIME),
                root.line(tags::STUDY_DESCRIPTION),
                root.line(tags::STUDY_ID),
                root.line(tags::ACCESSION_NUMBER),
                root.line(tags::INSTITUTION_NAME),
            ],
            series_uid: root.uid(tags::SERIES_INSTANCE_UID),
            modality: root.line(tags::MODALITY),
            series_number: root.integer(tags::SERIES_NUMBER).map(|n| n as i32),
            series_description: root.line(tags::SERIES_DESCRIPTION),
            body_part: root.line(tags::BODY_PART_EXAMINED),
            protocol: [tags::PROTOCOL_NAME, tags::SEQUENCE_NAME]
                .map(|tag| root.line(tag))
                .join(" ")
                .trim()
                .to_owned(),
            contrast: {
                let agent = root.line(tags::CONTRAST_BOLUS_AGENT).to_lowercase();
                !["", "no", "none", "n", "false"].contains(&agent.trim())
            },
            frame_of_reference: root.uid(tags::FRAME_OF_REFERENCE_UID),
            sop_class,
            sop_instance: root.uid(tags::SOP_INSTANCE_UID).or(meta_instance),
            instance_number: root.integer(tags::INSTANCE_NUMBER).map(|n| n as i32),
            view: view_position(root),
            syntax: dataset.syntax.uid().to_owned(),
            lossy,
            localizer: image_type.iter().any(|v| v == "LOCALIZER"),
            synthetic: is_synthetic(root),
            images,
            unreadable,
        })
    }
}

/// View Position, or what View Code Sequence says in its place (PS3.3 C.8.11.5, PS3.16 CID 4010).
fn view_position(root: super::dataset::Item<'_>) -> String {
    let told = root.line(tags::VIEW_POSITION).to_ascii_uppercase();
    if !told.is_empty() {
        return told;
    }
    let code = root.items(tags::VIEW_CODE_SEQUENCE).next();
    let code = code.map(|item| item.line(tags::CODE_VALUE));
    match code.as_deref() {
        Some("399348003") => "AP",
        Some("272479007") => "PA",
        Some("399173006") => "LL",
        Some("399198007") => "RL",
        Some("399067008") => "LATERAL",
        _ => "",
    }
    .to_owned()
}

fn images(dataset: &Dataset) -> Result<(PixelFormat, Vec<ImageInfo>), Error> {
    if dataset.pixels.is_none() {
        if let Some(Error::Truncated {
            tag,
            declared,
            available,
        }) = &dataset.truncated
        {
            return Err(Error::Truncated {
                tag: tag.clone(),
                declared: *declared,
                available: *available,
            });
        }
        return Err(Error::NoPixelData);
    }
    if let super::syntax::Syntax::Unknown(uid) = &dataset.syntax {
        return Err(Error::UnknownSyntax { uid: uid.clone() });
    }
    let format = PixelFormat::read(dataset)?;
    if format.photometric == pixels::Photometric::Palette {
        super::decode::Palette::read(dataset.root(), format.signed)?;
    }
    let count = pixels::frame_count(dataset.root())?;
    pixels::check_length(dataset, &format, count)?;
    let images = frames(dataset, count)
        .map(|view| ImageInfo {
            frame: view.frame as u32,
            position: view.position(),
            orientation: view.orientation(),
            spacing: [view.pixel_spacing(), view.imager_spacing()],
            // Frames without attributes of their own have nothing that sets them apart.
            keys: if count == 1 || view.own.is_some() {
                view.keys()
            } else {
                Vec::new()
            },
        })
        .collect();
    Ok((format, images))
}

/// `Family^Given^Middle^Prefix^Suffix` as people write it; the alphabetic group, else the first
/// that is there.
pub(super) fn person_name(value: &str) -> String {
    let group = value
        .split('=')
        .find(|g| !g.trim().is_empty())
        .unwrap_or_default();
    let parts: Vec<&str> = group.split('^').map(str::trim).collect();
    let at = |n: usize| parts.get(n).copied().unwrap_or_default();
    let given: Vec<&str> = [at(3), at(1), at(2), at(4)]
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect();
    match (at(0), given.is_empty()) {
        (family, true) => family.to_owned(),
        ("", false) => given.join(" "),
        (family, false) => format!("{family}, {}", given.join(" ")),
    }
}

/// Our phantoms say so in two places.
pub(super) fn is_synthetic(root: Item<'_>) -> bool {
    root.text(tags::QUALITY_CONTROL_IMAGE).as_deref() == Some("YES")
        && root.line(tags::IMAGE_COMMENTS).starts_with("SYNTHETIC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn person_names_read_as_people_write_them() {
        assert_eq!(person_name("Doe^Jane^Q^Dr"), "Doe, Dr Jane Q");
        assert_eq!(person_name("Yamada^Tarou=山田^太郎"), "Yamada, Tarou");
        assert_eq!(person_name("=山田^太郎"), "山田, 太郎");
        assert_eq!(person_name("Phantom^Synthetic"), "Phantom, Synthetic");
        assert_eq!(person_name(""), "");
    }
}
