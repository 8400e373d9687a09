//! Orientation letters and positions in words, in the patient's frame (LPS).

use super::{DVec3, VolumeGeometry};

/// Letters of a direction in LPS: `R L A P H F`, the strongest first, weaker ones that
/// exceed about 15° appended ("LA"). PS3.3 C.7.6.1.1.1 uses the same letters.
pub fn direction_letters(direction_lps: DVec3) -> String {
    let d = direction_lps.normalize_or_zero();
    let mut parts = [(d.x, 'L', 'R'), (d.y, 'P', 'A'), (d.z, 'H', 'F')];
    parts.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    parts
        .iter()
        .filter(|(size, ..)| size.abs() > 0.26)
        .map(|&(size, positive, negative)| if size > 0.0 { positive } else { negative })
        .collect()
}

/// The patient's side that each axis of a grid rises to, i first, as nibabel's `aff2axcodes` says
/// it: `RAS`, `LPS`, `PIR`, ….
pub fn axis_codes(grid: &VolumeGeometry) -> String {
    let mut codes = [' '; 3];
    let nearest = grid.nearest_axes();
    for (side, [rising, falling]) in [['L', 'R'], ['P', 'A'], ['S', 'I']].into_iter().enumerate() {
        let axis = nearest[side];
        let rises = grid.direction(axis)[side] >= 0.0;
        codes[axis] = if rises { rising } else { falling };
    }
    codes.into_iter().collect()
}

/// A position as radiologists read it: "L 12.3  P 4.0  H 88.1 mm".
pub fn position_words(lps_mm: DVec3) -> String {
    let part = |value: f64, positive: char, negative: char| {
        format!(
            "{} {:.1}",
            if value < 0.0 { negative } else { positive },
            value.abs()
        )
    };
    format!(
        "{}  {}  {} mm",
        part(lps_mm.x, 'L', 'R'),
        part(lps_mm.y, 'P', 'A'),
        part(lps_mm.z, 'H', 'F')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clinical_laterality_axis_codes_name_the_side_that_an_axis_rises_to() {
        let codes = |axes: [DVec3; 3]| {
            let grid = VolumeGeometry::from_axes([4, 5, 6], DVec3::ZERO, axes, [1.0; 3]);
            axis_codes(&grid.unwrap())
        };
        let [x, y, z] = [DVec3::X, DVec3::Y, DVec3::Z];
        assert_eq!(codes([x, y, z]), "LPS");
        assert_eq!(codes([-x, -y, z]), "RAS");
        // Sagittal slices from right to left, rows downwards.
        assert_eq!(codes([y, -z, x]), "PIL");
        // A coronal that leans by 20 degrees.
        let (sin, cos) = 20_f64.to_radians().sin_cos();
        assert_eq!(codes([x, y * sin - z * cos, y * cos + z * sin]), "LIP");
    }

    #[test]
    fn clinical_laterality_letters_follow_lps() {
        assert_eq!(direction_letters(DVec3::X), "L");
        assert_eq!(direction_letters(-DVec3::X), "R");
        assert_eq!(direction_letters(DVec3::Y), "P");
        assert_eq!(direction_letters(DVec3::NEG_Z), "F");
        assert_eq!(direction_letters(DVec3::new(0.9, -0.4, 0.1)), "LA");
    }

    #[test]
    fn positions_are_named_by_side() {
        assert_eq!(
            position_words(DVec3::new(-12.34, 4.0, 88.1)),
            "R 12.3  P 4.0  H 88.1 mm"
        );
    }
}
