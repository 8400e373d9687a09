//! Explanations of findings: which, how, and as pictures to keep.

use super::models::{LoadedModel, RunError};
use crate::export::MapPicture;
use crate::findings::{Assessment, Call, ExplanationMethod, percent_words};
use crate::render::{CornerLines, SnapshotOptions, png_bytes, snapshot};
use crate::task::Task;
use crate::volume::{Volume, auto_window};

/// Width and height of a picture.
const SIZE_PX: [u32; 2] = [1024, 1024];

/// Adds explanations to all findings that are present or not sure (to the first one where there is
/// none), by the best way that the model has, or by one.
///
/// # Errors
/// [`RunError`], e.g. a way that the model does not have.
pub fn explain_findings(
    model: &LoadedModel,
    assessments: &mut [Assessment],
    volume: &Volume,
    method: Option<ExplanationMethod>,
    task: &Task,
) -> Result<(), RunError> {
    let best = model.explanation_methods().first().copied();
    let Some(method) = method.or(best) else {
        return Ok(());
    };
    for assessment in assessments {
        let called = |call: Option<Call>| matches!(call, Some(Call::Present | Call::NotSure));
        let mut names: Vec<String> = (assessment.findings.iter())
            .filter(|f| called(f.call))
            .map(|f| f.name.clone())
            .collect();
        if names.is_empty() {
            names.extend(assessment.findings.first().map(|f| f.name.clone()));
        }
        for name in names {
            let map = model.explain(volume, assessment.image, &name, method, task)?;
            assessment.explanations.push(map);
        }
    }
    Ok(())
}

/// A picture of each explanation: no name of a patient is on it.
pub fn map_pictures(assessments: &[Assessment], volume: &Volume) -> Vec<MapPicture> {
    let mut pictures = Vec::new();
    for (n, assessment) in assessments.iter().enumerate() {
        for m in 0..assessment.explanations.len() {
            pictures.push(picture(assessment, [n, m], volume));
        }
    }
    pictures
}

fn picture(assessment: &Assessment, [n, m]: [usize; 2], volume: &Volume) -> MapPicture {
    let map = &assessment.explanations[m];
    let window = volume
        .windows
        .first()
        .map_or_else(|| auto_window(volume), |w| w.window);
    let mut options = SnapshotOptions::new(SIZE_PX, window);
    options.slice = Some(assessment.image);
    options.oriented = volume.is_oriented();
    options.explanation = Some(map.clone());
    let made = &assessment.provenance;
    let finding = assessment.findings.iter().find(|f| f.name == map.finding);
    let mut lines = vec![format!("{} {}", made.model_name, made.model_version)];
    lines.extend(finding.map(|f| {
        let call = f.call.map_or("no threshold", Call::words);
        format!("{}: {}, {call}", f.name, percent_words(f.probability))
    }));
    lines.push(map.faithfulness.words());
    options.corners = CornerLines {
        bottom_left: lines,
        ..CornerLines::default()
    };
    options.doubts = assessment.issues.iter().map(ToString::to_string).collect();
    let drawn = snapshot(volume, None, &options);
    MapPicture {
        assessment: n,
        explanation: m,
        size_px: [drawn.width, drawn.height],
        rgb: (drawn.rgba.chunks_exact(4))
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect(),
        png: png_bytes(&drawn),
    }
}
