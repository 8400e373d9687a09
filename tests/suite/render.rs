//! The GPU's slices against the CPU's definition.

use std::cell::RefCell;

use negatoscope::geometry::{DMat3, DVec3, ImagePlane, ViewPlane, VolumeGeometry};
use negatoscope::render::{Offscreen, OverlayStyle, RgbaPixels, SliceView, draw_slice_cpu};
use negatoscope::volume::{
    LabelMap, ModalityLut, Quantity, VoiFunction, VoiWindow, Volume, Voxels,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::app::ramp;

/// The software adapter, or `None` with a plain word; `REQUIRE_GPU=1` makes that a failure.
fn offscreen() -> Option<Offscreen> {
    let found = Offscreen::new();
    assert!(
        found.is_some() || std::env::var_os("REQUIRE_GPU").is_none(),
        "REQUIRE_GPU is set and no graphics adapter was found"
    );
    if found.is_none() {
        println!("skipped: no graphics adapter");
    }
    found
}

/// Pseudo-random values without a pattern that a wrong axis order would keep.
fn noise(n: usize) -> u64 {
    let mut x = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 27)
}

fn pixels(picture: &RgbaPixels) -> impl Iterator<Item = [u8; 3]> {
    picture.rgba.chunks_exact(4).map(|p| [p[0], p[1], p[2]])
}

/// The GPU's positions are f32, so a pixel may fall to the other side of a border between voxels
/// that passes within a thousandth of a voxel: its color must lie between the colors that the
/// definition gives for positions moved by that much in any direction. Beyond that one gray level
/// is allowed, the rounding to 8 bits.
fn check(
    gpu: &mut Offscreen,
    key: u64,
    volume: &Volume,
    labels: Option<&LabelMap>,
    view: &SliceView,
) -> Result<RgbaPixels, String> {
    let found = gpu.draw(key, volume, labels, view).unwrap();
    let spacing = volume.geometry.spacing_mm();
    let step = 1e-3 * spacing[0].min(spacing[1]).min(spacing[2]);
    let axes = [view.plane.right, view.plane.down, view.plane.normal()];
    let count = found.rgba.len() / 4;
    let (mut low, mut high) = (vec![[255_u8; 3]; count], vec![[0_u8; 3]; count]);
    for n in 0..27 {
        let mut moved = view.clone();
        for (axis, divisor) in axes.into_iter().zip([1, 3, 9]) {
            moved.plane.center_lps += axis * step * f64::from(n / divisor % 3 - 1);
        }
        let reference = draw_slice_cpu(volume, labels, &moved);
        for ((low, high), color) in low.iter_mut().zip(&mut high).zip(pixels(&reference)) {
            for c in 0..3 {
                low[c] = low[c].min(color[c]);
                high[c] = high[c].max(color[c]);
            }
        }
    }
    for (n, color) in pixels(&found).enumerate() {
        let inside = (0..3).all(|c| {
            color[c] >= low[n][c].saturating_sub(1) && color[c] <= high[n][c].saturating_add(1)
        });
        let at = [n % found.width, n / found.width];
        if !inside {
            let (low, high) = (low[n], high[n]);
            return Err(format!(
                "pixel {at:?} is {color:?}, not {low:?} to {high:?}"
            ));
        }
    }
    Ok(found)
}

/// Voxels of one of the five formats, and a transform that suits it.
fn voxels(format: usize, count: usize, seed: usize) -> Voxels {
    let n = move |n: usize| noise(n + seed * 7919);
    match format {
        0 => Voxels::U8((0..count).map(|i| n(i) as u8).collect()),
        1 => Voxels::I16((0..count).map(|i| n(i) as i16).collect()),
        2 => Voxels::U16((0..count).map(|i| n(i) as u16).collect()),
        3 => {
            // Every 37th is no number, or infinite.
            let odd = |i: usize| {
                if i.is_multiple_of(2) {
                    f32::NAN
                } else {
                    f32::INFINITY
                }
            };
            let value = |i: usize| {
                if i % 37 == 5 {
                    odd(i)
                } else {
                    n(i) as i16 as f32 * 1e-3
                }
            };
            Voxels::F32((0..count).map(value).collect())
        }
        _ => Voxels::Rgb8(
            (0..count)
                .map(|i| [n(i) as u8, n(i + 9) as u8, n(i + 99) as u8])
                .collect(),
        ),
    }
}

