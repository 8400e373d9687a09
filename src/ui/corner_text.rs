//! Text in the corners of a view: who and what, where, how.

use crate::app::{App, CornerText, SeriesKey};
use crate::geometry::ViewPlane;
use crate::study::{Patient, Series, Study};

/// Lines for the four corners: top left, top right, bottom left, bottom right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corners {
    /// Patient.
    pub top_left: Vec<String>,
    /// Study.
    pub top_right: Vec<String>,
    /// Image, window, zoom.
    pub bottom_left: Vec<String>,
    /// Series.
    pub bottom_right: Vec<String>,
}

/// Longest line, in characters; longer values are cut.
const LONGEST: usize = 28;

/// What a view says about its image. Identity appears only in the full state, and only in one view.
pub fn corners(app: &App, view: ViewPlane, zoom_percent: f64) -> Corners {
    let mut corners = Corners::default();
    let Some(open) = &app.workspace.open else {
        return corners;
    };
    if app.settings.corner_text == CornerText::None {
        return corners;
    }
    let found = match &open.key {
        SeriesKey::Stack { series, .. } => app.browser.find(series),
        SeriesKey::File(_) => None,
    };
    let full = app.settings.corner_text == CornerText::Full;
    let main_view = carries_text(app) == view;
    if let Some((patient, study, series)) = found {
        if full && main_view {
            corners.top_left = patient_lines(patient);
            corners.top_right = study_lines(study);
        }
        if main_view {
            corners.bottom_right = series_lines(series);
        }
    } else if let (SeriesKey::File(path), true) = (&open.key, main_view) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        corners.bottom_right.extend(name.map(|n| cut(&n)));
    }
    if let Some((index, count)) = app.workspace.slice(view) {
        let word = if open.is_volumetric() {
            view.name()
        } else {
            "Image"
        };
        corners
            .bottom_left
            .push(format!("{word} {} / {count}", index + 1));
    }
    let w = app.workspace.window;
    let name = app
        .workspace
        .window_name
        .as_deref()
        .map(|n| format!("  {n}"))
        .unwrap_or_default();
    if !open.data.voxels.is_color() {
        corners.bottom_left.push(format!(
            "W {} L {}{name}",
            number(w.width),
            number(w.center)
        ));
    }
    if full {
        corners
            .bottom_left
            .push(format!("Zoom {zoom_percent:.0} %"));
    }
    if open.is_volumetric() && main_view {
        let [a, b, c] = open.data.geometry.spacing_mm();
        corners
            .bottom_right
            .push(format!("{a:.2} × {b:.2} × {c:.2} mm"));
    }
    corners
}

/// The view that carries patient and study text.
pub fn carries_text(app: &App) -> ViewPlane {
    app.workspace.maximized.unwrap_or(app.workspace.main)
}

/// A number without needless digits.
pub fn number(value: f32) -> String {
    if value.abs() >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn patient_lines(patient: &Patient) -> Vec<String> {
    let born = date_words(patient.birth_date.expose());
    let sex = patient.sex.expose();
    lines([
        patient.name.expose().clone(),
        patient.id.expose().clone(),
        [born.as_str(), sex.as_str()]
            .iter()
            .filter(|s| !s.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("  "),
    ])
}

fn study_lines(study: &Study) -> Vec<String> {
    let time = study.time.expose();
    let time = if time.len() >= 4 && time.is_ascii() {
        format!(" {}:{}", &time[..2], &time[2..4])
    } else {
        String::new()
    };
    lines([
        study.institution.expose().clone(),
        study.description.clone(),
        study.accession.expose().clone(),
        format!("{}{time}", date_words(study.date.expose())),
    ])
}

fn series_lines(series: &Series) -> Vec<String> {
    let number = series
        .number
        .map(|n| format!("Series {n}"))
        .unwrap_or_default();
    lines([
        format!("{number}  {}", series.modality),
        series.description.clone(),
    ])
}

fn lines<const N: usize>(lines: [String; N]) -> Vec<String> {
    lines
        .iter()
        .map(|line| cut(line.trim()))
        .filter(|line| !line.is_empty())
        .collect()
}

fn cut(line: &str) -> String {
    if line.chars().count() <= LONGEST {
        line.to_owned()
    } else {
        line.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}

/// `20240131` as `2024-01-31`; anything else as it is.
pub fn date_words(date: &str) -> String {
    if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) {
        format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..])
    } else {
        date.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_with_dashes_and_oddities_kept() {
        assert_eq!(date_words("20240131"), "2024-01-31");
        assert_eq!(date_words("2024"), "2024");
        assert_eq!(date_words(""), "");
    }

    #[test]
    fn long_values_are_cut_by_characters() {
        let long = "ä".repeat(60);
        assert_eq!(cut(&long).chars().count(), LONGEST);
    }
}
