//! Orientation letters and positions in words, in the patient's frame (LPS).

use super::DVec3;

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
