//! Scroll frame time: 300 slices of 512 × 512, on the adapter at hand and on the CPU reference.

use std::time::{Duration, Instant};

use negatoscope::geometry::{DVec3, ViewPlane, VolumeGeometry};
use negatoscope::render::{Offscreen, OverlayStyle, SliceView, draw_slice_cpu};
use negatoscope::volume::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, VoiWindow, Volume, Voxels,
};

const SIZE_PX: [u32; 2] = [1024, 1024];

/// Prints the time of a frame for each plane, without and with an overlay.
pub fn run() {
    let volume = body();
    let labels = rings(&volume);
    let overlay = overlay();
    match Offscreen::new() {
        None => println!("scroll: no graphics adapter"),
        Some(mut gpu) => {
            let adapter = gpu.adapter().to_owned();
            let (started, mut frames, mut longest) = (Instant::now(), 0, Duration::ZERO);
            let view = view(&volume, ViewPlane::Axial, 150);
            loop {
                let frame = Instant::now();
                let complete = gpu.draw_unseen(1, &volume, None, &view).expect("it fits");
                longest = longest.max(frame.elapsed());
                frames += 1;
                if complete {
                    break;
                }
            }
            println!(
                "upload of {} MB: {} ms in {frames} frames, the longest {} ms ({adapter})",
                volume.bytes() / 1_000_000,
                started.elapsed().as_millis(),
                longest.as_millis(),
            );
            for plane in ViewPlane::ALL {
                for labels in [None, Some(&labels)] {
                    let frame = |n| {
                        let mut view = self::view(&volume, plane, n);
                        view.overlay = labels.map(|_| overlay.clone());
                        while !gpu.draw_unseen(1, &volume, labels, &view).expect("it fits") {}
                    };
                    report(plane, labels.is_some(), &adapter, times(frame));
                }
            }
        }
    }
    for plane in ViewPlane::ALL {
        for labels in [None, Some(&labels)] {
            let frame = |n| {
                let mut view = view(&volume, plane, n);
                view.overlay = labels.map(|_| overlay.clone());
                std::hint::black_box(draw_slice_cpu(&volume, labels, &view));
            };
            report(plane, labels.is_some(), "CPU reference", times(frame));
        }
    }
}

fn report(plane: ViewPlane, overlay: bool, on: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "scroll {:<9}{}: median {:6.1} ms, 95 % below {:6.1} ms, {} × {} pixels ({on})",
        plane.name(),
        if overlay { " with overlay" } else { "" },
        ms(50),
        ms(95),
        SIZE_PX[0],
        SIZE_PX[1],
    );
}

/// Times of frames on slices 100 to 139, after two that do not count.
fn times(mut frame: impl FnMut(usize)) -> Vec<Duration> {
    frame(98);
    frame(99);
    (100..140)
        .map(|n| {
            let started = Instant::now();
            frame(n);
            started.elapsed()
        })
        .collect()
}

fn view(volume: &Volume, plane: ViewPlane, slice: usize) -> SliceView {
    let window = VoiWindow::new(40.0, 400.0);
    SliceView::fitted(volume, Some(plane), Some(slice), SIZE_PX, window)
}

/// A cylinder of soft tissue with texture, in air.
pub fn body() -> Volume {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let geometry = VolumeGeometry::from_axes([512, 512, 300], DVec3::ZERO, axes, [0.7, 0.7, 1.0])
        .expect("a valid grid");
    let values = (0..geometry.voxel_count())
        .map(|n| {
            let (i, j) = (n % 512, n / 512 % 512);
            let (x, y) = (i as i64 - 256, j as i64 - 256);
            let texture = (n.wrapping_mul(2_654_435_761) >> 7) as i16 & 63;
            if x * x + y * y < 200 * 200 {
                1024 + texture
            } else {
                24
            }
        })
        .collect();
    Volume {
        geometry,
        voxels: Voxels::I16(values),
        modality_lut: ModalityLut::Rescale {
            slope: 1.0,
            intercept: -1024.0,
        },
        quantity: Quantity::Hounsfield,
        modality: "CT".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

/// Six nested rings as segments.
fn rings(volume: &Volume) -> LabelMap {
    let mut map = LabelMap::empty(volume.geometry.clone());
    for (n, label) in map.labels.iter_mut().enumerate() {
        let (x, y) = ((n % 512) as i64 - 256, (n / 512 % 512) as i64 - 256);
        let radius = ((x * x + y * y) as f64).sqrt() as u8;
        *label = if radius < 180 { radius / 30 + 1 } else { 0 };
    }
    map
}

fn overlay() -> OverlayStyle {
    let mut colors = Box::new([None; 256]);
    for label in 1..=6_u8 {
        colors[usize::from(label)] = Some([40 * label, 200, 250 - 30 * label]);
    }
    OverlayStyle {
        fill: 0.25,
        outline: 0.9,
        outline_px: 1,
        dashed: true,
        colors,
    }
}
