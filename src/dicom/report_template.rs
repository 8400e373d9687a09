//! Words of structured reports: the codes of a measurement report, and content items.
//!
//! # Source
//! PS3.3 C.17.3 (content items); PS3.16 TID 300, 1001, 1004, 1204, 1500, 1501, 1600, 1602, 4019.

use chrono::{DateTime, Utc};
use dicom_core::{PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;

use super::compose::{Composer, decimal_string, one_value};
use super::dataset::Item;
use crate::findings::{Call, ReviewState};
use crate::study::{CodedConcept, Uid};
use crate::volume::SourceImage;

/// Codes of this program, where the standard has none.
pub(super) const PRIVATE_SCHEME: &str = "99NEGATOSCOPE";
/// A text of a report is cut here.
pub(super) const LONGEST_TEXT: usize = 4000;

/// A code without owner, for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub value: &'static str,
    pub scheme: &'static str,
    pub meaning: &'static str,
}

impl Code {
    pub fn concept(self) -> CodedConcept {
        CodedConcept::new(self.value, self.scheme, self.meaning)
    }

    /// Code Value and scheme decide, the meaning is for people (PS3.3 8.3).
    pub fn is(self, concept: &CodedConcept) -> bool {
        concept.value == self.value && concept.scheme == self.scheme
    }
}

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code {
        value,
        scheme: "DCM",
        meaning,
    }
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code {
        value,
        scheme: "SCT",
        meaning,
    }
}

const fn own(value: &'static str, meaning: &'static str) -> Code {
    Code {
        value,
        scheme: PRIVATE_SCHEME,
        meaning,
    }
}

const fn ucum(value: &'static str, meaning: &'static str) -> Code {
    Code {
        value,
        scheme: "UCUM",
        meaning,
    }
}

pub(super) const TITLE: Code = dcm("126000", "Imaging Measurement Report");
pub(super) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
pub(super) const ENGLISH: Code = Code {
    value: "en",
    scheme: "RFC5646",
    meaning: "English",
};
pub(super) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
pub(super) const DEVICE: Code = dcm("121007", "Device");
pub(super) const DEVICE_UID: Code = dcm("121012", "Device Observer UID");
pub(super) const DEVICE_NAME: Code = dcm("121013", "Device Observer Name");
pub(super) const DEVICE_MAKER: Code = dcm("121014", "Device Observer Manufacturer");
pub(super) const DEVICE_MODEL: Code = dcm("121015", "Device Observer Model Name");
pub(super) const PROCEDURE_REPORTED: Code = dcm("121058", "Procedure reported");
pub(super) const IMAGING_PROCEDURE: Code = sct("363679005", "Imaging procedure");
pub(super) const IMAGE_LIBRARY: Code = dcm("111028", "Image Library");
pub(super) const IMAGE_LIBRARY_GROUP: Code = dcm("126200", "Image Library Group");
pub(super) const SOURCE: Code = sct("260753009", "Source");
pub(super) const MODALITY: Code = dcm("121139", "Modality");
pub(super) const MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
pub(super) const GROUP: Code = dcm("125007", "Measurement Group");
pub(super) const TRACKING_ID: Code = dcm("112039", "Tracking Identifier");
pub(super) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
pub(super) const CATEGORY: Code = sct("276214006", "Finding category");
pub(super) const CLINICAL_FINDING: Code = sct("404684003", "Clinical finding");
pub(super) const FINDING: Code = dcm("121071", "Finding");
pub(super) const ALGORITHM_NAME: Code = dcm("111001", "Algorithm Name");
pub(super) const ALGORITHM_VERSION: Code = dcm("111003", "Algorithm Version");
pub(super) const ALGORITHM_PARAMETERS: Code = dcm("111002", "Algorithm Parameters");
pub(super) const SOURCE_OF_MEASUREMENT: Code = dcm("121112", "Source of Measurement");
pub(super) const MEASUREMENT_METHOD: Code = sct("370129005", "Measurement Method");
pub(super) const EVALUATIONS: Code = Code {
    value: "C0034375",
    scheme: "UMLS",
    meaning: "Qualitative Evaluations",
};
pub(super) const COMMENT: Code = dcm("121106", "Comment");

/// "The likelihood that the finding detected is in fact the type of finding identified", in
/// percent. (111047, DCM, "Probability of cancer") is about cancer alone.
pub(super) const PROBABILITY: Code = dcm("111012", "Certainty of Finding");
pub(super) const PERCENT: Code = ucum("%", "Percent");
pub(super) const UNITY: Code = ucum("1", "no units");

