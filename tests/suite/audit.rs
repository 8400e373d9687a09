//! The audit log: every change, removal, swap and rollback is found; crashes are not tampering.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::DateTime;
use negatoscope::audit::{
    Against, AuditEvent, EventId, Finding, Limits, Log, Note, Outcome, ParticipantObject, Problem,
    Record, VerificationKey, records, verify, verify_against, verify_folder,
};
use negatoscope::study::Uid;
use proptest::prelude::*;
use ring::{digest, hmac};

pub fn event(n: u64) -> AuditEvent {
    let time = DateTime::from_timestamp(1_700_000_000 + n as i64, 0).unwrap();
    AuditEvent::new(EventId::Export, time).about(ParticipantObject::study(
        &Uid::parse(&format!("1.2.{n}")).unwrap(),
        n as usize,
    ))
}

/// Segments and checkpoints after few records.
const SMALL: Limits = Limits {
    segment_bytes: 4000,
    checkpoint_every: 2,
};

/// A home with a log of `count` records.
pub fn home_with(count: u64, limits: Limits) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open_with(home.path(), limits).unwrap();
    for n in 1..=count {
        assert_eq!(log.append(&event(n)).unwrap().seq(), n);
    }
    home
}

fn copy_of(home: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["audit", "audit-keys"] {
        fs::create_dir(copy.path().join(folder)).unwrap();
        for entry in fs::read_dir(home.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "reserve" {
                let to = copy.path().join(folder).join(entry.file_name());
                // Contents alone: closed segments are read-only.
                fs::write(to, fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    copy
}

/// Three segments with checkpoints in them; each caller gets a copy.
fn long_log() -> tempfile::TempDir {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let home = MADE.get_or_init(|| home_with(9, SMALL)).path();
    assert!(segments(home).len() >= 3);
    copy_of(home)
}

fn segments(home: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(home.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    all.sort();
    all
}

fn newest(home: &Path) -> PathBuf {
    segments(home).pop().unwrap()
}

fn state(home: &Path) -> PathBuf {
    home.join("audit-keys/state")
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn write_lines(path: &Path, lines: &[String]) {
    let text = lines.join("\n") + if lines.is_empty() { "" } else { "\n" };
    fs::write(path, text).unwrap();
}

fn finding(home: &Path) -> Finding {
    let verdict = verify(home).unwrap();
    assert_eq!(verdict.ok, verdict.problems.is_empty());
    verdict.finding()
}

fn shown(home: &Path) -> Vec<Option<Record>> {
    let mut all = Vec::new();
    records(home, |_, record| all.push(record)).unwrap();
    all
}

#[test]
fn a_log_as_it_was_written_is_intact_and_reads_back() {
    for limits in [Limits::default(), SMALL] {
        let home = home_with(5, limits);
        let verdict = verify(home.path()).unwrap();
        assert_eq!(verdict.finding(), Finding::Intact, "{verdict:?}");
        assert_eq!(verdict.notes, [Note::KeyBeside]);
        assert_eq!((verdict.records, verdict.last), (5, 5));
        let read: Vec<Record> = shown(home.path()).into_iter().map(Option::unwrap).collect();
        let events: Vec<AuditEvent> = read.iter().map(|r| r.event.clone()).collect();
        assert_eq!(events, (1..=5).map(event).collect::<Vec<_>>());
    }
}

#[test]
fn nothing_of_an_event_stands_in_the_files_in_clear() {
    let home = home_with(3, Limits::default());
    for entry in fs::read_dir(home.path().join("audit")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("1.2.3") && !text.contains("participants"));
    }
    fs::remove_file(home.path().join("audit-keys/data")).unwrap();
    assert_eq!(shown(home.path()), [None, None, None]);
    assert_eq!(finding(home.path()), Finding::Intact);
}

#[test]
fn a_home_without_a_log_is_fine() {
    let home = tempfile::tempdir().unwrap();
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok && verdict.records == 0 && verdict.notes.is_empty());
}

#[test]
fn a_receipt_names_the_record_on_disk() {
    let home = home_with(3, Limits::default());
    let receipt = Log::open(home.path()).unwrap().append(&event(4)).unwrap();
    let last = shown(home.path()).pop().flatten().unwrap();
    assert_eq!((receipt.seq(), receipt.sha256()), (4, last.sha256.as_str()));
    assert_eq!(receipt.event(), EventId::Export);
}

#[test]
fn an_act_has_a_beginning_and_an_outcome_that_names_it() {
    let home = home_with(1, Limits::default());
    let log = Log::open(home.path()).unwrap();
    let act = log.begin(&event(2)).unwrap();
    let other = log.begin(&event(3)).unwrap();
    assert_eq!((act.seq(), other.seq()), (2, 3));
    act.done(event(4).time).unwrap();
    drop(other);
    let forgotten = log.begin(&event(6)).unwrap();
    // As a crash does it.
    std::mem::forget(forgotten);
    let parts: Vec<(String, Outcome)> = shown(home.path())
        .into_iter()
        .map(|r| r.map(|r| (r.act, r.event.outcome)).unwrap())
        .collect();
    let fine = |act: &str| (act.to_owned(), Outcome::Success);
    assert_eq!(
        parts,
        [
            fine("whole"),
            fine("begin"),
            fine("begin"),
            fine("end:2"),
            ("end:3".to_owned(), Outcome::MinorFailure),
            fine("begin")
        ]
    );
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok);
    assert!(verdict.notes.contains(&Note::NeverClosed { acts: vec![6] }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_flipped_bit_of_any_file_is_found(file in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let home = long_log();
        let mut files = segments(home.path());
        files.push(state(home.path()));
        files.push(home.path().join("audit-keys/verification.json"));
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        fs::write(path, &bytes).unwrap();
        let verdict = verify(home.path()).unwrap();
        if path.extension().is_some_and(|e| e == "jsonl") {
            prop_assert!(!verdict.ok, "{} {at} {bit}: {verdict:?}", path.display());
        } else {
            // The log itself is intact: what is damaged beside it is said.
            prop_assert!(verdict.notes != [Note::KeyBeside] || !verdict.ok, "{} {at} {bit}", path.display());
        }
        // The same without any key.
        if path.extension().is_some_and(|e| e == "jsonl") && *path != newest(home.path()) {
            let copy = verify_folder(&home.path().join("audit"), &Against::default()).unwrap();
            prop_assert!(!copy.ok, "{} {at} {bit}", path.display());
        }
    }

    #[test]
    fn any_removed_swapped_or_repeated_lines_are_found(which in any::<prop::sample::Index>(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), how in 0..3) {
        let home = long_log();
        let files = segments(home.path());
        let path = &files[which.index(files.len())];
        let mut all = lines(path);
        let (a, b) = (a.index(all.len()), b.index(all.len()));
        match how {
            0 => drop(all.drain(a.min(b)..=a.max(b))),
            1 => {
                prop_assume!(a != b);
                all.swap(a, b);
            }
            _ => {
                let copy = all[a].clone();
                all.insert(b, copy);
            }
        }
        write_lines(path, &all);
        prop_assert!(!verify(home.path()).unwrap().ok);
    }

    #[test]
    fn any_cut_is_found_before_and_after_the_log_goes_on(which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>()) {
        let home = long_log();
        let files = segments(home.path());
        let path = &files[which.index(files.len())];
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..place.index(bytes.len())]).unwrap();
        let before = verify(home.path()).unwrap();
        prop_assert!(!before.ok, "{before:?}");
        Log::open_with(home.path(), SMALL).unwrap().append(&event(99)).unwrap();
        let after = verify(home.path()).unwrap();
        prop_assert!(!after.ok, "{after:?}");
        let read = shown(home.path()).pop().flatten().unwrap();
        prop_assert_eq!(read.event, event(99));
    }

    #[test]
    fn an_older_copy_of_log_or_state_or_both_is_found(count in 1_u64..8, back in 1_u64..20, what in 0..3) {
        let home = tempfile::tempdir().unwrap();
        let log = Log::open_with(home.path(), SMALL).unwrap();
        let mut old = None;
        for n in 1..=count + back {
            log.append(&event(n)).unwrap();
            if n == count {
                old = Some(copy_of(home.path()));
            }
        }
        let kept = log.checkpoint(event(20).time).unwrap();
        let old = old.unwrap();
        let restore = |folder: &str| {
            for entry in fs::read_dir(home.path().join(folder)).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            for entry in fs::read_dir(old.path().join(folder)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), home.path().join(folder).join(entry.file_name())).unwrap();
            }
        };
        if what != 1 { restore("audit"); }
        if what != 0 { restore("audit-keys"); }
        let alone = verify(home.path()).unwrap();
        match what {
            0 => prop_assert_eq!(alone.finding(), Finding::Truncated),
            // A few lines are what a power loss may take from the state: said, and no harm done.
            1 if alone.finding() == Finding::StateBehind => prop_assert!(back < 16),
            1 => prop_assert!(alone.finding() == Finding::RolledBack && back > 7, "{alone:?}"),
            // All of it together shows only against what is kept elsewhere.
            _ => prop_assert_eq!(alone.finding(), Finding::Intact),
        }
        let against = Against { checkpoints: vec![kept.clone()], ..Against::default() };
        let held = verify_against(home.path(), &against).unwrap();
        if what != 1 {
            prop_assert!(held.findings().contains(&Finding::RolledBack), "{held:?}");
        }
        // The log goes on, and it stays visible.
        log.append(&event(30)).unwrap();
        let held = verify_against(home.path(), &against).unwrap();
        prop_assert_eq!(held.ok, alone.finding() == Finding::StateBehind);
        let after = verify(home.path()).unwrap();
        let harmless = what == 2 || alone.finding() == Finding::StateBehind;
        prop_assert_eq!(after.ok, harmless, "{:?}", after);
    }

    /// A crash while a line is being written leaves any part of it, and the state before it.
    #[test]
    fn a_crash_in_a_record_is_kept_aside_and_recorded(count in 0_u64..5, place in any::<prop::sample::Index>()) {
        let home = home_with(count, SMALL);
        if count == 0 {
            Log::open_with(home.path(), SMALL).unwrap().checkpoint(event(0).time).unwrap();
        }
        let before = copy_of(home.path());
        Log::open_with(home.path(), Limits::default()).unwrap().append(&event(50)).unwrap();
        let path = newest(home.path());
        let whole = fs::read(before.path().join("audit").join(path.file_name().unwrap())).unwrap_or_default();
        let line = fs::read(&path).unwrap().split_off(whole.len());
        let torn = &line[..place.index(line.len())];
        fs::write(&path, [whole.as_slice(), torn].concat()).unwrap();
        fs::copy(state(before.path()), state(home.path())).unwrap();

        let found = verify(home.path()).unwrap();
        prop_assert!(found.ok, "{found:?}");
        let expected = if torn.is_empty() { Finding::Intact } else { Finding::TornTail };
        prop_assert_eq!(found.finding(), expected);

        Log::open_with(home.path(), SMALL).unwrap().append(&event(51)).unwrap();
        let after = verify(home.path()).unwrap();
        prop_assert_eq!(after.finding(), Finding::Intact, "{:?}", after);
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
    fn any_bytes_for_the_files_give_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..600), which in 0_usize..6) {
        let home = home_with(3, SMALL);
        let name = ["audit/000001.jsonl", "audit/000007.jsonl", "audit/log.jsonl", "audit/head.json", "audit-keys/state", "audit-keys/verification.json"][which];
        fs::write(home.path().join(name), &bytes).unwrap();
        verify(home.path()).unwrap();
        Log::open(home.path()).unwrap().append(&event(4)).unwrap();
        verify(home.path()).unwrap();
        shown(home.path());
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// What `previous` and `sha256` are by their definition: all hashes of a file made right again.
fn rehash(path: &Path) {
    let hash = |text: &str| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let mut previous: Option<String> = None;
    let mut made = Vec::new();
    for line in lines(path) {
        let (body, _) = line.rsplit_once(",\"sha256\":\"").unwrap();
        let mut body = body.to_owned();
        if let Some(previous) = &previous {
            let at = body.find("\"previous\":\"").unwrap() + 12;
            body.replace_range(at..at + 64, previous);
        }
        let sha256 = hash(&body);
        made.push(format!("{body},\"sha256\":\"{sha256}\"}}"));
        previous = Some(sha256);
    }
    write_lines(path, &made);
}

#[test]
fn a_history_rewritten_with_right_hashes_and_without_keys_is_found() {
    let home = home_with(3, Limits::default());
    Log::open(home.path())
        .unwrap()
        .checkpoint(event(4).time)
        .unwrap();
    let path = newest(home.path());
    rehash(&path);
    assert_eq!(finding(home.path()), Finding::Intact);
    let mut all = lines(&path);
    all[2] = all[2].replace("\"whole\"", "\"begin\"");
    write_lines(&path, &all);
    rehash(&path);
    let folder = home.path().join("audit");
    // Public alone: the signature of the checkpoint after it fails.
    let public = verify_folder(&folder, &Against::default()).unwrap();
    assert!(
        matches!(public.problems[..], [Problem::ForeignKey { .. }]),
        "{public:?}"
    );
    // With the verification key: each record from there on is named.
    let key = VerificationKey::read(&home.path().join("audit-keys/verification.json")).unwrap();
    let against = Against {
        verification: key,
        ..Against::default()
    };
    let sealed = verify_folder(&folder, &against).unwrap();
    assert!(
        matches!(sealed.problems[0], Problem::ForeignSeal { seq: 2, .. }),
        "{sealed:?}"
    );
    assert_eq!(sealed.finding(), Finding::ForeignKey);
}

#[test]
fn the_keys_of_records_on_disk_are_nowhere_any_more() {
    let home = home_with(4, Limits::default());
    let keys = home.path().join("audit-keys");
    let taken = tempfile::tempdir().unwrap();
    let file = taken.path().join("key.json");
    Log::open(home.path())
        .unwrap()
        .take_verification_key(&file)
        .unwrap();
    let text: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut key = text["starts"][0]["chain"].as_str().unwrap().to_owned();
    let next = |key: &str| -> String {
        let bytes: Vec<u8> = (0..32)
            .map(|n| u8::from_str_radix(&key[2 * n..2 * n + 2], 16).unwrap())
            .collect();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"next");
        hex(tag.as_ref())
    };
    let held = |key: &str| -> usize {
        let all = fs::read_dir(&keys)
            .unwrap()
            .map(|e| fs::read(e.unwrap().path()).unwrap());
        all.map(|bytes| String::from_utf8_lossy(&bytes).matches(key).count())
            .sum()
    };
    for _ in 1..=4 {
        assert_eq!(held(&key), 0);
        key = next(&key);
    }
    // The key of the next record, in both copies of the state.
    assert_eq!(held(&key), 2);

    let verdict = verify(home.path()).unwrap();
    assert_eq!(verdict.notes, [Note::SealsUnchecked { records: 4 }]);
    let against = Against {
        verification: VerificationKey::read(&file).unwrap(),
        ..Against::default()
    };
    assert!(
        verify_against(home.path(), &against)
            .unwrap()
            .notes
            .is_empty()
    );
    assert!(
        Log::open(home.path())
            .unwrap()
            .take_verification_key(&file)
            .is_err()
    );
}

#[test]
fn another_log_in_its_place_is_found_by_what_was_noted() {
    let (home, other) = (home_with(4, SMALL), home_with(4, SMALL));
    let public_key = Some(verify(home.path()).unwrap().public_key);
    let kept = Log::open(home.path())
        .unwrap()
        .checkpoint(event(9).time)
        .unwrap();
    let checkpoints = vec![kept];
    for against in [
        Against {
            public_key,
            ..Against::default()
        },
        Against {
            checkpoints,
            ..Against::default()
        },
    ] {
        assert!(verify_against(home.path(), &against).unwrap().ok);
        let verdict = verify_against(other.path(), &against).unwrap();
        assert!(!verdict.ok, "{verdict:?}");
        let empty = tempfile::tempdir().unwrap();
        let nothing = verify_against(empty.path(), &against).unwrap();
        assert_eq!(nothing.ok, against.checkpoints.is_empty(), "{nothing:?}");
    }
}

#[test]
fn a_log_whose_keys_are_gone_goes_on_with_new_ones_and_says_so() {
    let home = home_with(4, SMALL);
    fs::remove_dir_all(home.path().join("audit-keys")).unwrap();
    assert_eq!(finding(home.path()), Finding::StateLost);
    let log = Log::open_with(home.path(), SMALL).unwrap();
    assert_eq!(log.append(&event(5)).unwrap().seq(), 6);
    let verdict = verify(home.path()).unwrap();
    let words: Vec<&str> = verdict.findings().iter().map(|f| f.word()).collect();
    assert_eq!(words, ["state-lost", "foreign-key"], "{verdict:?}");
    assert!(log.append(&event(6)).is_ok());
}

#[test]
fn a_missing_segment_is_a_gap() {
    for which in 0..2 {
        let home = long_log();
        fs::remove_file(&segments(home.path())[which]).unwrap();
        let verdict = verify(home.path()).unwrap();
        assert!(verdict.findings().contains(&Finding::Gap), "{verdict:?}");
        assert!(
            !verdict.findings().contains(&Finding::ForeignKey),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_crash_between_a_line_and_the_state_is_no_tampering() {
    let home = home_with(2, Limits::default());
    let before = fs::read(state(home.path())).unwrap();
    let log = Log::open(home.path()).unwrap();
    log.append(&event(3)).unwrap();
    fs::write(state(home.path()), &before).unwrap();
    let verdict = verify(home.path()).unwrap();
    assert!(
        verdict.ok && verdict.notes.contains(&Note::OneBehind),
        "{verdict:?}"
    );
    assert_eq!(log.append(&event(4)).unwrap().seq(), 4);
    assert_eq!(finding(home.path()), Finding::Intact);
}

#[test]
fn a_clock_that_was_set_back_is_noted_and_the_order_stands() {
    let home = home_with(3, Limits::default());
    Log::open(home.path()).unwrap().append(&event(0)).unwrap();
    let verdict = verify(home.path()).unwrap();
    assert!(verdict.ok);
    assert_eq!(verdict.finding(), Finding::ClockWentBack);
    assert!(
        verdict
            .notes
            .contains(&Note::ClockBack { seq: 4, count: 1 })
    );
}

#[test]
fn every_word_of_the_verdict_has_its_own_exit_code() {
    let codes: std::collections::BTreeSet<u8> =
        Finding::ALL.iter().map(|f| f.exit_code()).collect();
    assert_eq!(codes.len(), Finding::ALL.len());
    assert!(codes.iter().all(|code| ![1, 2, 3].contains(code)));
}

#[test]
fn many_writers_make_one_chain() {
    let home = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let home = home.path();
            scope.spawn(move || {
                let log = Log::open_with(home, SMALL).unwrap();
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
    let home = home_with(1, Limits::default());
    let log = Log::open(home.path()).unwrap();
    let large = event(2).about(ParticipantObject::file(Path::new(&"x".repeat(2 << 20))));
    assert!(log.append(&large).is_err());
    assert_eq!(verify(home.path()).unwrap().records, 1);
    assert_eq!(finding(home.path()), Finding::Intact);
}

#[cfg(unix)]
#[test]
fn secrets_are_for_the_account_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = home_with(1, Limits::default());
    for folder in ["audit", "audit-keys"] {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.path().join(folder)), 0o700);
        if folder == "audit-keys" {
            for entry in fs::read_dir(home.path().join(folder)).unwrap() {
                assert_eq!(mode(&entry.unwrap().path()), 0o600);
            }
        }
    }
}

/// The log of earlier versions by its definition, written here once more.
mod old {
    use super::*;

    pub fn write(home: &Path, count: u64) {
        use std::fmt::Write;
        let hash = |text: &str| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        let folder = home.join("audit");
        fs::create_dir_all(&folder).unwrap();
        let (mut text, mut previous) = (String::new(), "0".repeat(64));
        for seq in 1..=count {
            let event = serde_json::to_string(&event(seq)).unwrap();
            let body = format!("{{\"seq\":{seq},\"previous\":\"{previous}\",\"event\":{event}}}");
            previous = hash(&body);
            let open = body.strip_suffix('}').unwrap();
            writeln!(text, "{open},\"sha256\":\"{previous}\"}}").unwrap();
        }
        fs::write(folder.join("log.jsonl"), text).unwrap();
        let head = format!("{{\"seq\":{count},\"sha256\":\"{previous}\"}}\n");
        fs::write(folder.join("head.json"), head).unwrap();
    }
}

#[test]
fn a_log_of_an_earlier_version_is_read_checked_and_linked_in() {
    let home = tempfile::tempdir().unwrap();
    old::write(home.path(), 5);
    let before = verify(home.path()).unwrap();
    assert!(before.ok && before.notes == [Note::Plain], "{before:?}");
    assert_eq!(before.records, 5);
    let log = Log::open(home.path()).unwrap();
    // The record that links it in is the sixth.
    assert_eq!(log.append(&event(7)).unwrap().seq(), 7);
    let verdict = verify(home.path()).unwrap();
    assert_eq!(verdict.finding(), Finding::Intact, "{verdict:?}");
    assert_eq!((verdict.records, verdict.last), (7, 7));
    let all: Vec<Record> = shown(home.path()).into_iter().map(Option::unwrap).collect();
    let seqs: Vec<u64> = all.iter().map(|r| r.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(all[5].act, "alert:continued");

    let path = home.path().join("audit/log.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    for (damaged, word) in [
        (whole.replacen("1.2.3", "1.2.9", 1), Finding::Altered),
        (
            whole.split_inclusive('\n').take(4).collect(),
            Finding::Altered,
        ),
        (String::new(), Finding::Altered),
    ] {
        fs::write(&path, damaged).unwrap();
        let verdict = verify(home.path()).unwrap();
        assert!(verdict.findings().contains(&word), "{verdict:?}");
    }
    fs::remove_file(&path).unwrap();
    fs::remove_file(home.path().join("audit/head.json")).unwrap();
    assert!(
        verify(home.path())
            .unwrap()
            .problems
            .contains(&Problem::OldLogGone)
    );
}

#[test]
fn damage_of_an_old_log_is_found_and_stays_visible_in_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    old::write(home.path(), 5);
    let path = home.path().join("audit/log.jsonl");
    let mut all = lines(&path);
    all[1] = all[1].replace("1.2.2", "1.2.9");
    all.pop();
    write_lines(&path, &all);
    let problems = verify(home.path()).unwrap().problems;
    assert!(
        matches!(
            problems[..],
            [
                Problem::Changed { seq: 2, .. },
                Problem::CutShort {
                    last: 4,
                    expected: 5
                }
            ]
        ),
        "{problems:?}"
    );
    assert_eq!(
        Log::open(home.path())
            .unwrap()
            .append(&event(7))
            .unwrap()
            .seq(),
        7
    );
    assert!(!verify(home.path()).unwrap().ok);
}
