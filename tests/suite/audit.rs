//! The audit log: every change, removal and swap of a record is found; crashes are not tampering.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use negatoscope::audit::{
    AuditEvent, EventId, Log, ParticipantObject, Problem, Record, records, verify,
};
use negatoscope::study::Uid;
use proptest::prelude::*;

fn event(n: u64) -> AuditEvent {
    let time = DateTime::from_timestamp(1_700_000_000 + n as i64, 0).unwrap();
    AuditEvent::new(EventId::Export, time).about(ParticipantObject::study(
        &Uid::parse(&format!("1.2.{n}")).unwrap(),
        n as usize,
    ))
}

/// A home with a log of `count` records.
fn home_with(count: u64) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path()).unwrap();
    for n in 1..=count {
        assert_eq!(log.append(&event(n)).unwrap().seq(), n);
    }
    home
}

fn log_file(home: &Path) -> PathBuf {
    home.join("audit/log.jsonl")
}

fn head_file(home: &Path) -> PathBuf {
    home.join("audit/head.json")
}

fn lines(home: &Path) -> Vec<String> {
    let text = fs::read_to_string(log_file(home)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn write_lines(home: &Path, lines: &[String]) {
    let text = lines.join("\n") + if lines.is_empty() { "" } else { "\n" };
    fs::write(log_file(home), text).unwrap();
}

fn problems(home: &Path) -> Vec<Problem> {
    let verdict = verify(home).unwrap();
    assert_eq!(verdict.ok, verdict.problems.is_empty());
    verdict.problems
}

fn shown(home: &Path) -> Vec<Option<Record>> {
    let mut all = Vec::new();
    records(home, |_, record| all.push(record)).unwrap();
    all
}

#[test]
fn a_log_as_it_was_written_is_fine() {
    let home = home_with(5);
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok && verdict.notes.is_empty(), "{verdict:?}");
    assert_eq!(verdict.records, 5);
    let events: Vec<AuditEvent> = shown(home.path())
        .into_iter()
        .map(|r| r.unwrap().event)
        .collect();
    assert_eq!(events, (1..=5).map(event).collect::<Vec<_>>());
}

#[test]
fn a_home_without_a_log_is_fine() {
    let home = tempfile::tempdir().unwrap();
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok && verdict.records == 0);
}

