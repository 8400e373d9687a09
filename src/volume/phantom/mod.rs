//! Synthetic inputs built from formulas: a T1-weighted MR head with known hippocampi.
//!
//! Seeds in, volumes with their truth out. Absent on purpose: files; claims about real patients.

mod brain;
mod face;
mod head;
mod hippocampus;
mod noise;
mod scanner;
mod shapes;

use glam::Vec3;
use rayon::prelude::*;

use super::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels, auto_window,
};
use crate::geometry::{DVec3, VolumeGeometry};
use crate::study::Issue;
use head::Head;
use noise::SplitMix64;

/// Label of the anterior part (head) of each hippocampus.
pub const ANTERIOR_HIPPOCAMPUS: u8 = 1;
/// Label of the posterior part (body and tail) of each hippocampus.
pub const POSTERIOR_HIPPOCAMPUS: u8 = 2;

/// The head of `negatoscope demo`; the bundled model has not seen it (it was trained on seeds 1 to 24).
pub const DEMO_SEED: u64 = 101;

/// An image and the truth behind it.
#[derive(Clone, Debug)]
pub struct Phantom {
    /// The image.
    pub volume: Volume,
    /// What the image shows, on the same grid.
    pub truth: LabelMap,
}

impl Phantom {
    /// Center of the left and of the right hippocampus in LPS mm, `None` where the grid has none.
    pub fn hippocampi_lps(&self) -> [Option<DVec3>; 2] {
        let geometry = &self.truth.geometry;
        let [ni, nj, _] = geometry.dims();
        let mut sums = [(DVec3::ZERO, 0_u32); 2];
        for (n, _) in self
            .truth
            .labels
            .iter()
            .enumerate()
            .filter(|(_, l)| **l > 0)
        {
            let ijk = [n % ni, n / ni % nj, n / (ni * nj)].map(|x| x as f64);
            let at = geometry.lps_at(DVec3::from(ijk));
            // CLINICAL(laterality): LPS, the patient's left is +x.
            let side = usize::from(at.x < 0.0);
            sums[side].0 += at;
            sums[side].1 += 1;
        }
        sums.map(|(sum, count)| (count > 0).then(|| sum / f64::from(count)))
    }
}

/// The usual grid: axial, 160 × 192 × 160 at 1 mm, i to the left, j to posterior, k to superior.
pub fn head_geometry() -> VolumeGeometry {
    VolumeGeometry::from_axes(
        [160, 192, 160],
        DVec3::new(-79.5, -84.0, -78.0),
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.0; 3],
    )
    .expect("a right-handed 1 mm grid has a volume")
}

