//! SNOMED CT codes of brain structures, by the names that FreeSurfer's tables use.

use crate::study::CodedConcept;

/// Name (lower case), code, meaning. From DICOM PS3.16 CID 7140 and 7141.
const CODES: &[(&str, &str, &str)] = &[
    ("white matter", "68523003", "Cerebral White Matter"),
    ("grey matter", "2748008", "Gray Matter of Brain"),
    ("cerebral white matter", "68523003", "Cerebral White Matter"),
    ("cerebral cortex", "40146001", "Cerebral Cortex"),
    ("lateral ventricle", "66720007", "Lateral Ventricle"),
    ("cerebellum cortex", "33060004", "Cerebellar Cortex"),
    ("thalamus", "42695009", "Thalamus"),
    ("caudate", "11000004", "Caudate Nucleus"),
    ("putamen", "7580006", "Putamen"),
    ("pallidum", "14738005", "Globus Pallidus"),
    ("3rd ventricle", "49841001", "Third Ventricle"),
    ("4th ventricle", "35918002", "Fourth Ventricle"),
    ("brain stem", "15926001", "Brain Stem"),
    ("hippocampus", "5366008", "Hippocampus"),
    ("amygdala", "4958002", "Amygdala"),
];

/// The code of a structure; for names that the table lacks, a private code with the name.
///
/// Names such as `ctx lh cuneus` keep their side in the private code's meaning.
pub fn brain_structure(name: &str) -> CodedConcept {
    let lower = name.to_lowercase();
    CODES
        .iter()
        .find(|(known, ..)| *known == lower)
        .map_or_else(
            || private(name),
            |(_, code, meaning)| CodedConcept::new(code, "SCT", meaning),
        )
}

/// A code of this program: at most 16 characters, made from the name.
fn private(name: &str) -> CodedConcept {
    let digest = crate::model::sha256_hex(name.as_bytes());
    let meaning: String = name.chars().take(64).collect();
    CodedConcept::new(&format!("N{}", &digest[..12]), "99NEGATOSCOPE", &meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_get_private_codes_that_fit() {
        let code = brain_structure("ctx lh cuneus");
        assert_eq!(code.scheme, "99NEGATOSCOPE");
        assert!(code.value.len() <= 16);
        assert_eq!(brain_structure("Hippocampus").value, "5366008");
    }
}