fn modality_lut(kind: usize, format: usize, slices: usize) -> ModalityLut {
    match (kind, format) {
        (_, 4) => ModalityLut::IDENTITY,
        (0, _) => ModalityLut::Rescale {
            slope: 0.5,
            intercept: -100.0,
        },
        // One slice too few: the last is as stored.
        (1, _) => ModalityLut::PerSlice(
            (1..slices)
                .map(|k| (1.0 + k as f32 * 0.2, k as f32 * 30.0))
                .collect(),
        ),
        (2, _) => ModalityLut::Table {
            first: -5,
            values: (0..200).map(|n| (noise(n) % 700) as f32).collect(),
        },
        _ => ModalityLut::Table {
            first: 0,
            values: Vec::new(),
        },
    }
}

fn rotation([a, b, c]: [f64; 3]) -> DMat3 {
    DMat3::from_rotation_x(a) * DMat3::from_rotation_y(b) * DMat3::from_rotation_z(c)
}

/// A picture from a handful of numbers: any grid, plane, format, window and overlay.
#[derive(Clone, Debug)]
struct Scene {
    volume: Volume,
    labels: LabelMap,
    view: SliceView,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let angles = || prop::array::uniform3(-3.2_f64..3.2);
    let grid = (
        prop::array::uniform3(1_usize..14),
        angles(),
        prop::array::uniform3(0.4_f64..4.0),
        -0.4_f64..0.4,
    );
    let kinds = (0_usize..5, 0_usize..4, 0_usize..3, 0_usize..1000);
    let window = (0.1_f64..0.9, 0.05_f64..1.5);
    let switches = prop::array::uniform5(any::<bool>());
    let view = (
        angles(),
        any::<bool>(),
        0.1_f64..1.5,
        20_u32..60,
        20_u32..60,
    );
    let style = (1_u32..4, 0.0_f32..1.0, 0.0_f32..1.0);
    (grid, kinds, window, switches, view, style).prop_map(scene)
}

type Grid = ([usize; 3], [f64; 3], [f64; 3], f64);
type Kinds = (usize, usize, usize, usize);
type View = ([f64; 3], bool, f64, u32, u32);
type Numbers = (Grid, Kinds, (f64, f64), [bool; 5], View, (u32, f32, f32));

fn scene((grid, kinds, window, switches, view, style): Numbers) -> Scene {
    let (dims, turn, spacing, shear) = grid;
    let (format, lut, function, seed) = kinds;
    let r = rotation(turn);
    let axes = [
        r.x_axis,
        r.y_axis,
        (r.z_axis + r.x_axis * shear).normalize(),
    ];
    let origin = DVec3::new(5.0, -80.0, 300.0);
    let geometry = VolumeGeometry::from_axes(dims, origin, axes, spacing).unwrap();
    let [inverted, invert, interpolate, padded, dashed] = switches;
    let mut volume = Volume {
        voxels: voxels(format, geometry.voxel_count(), seed),
        modality_lut: modality_lut(lut, format, dims[2]),
        geometry,
        inverted,
        padding: padded.then_some((10.0, 90.0)),
        ..ramp()
    };
    if format == 4 {
        volume.quantity = Quantity::Color;
    }
    let (low, high) = volume.range().unwrap_or((0.0, 1.0));
    let range = (high - low).max(1.0);
    let (plane_turn, along_grid, mm_per_pixel, width, height) = view;
    let p = rotation(plane_turn);
    let middle = volume.geometry.center_lps() + DVec3::new(0.3, -0.2, 0.4);
    let plane = if along_grid {
        ImagePlane::of_grid(&volume.geometry, ViewPlane::ALL[seed % 3], middle)
    } else {
        ImagePlane {
            center_lps: middle,
            right: p.x_axis,
            down: p.y_axis,
        }
    };
    let label_axes = [p.z_axis, p.x_axis, p.y_axis];
    let label_origin = middle - (p.x_axis + p.y_axis + p.z_axis) * 4.5;
    let label_grid =
        VolumeGeometry::from_axes([9, 8, 7], label_origin, label_axes, [1.1; 3]).unwrap();
    let mut colors = Box::new([None; 256]);
    colors[1] = Some([200, 40, 40]);
    colors[3] = Some([40, 200, 60]); // 2 stays hidden
    let (outline_px, fill, outline) = style;
    let overlay = OverlayStyle {
        fill,
        outline,
        outline_px,
        dashed,
        colors,
    };
    Scene {
        view: SliceView {
            plane,
            mm_per_pixel,
            size_px: [width, height],
            window: VoiWindow {
                center: low + range * window.0 as f32,
                width: range * window.1 as f32,
                function: [
                    VoiFunction::Linear,
                    VoiFunction::LinearExact,
                    VoiFunction::Sigmoid,
                ][function],
            },
            invert,
            interpolate,
            background: [10, 20, 30],
            overlay: (seed % 2 == 0).then_some(overlay),
        },
        labels: LabelMap {
            labels: (0..label_grid.voxel_count())
                .map(|n| (noise(n / 4 + seed) % 4) as u8)
                .collect(),
            geometry: label_grid,
        },
        volume,
    }
}

