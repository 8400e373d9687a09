//! Settings to fill in.

use std::fmt::Write;
use std::path::Path;

use super::facts::Facts;
use super::proto::Dim;

/// A TOML file with all facts that a package needs; what the file says is there already.
pub(super) fn template(path: &Path, facts: &Facts) -> String {
    let file = path.file_name().map(|f| f.to_string_lossy().into_owned());
    let file = file.unwrap_or_default();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let said = |keys: &[&str]| quoted(facts.says(keys).unwrap_or_default());
    let size: Vec<String> = facts
        .size
        .iter()
        .map(|dim| match dim {
            Dim::Known(n) => n.to_string(),
            Dim::Named(_) => "96".to_owned(),
        })
        .collect();
    let mut text = String::new();
    let _ = write!(
        text,
        r#"# What {file} does not say. Save as {} beside it.
name = {}
version = "1.0.0"
license = {}
intended_use = ""
training_data = {}
# DICOM's word: CT, MR, PT, …
modality = {}

[input]
# Along the network's own axes ({} of them).
size = [{}]
"#,
        Path::new(&file).with_extension("toml").display(),
        quoted(&Path::new(&file).with_extension("").to_string_lossy()),
        said(&["license"]),
        said(&["training_data", "dataset"]),
        said(&["modality"]),
        facts.size.len(),
        size.join(", "),
    );
    if facts.channels != Some(1) {
        let names: Vec<String> = (1..=facts.channels.unwrap_or(1))
            .map(|n| quoted(&format!("image {n}")))
            .collect();
        let _ = writeln!(
            text,
            "# The images of one patient that are the network's channels, e.g. \"T1\", \"FLAIR\".\nimages = [{}]",
            names.join(", ")
        );
    }
    text.push_str(
        r#"# Ends that the network's axes run to, as in MONAI's Orientation; "stored" for the scan's own.
orientation = "RAS"
# Along these axes; "stored" for the scan's own.
spacing_mm = [1.5, 1.5, 2.0]
# Part of a window that the next one covers again; gaussian weights windows less towards their border.
overlap = 0.25
gaussian = false
crop_foreground = false
# In order. Kinds: { kind = "scale", to = [0, 1] }, { kind = "range", from = [-57, 164], to = [0, 1], clip = true },
# { kind = "percentiles", from = [1, 99], to = [0, 1], clip = true }, { kind = "normalize", nonzero = false }; [] for none.
intensity = [{ kind = "range", from = [-57, 164], to = [0, 1], clip = true }]

[output]
"#,
    );
    if facts.outputs.len() > 1 {
        let names: Vec<String> = facts.outputs.iter().map(|n| quoted(n)).collect();
        let _ = writeln!(text, "# One of {}.\nname = {}", names.join(", "), names[0]);
    }
    text.push_str(
        r#"# "argmax" (channel 0 is background), "threshold" (each channel is a region) or "classification".
decision = "argmax"
# Before the decision: "none", "softmax" or "sigmoid"; none when the file ends with it.
activation = "none"
# For threshold: threshold = 0.5
# Only the largest part of each label: largest_component = true

# One for each channel besides the background; for a classification [[classes]] with a name each.
# color = [R, G, B] and category, property = { scheme = "SCT", value = "…", meaning = "…" } may be added.
"#,
    );
    let names = facts.names().unwrap_or_else(|| vec!["Spleen".to_owned()]);
    for name in names {
        let _ = writeln!(text, "[[labels]]\nname = {}", quoted(&name));
    }
    text
}
