//! Whether pixels may show text about a person: by class and attributes, without looking at them.

use crate::dicom::Tree;

/// Why the pixels of an object may hold burned-in text; `None` for what volumes are made of.
///
/// A declared `NO` counts for projection images; captured screens and ultrasound are held in spite
/// of it, because their writers are known to set it wrongly.
///
/// # Source
/// PS3.15 E.3.1; the classes follow the filters that archives of research images use.
pub fn burned_in_risk(tree: &Tree) -> Option<&'static str> {
    tree.pixel_tag()?;
    let upper = |tag| tree.text_of(tag).to_uppercase();
    let class = tree.text_of(0x0008_0016);
    let class = class
        .strip_prefix("1.2.840.10008.5.1.4.1.1.")
        .unwrap_or(&class);
    let modality = upper(0x0008_0060);
    let burned_in = upper(0x0028_0301);
    if burned_in == "YES" {
        return Some("Burned In Annotation says YES");
    }
    let under = |root: &str| class == root || class.starts_with(&format!("{root}."));
    if under("7") {
        return Some("secondary capture");
    }
    if under("3.1") || class == "3" || under("6") || matches!(&*modality, "US" | "IVUS" | "BDUS") {
        return Some("ultrasound");
    }
    if tree.find(0x0008_0064).is_some() && !upper(0x0008_0064).is_empty() {
        return Some("converted from another kind of image (Conversion Type)");
    }
    let image_type = upper(0x0008_0008);
    let described = format!("{} {}", upper(0x0008_103E), upper(0x0018_1030));
    let says = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(
        &image_type,
        &[
            "SCREEN SAVE",
            "SCREENSAVE",
            "SCREEN_SAVE",
            "SCREENSHOT",
            "CAPTURE",
        ],
    ) || says(&described, &["SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"])
    {
        return Some("a saved screen");
    }
    if says(&image_type, &["DOSE", "REPORT", "PROTOCOL"])
        || says(
            &described,
            &[
                "DOSE REPORT",
                "DOSE INFO",
                "DOSE SUMMARY",
                "PATIENT PROTOCOL",
            ],
        )
    {
        return Some("a dose report or protocol page");
    }
    if under("77.1") || under("104") || matches!(&*modality, "ES" | "XC" | "GM" | "SM" | "OP") {
        return Some("photographs, endoscopy or scanned slides");
    }
    if matches!(&*modality, "SC" | "OT" | "DOC" | "HC" | "SD" | "SMR") {
        return Some("a modality of copied or scanned images");
    }
    let color = says(&upper(0x0028_0004), &["RGB", "YBR", "PALETTE"]);
    if color && matches!(&*modality, "CT" | "MR" | "PT" | "NM" | "CR" | "DX" | "MG") {
        return Some("a colored image of a gray modality");
    }
    let projection = under("12") || under("1") || under("13");
    if (projection || matches!(&*modality, "XA" | "RF" | "CR" | "DX" | "MG" | "PX" | "IO"))
        && burned_in != "NO"
    {
        return Some("a projection image that does not say it is free of text");
    }
    None
}