#[test]
fn any_slice_of_any_volume_equals_the_cpu_reference() {
    let Some(gpu) = offscreen() else { return };
    let (gpu, key) = (RefCell::new(gpu), RefCell::new(0));
    let seen = RefCell::new(std::collections::HashSet::new());
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // The same scenes in every run: how many colors they hold is asserted below.
    let numbers = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, numbers)
        .run(&scenes(), |scene| {
            *key.borrow_mut() += 1;
            let (key, labels) = (*key.borrow(), Some(&scene.labels));
            let found = check(
                &mut gpu.borrow_mut(),
                key,
                &scene.volume,
                labels,
                &scene.view,
            );
            let found = found.map_err(TestCaseError::fail)?;
            seen.borrow_mut().extend(pixels(&found));
            Ok(())
        })
        .unwrap();
    // The scenes were worth looking at.
    assert!(seen.borrow().len() > 2000, "{} colors", seen.borrow().len());
}

/// One row of 256 voxels, 0 to 255, seen one pixel a voxel.
fn gray_wedge() -> (Volume, SliceView) {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let volume = Volume {
        geometry: VolumeGeometry::from_axes([256, 4, 1], DVec3::ZERO, axes, [1.0; 3]).unwrap(),
        voxels: Voxels::U8((0..1024).map(|n| (n % 256) as u8).collect()),
        modality_lut: ModalityLut::IDENTITY,
        ..ramp()
    };
    let view = SliceView {
        plane: ImagePlane::standard(ViewPlane::Axial, volume.geometry.center_lps()),
        mm_per_pixel: 1.0,
        size_px: [256, 4],
        window: VoiWindow::spanning(0.0, 255.0),
        invert: false,
        interpolate: true,
        background: [0; 3],
        overlay: None,
    };
    (volume, view)
}

#[test]
fn every_gray_level_reaches_the_target_unchanged() {
    let (volume, view) = gray_wedge();
    let expected: Vec<[u8; 3]> = (0..1024).map(|n| [(n % 256) as u8; 3]).collect();
    let cpu = draw_slice_cpu(&volume, None, &view);
    assert!(pixels(&cpu).eq(expected.iter().copied()));
    let Some(mut gpu) = offscreen() else { return };
    let found = gpu.draw(1, &volume, None, &view).unwrap();
    assert!(pixels(&found).eq(expected.iter().copied()));
}

#[test]
fn a_view_is_the_same_wherever_its_tile_lies() {
    let Some(mut gpu) = offscreen() else { return };
    let (volume, view) = gray_wedge();
    let alone = gpu.draw(1, &volume, None, &view).unwrap();
    let (frame, complete) = gpu
        .draw_frame(1, &volume, None, &view, [37, 21], [320, 40])
        .unwrap();
    assert!(complete);
    for (n, color) in pixels(&frame).enumerate() {
        let (x, y) = (n % 320, n / 320);
        let inside = (37..37 + 256).contains(&x) && (21..25).contains(&y);
        let expected = if inside {
            alone.rgba[((y - 21) * 256 + x - 37) * 4]
        } else {
            0
        };
        assert_eq!(color, [expected; 3], "{x}, {y}");
    }
}

