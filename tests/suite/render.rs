//! The GPU's slices against the CPU's definition.

use negatoscope::geometry::{DMat3, DVec3, ImagePlane, ViewPlane, VolumeGeometry};
use negatoscope::render::{Offscreen, OverlayStyle, SliceView, draw_slice_cpu};
use negatoscope::volume::{LabelMap, ModalityLut, VoiFunction, VoiWindow, Volume, Voxels};

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

fn noisy(voxels: impl Fn(usize) -> Voxels, lut: ModalityLut) -> Volume {
    let r = DMat3::from_rotation_x(0.3) * DMat3::from_rotation_z(-0.4);
    let geometry = VolumeGeometry::from_axes(
        [13, 11, 7],
        DVec3::new(5.0, -8.0, 30.0),
        [r.x_axis, r.y_axis, -r.z_axis],
        [0.9, 1.1, 2.3],
    )
    .unwrap();
    let voxels = voxels(geometry.voxel_count());
    Volume {
        geometry,
        voxels,
        modality_lut: lut,
        ..ramp()
    }
}

fn view(volume: &Volume, plane: ViewPlane, interpolate: bool) -> SliceView {
    let center = volume.geometry.center_lps() + DVec3::new(0.3, -0.2, 0.4);
    let (low, high) = volume.range().unwrap();
    SliceView {
        plane: ImagePlane::standard(plane, center),
        mm_per_pixel: 0.31,
        size_px: [67, 53],
        window: VoiWindow::spanning(low, high),
        invert: false,
        interpolate,
        background: [10, 20, 30],
        overlay: None,
    }
}

/// Largest difference of a channel, and how many pixels differ by more than one gray level.
fn check(
    gpu: &mut Offscreen,
    key: u64,
    volume: &Volume,
    labels: Option<&LabelMap>,
    view: &SliceView,
) {
    let expected = draw_slice_cpu(volume, labels, view);
    let found = gpu.draw(key, volume, labels, view).unwrap();
    let different = expected
        .rgba
        .chunks_exact(4)
        .zip(found.rgba.chunks_exact(4))
        .filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > 1))
        .count();
    // Positions are f32 on the GPU: a pixel that lies within 1e-5 voxel of a border between two
    // voxels may fall to the other side. One gray level is the rounding of 8 bits.
    assert!(different <= 3, "{different} of {} pixels differ", 67 * 53);
    let distinct: std::collections::HashSet<_> = expected.rgba.chunks_exact(4).collect();
    assert!(distinct.len() > 8, "the picture is empty");
}

#[test]
fn slices_equal_the_cpu_reference_for_every_format_plane_and_lut() {
    let Some(mut gpu) = offscreen() else { return };
    let rescale = || ModalityLut::Rescale {
        slope: 0.5,
        intercept: -100.0,
    };
    let per_slice = || {
        ModalityLut::PerSlice(
            (0..7)
                .map(|k| (1.0 + k as f32 * 0.2, k as f32 * 30.0))
                .collect(),
        )
    };
    let table = || ModalityLut::Table {
        first: 5,
        values: (0..200).map(|n| (noise(n) % 700) as f32).collect(),
    };
    let u8s = |n: usize| Voxels::U8((0..n).map(|n| noise(n) as u8).collect());
    let i16s = |n: usize| Voxels::I16((0..n).map(|n| noise(n) as i16).collect());
    let u16s = |n: usize| Voxels::U16((0..n).map(|n| noise(n) as u16).collect());
    let f32s = |n: usize| Voxels::F32((0..n).map(|n| noise(n) as i16 as f32 * 1e-3).collect());
    let rgb = |n: usize| {
        Voxels::Rgb8(
            (0..n)
                .map(|n| [noise(n) as u8, noise(n + 9) as u8, noise(n + 99) as u8])
                .collect(),
        )
    };
    let volumes = [
        noisy(u8s, rescale()),
        noisy(i16s, rescale()),
        noisy(u16s, per_slice()),
        noisy(f32s, rescale()),
        noisy(u8s, table()),
        noisy(rgb, ModalityLut::IDENTITY),
    ];
    for (key, volume) in (1..).zip(&volumes) {
        for plane in ViewPlane::ALL {
            for interpolate in [false, true] {
                check(
                    &mut gpu,
                    key,
                    volume,
                    None,
                    &view(volume, plane, interpolate),
                );
            }
        }
    }
}

