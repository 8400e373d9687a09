//! Values without identity: dummies, forms of text, words that may stay.

/// What a text says when it has been replaced.
pub(super) const REMOVED: &str = "REMOVED";

/// Families of value representations that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Code,
    ShortText,
    LongText,
    Person,
    Decimal,
    Date,
    Time,
    DateTime,
    Age,
    Uid,
    Entity,
    Address,
    Number(usize),
    Bytes,
    Sequence,
}

impl Kind {
    pub(super) fn of(vr: [u8; 2]) -> Self {
        match &vr {
            b"CS" => Self::Code,
            b"LO" | b"SH" => Self::ShortText,
            b"LT" | b"ST" | b"UT" | b"UC" => Self::LongText,
            b"PN" => Self::Person,
            b"DS" | b"IS" => Self::Decimal,
            b"DA" => Self::Date,
            b"TM" => Self::Time,
            b"DT" => Self::DateTime,
            b"AS" => Self::Age,
            b"UI" => Self::Uid,
            b"AE" => Self::Entity,
            b"UR" => Self::Address,
            b"US" | b"SS" => Self::Number(2),
            b"UL" | b"SL" | b"FL" | b"AT" => Self::Number(4),
            b"FD" | b"SV" | b"UV" => Self::Number(8),
            b"SQ" => Self::Sequence,
            _ => Self::Bytes,
        }
    }

    pub(super) fn is_string(self) -> bool {
        !matches!(self, Self::Number(_) | Self::Bytes | Self::Sequence)
    }
}

/// A valid value that says nothing. UIDs and sequences have dummies of their own.
pub(super) fn dummy(kind: Kind) -> Vec<u8> {
    let text = match kind {
        Kind::Code | Kind::ShortText | Kind::LongText | Kind::Entity => REMOVED,
        Kind::Person => "Anonymous",
        Kind::Decimal => "0",
        Kind::Date => super::dates::DUMMY_DATE,
        Kind::Time => "000000",
        Kind::DateTime => "19700101000000",
        Kind::Age => "000D",
        Kind::Address => "urn:removed",
        Kind::Number(size) => return vec![0; size],
        Kind::Bytes => return vec![0; 2],
        Kind::Uid | Kind::Sequence => "",
    };
    text.as_bytes().to_vec()
}

/// A term of a code string: short, printable, and no number of a person. Lower case is common and
/// harmless; more than three digits stand only in the names of standards.
pub(super) fn is_code(term: &str) -> bool {
    const STANDARDS: [&str; 3] = ["ISO_IR ", "ISO 2022 IR ", "ISO_1"];
    let digits = term.bytes().filter(u8::is_ascii_digit).count();
    let standard = term == "GB18030"
        || STANDARDS.iter().any(|name| {
            let rest = term.strip_prefix(name);
            rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'_'))
        });
    let printable = |b: u8| b == b' ' || b.is_ascii_graphic();
    term.len() <= 16 && term.bytes().all(printable) && (digits <= 3 || standard)
}

/// Terms that say how an object is built, whatever people are called.
pub(super) fn is_defined_term(term: &str) -> bool {
    const TERMS: &str = "|TEXT|NUM|CODE|DATETIME|DATE|TIME|UIDREF|PNAME|COMPOSITE|IMAGE|WAVEFORM\
        |SCOORD|SCOORD3D|TCOORD|CONTAINER|CONTAINS|HAS OBS CONTEXT|HAS CONCEPT MOD|HAS PROPERTIES\
        |HAS ACQ CONTEXT|INFERRED FROM|SELECTED FROM|SEPARATE|CONTINUOUS|PARTIAL|COMPLETE|VERIFIED\
        |UNVERIFIED|MONOCHROME1|MONOCHROME2|RGB|PALETTE COLOR|YBR_FULL|YBR_FULL_422|YBR_RCT|YBR_ICT\
        |ORIGINAL|DERIVED|PRIMARY|SECONDARY|LOCALIZER|BINARY|FRACTIONAL|YES|NO|CT|MR|CR|DX|MG|US|PT|NM\
        |XA|RF|OT|SEG|SR|KO|PR|RTSTRUCT|RTPLAN|RTDOSE|ECG|PIXEL|DISPLAY|POINT|CIRCLE|ELLIPSE|POLYLINE\
        |MULTIPOINT|POLYGON|CLOSED_PLANAR|AUTOMATIC|SEMIAUTOMATIC|MANUAL|";
    !term.is_empty() && !term.contains('|') && TERMS.contains(&format!("|{term}|"))
}