#[test]
fn voxels_that_are_no_image_are_black_and_leave_their_neighbors_alone() {
    let (mut volume, mut view) = gray_wedge();
    volume.voxels = Voxels::F32(
        (0..1024)
            .map(|n| [200.0, f32::NAN][n % 256 / 128])
            .collect(),
    );
    view.mm_per_pixel = 0.25;
    for invert in [false, true] {
        view.invert = invert;
        let picture = draw_slice_cpu(&volume, None, &view);
        let distinct: std::collections::BTreeSet<_> = pixels(&picture).collect();
        let image = if invert { 55 } else { 200 };
        assert_eq!(
            distinct.into_iter().collect::<Vec<_>>(),
            [[0; 3], [image; 3]]
        );
    }
    volume.voxels = Voxels::I16((0..1024).map(|n| [200, -2000][n % 256 / 128]).collect());
    volume.padding = Some((-2000.0, -1500.0));
    view.invert = false;
    let picture = draw_slice_cpu(&volume, None, &view);
    let distinct: std::collections::BTreeSet<_> = pixels(&picture).collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), [[0; 3], [200; 3]]);
}

/// Slices of one value each: slice k holds k + 1.
fn stairs(dims: [usize; 3]) -> (Volume, SliceView) {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let volume = Volume {
        geometry: VolumeGeometry::from_axes(dims, DVec3::ZERO, axes, [1.0; 3]).unwrap(),
        voxels: Voxels::U8(
            (0..dims.iter().product::<usize>())
                .map(|n| (n / (dims[0] * dims[1])) as u8 + 1)
                .collect(),
        ),
        modality_lut: ModalityLut::IDENTITY,
        ..ramp()
    };
    // A column of the image shows the slices one by one: head up.
    let view = SliceView {
        plane: ImagePlane::standard(ViewPlane::Coronal, volume.geometry.center_lps()),
        mm_per_pixel: 1.0,
        size_px: [3, dims[2] as u32],
        window: VoiWindow::spanning(0.0, 255.0),
        invert: false,
        interpolate: false,
        background: [0; 3],
        overlay: None,
    };
    (volume, view)
}

#[test]
fn slices_that_are_not_uploaded_yet_are_not_drawn() {
    let Some(mut gpu) = offscreen() else { return };
    let (volume, view) = stairs([768, 768, 100]); // 56 MiB: more than a frame's share
    let expected: Vec<u8> = (1..=100).rev().collect();
    let mut frames = 0;
    loop {
        frames += 1;
        let (frame, complete) = gpu
            .draw_frame(1, &volume, None, &view, [0; 2], view.size_px)
            .unwrap();
        let shown: Vec<u8> = frame.rgba.chunks_exact(12).map(|row| row[0]).collect();
        let loaded = gpu.slices().fidelity((1, 0)).unwrap().loaded;
        let drawn = shown.iter().map(|&v| usize::from(v != 0)).sum::<usize>();
        // Either the true slice or the background, and the middle one from the first frame.
        assert!(shown.iter().zip(&expected).all(|(a, b)| *a == 0 || a == b));
        assert_eq!(drawn, (loaded * 100.0).round() as usize);
        assert_eq!(shown[50], expected[50]);
        if complete {
            assert_eq!(shown, expected);
            break;
        }
        assert!(drawn < 100, "complete, but not said so");
    }
    assert!(frames > 1, "the volume was meant to need several frames");
}

