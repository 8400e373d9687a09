//! How a result was made, for programs: `result.json`.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::measurements::Measured;
use super::write_results::Written;
use crate::audit;
use crate::findings::{ReviewState, Segmentation};
use crate::study::{CodedConcept, Uid};
use crate::volume::Volume;

/// Version of the shape below; a change that breaks a reader counts up.
const SHAPE: &str = "negatoscope-result/1";

pub(super) fn result(
    segmentation: &Segmentation,
    volume: &Volume,
    measured: &[Measured],
    files: &[Written],
    now: DateTime<Utc>,
    receipt: &audit::Receipt,
) -> Result<Vec<u8>, serde_json::Error> {
    let p = &segmentation.provenance;
    let source = &segmentation.source;
    let uid = |uid: &Option<Uid>| uid.as_ref().map(Uid::to_string);
    let instances: Vec<String> = if source.images.is_empty() {
        p.inputs.clone()
    } else {
        let mut seen = std::collections::BTreeSet::new();
        source
            .known_images()
            .map(|image| image.sop_instance_uid.to_string())
            .filter(|uid| seen.insert(uid.clone()))
            .collect()
    };
    let document = json!({
        "shape": SHAPE,
        "notice": crate::RESEARCH_USE,
        "software": { "name": "Negatoscope", "version": crate::VERSION },
        "written": now.to_rfc3339_opts(SecondsFormat::Secs, true),
        "model": {
            "id": p.model_id,
            "name": p.model_name,
            "version": p.model_version,
            "sha256": p.model_sha256,
        },
        "run": {
            "id": p.run,
            "algorithm": segmentation.algorithm.term(),
            "device": p.device,
            "software_version": p.software_version,
            "started": p.started,
            "elapsed_secs": named(p.elapsed_secs.iter().map(|(k, v)| (k, json!(v)))),
            "parameters": named(p.parameters.iter().map(|(k, v)| (k, json!(v)))),
        },
        "review": match segmentation.review {
            ReviewState::NotReviewed => "not reviewed",
            ReviewState::Accepted => "accepted",
            ReviewState::Edited => "edited by reader",
            ReviewState::Rejected => "rejected",
        },
        "reviewed": segmentation.reviewed.as_ref().map(|r| json!({
            "by": r.by.expose(),
            "at": r.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        })),
        "input": {
            "study_instance_uid": uid(&source.study_instance_uid),
            "series_instance_uid": uid(&source.series_instance_uid),
            "frame_of_reference_uid": uid(&source.frame_of_reference_uid),
            "modality": volume.modality,
            "quantity": volume.quantity.name(),
            "dims": volume.geometry.dims(),
            "spacing_mm": volume.geometry.spacing_mm(),
            "lps_from_ijk": volume.geometry.lps_from_ijk_rows(),
            "instances": instances,
        },
        "segments": measured.iter().map(segment).collect::<Vec<_>>(),
        "issues": segmentation
            .issues
            .iter()
            .map(|issue| json!({ "code": issue.code(), "message": issue.to_string() }))
            .collect::<Vec<_>>(),
        "files": files
            .iter()
            .map(|file| json!({
                "format": file.format.name(),
                "name": file.path.file_name().map(|n| n.to_string_lossy()),
                "bytes": file.bytes,
                "sha256": file.sha256,
            }))
            .collect::<Vec<_>>(),
        "audit": { "record": receipt.seq(), "sha256": receipt.sha256() },
    });
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn named<'a>(pairs: impl Iterator<Item = (&'a String, Value)>) -> Map<String, Value> {
    pairs.map(|(k, v)| (k.clone(), v)).collect()
}

fn segment(m: &Measured) -> Value {
    let code =
        |c: &CodedConcept| json!({ "value": c.value, "scheme": c.scheme, "meaning": c.meaning });
    let s = m.statistics.as_ref();
    let values = s.filter(|_| m.has_values);
    json!({
        "label": m.segment.label,
        "name": m.segment.name,
        "category": code(&m.segment.category),
        "property": code(&m.segment.property),
        "color": m.segment.color,
        "voxels": s.map_or(0, |s| s.voxels),
        "volume_ml": m.volume_ml(),
        "mean": values.map(|s| s.mean),
        "sd": values.map(|s| s.sd),
        "min": values.map(|s| s.min),
        "max": values.map(|s| s.max),
        "unit": m.unit,
        "centroid_lps_mm": s.filter(|_| m.is_volume).map(|s| s.centroid_lps.to_array()),
    })
}
