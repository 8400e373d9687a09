//! Positions of slices → the step between them, the grid they fit, and what is wrong with it.

use crate::geometry::DVec3;
use crate::study::Issue;

/// Positions closer than this along the normal are one position.
pub(super) const SAME_POSITION_MM: f64 = 0.01;
/// Tilt below this is rounding.
const TILT_DEGREES: f64 = 0.2;
/// Gaps listed one by one; the rest is counted.
const GAPS_LISTED: usize = 8;
/// So many equal wide steps in a row are a change of protocol, not a loss of slices.
const STEADY_RUN: usize = 3;
/// Slices of a grid lie within this part of a step of their own position.
const GRID_TOLERANCE: f64 = 0.1;

/// The grid of a stack, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spacing {
    /// From slice to slice in LPS mm; `None` for a single slice.
    pub step: Option<DVec3>,
    /// Place of each image in the grid, rising from 0; numbers in between have no image.
    pub slots: Vec<usize>,
    /// Slices are missing, more of them than the images justify: the stack is better cut here,
    /// behind this image.
    pub cut: Option<usize>,
    pub issues: Vec<Issue>,
}

impl Spacing {
    /// Of positions in order along `normal`.
    pub fn of(positions: &[DVec3], normal: DVec3) -> Self {
        let count = positions.len();
        let mut spacing = Self {
            step: None,
            slots: (0..count).collect(),
            cut: None,
            issues: Vec::new(),
        };
        let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else {
            return spacing;
        };
        if count < 2 || first.distance(last) < SAME_POSITION_MM {
            return spacing;
        }
        let direction = (last - first).normalize();
        let steps: Vec<f64> = positions
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).dot(direction))
            .collect();
        let mut sorted = steps.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[(sorted.len() - 1) / 2];
        // 1 % of a step, but not below the rounding of decimal strings.
        let tolerance = (0.01 * median).max(SAME_POSITION_MM);

        let grid = Grid::of(&steps, median, tolerance);
        let filled = grid.filter(|grid| {
            let deviation = grid.deviation_mm(positions);
            // Positions beside the line have an issue of their own.
            let along = deviation.dot(direction).abs();
            along <= (GRID_TOLERANCE * median).max(SAME_POSITION_MM)
        });
        match filled {
            Some(grid) if grid.missing() <= count => {
                spacing.issues = grid.missing_issues(&steps);
                spacing.step = Some((last - first) / grid.last() as f64);
                spacing.slots = grid.slots;
            }
            other => {
                let step = direction * median;
                spacing.cut = other.map(|grid| grid.widest());
                spacing.issues.extend(uneven(positions, &steps, step));
                spacing.step = Some(step);
            }
        }
        let degrees = direction.dot(normal).clamp(-1.0, 1.0).acos().to_degrees();
        if degrees > TILT_DEGREES {
            spacing.issues.push(Issue::GantryTilt { degrees });
        }
        let off_line = positions
            .iter()
            .map(|&p| (p - first).reject_from(direction).length())
            .fold(0.0, f64::max);
        if off_line > 0.5 {
            spacing.issues.push(Issue::Other {
                code: "positions-off-line",
                message: format!(
                    "slice positions leave a straight line by up to {off_line:.1} mm: places between slices are doubtful"
                ),
            });
        }
        spacing
    }

    /// Slices of the grid, with those that have no image.
    pub fn slices(&self) -> usize {
        self.slots.last().map_or(0, |last| last + 1)
    }
}

/// Steps that are whole multiples of one step.
struct Grid {
    slots: Vec<usize>,
}

impl Grid {
    fn of(steps: &[f64], median: f64, tolerance: f64) -> Option<Self> {
        let mut slots = vec![0];
        let mut run = (1.0, 0);
        for &step in steps {
            let multiple = (step / median).round();
            // Beyond 2^20 missing slices nothing is a grid any more.
            let whole = (1.0..1_048_576.0).contains(&multiple)
                && (step - multiple * median).abs() <= tolerance * multiple.min(2.0);
            if !whole {
                return None;
            }
            run = if multiple == run.0 {
                (multiple, run.1 + 1)
            } else {
                (multiple, 1)
            };
            if multiple > 1.0 && run.1 >= STEADY_RUN {
                return None;
            }
            slots.push(slots.last()? + multiple as usize);
        }
        Some(Self { slots })
    }

    fn last(&self) -> usize {
        self.slots.last().copied().unwrap_or(0)
    }

    fn missing(&self) -> usize {
        self.last() + 1 - self.slots.len()
    }