#[test]
fn a_volume_beyond_the_budget_is_reduced_and_says_so() {
    let Some(mut gpu) = offscreen() else { return };
    let (volume, view) = stairs([64, 64, 100]); // 400 KiB
    gpu.slices().set_budget(150 << 10);
    let found = gpu.draw(1, &volume, None, &view).unwrap();
    let fidelity = gpu.slices().fidelity((1, 0)).unwrap();
    assert_eq!(fidelity.voxels_per_texel, [1, 1, 3]);
    assert!(!fidelity.is_full());
    assert!(gpu.slices().texture_bytes() <= 150 << 10);
    // Each row shows the kept slice (every third) nearest to it, so no more than 2 slices off.
    for (row, expected) in found.rgba.chunks_exact(12).zip((1..=100_i32).rev()) {
        let shown = i32::from(row[0]);
        assert!(
            (shown - expected).abs() <= 2 && shown % 3 == 1,
            "{shown} {expected}"
        );
    }
}

#[test]
fn textures_drawn_longest_ago_make_room() {
    let Some(mut gpu) = offscreen() else { return };
    let (volume, view) = stairs([32, 32, 32]); // 32 KiB
    gpu.slices().set_budget(100 << 10);
    for key in [1, 2, 3, 1, 4] {
        gpu.draw(key, &volume, None, &view).unwrap();
    }
    let kept = [1, 2, 3, 4].map(|key| gpu.slices().fidelity((key, 0)).is_some());
    assert_eq!(kept, [true, false, true, true]);
    // What was dropped comes back when it is drawn.
    let found = gpu.draw(2, &volume, None, &view).unwrap();
    assert_eq!(found, draw_slice_cpu(&volume, None, &view));
}

#[test]
fn outlines_are_as_wide_as_asked_and_dashes_leave_gaps_on_every_edge() {
    let (volume, mut view) = stairs([64, 64, 64]);
    view.size_px = [64, 64];
    let mut map = LabelMap::empty(volume.geometry.clone());
    for k in 16..48 {
        for i in 16..48 {
            let n = volume.geometry.index(i, 31, k);
            map.labels[n] = 1;
            map.labels[n + 64] = 1;
        }
    }
    let mut colors = Box::new([None; 256]);
    colors[1] = Some([255, 0, 0]);
    for (outline_px, dashed) in [(1, false), (2, false), (3, false), (1, true), (2, true)] {
        view.overlay = Some(OverlayStyle {
            fill: 0.0,
            outline: 1.0,
            outline_px,
            dashed,
            colors: colors.clone(),
        });
        let picture = draw_slice_cpu(&volume, Some(&map), &view);
        let red: Vec<bool> = pixels(&picture).map(|p| p == [255, 0, 0]).collect();
        let count = red.iter().filter(|r| **r).count();
        let inner = 32 - 2 * outline_px as usize;
        let ring = 32 * 32 - inner * inner;
        if dashed {
            // 5 of 8 are drawn; each side has both drawn and open places.
            assert!(
                count > ring / 2 && count < ring * 3 / 4,
                "{count} of {ring}"
            );
            let sides: [Vec<bool>; 4] = [
                (16..48).map(|x| red[16 * 64 + x]).collect(),
                (16..48).map(|x| red[47 * 64 + x]).collect(),
                (16..48).map(|y| red[y * 64 + 16]).collect(),
                (16..48).map(|y| red[y * 64 + 47]).collect(),
            ];
            for side in sides {
                assert!(side.contains(&true) && side.contains(&false));
            }
        } else {
            assert_eq!(count, ring, "{outline_px} pixels");
        }
    }
}

/// A volume with one bright voxel block on the patient's left, anterior and up.
fn marked(axes: [DVec3; 3]) -> Volume {
    let geometry = VolumeGeometry::from_axes([16, 16, 16], DVec3::ZERO, axes, [1.0; 3]).unwrap();
    let center = geometry.center_lps();
    let mut values = vec![0_u8; geometry.voxel_count()];
    for k in 0..16 {
        for j in 0..16 {
            for i in 0..16 {
                let p = geometry.lps_at(DVec3::new(i as f64, j as f64, k as f64)) - center;
                if p.x > 2.0 && p.y < -2.0 && p.z > 2.0 {
                    values[geometry.index(i, j, k)] = 255;
                }
            }
        }
    }
    Volume {
        geometry,
        voxels: Voxels::U8(values),
        modality_lut: ModalityLut::IDENTITY,
        ..ramp()
    }
}