#[test]
fn windows_inversion_and_padding_equal_the_cpu_reference() {
    let Some(mut gpu) = offscreen() else { return };
    let i16s = |n: usize| Voxels::I16((0..n).map(|n| (noise(n) % 4000) as i16 - 2000).collect());
    let mut volume = noisy(i16s, ModalityLut::IDENTITY);
    volume.padding = Some((-2000.0, -1500.0));
    let mut key = 1;
    for function in [
        VoiFunction::Linear,
        VoiFunction::LinearExact,
        VoiFunction::Sigmoid,
    ] {
        for inverted in [false, true] {
            volume.inverted = inverted;
            let mut view = view(&volume, ViewPlane::Axial, true);
            view.window = VoiWindow {
                center: 40.0,
                width: 900.0,
                function,
            };
            view.invert = key % 3 == 0;
            check(&mut gpu, key, &volume, None, &view);
            key += 1;
        }
    }
}

#[test]
fn overlays_equal_the_cpu_reference_on_a_grid_of_their_own() {
    let Some(mut gpu) = offscreen() else { return };
    let volume = noisy(
        |n| Voxels::U8((0..n).map(|n| noise(n) as u8).collect()),
        ModalityLut::IDENTITY,
    );
    let grid = VolumeGeometry::from_axes(
        [9, 9, 9],
        volume.geometry.center_lps() - DVec3::splat(6.0),
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.5; 3],
    )
    .unwrap();
    let labels = (0..729).map(|n| (noise(n) % 4) as u8).collect();
    let map = LabelMap {
        geometry: grid,
        labels,
    };
    let mut colors = Box::new([None; 256]);
    colors[1] = Some([200, 40, 40]);
    colors[3] = Some([40, 200, 60]); // 2 stays hidden
    for dashed in [false, true] {
        let mut view = view(&volume, ViewPlane::Coronal, true);
        view.overlay = Some(OverlayStyle {
            fill: 0.3,
            outline: 0.9,
            outline_px: 1 + u32::from(dashed),
            dashed,
            colors: colors.clone(),
        });
        check(&mut gpu, 1, &volume, Some(&map), &view);
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

#[test]
fn clinical_laterality_a_marker_on_the_left_is_drawn_on_the_right_for_all_48_grids() {
    let unit = [DVec3::X, DVec3::Y, DVec3::Z];
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let mut gpu = offscreen();
    for (o, order) in orders.iter().enumerate() {
        for signs in 0..8_u32 {
            let axes: [DVec3; 3] = std::array::from_fn(|a| {
                unit[order[a]] * if signs >> a & 1 == 1 { -1.0 } else { 1.0 }
            });
            let volume = marked(axes);
            let through = volume.geometry.center_lps() + DVec3::new(4.0, -4.0, 4.0);
            for (plane, right, low) in [
                (ViewPlane::Axial, true, false), // left of the patient: right; anterior: up
                (ViewPlane::Coronal, true, false), // head: up
                (ViewPlane::Sagittal, false, false), // anterior: left; head: up
            ] {
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
                let offset = view.plane.offset_of(volume.geometry.center_lps());
                view.plane.center_lps = view.plane.lps_at(offset);
                let mut pictures = vec![draw_slice_cpu(&volume, None, &view)];
                if let Some(gpu) = &mut gpu {
                    let key = (o * 8) as u64 + u64::from(signs) + 1;
                    pictures.push(gpu.draw(key, &volume, None, &view).unwrap());
                }
                for picture in pictures {
                    let lit: Vec<(usize, usize)> = (0..40 * 40)
                        .filter(|n| picture.rgba[n * 4] > 128)
                        .map(|n| (n % 40, n / 40))
                        .collect();
                    assert!(!lit.is_empty(), "{plane:?} {axes:?}");
                    let x = lit.iter().map(|p| p.0).sum::<usize>() / lit.len();
                    let y = lit.iter().map(|p| p.1).sum::<usize>() / lit.len();
                    assert_eq!((x > 20, y > 20), (right, low), "{plane:?} {axes:?}");
                }
            }
        }
    }
}