// The standard's sensitivities (111088 to 111091, DCM) are of detecting cancers.
pub(super) const CALIBRATED: Code = own("CALIBRATED", "Calibrated probability");
pub(super) const SCORE: Code = own("SCORE", "Score, not calibrated");
pub(super) const THRESHOLD: Code = own("THRESHOLD", "Operating threshold");
pub(super) const SENSITIVITY: Code = own("SENSITIVITY", "Sensitivity at the operating threshold");
pub(super) const SPECIFICITY: Code = own("SPECIFICITY", "Specificity at the operating threshold");
pub(super) const CASES_WITH: Code = own("CASESWITH", "Test cases with the finding");
pub(super) const CASES_WITHOUT: Code = own("CASESWITHOUT", "Test cases without the finding");
pub(super) const CALL: Code = own("CALL", "Call at the operating threshold");
pub(super) const REVIEW: Code = own("REVIEW", "Review by a person");
pub(super) const READER_CALL: Code = own("READERCALL", "Call of the reader in the model's place");
pub(super) const REVIEWED_BY: Code = own("REVIEWEDBY", "Reviewed by");
pub(super) const REVIEWED_AT: Code = own("REVIEWEDAT", "Reviewed at");
pub(super) const REFUSED: Code = own("REFUSED", "Why no finding is given");

/// PS3.16 CID 240, "Present-Absent-Undetermined".
pub(super) const CALLS: [(Call, Code); 3] = [
    (Call::Present, sct("52101004", "Present")),
    (Call::Absent, sct("272519000", "Absent")),
    (Call::NotSure, sct("373068000", "Undetermined")),
];

pub(super) const REVIEWS: [(ReviewState, Code); 4] = [
    (
        ReviewState::NotReviewed,
        own("NOTREVIEWED", "AI - not reviewed"),
    ),
    (ReviewState::Accepted, own("ACCEPTED", "Accepted")),
    (ReviewState::Edited, own("EDITED", "Edited by a reader")),
    (ReviewState::Rejected, own("REJECTED", "Rejected")),
];

/// A code of this program for a finding that its model gives none: at most 16 characters, the same
/// for the same name.
pub(super) fn private_finding(name: &str) -> CodedConcept {
    // As it is written: a backslash separates values.
    let name = &name.replace('\\', "/");
    // FNV-1a; the name itself is the Code Meaning, so that a collision loses nothing.
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    CodedConcept::new(
        &format!("F{:015X}", hash >> 4),
        PRIVATE_SCHEME,
        &one_value(name, 64),
    )
}

/// How a content item belongs to the one that holds it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relation {
    Contains,
    ObservationContext,
    AcquisitionContext,
    Modifies,
}

impl Relation {
    const fn term(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::ObservationContext => "HAS OBS CONTEXT",
            Self::AcquisitionContext => "HAS ACQ CONTEXT",
            Self::Modifies => "HAS CONCEPT MOD",
        }
    }
}

fn item(relation: Relation, value_type: &str, name: Code) -> Composer {
    let mut item = Composer::new();
    item.text(tags::RELATIONSHIP_TYPE, relation.term())
        .text(tags::VALUE_TYPE, value_type)
        .code(tags::CONCEPT_NAME_CODE_SEQUENCE, &name.concept());
    item
}

/// The root's own attributes, or those of a container within.
pub(super) fn container_attributes(
    item: &mut Composer,
    template: Option<&str>,
    content: Vec<Composer>,
) {
    item.text(tags::CONTINUITY_OF_CONTENT, "SEPARATE");
    if let Some(template) = template {
        let mut identified = Composer::new();
        identified
            .text(tags::MAPPING_RESOURCE, "DCMR")
            .text(tags::TEMPLATE_IDENTIFIER, template);
        item.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![identified]);
    }
    item.sequence(tags::CONTENT_SEQUENCE, content);
}

pub(super) fn container(name: Code, template: Option<&str>, content: Vec<Composer>) -> Composer {
    let mut item = item(Relation::Contains, "CONTAINER", name);
    container_attributes(&mut item, template, content);
    item
}

pub(super) fn text(relation: Relation, name: Code, value: &str) -> Composer {
    let mut item = item(relation, "TEXT", name);
    let value = one_value(value, LONGEST_TEXT);
    // Text Value is of type 1.
    let value = if value.is_empty() {
        "unspecified".to_owned()
    } else {
        value
    };
    item.text(tags::TEXT_VALUE, value);
    item
}

pub(super) fn code(relation: Relation, name: Code, value: &CodedConcept) -> Composer {
    let mut item = item(relation, "CODE", name);
    item.code(tags::CONCEPT_CODE_SEQUENCE, value);
    item
}

pub(super) fn uid(relation: Relation, name: Code, value: &Uid) -> Composer {
    let mut item = item(relation, "UIDREF", name);
    item.uid(tags::UID, value);
    item
}

pub(super) fn person(name: Code, value: &str) -> Composer {
    let mut item = item(Relation::Contains, "PNAME", name);
    // '=' parts writings of a name, '^' its components (PS3.5 6.2): this is one piece.
    item.text(
        tags::PERSON_NAME,
        one_value(&value.replace(['=', '^'], " "), 64),
    );
    item
}

pub(super) fn date_time(name: Code, value: DateTime<Utc>) -> Composer {
    let mut item = item(Relation::Contains, "DATETIME", name);
    item.text(
        tags::DATE_TIME,
        value.format("%Y%m%d%H%M%S+0000").to_string(),
    );
    item
}

