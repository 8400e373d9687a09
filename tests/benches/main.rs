//! Benchmarks: open a series, scroll, run a model, append to the log. Figures, no assertions.
//!
//! `cargo bench --profile dev` uses what tests have built already; plain `cargo bench` builds
//! everything anew in release. The model's part needs `NEGATOSCOPE_TEST_DATA`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use negatoscope::audit::{AuditEvent, EventId, Log};
use negatoscope::dicom::{self, ImageSeriesOptions, SeriesContext, write_image_series};
use negatoscope::geometry::{DVec3, ViewPlane, VolumeGeometry};
use negatoscope::inference::{Executor, Model, Settings, device_name};
use negatoscope::kernels::{Instructions, fma_peak_gflops};
use negatoscope::render::{Offscreen, SliceView};
use negatoscope::study::Uid;
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels, auto_window,
};
use negatoscope::{import, nifti};

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let volume = open_series(folder.path());
    scroll(&volume);
    drop(volume);
    append(folder.path());
    model();
}

/// Median and largest of the times in ms.
fn figures(mut ms: Vec<f64>) -> String {
    ms.sort_by(f64::total_cmp);
    let last = ms.len() - 1;
    format!(
        "median {:.2} ms, 99 % below {:.2} ms, most {:.2} ms",
        ms[last / 2],
        ms[last * 99 / 100],
        ms[last]
    )
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// 300 slices of 512 × 512, 16 bits: written once, opened five times from the page cache.
fn open_series(folder: &Path) -> Volume {
    let dims = [512, 512, 300];
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let corner = DVec3::new(-180.0, -180.0, -150.0);
    let geometry =
        VolumeGeometry::from_axes(dims, corner, axes, [0.7, 0.7, 1.0]).expect("a regular grid");
    let voxels = (0..geometry.voxel_count())
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as i16 & 0x7ff)
        .collect();
    let volume = Volume {
        geometry,
        voxels: Voxels::I16(voxels),
        modality_lut: ModalityLut::Rescale {
            slope: 1.0,
            intercept: -1024.0,
        },
        quantity: Quantity::Hounsfield,
        modality: "CT".into(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    };
    let mut next = 1;
    let mut uids = || {
        next += 1;
        Uid::from_u128(next)
    };
    let options = ImageSeriesOptions {
        modality: "CT".into(),
        study_instance_uid: uids(),
        series_instance_uid: uids(),
        frame_of_reference_uid: uids(),
        series_number: 1,
        synthetic: true,
        ..ImageSeriesOptions::default()
    };
    let study = folder.join("study");
    std::fs::create_dir(&study).expect("the folder can be written");
    let now = chrono::DateTime::UNIX_EPOCH;
    write_image_series(&volume, &study, &options, &mut uids, now).expect("the study is written");
    drop(volume);
    let task = Task::new();
    let (mut index_ms, mut first_ms, mut load_ms) = (Vec::new(), Vec::new(), Vec::new());
    let mut opened = None;
    for _ in 0..5 {
        let start = Instant::now();
        let worklist = dicom::index(std::slice::from_ref(&study), &task).expect("not cancelled");
        index_ms.push(ms(start));
        let patient = &worklist.patients[0];
        let context = SeriesContext {
            patient,
            study: &patient.studies[0],
            series: &patient.studies[0].series[0],
        };
        let start = Instant::now();
        dicom::load_image(context, 0, 150).expect("a slice is read");
        first_ms.push(ms(start));
        let start = Instant::now();
        opened = Some(dicom::load_volume(context, 0, &task).expect("the series is read"));
        load_ms.push(ms(start));
    }
    println!("headers of 300 slices 512x512: {}", figures(index_ms));
    println!("first image after that:        {}", figures(first_ms));
    println!("all 157 MB of voxels:          {}", figures(load_ms));
    opened.expect("five times")
}

/// A frame of each plane at each slice, read back; the first frames fill the texture.
fn scroll(volume: &Volume) {
    let Some(mut screen) = Offscreen::new() else {
        println!("scroll: no graphics adapter");
        return;
    };
    let window = auto_window(volume);
    for plane in ViewPlane::ALL {
        let view = |slice| SliceView::fitted(volume, Some(plane), Some(slice), [768, 768], window);
        screen
            .draw(1, volume, None, &view(0))
            .expect("the volume fits the adapter");
        let times = (0..120)
            .map(|slice| {
                let start = Instant::now();
                screen
                    .draw(1, volume, None, &view(slice))
                    .expect("the volume fits the adapter");
                ms(start)
            })
            .collect();
        println!(
            "scroll {:<8} 768x768 on {}: {}",
            plane.name(),
            screen.adapter(),
            figures(times)
        );
    }
}

fn append(home: &Path) {
    let log = Log::open(home).expect("the folder can be written");
    let event = AuditEvent::new(EventId::Export, chrono::DateTime::UNIX_EPOCH);
    let times = (0..200)
        .map(|_| {
            let start = Instant::now();
            log.append(&event).expect("the log can be written");
            ms(start)
        })
        .collect();
    println!("audit append, on disk:         {}", figures(times));
}

/// Brainchop id 4 (30 channels, 18 classes, 256³) on the demo head.
fn model() {
    let peak = fma_peak_gflops(Instructions::detect()) * rayon::current_num_threads() as f64;
    println!(
        "FMA peak of {}: {peak:.0} GFLOP/s",
        device_name(Executor::Native)
    );
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from) else {
        println!("model: skipped, NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let task = Task::new();
    let packages =
        import::read(&data.join("brainchop/models/model30chan18cls")).expect("a brainchop model");
    let find = |id: &str| packages.iter().find(|p| p.manifest().id == id).cloned();
    let package = find("brainchop-4").unwrap_or_else(|| packages[0].clone());
    let load = |id: &str| find(id).ok_or_else(|| "not in this folder".to_owned());
    let model = match Model::new(package, &load) {
        Ok(model) => model,
        Err(error) => {
            println!("model: skipped, {error}");
            return;
        }
    };
    let head = nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &task).expect("the demo head");
    let settings = Settings {
        executor: Executor::Native,
        available_bytes: u64::MAX,
        started: String::new(),
    };
    for _ in 0..3 {
        let start = Instant::now();
        let found = model.run(&head, &settings, &task).expect("the model runs");
        let seconds = start.elapsed().as_secs_f64();
        let inference = found.segmentation.provenance.elapsed_secs.iter();
        let network: f64 = inference
            .filter(|(phase, _)| phase == "inference")
            .map(|(_, s)| s)
            .sum();
        let gflops = found.plan.flops / network.max(1e-9) / 1e9;
        println!(
            "{}: {seconds:.1} s in all, network {network:.1} s, {gflops:.0} GFLOP/s = {:.0} % of peak",
            model.package().manifest().key(),
            100.0 * gflops / peak
        );
    }
}