/// A synthetic T1-weighted MR head: anatomy, size, contrast and noise vary with the seed.
///
/// The truth holds [`ANTERIOR_HIPPOCAMPUS`] and [`POSTERIOR_HIPPOCAMPUS`] of both sides. The same seed and
/// grid give the same voxels on every machine; the same seed on another grid gives the same head.
pub fn head_mr(seed: u64, geometry: VolumeGeometry) -> Phantom {
    let head = Head::new(seed);
    let [ni, nj, nk] = geometry.dims();
    let mut signal = vec![0.0_f32; geometry.voxel_count()];
    let mut labels = vec![0_u8; geometry.voxel_count()];
    signal
        .par_chunks_mut(ni)
        .zip(labels.par_chunks_mut(ni))
        .enumerate()
        .for_each(|(row, (signal, labels))| {
            let (j, k) = ((row % nj) as f64, (row / nj) as f64);
            let lps_at = |i: usize| geometry.lps_at(DVec3::new(i as f64, j, k)).as_vec3();
            // The bend is smooth: linear between every fourth voxel.
            let bends: Vec<Vec3> = (0..=ni.div_ceil(4))
                .map(|n| head.bend(lps_at(n * 4)))
                .collect();
            for (i, (signal, label)) in signal.iter_mut().zip(labels).enumerate() {
                let bend = bends[i / 4].lerp(bends[i / 4 + 1], (i % 4) as f32 / 4.0);
                (*signal, *label) = head.at(lps_at(i), bend);
            }
        });
    let stored = scanner::acquire(seed, &geometry, signal);
    let mut volume = Volume {
        geometry: geometry.clone(),
        voxels: Voxels::I16(stored),
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Arbitrary,
        modality: "MR".into(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries {
            description: format!("Synthetic T1 head, seed {seed}"),
            body_part: "HEAD".into(),
            ..SourceSeries::default()
        },
        issues: vec![Issue::Synthetic],
    };
    debug_assert_eq!(volume.voxels.len(), ni * nj * nk);
    volume.windows = vec![super::NamedWindow {
        name: "Brain".into(),
        window: auto_window(&volume),
    }];
    Phantom {
        volume,
        truth: LabelMap { geometry, labels },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around both hippocampi alone, so that tests stay fast.
    fn small_geometry(spacing_mm: f64) -> VolumeGeometry {
        let dims = [90.0, 60.0, 60.0].map(|mm| (mm / spacing_mm) as usize);
        let origin = DVec3::new(-45.0, -12.0, -42.0) + spacing_mm / 2.0;
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        VolumeGeometry::from_axes(dims, origin, axes, [spacing_mm; 3]).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_head_and_another_seed_another() {
        let head = |seed| head_mr(seed, small_geometry(3.0)).volume.voxels;
        assert_eq!(head(7), head(7));
        assert_ne!(head(7), head(8));
    }

    #[test]
    fn hippocampi_have_the_size_of_real_ones() {
        for seed in [1, 2, 3, DEMO_SEED] {
            let truth = head_mr(seed, small_geometry(1.0)).truth;
            let [_, anterior, posterior, ..] = truth.counts();
            // Adults: 2.5 to 4 mL a side by manual tracing; here both sides together, 1 mm³ a voxel.
            assert!(
                (5000..8000).contains(&(anterior + posterior)),
                "{anterior} {posterior}"
            );
            let part = anterior as f64 / (anterior + posterior) as f64;
            assert!((0.4..0.6).contains(&part), "anterior part {part}");
        }
    }

    #[test]
    fn clinical_laterality_left_hippocampus_is_at_positive_x() {
        for seed in [1, DEMO_SEED] {
            let [left, right] = head_mr(seed, small_geometry(1.0))
                .hippocampi_lps()
                .map(Option::unwrap);
            assert!((20.0..32.0).contains(&left.x), "{left}");
            assert!((-32.0..-20.0).contains(&right.x), "{right}");
        }
    }

    #[test]
    fn clinical_laterality_a_turned_grid_shows_the_same_head() {
        // Sagittal, from the patient's left to the right, head first, i to posterior, j to inferior.
        let sagittal = VolumeGeometry::from_axes(
            [60, 60, 90],
            DVec3::new(44.5, -11.5, 17.5),
            [DVec3::Y, -DVec3::Z, -DVec3::X],
            [1.0; 3],
        )
        .unwrap();
        let expected = head_mr(5, small_geometry(1.0)).hippocampi_lps();
        let found = head_mr(5, sagittal).hippocampi_lps();
        for (expected, found) in expected.into_iter().zip(found) {
            // The bend is interpolated along i, which differs by a fraction of a voxel.
            assert!(expected.unwrap().abs_diff_eq(found.unwrap(), 0.2));
        }
    }

    #[test]
    fn fluid_is_darker_than_the_hippocampus_and_white_matter_brighter() {
        let Phantom { volume, truth } = head_mr(2, small_geometry(1.0));
        let mut inside: Vec<f32> = (0..truth.labels.len())
            .filter(|&n| truth.labels[n] > 0)
            .map(|n| volume.value(n))
            .collect();
        inside.sort_by(f32::total_cmp);
        let median = inside[inside.len() / 2];
        let mut all = volume.values();
        all.sort_by(f32::total_cmp);
        assert!(all[all.len() / 50] < 0.6 * median, "fluid");
        assert!(all[all.len() * 49 / 50] > 1.3 * median, "white matter");
        assert_eq!(volume.issues, [Issue::Synthetic]);
    }
}
