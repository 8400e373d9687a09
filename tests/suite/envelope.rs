//! Whether a scan is what a model is meant for, in words.

use negatoscope::geometry::{DMat3, DVec3, VolumeGeometry};
use negatoscope::inference::envelope_issues;
use negatoscope::model::{Conform, Envelope, Manifest, Registry, Values};
use negatoscope::study::Issue;
use negatoscope::volume::{
    Calibration, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels,
};

/// A CT of 80 × 100 × 60 voxels at 2 mm with air, fat and a block of bone.
fn ct() -> Volume {
    scan(DMat3::from_diagonal(DVec3::splat(2.0)))
}

fn scan(axes: DMat3) -> Volume {
    let [ni, nj, nk] = [80, 100, 60];
    let stored = (0..ni * nj * nk)
        .map(|n| match n % 50 {
            0..25 => -1000,
            25..49 => -80,
            _ => 400,
        })
        .collect();
    Volume {
        geometry: VolumeGeometry::from_axes(
            [ni, nj, nk],
            DVec3::ZERO,
            [0, 1, 2].map(|n| axes.col(n).normalize()),
            [0, 1, 2].map(|n| axes.col(n).length()),
        )
        .unwrap(),
        voxels: Voxels::I16(stored),
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Hounsfield,
        modality: "CT".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: vec![],
        padding: None,
        frame_rate: None,
        source: SourceSeries {
            body_part: "Chest ".to_owned(),
            ..SourceSeries::default()
        },
        issues: vec![],
    }
}

/// A model for CT of the chest, as large as [`ct`], that looks for soft tissue and bone.
fn model() -> Manifest {
    let registry = Registry::new("no models".into());
    let mut manifest = registry
        .load("hippocampus-mini")
        .unwrap()
        .manifest()
        .clone();
    "CT".clone_into(&mut manifest.modality);
    manifest.envelope = Envelope {
        body_parts: vec!["CHEST".to_owned()],
        views: Vec::new(),
        extent_mm: Some(Envelope::around_extent_mm([160.0, 200.0, 120.0])),
        values: Some(Values {
            low: -150.0,
            high: 900.0,
            unit: "HU".to_owned(),
        }),
        template: None,
    };
    manifest
}

fn doubts(model: &Manifest, volume: &Volume) -> String {
    let (red, amber) = envelope_issues(model, volume);
    assert!(red.is_empty(), "{red:?}");
    amber.join("; ")
}

#[test]
fn a_scan_inside_of_the_envelope_raises_no_doubt() {
    assert_eq!(doubts(&model(), &ct()), "");
    // What the model does not say is not checked.
    let mut silent = model();
    silent.envelope = Envelope::default();
    let mut other = ct();
    other.source.body_part = "FOOT".to_owned();
    assert_eq!(doubts(&silent, &other), "");
}

#[test]
fn another_body_part_or_field_of_view_is_doubtful() {
    let mut foot = ct();
    foot.source.body_part = "FOOT".to_owned();
    assert_eq!(
        doubts(&model(), &foot),
        "body part FOOT, the model is for CHEST"
    );
    foot.source.body_part.clear();
    assert_eq!(doubts(&model(), &foot), "");
    let mut small = scan(DMat3::from_diagonal(DVec3::new(0.7, 0.7, 0.7)));
    small.issues.clear();
    assert_eq!(
        doubts(&model(), &small),
        "field of view 42 × 56 × 70 mm, the model knows 48–300 × 64–400 × 80–500 mm"
    );
}

#[test]
fn values_elsewhere_or_on_another_scale_are_doubtful() {
    let mut air = ct();
    air.voxels = Voxels::I16(vec![-1000; air.voxels.len()]);
    assert!(doubts(&model(), &air).starts_with("0.0 % of the values lie between -150 and 900 HU"));
    // Stored values of a CT, 1024 above its Hounsfield units, from a file that names no unit.
    let mut shifted = ct();
    let up = |n: usize| shifted.voxels.stored(n) as i16 + 1024;
    shifted.voxels = Voxels::I16((0..shifted.voxels.len()).map(up).collect());
    shifted.quantity = Quantity::Named(String::new());
    assert_eq!(
        doubts(&model(), &shifted),
        "no value is below 0: the values are perhaps not Hounsfield units"
    );
}

#[test]
fn values_without_a_rescale_are_refused() {
    let mut raw = ct();
    raw.issues.push(Issue::RescaleMissing {
        expected: "HU".to_owned(),
    });
    let (red, _) = envelope_issues(&model(), &raw);
    assert_eq!(red.len(), 1);
    assert!(
        red[0].contains("not HU: the model needs measured values"),
        "{red:?}"
    );
}

#[test]
fn an_oblique_scan_is_doubtful_for_a_model_that_takes_voxels_as_stored() {
    let tilted = scan(DMat3::from_rotation_x(0.6) * 2.0);
    let mut stored = model();
    assert_eq!(doubts(&stored, &tilted), "");
    stored.input.conform = Conform::Stored { orientation: None };
    assert_eq!(
        doubts(&stored, &tilted),
        "the scan is turned by 34° against the patient's axes, the model sees it turned"
    );
}
