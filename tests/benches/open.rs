//! Opening a series: 300 slices of 512 × 512 at 16 bit, uncompressed, made by the bench; against
//! the time that only reading the files takes. And what a record in the audit log costs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use negatoscope::audit::{AuditEvent, EventId, Log};
use negatoscope::dicom::{
    ImageSeriesOptions, SeriesContext, index, load_image, load_volume, write_image_series,
};
use negatoscope::runtime::{RandomUids, now_utc};
use negatoscope::task::Task;
use rayon::prelude::*;

/// Makes the series, opens it, prints medians of seven.
pub fn run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let volume = super::render::body();
    let options = ImageSeriesOptions {
        modality: "CT".to_owned(),
        study_instance_uid: RandomUids::fresh(),
        series_instance_uid: RandomUids::fresh(),
        frame_of_reference_uid: RandomUids::fresh(),
        series_description: "bench".to_owned(),
        series_number: 1,
        synthetic: true,
        ..ImageSeriesOptions::default()
    };
    let uids = &mut RandomUids::fresh;
    write_image_series(&volume, folder.path(), &options, uids, now_utc()).expect("160 MB of space");
    drop(volume);
    let files: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // Peer and program in turns, on the same page cache.
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..7 {
        times[0].push(secs(|| read_only(&files)));
        let start = Instant::now();
        let worklist = index(&[folder.path().to_owned()], &Task::new()).expect("not cancelled");
        times[1].push(start.elapsed().as_secs_f64());
        let ctx = SeriesContext::all(&worklist).next().expect("the series");
        times[2].push(secs(|| drop(load_image(ctx, 0, 150).expect("readable"))));
        times[3].push(secs(|| {
            drop(load_volume(ctx, 0, &Task::new()).expect("readable"));
        }));
    }
    let [read, headers, first, all] = times.map(median);
    println!(
        "open: {} files, 158 MB: reading their bytes takes {:.0} ms",
        files.len(),
        read * 1e3
    );
    for (what, secs) in [
        ("headers and sorting", headers),
        ("first image, after headers", first),
        ("whole volume, after headers", all),
        ("all together", headers + all),
    ] {
        println!(
            "open: {what}: {:.0} ms, {:.2} × reading",
            secs * 1e3,
            secs / read
        );
    }
    audit(folder.path());
}

/// Reads all files and forgets them, on all threads: the least that opening can cost.
fn read_only(files: &[PathBuf]) {
    let sum: u64 = files
        .par_iter()
        .map(|path| std::fs::read(path).expect("readable").len() as u64)
        .sum();
    std::hint::black_box(sum);
}

fn audit(folder: &Path) {
    let log = Log::open(&folder.join("home")).expect("a log");
    let mut times = Vec::new();
    for _ in 0..50 {
        let event = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc());
        times.push(secs(|| drop(log.append(&event).expect("written"))));
    }
    println!(
        "audit: a record on disk takes {:.1} ms",
        median(times) * 1e3
    );
}

fn secs(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
