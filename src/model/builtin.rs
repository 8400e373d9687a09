//! Models that come with the program.

use std::path::PathBuf;

use super::package::PackageFiles;

/// Packages compiled in.
pub fn packages() -> Vec<PackageFiles> {
    vec![
        package(
            "hippocampus-mini",
            include_bytes!("../../assets/models/hippocampus-mini/manifest.json"),
            include_bytes!("../../assets/models/hippocampus-mini/weights.safetensors"),
            include_bytes!("../../assets/models/hippocampus-mini/MODEL_CARD.md"),
        ),
        package(
            "hippocampus",
            include_bytes!("../../assets/models/hippocampus/manifest.json"),
            include_bytes!("../../assets/models/hippocampus/weights.safetensors"),
            include_bytes!("../../assets/models/hippocampus/MODEL_CARD.md"),
        ),
        package(
            "lungs-cxr",
            include_bytes!("../../assets/models/lungs-cxr/manifest.json"),
            include_bytes!("../../assets/models/lungs-cxr/weights.safetensors"),
            include_bytes!("../../assets/models/lungs-cxr/MODEL_CARD.md"),
        ),
        package(
            "pneumonia-28",
            include_bytes!("../../assets/models/pneumonia-28/manifest.json"),
            include_bytes!("../../assets/models/pneumonia-28/weights.safetensors"),
            include_bytes!("../../assets/models/pneumonia-28/MODEL_CARD.md"),
        ),
        package(
            "pneumonia-cnn",
            include_bytes!("../../assets/models/pneumonia-cnn/manifest.json"),
            include_bytes!("../../assets/models/pneumonia-cnn/weights.safetensors"),
            include_bytes!("../../assets/models/pneumonia-cnn/MODEL_CARD.md"),
        ),
        package(
            "pneumonia-vit",
            include_bytes!("../../assets/models/pneumonia-vit/manifest.json"),
            include_bytes!("../../assets/models/pneumonia-vit/weights.safetensors"),
            include_bytes!("../../assets/models/pneumonia-vit/MODEL_CARD.md"),
        ),
        package(
            "tuberculosis-cnn",
            include_bytes!("../../assets/models/tuberculosis-cnn/manifest.json"),
            include_bytes!("../../assets/models/tuberculosis-cnn/weights.safetensors"),
            include_bytes!("../../assets/models/tuberculosis-cnn/MODEL_CARD.md"),
        ),
        package(
            "left-ventricle-cine",
            include_bytes!("../../assets/models/left-ventricle-cine/manifest.json"),
            include_bytes!("../../assets/models/left-ventricle-cine/weights.safetensors"),
            include_bytes!("../../assets/models/left-ventricle-cine/MODEL_CARD.md"),
        ),
    ]
}

fn package(name: &str, manifest: &[u8], weights: &[u8], card: &[u8]) -> PackageFiles {
    PackageFiles {
        manifest: manifest.to_vec(),
        weights: weights.to_vec(),
        card: Some(card.to_vec()),
        signature: None,
        path: PathBuf::from(format!("bundled model {name}")),
    }
}