    /// The image before the widest gap.
    fn widest(&self) -> usize {
        let gap = |n: &usize| self.slots[n + 1] - self.slots[*n];
        (0..self.slots.len() - 1).max_by_key(gap).unwrap_or(0)
    }

    /// The largest way from a place in the grid to the image's own position.
    fn deviation_mm(&self, positions: &[DVec3]) -> DVec3 {
        let (first, last) = (positions[0], positions[positions.len() - 1]);
        let step = (last - first) / self.last() as f64;
        largest(
            positions
                .iter()
                .zip(&self.slots)
                .map(|(p, &k)| *p - (first + step * k as f64)),
        )
    }

    fn missing_issues(&self, steps: &[f64]) -> Vec<Issue> {
        let mut gaps = self
            .slots
            .windows(2)
            .zip(steps)
            .filter(|(pair, _)| pair[1] - pair[0] > 1)
            .map(|(pair, &gap_mm)| (pair[1] - pair[0] - 1, pair[0], gap_mm));
        let mut issues: Vec<Issue> = gaps
            .by_ref()
            .take(GAPS_LISTED)
            .map(|(count, after, gap_mm)| Issue::MissingSlices {
                count,
                after,
                gap_mm,
            })
            .collect();
        let rest: Vec<usize> = gaps.map(|(count, ..)| count).collect();
        if !rest.is_empty() {
            issues.push(Issue::Other {
                code: "missing-slices",
                message: format!(
                    "{} more missing slices at {} more places: shown empty",
                    rest.iter().sum::<usize>(),
                    rest.len()
                ),
            });
        }
        issues
    }
}

fn largest(ways: impl Iterator<Item = DVec3>) -> DVec3 {
    ways.fold(DVec3::ZERO, |most, way| {
        if way.length() > most.length() {
            way
        } else {
            most
        }
    })
}

