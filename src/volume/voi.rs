//! Modality value → gray (PS3.3 C.11.2), and the usual windows.

use super::Volume;

/// VOI LUT Function.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum VoiFunction {
    /// C.11.2.1.2.1 with its half-unit offsets.
    #[default]
    Linear,
    /// C.11.2.1.3.2.
    LinearExact,
    /// C.11.2.1.3.1.
    Sigmoid,
}

/// Window center and width in modality units.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct VoiWindow {
    /// Window Center.
    pub center: f32,
    /// Window Width, at least 1 for `Linear`, above 0 otherwise.
    pub width: f32,
    /// Shape.
    pub function: VoiFunction,
}

impl VoiWindow {
    /// A linear window.
    pub const fn new(center: f32, width: f32) -> Self {
        Self {
            center,
            width,
            function: VoiFunction::Linear,
        }
    }

    /// A window that maps `low` to black and `high` to white exactly.
    pub fn spanning(low: f32, high: f32) -> Self {
        let width = (high - low).max(1e-6);
        Self {
            center: f32::midpoint(low, high),
            width,
            function: VoiFunction::LinearExact,
        }
    }

    /// Gray from 0 (black) to 1 (white). The reference for the shader.
    ///
    /// # Source
    /// PS3.3 C.11.2.1.2 and C.11.2.1.3.
    pub fn gray(&self, value: f32) -> f32 {
        let (c, w) = (self.center, self.width);
        match self.function {
            VoiFunction::Linear => {
                if w <= 1.0 {
                    return if value <= c - 0.5 { 0.0 } else { 1.0 };
                }
                ((value - (c - 0.5)) / (w - 1.0) + 0.5).clamp(0.0, 1.0)
            }
            VoiFunction::LinearExact => ((value - c) / w + 0.5).clamp(0.0, 1.0),
            VoiFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - c) / w).exp()),
        }
    }
}

/// A window with the name under which it is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedWindow {
    /// "Soft tissue", or the file's explanation.
    pub name: String,
    /// The window.
    pub window: VoiWindow,
}

impl NamedWindow {
    fn new(name: &str, width: f32, center: f32) -> Self {
        Self {
            name: name.to_owned(),
            window: VoiWindow::new(center, width),
        }
    }
}

/// Presets of a modality, width / level as radiologists know them; MR has none.
pub fn presets_for(modality: &str) -> Vec<NamedWindow> {
    let p = NamedWindow::new;
    match modality {
        "CT" => vec![
            p("Soft tissue", 400.0, 40.0),
            p("Lung", 1500.0, -600.0),
            p("Bone", 2000.0, 400.0),
            p("Brain", 80.0, 40.0),
            p("Stroke", 40.0, 40.0),
            p("Subdural", 200.0, 80.0),
            p("Liver", 150.0, 90.0),
            p("Mediastinum", 400.0, 50.0),
            p("Airway", 1000.0, -400.0),
            p("MIP", 380.0, 120.0),
        ],
        _ => Vec::new(),
    }
}

/// A window from the data: 0.1 % tails of the values, padding left out.
///
/// For volumes above 4 million voxels an even sample is used. A constant image gets width 1.
pub fn auto_window(volume: &Volume) -> VoiWindow {
    let count = volume.voxels.len();
    let step = (count / 4_000_000).max(1) | 1; // odd, so that it does not follow one column
    let is_padding = |stored: f32| {
        volume
            .padding
            .is_some_and(|(a, b)| stored >= a && stored <= b)
    };
    let [ni, nj, _] = volume.geometry.dims();
    let mut values: Vec<f32> = (0..count)
        .step_by(step)
        .filter_map(|n| {
            let stored = volume.voxels.stored(n);
            let value = volume.modality_lut.apply(stored, n / (ni * nj));
            (value.is_finite() && !is_padding(stored)).then_some(value)
        })
        .collect();
    if values.is_empty() {
        return VoiWindow::spanning(0.0, 1.0);
    }
    let tail = values.len() / 1000;
    let last = values.len() - 1;
    let low = *values.select_nth_unstable_by(tail, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(last - tail, f32::total_cmp).1;
    if high > low {
        VoiWindow::spanning(low, high)
    } else {
        VoiWindow::spanning(low - 0.5, low + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_window_follows_the_standards_example() {
        // PS3.3 C.11.2.1.2.1 note: center 2048, width 4096 over 0..4095 is the identity.
        let w = VoiWindow::new(2048.0, 4096.0);
        for x in [0.0_f32, 1.0, 2048.0, 4095.0] {
            assert!((w.gray(x) - x / 4095.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_window_of_width_one_is_a_threshold() {
        let w = VoiWindow::new(100.0, 1.0);
        assert_eq!((w.gray(99.5), w.gray(99.6)), (0.0, 1.0));
    }

    #[test]
    fn a_spanning_window_reaches_black_and_white() {
        let w = VoiWindow::spanning(-3.0, 5.0);
        assert_eq!((w.gray(-3.0), w.gray(1.0), w.gray(5.0)), (0.0, 0.5, 1.0));
    }
}
