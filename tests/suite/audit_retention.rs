//! Old segments go on record alone: what is deleted by hand is missing, what is deleted on purpose is told.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Months, Utc};
use negatoscope::audit::{
    Against, Deleted, Error, Finding, Limits, Log, Note, delete_older_than, verify, verify_against,
    verify_folder,
};
use proptest::prelude::*;

use crate::audit::event;

const SMALL: Limits = Limits {
    segment_bytes: 4000,
    checkpoint_every: 2,
};

fn years_after(n: u64, years: u32) -> DateTime<Utc> {
    event(n).time + Months::new(12 * years)
}

fn files(home: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(home.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    all.sort();
    all
}

/// Four segments of old records and one of new ones, with a checkpoint of the first that was kept elsewhere.
fn old_log() -> (tempfile::TempDir, Log, String, u64) {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open_with(home.path(), SMALL).unwrap();
    log.append(&event(1)).unwrap();
    let checkpoint = log.checkpoint(event(1).time).unwrap();
    let mut n = 1;
    while files(home.path(), "jsonl").len() < 5 {
        n += 1;
        log.append(&event(n)).unwrap();
    }
    (home, log, checkpoint, n)
}

fn intact(home: &Path) -> Vec<Note> {
    let verdict = verify(home).unwrap();
    assert_eq!(verdict.finding(), Finding::Intact, "{verdict:?}");
    verdict.notes
}

#[test]
fn what_is_old_goes_on_record_and_the_log_stays_whole() {
    let (home, log, checkpoint, n) = old_log();
    let home = home.path();
    let first_key = verify(home).unwrap().public_key;
    // Not yet.
    let none = delete_older_than(home, &log, 6, years_after(1, 6)).unwrap();
    assert_eq!((none, files(home, "kept").len()), (Deleted::default(), 0));
    let early = delete_older_than(home, &log, 5, years_after(n, 9));
    assert!(matches!(early, Err(Error::TooSoon { years: 5 })));

    let before = verify(home).unwrap();
    let now = years_after(n, 6) + chrono::TimeDelta::seconds(1);
    let done = delete_older_than(home, &log, 6, now).unwrap();
    assert_eq!(done.segments, 4);
    assert_eq!(files(home, "kept").len(), 4);
    let told = Note::Deleted {
        first: 1,
        last: 4,
        records: done.records,
        seq: n + 1,
    };
    assert!(intact(home).contains(&told));
    let after = verify(home).unwrap();
    assert_eq!(after.records, before.records + 1 - done.records);
    assert_eq!((after.last, &after.public_key), (n + 1, &first_key));
    // What was noted elsewhere still leads to the log, and the copy without keys says the same.
    let against = Against {
        public_key: Some(first_key),
        checkpoints: vec![checkpoint],
        ..Against::default()
    };
    assert!(verify_against(home, &against).unwrap().ok);
    let copy = verify_folder(&home.join("audit"), &against).unwrap();
    assert!(copy.ok && copy.notes.contains(&told), "{copy:?}");

    // It goes on, and a later deletion may take the record of the first with it.
    for more in 2..40 {
        log.append(&event(n + more).at(now)).unwrap();
    }
    let again = delete_older_than(home, &log, 6, now + Months::new(73)).unwrap();
    assert!(again.segments > 2);
    let notes = intact(home);
    assert!(
        notes
            .iter()
            .any(|n| matches!(n, Note::Deleted { first: 1, last, .. } if *last > 5)),
        "{notes:?}"
    );
}

#[test]
fn nothing_is_deleted_from_a_log_that_is_not_whole() {
    let (home, log, _, n) = old_log();
    let first = &files(home.path(), "jsonl")[0];
    let mut bytes = fs::read(first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(first).unwrap();
    fs::write(first, bytes).unwrap();
    let refused = delete_older_than(home.path(), &log, 6, years_after(n, 9));
    assert!(matches!(refused, Err(Error::NotWhole)));
    assert_eq!(files(home.path(), "jsonl").len(), 5);
}

/// Only the signed lines of a segment, as a deletion on purpose leaves them.
fn signed_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("{\"record\""))
        .fold(String::new(), |all, line| all + line + "\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_segment_that_is_deleted_by_hand_is_found(which in any::<prop::sample::Index>(), purpose in any::<bool>(), fake in any::<bool>()) {
        let (home, log, _, n) = old_log();
        let home = home.path();
        if purpose {
            // Two go on purpose: what remains must still be there.
            let third = &files(home, "jsonl")[2];
            let first_of_third = fs::read_to_string(third).unwrap();
            let first = first_of_third.split("\"first\":").nth(1).unwrap();
            let first: u64 = first.split(',').next().unwrap().parse().unwrap();
            let done = delete_older_than(home, &log, 6, years_after(first, 6)).unwrap();
            prop_assert_eq!(done.segments, 2);
            prop_assert!(verify(home).unwrap().ok);
        }
        log.append(&event(n + 1)).unwrap();
        let mut all = files(home, "jsonl");
        all.extend(files(home, "kept"));
        let gone = &all[which.index(all.len())];
        let signed = signed_lines(gone);
        fs::remove_file(gone).unwrap();
        if fake && gone.extension().is_some_and(|e| e == "jsonl") {
            // With its signed lines put in its place, but no record of a deletion.
            fs::write(gone.with_extension("kept"), signed).unwrap();
        }
        let verdict = verify(home).unwrap();
        prop_assert!(!verdict.ok, "{} {verdict:?}", gone.display());
        let copy = verify_folder(&home.join("audit"), &Against::default()).unwrap();
        let newest = gone.extension().is_some_and(|e| e == "jsonl") && all.iter().all(|p| p <= gone || p.extension().is_some_and(|e| e == "kept"));
        prop_assert!(!copy.ok || newest, "{} {copy:?}", gone.display());
    }

    #[test]
    fn any_change_of_what_was_kept_is_found(file in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
        let (home, log, _, n) = old_log();
        let home = home.path();
        delete_older_than(home, &log, 6, years_after(n, 7)).unwrap();
        let all = files(home, "kept");
        let path = &all[file.index(all.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = place.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs::write(path, bytes).unwrap();
        let verdict = verify(home).unwrap();
        prop_assert!(!verdict.ok, "{verdict:?}");
    }
}