/// The doubt about slices that are shown one step apart, though they are not.
fn uneven(positions: &[DVec3], steps: &[f64], step: DVec3) -> Option<Issue> {
    let expected_mm = step.length();
    let (before, &gap_mm) = steps.iter().enumerate().max_by(|(_, a), (_, b)| {
        (**a - expected_mm)
            .abs()
            .total_cmp(&(**b - expected_mm).abs())
    })?;
    let first = positions[0];
    let deviation_mm = largest(
        positions
            .iter()
            .enumerate()
            .map(|(k, p)| *p - (first + step * k as f64)),
    )
    .length();
    Some(Issue::UnevenSpacing {
        before,
        after: before + 1,
        gap_mm,
        expected_mm,
        deviation_mm,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(at: &[f64]) -> Vec<DVec3> {
        at.iter().map(|&z| DVec3::new(1.0, 2.0, z)).collect()
    }

    #[test]
    fn even_slices_raise_no_issue() {
        let spacing = Spacing::of(&line(&[0.0, 2.5, 5.0, 7.5]), DVec3::Z);
        assert_eq!(spacing.step, Some(DVec3::new(0.0, 0.0, 2.5)));
        assert_eq!(spacing.slots, [0, 1, 2, 3]);
        assert_eq!(spacing.issues, []);
    }

    #[test]
    fn clinical_spacing_a_gap_of_whole_steps_keeps_every_slice_in_its_place() {
        let spacing = Spacing::of(&line(&[0.0, 2.0, 4.0, 10.0, 12.0, 16.0]), DVec3::Z);
        assert_eq!(spacing.step, Some(DVec3::new(0.0, 0.0, 2.0)));
        assert_eq!(spacing.slots, [0, 1, 2, 5, 6, 8]);
        assert_eq!(spacing.slices(), 9);
        let missing = |count, after, gap_mm| Issue::MissingSlices {
            count,
            after,
            gap_mm,
        };
        assert_eq!(spacing.issues, [missing(2, 2, 6.0), missing(1, 6, 4.0)]);
        assert_eq!(
            spacing.issues[0].to_string(),
            "2 slices are missing after slice 3 (a gap of 6.00 mm): shown empty, volumes and lengths there are doubtful"
        );
        assert!(spacing.issues[1].to_string().starts_with("1 slice is"));
    }

    #[test]
    fn many_gaps_are_listed_in_part_and_counted() {
        let mut z = 0.0;
        let mut at = vec![z];
        for n in 0..40 {
            z += if n % 4 == 3 { 2.0 } else { 1.0 };
            at.push(z);
        }
        let issues = Spacing::of(&line(&at), DVec3::Z).issues;
        assert_eq!(issues.len(), GAPS_LISTED + 1);
        assert!(
            issues[8]
                .to_string()
                .starts_with("2 more missing slices at 2 ")
        );
    }

    #[test]
    fn more_missing_than_there_are_images_is_a_place_to_cut() {
        let spacing = Spacing::of(&line(&[0.0, 1.0, 2.0, 50.0, 51.0]), DVec3::Z);
        assert_eq!(spacing.slots, [0, 1, 2, 3, 4]);
        assert_eq!(spacing.cut, Some(2));
        assert!(matches!(
            spacing.issues[..],
            [Issue::UnevenSpacing { deviation_mm, .. }] if (deviation_mm - 47.0).abs() < 1e-9
        ));
    }

    #[test]
    fn a_change_of_the_step_is_not_a_loss_of_slices() {
        let at = [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 35.0, 45.0, 55.0];
        let spacing = Spacing::of(&line(&at), DVec3::Z);
        assert_eq!(spacing.slices(), at.len());
        assert_eq!(spacing.cut, None);
        assert!(matches!(
            spacing.issues[..],
            [Issue::UnevenSpacing { deviation_mm, .. }] if (deviation_mm - 15.0).abs() < 1e-9
        ));
    }

    #[test]
    fn clinical_spacing_uneven_steps_are_named_with_their_numbers() {
        let spacing = Spacing::of(&line(&[0.0, 2.0, 4.0, 7.1, 9.1]), DVec3::Z);
        let [
            Issue::UnevenSpacing {
                before: 2,
                after: 3,
                gap_mm,
                expected_mm,
                deviation_mm,
            },
        ] = spacing.issues[..]
        else {
            panic!("{:?}", spacing.issues);
        };
        assert!((gap_mm - 3.1).abs() < 1e-9 && (expected_mm - 2.0).abs() < 1e-9);
        assert!((deviation_mm - 1.1).abs() < 1e-9);
        assert!(spacing.issues[0].to_string().contains("slices 3 and 4 are"));
    }

    #[test]
    fn clinical_spacing_small_steps_that_add_up_are_uneven() {
        // Each step within 1 % of the median, but the middle is half a slice off a straight grid.
        let mut at = vec![0.0];
        for n in 0..200 {
            at.push(at[n] + if n < 100 { 0.991 } else { 1.009 });
        }
        let spacing = Spacing::of(&line(&at), DVec3::Z);
        assert!(matches!(
            spacing.issues[..],
            [Issue::UnevenSpacing { deviation_mm, .. }] if deviation_mm > 0.5
        ));
    }

    #[test]
    fn clinical_spacing_a_tilted_gantry_keeps_its_shear() {
        let positions: Vec<DVec3> = (0..5)
            .map(|n| DVec3::new(0.0, f64::from(n) * 1.0, f64::from(n) * 3.0))
            .collect();
        let spacing = Spacing::of(&positions, DVec3::Z);
        assert!(
            spacing
                .step
                .unwrap()
                .abs_diff_eq(DVec3::new(0.0, 1.0, 3.0), 1e-9)
        );
        let [Issue::GantryTilt { degrees }] = spacing.issues[..] else {
            panic!("{:?}", spacing.issues);
        };
        assert!((degrees - (1.0_f64 / 3.0).atan().to_degrees()).abs() < 1e-9);
    }

    proptest! {
        /// Whatever the positions: what raises no doubt about places lies where the grid says.
        #[test]
        fn clinical_spacing_silence_means_right_places(
            steps in prop::collection::vec(prop_oneof![
                8 => Just(2.0), 1 => Just(4.0), 1 => Just(6.0), 1 => 0.1_f64..9.0, 1 => 1.98_f64..2.02
            ], 1..40),
        ) {
            let mut at = vec![0.0];
            for step in steps {
                at.push(at[at.len() - 1] + step);
            }
            let positions = line(&at);
            let spacing = Spacing::of(&positions, DVec3::Z);
            let step = spacing.step.unwrap();
            prop_assert_eq!(spacing.slots.len(), positions.len());
            let off = positions.iter().zip(&spacing.slots)
                .map(|(p, &k)| p.distance(positions[0] + step * k as f64))
                .fold(0.0, f64::max);
            let stated = spacing.issues.iter().find_map(|i| match i {
                Issue::UnevenSpacing { deviation_mm, .. } => Some(*deviation_mm),
                _ => None,
            });
            match stated {
                Some(stated) => prop_assert!((stated - off).abs() < 1e-9),
                None => prop_assert!(off <= GRID_TOLERANCE * step.length() * 1.03 + SAME_POSITION_MM),
            }
            prop_assert!(spacing.slices() <= 2 * positions.len());
        }
    }
}