/// A number, to the last bit: the decimal string may have too few digits (PS3.3 C.18.1).
pub(super) fn number(name: Code, value: f64, unit: Code, content: Vec<Composer>) -> Composer {
    let mut item = item(Relation::Contains, "NUM", name);
    let mut measured = Composer::new();
    measured
        .text(tags::NUMERIC_VALUE, decimal_string(value))
        .value(
            tags::FLOATING_POINT_VALUE,
            VR::FD,
            PrimitiveValue::from(value),
        )
        .code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, &unit.concept());
    item.sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    if !content.is_empty() {
        item.sequence(tags::CONTENT_SEQUENCE, content);
    }
    item
}

pub(super) fn image(name: Code, source: &SourceImage, content: Vec<Composer>) -> Composer {
    let mut item = item(Relation::Contains, "IMAGE", name);
    let mut reference = Composer::new();
    reference
        .uid(tags::REFERENCED_SOP_CLASS_UID, &source.sop_class_uid)
        .uid(tags::REFERENCED_SOP_INSTANCE_UID, &source.sop_instance_uid);
    if let Some(frame) = source.frame {
        reference.text(
            tags::REFERENCED_FRAME_NUMBER,
            (u64::from(frame) + 1).to_string(),
        );
    }
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
    if !content.is_empty() {
        item.sequence(tags::CONTENT_SEQUENCE, content);
    }
    item
}

/// A content item of a file.
#[derive(Clone, Copy)]
pub(super) struct Content<'a>(pub Item<'a>);

impl Content<'_> {
    /// Children of this name and value type, in order.
    pub fn named(self, name: Code, value_type: &'static str) -> impl Iterator<Item = Self> {
        self.0
            .items(tags::CONTENT_SEQUENCE)
            .map(Content)
            .filter(move |child| child.is(name, value_type))
    }

    pub fn is(self, name: Code, value_type: &str) -> bool {
        self.0.text(tags::VALUE_TYPE).as_deref() == Some(value_type)
            && coded(self.0, tags::CONCEPT_NAME_CODE_SEQUENCE)
                .is_some_and(|concept| name.is(&concept))
    }

    pub fn text(self, name: Code) -> Option<String> {
        self.named(name, "TEXT").find_map(Self::own_text)
    }

    pub fn own_text(self) -> Option<String> {
        let text = self.0.text(tags::TEXT_VALUE)?;
        Some(text.chars().take(LONGEST_TEXT).collect())
    }

    pub fn code(self, name: Code) -> Option<CodedConcept> {
        self.named(name, "CODE")
            .find_map(|child| coded(child.0, tags::CONCEPT_CODE_SEQUENCE))
    }

    /// The first number of this name, its unit, and the item.
    pub fn number(self, name: Code) -> Option<(f64, CodedConcept, Self)> {
        self.named(name, "NUM").find_map(|child| {
            let measured = child.0.item(tags::MEASURED_VALUE_SEQUENCE)?;
            let value = measured
                .number(tags::FLOATING_POINT_VALUE)
                .or_else(|| measured.number(tags::NUMERIC_VALUE))?;
            let unit = coded(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE)?;
            Some((value, unit, child))
        })
    }
}

fn coded(item: Item<'_>, tag: Tag) -> Option<CodedConcept> {
    let code = item.item(tag)?;
    let value = [
        tags::CODE_VALUE,
        tags::LONG_CODE_VALUE,
        tags::URN_CODE_VALUE,
    ]
    .into_iter()
    .find_map(|tag| code.text(tag))?;
    Some(CodedConcept {
        value: value.chars().take(256).collect(),
        scheme: code.line(tags::CODING_SCHEME_DESIGNATOR),
        meaning: code.line(tags::CODE_MEANING),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_codes_fit_and_tell_names_apart() {
        let codes: std::collections::BTreeSet<String> = ["Pneumonia", "pneumonia", "Edema", ""]
            .into_iter()
            .map(|name| private_finding(name).value)
            .collect();
        assert_eq!(codes.len(), 4);
        assert!(codes.iter().all(|code| code.len() == 16));
    }

    #[test]
    fn every_fixed_code_fits_its_attributes() {
        let calls = CALLS.map(|(_, code)| code);
        let reviews = REVIEWS.map(|(_, code)| code);
        let own = [CALIBRATED, SCORE, THRESHOLD, SENSITIVITY, SPECIFICITY];
        let own_too = [CASES_WITH, CASES_WITHOUT, CALL, REVIEW, REFUSED];
        let more = [REVIEWED_BY, REVIEWED_AT, READER_CALL];
        for code in (calls.iter().chain(&reviews).chain(&own))
            .chain(&own_too)
            .chain(&more)
        {
            assert!(code.value.len() <= 16, "{}", code.value);
            assert!(code.meaning.len() <= 64, "{}", code.meaning);
        }
    }
}
