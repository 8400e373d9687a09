//! The audit log: records on disk in a second, and the check of a million records.

use std::path::Path;
use std::time::Instant;

use negatoscope::audit::{AuditEvent, EventId, Log, ParticipantObject, verify};
use negatoscope::runtime::now_utc;
use negatoscope::study::Uid;

/// Records of the log that is checked.
const MANY: u64 = 1_000_000;

fn event(n: u64) -> AuditEvent {
    let uid = Uid::parse(&format!("1.2.826.0.1.3680043.8.498.{n}")).expect("digits and dots");
    AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::study(&uid, 300))
}

/// Prints records a second here, and how long the check of [`MANY`] takes.
pub fn run() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let log = Log::open(home.path()).expect("a log");
    let start = Instant::now();
    for n in 0..1000 {
        log.append(&event(n)).expect("written");
    }
    let secs = start.elapsed().as_secs_f64();
    println!(
        "audit: {:.0} records on disk a second, one writer",
        1000.0 / secs
    );

    // Where waiting for the disk costs nothing, so that a million records are soon made.
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .expect("a folder");
    let log = Log::open(home.path()).expect("a log");
    let start = Instant::now();
    for n in 0..MANY {
        log.append(&event(n)).expect("written");
    }
    println!(
        "audit: {MANY} records made in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    for _ in 0..3 {
        let start = Instant::now();
        let verdict = verify(home.path()).expect("a log");
        assert!(verdict.ok && verdict.records == MANY, "{verdict:?}");
        println!(
            "audit: {MANY} records and {} checkpoints checked in {:.2} s",
            verdict.checkpoints,
            start.elapsed().as_secs_f64()
        );
    }
}