/// The six orders of the axes with all signs.
pub fn all_48_grids() -> impl Iterator<Item = [DVec3; 3]> {
    let unit = [DVec3::X, DVec3::Y, DVec3::Z];
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    orders.into_iter().flat_map(move |order| {
        (0..8_u32).map(move |signs| {
            std::array::from_fn(|a| unit[order[a]] * if signs >> a & 1 == 1 { -1.0 } else { 1.0 })
        })
    })
}

/// Middle of the bright pixels, in parts of the picture.
pub fn bright_middle(picture: &RgbaPixels) -> [f64; 2] {
    let lit: Vec<usize> = pixels(picture)
        .enumerate()
        .filter(|(_, p)| p[0] > 230)
        .map(|(n, _)| n)
        .collect();
    assert!(!lit.is_empty(), "nothing is bright");
    let mean = |at: &dyn Fn(usize) -> usize| {
        lit.iter().map(|&n| at(n)).sum::<usize>() as f64 / lit.len() as f64
    };
    let (w, h) = (picture.width, picture.height);
    [mean(&|n| n % w) / w as f64, mean(&|n| n / w) / h as f64]
}

#[test]
fn clinical_laterality_a_marker_on_the_left_is_drawn_on_the_right_for_all_48_grids() {
    let mut gpu = offscreen();
    for (key, axes) in (1..).zip(all_48_grids()) {
        let volume = marked(axes);
        let middle = volume.geometry.center_lps();
        for (plane, right) in [
            (ViewPlane::Axial, true),     // left of the patient: right; anterior: up
            (ViewPlane::Coronal, true),   // head: up
            (ViewPlane::Sagittal, false), // anterior: left; head: up
        ] {
            let through = middle + DVec3::new(4.0, -4.0, 4.0);
            let mut view = SliceView {
                plane: ImagePlane::of_grid(&volume.geometry, plane, through),
                mm_per_pixel: 0.5,
                size_px: [40, 40],
                window: VoiWindow::spanning(0.0, 255.0),
                invert: false,
                interpolate: false,
                background: [0; 3],
                overlay: None,
            };
            view.plane.center_lps = view.plane.lps_at(view.plane.offset_of(middle));
            let mut pictures = vec![draw_slice_cpu(&volume, None, &view)];
            if let Some(gpu) = &mut gpu {
                pictures.push(gpu.draw(key, &volume, None, &view).unwrap());
            }
            for picture in pictures {
                let [x, y] = bright_middle(&picture);
                assert_eq!((x > 0.5, y > 0.5), (right, false), "{plane:?} {axes:?}");
            }
        }
    }
}

#[test]
fn clinical_laterality_snapshots_show_the_marker_beside_the_letter_of_its_side() {
    use negatoscope::render::{SnapshotOptions, snapshot};
    for axes in all_48_grids() {
        let volume = marked(axes);
        let marker = volume.geometry.center_lps() + DVec3::new(5.0, -5.0, 5.0);
        let ijk = volume.geometry.ijk_at(marker).to_array();
        for plane in ViewPlane::ALL {
            let axis = ImagePlane::normal_axis(&volume.geometry, plane);
            let mut options = SnapshotOptions::new([160, 160], VoiWindow::spanning(0.0, 255.0));
            options.plane = Some(plane);
            options.slice = Some(ijk[axis].round() as usize);
            options.interpolate = false;
            let [x, y] = bright_middle(&snapshot(&volume, None, &options));
            let view = SliceView::fitted(
                &volume,
                Some(plane),
                options.slice,
                [160; 2],
                options.window,
            );
            let [left, right, top, bottom] = view.plane.edge_letters();
            let beside = [
                if x > 0.5 { right } else { left },
                if y > 0.5 { bottom } else { top },
            ];
            let expected = match plane {
                ViewPlane::Axial => ["L", "A"],
                ViewPlane::Coronal => ["L", "H"],
                ViewPlane::Sagittal => ["A", "H"],
            };
            assert_eq!(beside, expected, "{plane:?} {axes:?}");
        }
    }
}
