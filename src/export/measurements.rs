//! One row of numbers per segment: `measurements.csv`.

use crate::findings::{Segment, Segmentation};
use crate::geometry::DVec3;
use crate::volume::{LabelStatistics, Layout, Volume, label_statistics};

/// A segment with what was measured in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The segment.
    pub segment: Segment,
    /// `None` when it has no voxel. The centroid follows the grid.
    pub statistics: Option<LabelStatistics>,
    /// Unit of mean, SD, minimum and maximum; empty when there is none.
    pub unit: String,
    /// Whether modality values mean anything: not in colors.
    pub has_values: bool,
    /// Whether it has mL and a place in the patient; plain images have neither.
    pub is_volume: bool,
}

impl Measured {
    /// Volume in mL, 0 without a voxel; none of plain images.
    pub fn volume_ml(&self) -> Option<f64> {
        match &self.statistics {
            Some(s) => s.volume_ml,
            None => self.is_volume.then_some(0.0),
        }
    }
}

/// Measures every segment, by label. `volume` lies on the label map's grid.
///
/// # Panics
/// When the grids differ in dims.
pub fn measure(segmentation: &Segmentation, volume: &Volume) -> Vec<Measured> {
    let mut all = label_statistics(volume, &segmentation.map);
    let mut segments = segmentation.segments.clone();
    segments.sort_by_key(|s| s.label);
    segments
        .into_iter()
        .map(|segment| {
            let at = all.iter().position(|s| s.label == segment.label);
            Measured {
                statistics: at.map(|at| all.swap_remove(at)),
                segment,
                unit: volume.quantity.unit().to_owned(),
                has_values: !volume.voxels.is_color(),
                is_volume: volume.layout == Layout::Volumetric,
            }
        })
        .collect()
}

/// The table; columns are fixed, empty cells mean "nothing to measure".
pub(super) fn table(measured: &[Measured]) -> Result<Vec<u8>, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "label",
        "name",
        "voxels",
        "volume_ml",
        "mean",
        "sd",
        "min",
        "max",
        "unit",
        "centroid_l_mm",
        "centroid_p_mm",
        "centroid_h_mm",
    ])?;
    for m in measured {
        let s = m.statistics.as_ref();
        let value = |pick: fn(&LabelStatistics) -> f64| {
            s.filter(|_| m.has_values)
                .map(|s| number(pick(s), 4))
                .unwrap_or_default()
        };
        let place = |pick: fn(DVec3) -> f64| {
            s.filter(|_| m.is_volume)
                .map(|s| number(pick(s.centroid_lps), 3))
                .unwrap_or_default()
        };
        out.write_record([
            m.segment.label.to_string(),
            cell(&m.segment.name),
            s.map_or(0, |s| s.voxels).to_string(),
            m.volume_ml().map_or_else(String::new, |ml| number(ml, 6)),
            value(|s| s.mean),
            value(|s| s.sd),
            value(|s| s.min),
            value(|s| s.max),
            cell(&m.unit),
            place(|c| c.x),
            place(|c| c.y),
            place(|c| c.z),
        ])?;
    }
    out.into_inner().map_err(|e| e.into_error().into())
}

fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return String::new();
    }
    let text = format!("{value:.digits$}");
    // No "-0.000".
    if text
        .trim_start_matches('-')
        .bytes()
        .all(|b| b == b'0' || b == b'.')
    {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Text that no spreadsheet takes for a formula.
///
/// # Source
/// OWASP, CSV Injection.
fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_becomes_a_formula() {
        for (name, expected) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-x", "'-x"),
            ("\t=1", "'\t=1"),
            ("Liver", "Liver"),
        ] {
            assert_eq!(cell(name), expected);
        }
    }

    #[test]
    fn numbers_have_no_negative_zero() {
        assert_eq!(number(-0.000_01, 3), "0.000");
        assert_eq!(number(-1.5, 1), "-1.5");
        assert_eq!(number(f64::NAN, 1), "");
    }
}