#[test]
fn a_receipt_names_the_record_on_disk() {
    let home = home_with(3);
    let receipt = Log::open(home.path()).unwrap().append(&event(4)).unwrap();
    let last = shown(home.path()).pop().flatten().unwrap();
    assert_eq!((receipt.seq(), receipt.sha256()), (4, last.sha256.as_str()));
    assert_eq!(receipt.event(), EventId::Export);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_changed_byte_is_found(count in 1_u64..6, place in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let home = home_with(count);
        let mut bytes = fs::read(log_file(home.path())).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(log_file(home.path()), &bytes).unwrap();
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    #[test]
    fn any_removed_run_of_records_is_found(count in 1_usize..8, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let home = home_with(count as u64);
        let mut all = lines(home.path());
        let (a, b) = (a.index(count), b.index(count));
        all.drain(a.min(b)..=a.max(b));
        write_lines(home.path(), &all);
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    #[test]
    fn any_two_swapped_records_are_found(count in 2_usize..8, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (a, b) = (a.index(count), b.index(count));
        prop_assume!(a != b);
        let home = home_with(count as u64);
        let mut all = lines(home.path());
        all.swap(a, b);
        write_lines(home.path(), &all);
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    #[test]
    fn any_repeated_record_is_found(count in 1_usize..6, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let home = home_with(count as u64);
        let mut all = lines(home.path());
        let copy = all[from.index(count)].clone();
        all.insert(to.index(count + 1), copy);
        write_lines(home.path(), &all);
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    #[test]
    fn any_cut_of_the_file_is_found(count in 1_u64..6, place in any::<prop::sample::Index>()) {
        let home = home_with(count);
        let bytes = fs::read(log_file(home.path())).unwrap();
        fs::write(log_file(home.path()), &bytes[..place.index(bytes.len())]).unwrap();
        prop_assert!(!verify(home.path()).unwrap().ok);
        // The log goes on, and the damage stays visible.
        Log::open(home.path()).unwrap().append(&event(99)).unwrap();
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    /// A crash while a record is being written leaves any part of its line, and the head before it.
    #[test]
    fn a_crash_in_a_record_is_kept_aside_and_recorded(count in 0_u64..4, place in any::<prop::sample::Index>()) {
        let home = home_with(count);
        let head = fs::read(head_file(home.path())).ok();
        let whole = fs::read(log_file(home.path())).unwrap_or_default();
        Log::open(home.path()).unwrap().append(&event(50)).unwrap();
        let line = fs::read(log_file(home.path())).unwrap().split_off(whole.len());
        let torn = &line[..place.index(line.len())];
        fs::write(log_file(home.path()), [whole.as_slice(), torn].concat()).unwrap();
        match &head {
            Some(head) => fs::write(head_file(home.path()), head).unwrap(),
            None => fs::remove_file(head_file(home.path())).unwrap(),
        }

        let before = verify(home.path()).unwrap();
        prop_assert!(before.ok, "{before:?}");
        prop_assert_eq!(before.notes.len(), usize::from(!torn.is_empty()));

        Log::open(home.path()).unwrap().append(&event(51)).unwrap();
        let after = verify(home.path()).unwrap();
        prop_assert!(after.ok && after.notes.is_empty(), "{after:?}");
        let kept: Vec<Vec<u8>> = fs::read_dir(home.path().join("audit")).unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "part"))
            .map(|path| fs::read(path).unwrap())
            .collect();
        let events: Vec<EventId> = shown(home.path()).into_iter().skip(count as usize).map(|r| r.unwrap().event.id).collect();
        if torn.is_empty() {
            prop_assert!(kept.is_empty());
            prop_assert_eq!(events, [EventId::Export]);
        } else {
            prop_assert_eq!(kept, [torn.to_vec()]);
            prop_assert_eq!(events, [EventId::SecurityAlert, EventId::Export]);
        }
    }

    #[test]
    fn any_bytes_for_a_log_give_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("audit")).unwrap();
        fs::write(log_file(home.path()), &bytes).unwrap();
        verify(home.path()).unwrap();
        Log::open(home.path()).unwrap().append(&event(1)).unwrap();
        verify(home.path()).unwrap();
    }
}

#[test]
fn a_crash_between_record_and_head_is_no_tampering() {
    let home = home_with(2);
    let old_head = fs::read(head_file(home.path())).unwrap();
    let log = Log::open(home.path()).unwrap();
    log.append(&event(3)).unwrap();
    fs::write(head_file(home.path()), &old_head).unwrap();
    assert_eq!(problems(home.path()), []);
    assert_eq!(log.append(&event(4)).unwrap().seq(), 4);
    assert_eq!(problems(home.path()), []);
}

#[test]
fn an_old_head_is_found_before_and_after_the_log_goes_on() {
    let home = home_with(2);
    let old_head = fs::read(head_file(home.path())).unwrap();
    let log = Log::open(home.path()).unwrap();
    for n in 3..6 {
        log.append(&event(n)).unwrap();
    }
    fs::write(head_file(home.path()), &old_head).unwrap();
    assert_eq!(problems(home.path()), [Problem::HeadMismatch { seq: 2 }]);
    log.append(&event(6)).unwrap();
    assert!(matches!(
        problems(home.path())[..],
        [Problem::Reported { seq: 6, .. }]
    ));
}

#[test]
fn records_cut_off_with_the_head_deleted_stay_visible() {
    let home = home_with(5);
    write_lines(home.path(), &lines(home.path())[..3]);
    fs::remove_file(head_file(home.path())).unwrap();
    assert_eq!(problems(home.path()), [Problem::HeadLost]);
    Log::open(home.path()).unwrap().append(&event(6)).unwrap();
    assert!(matches!(
        problems(home.path())[..],
        [Problem::Reported { seq: 4, .. }]
    ));
}

#[test]
fn problems_name_the_records() {
    let home = home_with(6);
    let mut all = lines(home.path());
    all[2] = all[2].replace("1.2.3", "1.2.9");
    all.remove(4);
    all.pop();
    write_lines(home.path(), &all);
    assert_eq!(
        problems(home.path()),
        [
            Problem::Changed { seq: 3, line: 3 },
            Problem::CutShort {
                last: 4,
                expected: 6
            },
        ]
    );
}

#[test]
fn many_writers_make_one_chain() {
    let home = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let home = home.path();
            scope.spawn(move || {
                let log = Log::open(home).unwrap();
                for n in 0..8 {
                    log.append(&event(writer * 100 + n)).unwrap();
                }
            });
        }
    });
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(verdict.records, 32);
}

#[test]
fn an_event_too_large_for_a_record_is_refused_and_leaves_no_trace() {
    let home = home_with(1);
    let log = Log::open(home.path()).unwrap();
    let large = event(2).about(ParticipantObject::file(Path::new(&"x".repeat(2 << 20))));
    assert!(log.append(&large).is_err());
    assert_eq!(verify(home.path()).unwrap().records, 1);
    assert_eq!(problems(home.path()), []);
}
