//! SNOMED CT codes of structures, by the names that models give them (FreeSurfer's tables, challenges).

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
    ("spleen", "78961009", "Spleen"),
    ("liver", "10200004", "Liver"),
    ("pancreas", "15776009", "Pancreas"),
    ("kidney", "64033007", "Kidney"),
    ("left kidney", "18639004", "Left kidney"),
    ("right kidney", "9846003", "Right kidney"),
    ("gallbladder", "28231008", "Gallbladder"),
    ("esophagus", "32849002", "Esophagus"),
    ("stomach", "69695003", "Stomach"),
    ("duodenum", "38848004", "Duodenum"),
    ("colon", "71854001", "Colon"),
    ("aorta", "15825003", "Aorta"),
    ("inferior vena cava", "64131007", "Inferior vena cava"),
    ("portal vein", "32764006", "Portal vein"),
    ("adrenal gland", "23451007", "Adrenal gland"),
    ("left adrenal gland", "38360008", "Left adrenal gland"),
    ("right adrenal gland", "29392005", "Right adrenal gland"),
    ("urinary bladder", "89837001", "Urinary bladder"),
    ("prostate", "41216001", "Prostate"),
    ("lung", "39607008", "Lung"),
    ("left lung", "44029006", "Left lung"),
    ("right lung", "3341006", "Right lung"),
    ("heart", "80891009", "Heart"),
];

/// The same for what is no normal anatomy: name, code, meaning.
const ABNORMAL: &[(&str, &str, &str)] = &[
    ("tumor", "108369006", "Neoplasm"),
    ("tumour", "108369006", "Neoplasm"),
    ("edema", "79654002", "Edema"),
    ("necrosis", "6574001", "Necrosis"),
];

/// Category and code of a structure.
pub fn structure(name: &str) -> (CodedConcept, CodedConcept) {
    let lower = name.to_lowercase();
    let abnormal = [
        "tumor", "tumour", "lesion", "nodule", "edema", "necro", "cyst",
    ];
    if abnormal.iter().any(|word| lower.contains(word)) {
        let category = CodedConcept::new("49755003", "SCT", "Morphologically Altered Structure");
        let known = ABNORMAL.iter().find(|(known, ..)| *known == lower);
        let property = known.map_or_else(
            || private(name),
            |(_, code, meaning)| CodedConcept::new(code, "SCT", meaning),
        );
        return (category, property);
    }
    let category = CodedConcept::new("123037004", "SCT", "Anatomical Structure");
    (category, brain_structure(name))
}

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