/// A decimal or integer string; the comma of some writers included.
pub(super) fn is_decimal(term: &str) -> bool {
    let plain = term.replace(',', ".");
    term.is_empty() || term.len() <= 32 && plain.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `045Y`.
pub(super) fn is_age(text: &str) -> bool {
    text.len() == 4
        && text.ends_with(['D', 'W', 'M', 'Y'])
        && text.bytes().take(3).all(|b| b.is_ascii_digit())
}

/// A UID that the standard has assigned: its root, and no component long enough for a number of a
/// person.
pub(super) fn is_well_known(uid: &str) -> bool {
    uid.strip_prefix("1.2.840.10008.").is_some_and(|rest| {
        uid.len() <= 40
            && rest.split('.').all(|part| {
                (1..=5).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            })
    })
}

/// The words of a description that name anatomy or technique, and numbers of up to two digits.
///
/// What is not known is dropped: a name is never guessed to be none.
pub(super) fn known_words(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| {
            let number = word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit());
            !word.is_empty() && (number || is_known_word(word))
        })
        .collect();
    if words.iter().all(|w| w.bytes().all(|b| b.is_ascii_digit())) {
        return String::new();
    }
    words.join(" ")
}

/// Whether a word is of the list of anatomy and technique.
pub(super) fn is_known_word(word: &str) -> bool {
    let lower = word.to_lowercase();
    WORDS.split_whitespace().any(|known| known == lower)
}

/// Words of radiology that are no names of people.
const WORDS: &str = "abdomen abdominal acquisition adc adrenal after angio angiography ankle \
    anterior aorta aortic ap arm arterial artery ascending atlas average axial axl b0 b1000 bilateral \
    biliary bladder blade blood bolus bone bowel brain breast breath bronchus calcium calibration \
    cardiac carotid cervical chest cine clavicle colon colonography contrast coronal coronary cor cranial \
    cranium csf ct cta cube cxr decubitus delayed descending diffusion digital dixon dorsal dose dti \
    dual duodenum dwi dynamic dyn echo elbow enhanced epi ep2d equilibrium esophagus fast fat fdg femoral \
    femur fgre field fiesta film finger flair flash flow fluid fluoroscopy fmri foot forearm frontal \
    fse functional fused gallbladder gated gre hand haste head heart hepatic high hip humerus iliac \
    image images in infusion inner inspiration expiration inversion iso iv jaw joint kidney kidneys knee \
    kernel lateral left leg limb liver lobe localizer localiser low lower lumbar lung lungs lymph mag \
    magnetic mammography mandible map maxilla mediastinum mesh mip mitral mlo mpr mprage mr mra mri mrv \
    multiphase muscle myelography native neck nerve non nodule oblique obl opposed orbit orbits out outer \
    ovary pa pancreas parallel parathyroid patella pelvis pelvic perfusion pet phase phantom pituitary \
    planning plain pleura portal post posterior pre proton prostate protocol pulmonary pd radial radiograph \
    radius rectum recon reconstruction reformat reformatted renal resolution rest rib ribs right routine \
    sacrum sag sagittal scan scout screening se segmentation sequence series shoulder sinus skull slice \
    small soft space spgr spin spine spleen spoiled standard sternum stir stomach stress study supine \
    prone surview survey swi swan t1 t1w t2 t2w t2star temporal test thick thin thigh thoracic thorax thyroid tibia \
    time tof toe topogram tra trace trachea transverse trueFISP trufi tse turbo ultrasound unenhanced \
    upper ureter urinary uterus vein venous ventricle ventricular vertebra vessel vibe view volume \
    lesion tumor mass edema cyst segment organ gray matter nucleus hippocampus \
    volumetric weighted white whole body window with without wo w wrist xa xray";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_keep_known_words_only() {
        let check = |text, expected| assert_eq!(known_words(text), expected, "{text}");
        check("T1 MPRAGE sag Dr. Meier 12", "T1 MPRAGE sag 12");
        check("Thorax pa/lat Müller, geb. 1950", "Thorax pa");
        check("Smith", "");
        check("12 34", "");
    }

    #[test]
    fn codes_hold_no_numbers_of_people() {
        for term in [
            "HFS",
            "YBR_FULL_422",
            "ISO 2022 IR 149",
            "ISO_IR 100",
            "ISO_10918_1",
            "GB18030",
        ] {
            assert!(is_code(term), "{term}");
        }
        for term in [
            "M6427K2535",
            "19610312",
            "ISO_IR 1000 M12",
            "MUCH TOO LONG FOR A CODE",
        ] {
            assert!(!is_code(term), "{term}");
        }
    }

    #[test]
    fn only_short_components_are_of_the_standard() {
        assert!(is_well_known("1.2.840.10008.5.1.4.1.1.2"));
        assert!(is_well_known("1.2.840.10008.1.4.1.1"));
        assert!(!is_well_known("1.2.840.10008.5.1.4.1.1.2.555123456"));
        assert!(!is_well_known("1.2.840.113619.2.1"));
        assert!(!is_well_known("1.2.840.10008."));
    }
}
