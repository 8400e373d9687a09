//! The verdict over a log: every line as it was written, none missing, sealed by the right keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::keys::{Found, Keys, VerificationKey};
use super::line::{ChainKey, Kind, Link, MAX_BYTES, NOTHING_BEFORE, is_signed};
use super::log::{self, CONTINUED, DISK_FULL, MOST_BEHIND, TORN, io_error};
use super::text::hex;
use super::verdict::Note;
pub(super) use super::verdict::{Place, Problem, Verdict};
use super::{Error, plain, retention, segment};

/// What a log is held against, beyond itself.
#[derive(Clone, Debug, Default)]
pub struct Against {
    /// The key that checks every seal, where it was taken away from the log's home.
    pub verification: Option<VerificationKey>,
    /// The log's first public key, as it was noted elsewhere (hexadecimal).
    pub public_key: Option<String>,
    /// Signed lines of [`super::Log::checkpoint`] that were kept elsewhere.
    pub checkpoints: Vec<String>,
}

/// Reads the whole log of a home folder and checks every line. Changes nothing.
///
/// No log at all is fine: nothing was put on record yet (or all of it was deleted, which only a
/// checkpoint kept elsewhere can show).
///
/// # Errors
/// The log exists but cannot be read.
pub fn verify(home: &Path) -> Result<Verdict, Error> {
    verify_against(home, &Against::default())
}

/// As [`verify`], with what was kept elsewhere.
///
/// # Errors
/// As [`verify`].
pub fn verify_against(home: &Path, against: &Against) -> Result<Verdict, Error> {
    let keys = Keys::of(home);
    let kept = keys.verification();
    let mut against = against.clone();
    let beside = matches!(kept, Ok(Some(_)));
    let damaged = kept.is_err();
    if against.verification.is_none() {
        against.verification = kept.ok().flatten();
    }
    let folder = log::folder(home);
    let snapshot = Snapshot::take(&folder, Some(&keys))?;
    let mut verdict = check(&folder, &snapshot, &against)?;
    if snapshot.segments.is_empty() {
        return Ok(verdict);
    }
    if beside {
        verdict.notes.push(Note::KeyBeside);
    }
    if damaged {
        verdict.notes.push(Note::KeyDamaged);
    }
    verdict
        .notes
        .extend(keys.open_to_others().into_iter().map(Note::OpenToOthers));
    Ok(verdict)
}

/// Checks a copy of a log's folder, without the keys of its home.
///
/// # Errors
/// The folder cannot be read.
pub fn verify_folder(folder: &Path, against: &Against) -> Result<Verdict, Error> {
    check(folder, &Snapshot::take(folder, None)?, against)
}

/// What belonged together at one moment: the log only grows, so the rest can be read without a lock.
struct Snapshot {
    /// `None` for a copy without keys.
    state: Option<Found>,
    segments: Vec<(u64, PathBuf, u64)>,
    /// What stays of deleted ones.
    kept: Vec<(u64, PathBuf)>,
}

impl Snapshot {
    fn take(folder: &Path, keys: Option<&Keys>) -> Result<Self, Error> {
        // Not every file system can lock (read-only media): a log that nobody writes is read without.
        let lock = File::open(log::lock_path(folder)).ok();
        if let Some(lock) = &lock {
            let _ = lock.lock_shared();
        }
        let state = keys.map(Keys::read_state).transpose()?;
        let mut segments = Vec::new();
        for (number, path) in segment::list(folder)? {
            let length = std::fs::metadata(&path)
                .map_err(io_error("reading", &path))?
                .len();
            segments.push((number, path, length));
        }
        let newest = segments.last().map_or(0, |(number, ..)| *number);
        let there: BTreeSet<u64> = segments.iter().map(|(number, ..)| *number).collect();
        let kept = (segment::kept(folder)?.into_iter())
            .filter(|(number, _)| !there.contains(number) && *number < newest)
            .collect();
        Ok(Self {
            state,
            segments,
            kept,
        })
    }
}

fn check(folder: &Path, snapshot: &Snapshot, against: &Against) -> Result<Verdict, Error> {
    let old = plain::summary(folder)?;
    let mut chain = Chain::new(against);
    if let Some(old) = &old {
        chain.verdict.records += old.records;
        chain.old_hash.clone_from(&old.hash);
        if snapshot.segments.is_empty() {
            chain.last = old.last;
            chain.hash.clone_from(&old.hash);
        }
        if old.torn > 0 {
            chain.verdict.notes.push(Note::Torn { bytes: old.torn });
        }
    }
    let mut kept = snapshot.kept.iter().peekable();
    for (index, (number, path, length)) in snapshot.segments.iter().enumerate() {
        while let Some((number, path)) = kept.next_if(|(before, _)| before < number) {
            chain.kept(*number, path)?;
        }
        let newest = index + 1 == snapshot.segments.len();
        chain.segment(*number, path, *length, newest)?;
    }
    match (&old, chain.old.take()) {
        (Some(old), Some((bytes, sha256))) => {
            chain.verdict.problems.extend(old.found.iter().cloned());
            if (old.bytes, &old.sha256) != (bytes, &sha256) {
                chain.verdict.problems.push(Problem::OldLogChanged);
            }
        }
        (Some(old), None) if snapshot.segments.is_empty() => {
            chain.verdict.problems.extend(old.found.iter().cloned());
            if old.records > 0 {
                chain.verdict.notes.push(Note::Plain);
            }
        }
        (Some(_), None) => chain.verdict.problems.push(Problem::OldLogStray),
        (None, Some(_)) => chain.verdict.problems.push(Problem::OldLogGone),
        (None, None) => {}
    }
    Ok(chain.finish(snapshot))
}

/// Bytes that are read and checked at once.
const BLOCK: u64 = 16 << 20;

/// The log as far as it was read.
struct Chain<'a> {
    verdict: Verdict,
    against: &'a Against,
    /// Highest number so far.
    last: u64,
    /// Hash that the newest line states, and those before it, the newest last.
    hash: String,
    hashes_before: VecDeque<String>,
    /// Whether the line before could be read.
    linked: bool,
    /// Name of the log, of the newest segment.
    log: String,
    /// Key that the next signature is to be by.
    public: Option<String>,
    /// Key of the record with this number.
    key: Option<(u64, ChainKey)>,
    /// Number of the newest segment.
    segment: u64,
    /// The old log's length and hash, as the first segment states them.
    old: Option<(u64, String)>,
    /// Hash of the old log's newest record.
    old_hash: String,
    time: String,
    clock_back: Option<(u64, u64)>,
    begun: BTreeSet<u64>,
    /// Records whose seal was not checked, for want of the key.
    unchecked: u64,
    /// Segments of which only the signed lines are there.
    kept: Vec<u64>,
    /// Deleted segments: their records, and the record that says so.
    deleted: BTreeMap<u64, (u64, u64)>,
    /// Number and hash of each checkpoint from elsewhere that was not met yet.
    wanted: Vec<(u64, String)>,
}

impl<'a> Chain<'a> {
    fn new(against: &'a Against) -> Self {
        let mut verdict = Verdict::default();
        let mut wanted = Vec::new();
        for text in &against.checkpoints {
            match Link::read(text.trim().as_bytes()) {
                Some(link) if link.intact && link.kind == Kind::Checkpoint => {
                    wanted.push((link.number, link.sha256.to_owned()));
                }
                _ => verdict.problems.push(Problem::NotACheckpoint),
            }
        }
        Self {
            verdict,
            against,
            last: 0,
            hash: NOTHING_BEFORE.to_owned(),
            hashes_before: VecDeque::new(),
            linked: true,
            log: String::new(),
            public: None,
            key: None,
            segment: 0,
            old: None,
            old_hash: String::new(),
            time: String::new(),
            clock_back: None,
            begun: BTreeSet::new(),
            unchecked: 0,
            kept: Vec::new(),
            deleted: BTreeMap::new(),
            wanted,
        }
    }

    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        length: u64,
        newest: bool,
    ) -> Result<(), Error> {
        self.next_segment(number);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut file = File::open(path).map_err(io_error("opening", path))?;
        let mut left = length;
        let mut block = Vec::new();
        let mut line = 0;
        let mut skipping = false;
        loop {
            let take = left.min(BLOCK);
            let read = (&mut file)
                .take(take)
                .read_to_end(&mut block)
                .map_err(io_error("reading", path))?;
            left -= take;
            let ends = left == 0 || (read as u64) < take;
            let whole = block.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
            let rest = block.split_off(whole);
            let mut from = 0;
            if skipping && let Some(end) = block.iter().position(|&b| b == b'\n') {
                // The end of a line that was too long for one of ours.
                line += 1;
                self.unreadable(Place::new(&name, line));
                from = end + 1;
                skipping = false;
            }
            self.lines(&name, &mut line, &block[from..]);
            block = rest;
            if !ends && block.len() > MAX_BYTES {
                skipping = true;
                block.clear();
            }
            if ends {
                break;
            }
        }
        if !block.is_empty() || skipping {
            if newest {
                let bytes = block.len();
                self.verdict.notes.push(Note::Torn { bytes });
            } else {
                self.unreadable(Place::new(&name, line + 1));
            }
        }
        Ok(())
    }

    fn next_segment(&mut self, number: u64) {
        if number != self.segment + 1 {
            self.public = None;
            self.verdict.problems.push(Problem::SegmentsMissing {
                first: self.segment + 1,
                last: number.saturating_sub(1),
            });
            self.linked = false;
        }
        self.segment = number;
    }

    /// The signed lines of a deleted segment: its first one, then checkpoints.
    fn kept(&mut self, number: u64, path: &Path) -> Result<(), Error> {
        self.next_segment(number);
        self.kept.push(number);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = File::open(path).map_err(io_error("opening", path))?;
        let mut line = 0;
        segment::Lines::new(file, u64::MAX)
            .each(|found| {
                line += 1;
                let place = || Place::new(&name, line);
                let link = match found {
                    segment::Line::Whole(bytes) => Link::read(bytes),
                    segment::Line::Torn(_) => None,
                };
                match link {
                    Some(link) if (link.kind == Kind::Segment) == (line == 1) => match link.kind {
                        Kind::Record => self.unreadable(place()),
                        Kind::Segment => self.add(&link, place),
                        Kind::Checkpoint => {
                            // What it follows is gone; its signature says that it belongs here.
                            self.linked = false;
                            self.last = self.last.max(link.number);
                            self.add(&link, place);
                        }
                    },
                    _ => self.unreadable(place()),
                }
                true
            })
            .map_err(io_error("reading", path))
    }

    /// Whole lines, each with its end.
    fn lines(&mut self, name: &str, line: &mut u64, block: &[u8]) {
        let lines: Vec<&[u8]> = block
            .strip_suffix(b"\n")
            .map(|all| all.split(|&b| b == b'\n').collect())
            .unwrap_or_default();
        // Hashing is most of the work, and no line needs another one for it.
        let links: Vec<Option<Link<'_>>> = lines
            .par_iter()
            .map(|line| (line.len() < MAX_BYTES).then(|| Link::read(line)).flatten())
            .collect();
        for link in links {
            *line += 1;
            let place = || Place::new(name, *line);
            match link {
                Some(link) => self.add(&link, place),
                None => self.unreadable(place()),
            }
        }
    }

    fn unreadable(&mut self, place: Place) {
        self.verdict.problems.push(Problem::NotARecord { place });
        self.linked = false;
    }

    fn add(&mut self, link: &Link<'_>, place: impl Fn() -> Place) {
        if !link.intact {
            self.verdict.problems.push(Problem::Changed {
                seq: link.number,
                place: place(),
            });
        }
        let follows = link.previous == self.hash;
        match link.kind {
            Kind::Record => {
                self.verdict.records += 1;
                let in_order = self.order(link, follows, &place);
                self.record(link, in_order, &place);
            }
            Kind::Checkpoint => {
                if self.linked && !follows {
                    self.verdict
                        .problems
                        .push(Problem::BrokenLink { place: place() });
                }
                self.signature(link, &place);
                self.public = link.field("next").map(str::to_owned);
                self.verdict.checkpoints += 1;
                self.wanted.retain(|(number, sha256)| {
                    !(link.intact && *number == link.number && sha256 == link.sha256)
                });
            }
            Kind::Segment => self.header(link, follows, &place),
        }
        self.clock(link);
        let mut hash = if self.hashes_before.len() as u64 == MOST_BEHIND {
            self.hashes_before.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        link.sha256.clone_into(&mut hash);
        self.hashes_before
            .push_back(std::mem::replace(&mut self.hash, hash));
        self.linked = true;
    }

    /// Whether a record's number is the next one.
    fn order(&mut self, link: &Link<'_>, follows: bool, place: &impl Fn() -> Place) -> bool {
        let seq = link.number;
        let problems = &mut self.verdict.problems;
        if seq <= self.last {
            problems.push(Problem::OutOfOrder {
                seq,
                place: place(),
                after: self.last,
            });
            return false;
        }
        if seq - 1 > self.last {
            problems.push(Problem::Removed {
                first: self.last + 1,
                last: seq - 1,
            });
        } else if self.linked && !follows {
            problems.push(Problem::BrokenLink { place: place() });
        }
        self.last = seq;
        true
    }

    fn record(&mut self, link: &Link<'_>, in_order: bool, place: &impl Fn() -> Place) {
        let seq = link.number;
        match self.key.take() {
            Some((mut at, mut key)) if in_order && seq >= at && seq - at <= MOST_STEPS => {
                while at < seq {
                    key = key.next();
                    at += 1;
                }
                let (seal, next) = key.seal_and_next(&link.hash);
                // What was changed has been named already.
                if link.intact && hex(&seal).as_bytes() != link.seal {
                    let place = place();
                    self.verdict
                        .problems
                        .push(Problem::ForeignSeal { seq, place });
                }
                self.key = Some((at + 1, next));
            }
            other => {
                self.unchecked += 1;
                self.key = other;
            }
        }
        let act = link.field("act").unwrap_or_default();
        for (number, records, _) in retention::entries(act) {
            self.deleted.insert(number, (records, seq));
        }
        if act == "begin" {
            self.begun.insert(seq);
        } else if let Some(begin) = act.strip_prefix("end:") {
            if let Ok(begin) = begin.parse() {
                self.begun.remove(&begin);
            }
        } else if let Some(word) = act.strip_prefix("alert:") {
            match word {
                TORN => self.verdict.notes.push(Note::TornBefore { seq }),
                DISK_FULL => self.verdict.notes.push(Note::DiskFull { seq }),
                CONTINUED => {}
                word => self.verdict.problems.push(Problem::Reported {
                    seq,
                    word: known(word),
                    what: log::reason(word).to_owned(),
                }),
            }
        }
    }

    fn header(&mut self, link: &Link<'_>, follows: bool, place: &impl Fn() -> Place) {
        let first = link
            .field("first")
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(1);
        let key = link.field("key").unwrap_or_default();
        let starts = self.public.is_none() && self.last == 0 && self.segment == 1;
        if link.number != self.segment {
            self.verdict
                .problems
                .push(Problem::BrokenLink { place: place() });
        }
        if starts {
            let mut before = NOTHING_BEFORE;
            // It goes on from a log of an earlier version.
            if let (Some(bytes), Some(sha256)) = (
                link.field("old_bytes").and_then(|n| n.parse().ok()),
                link.field("old_sha256"),
            ) {
                self.old = Some((bytes, sha256.to_owned()));
                let records = link.field("old_records").and_then(|n| n.parse().ok());
                self.last = records.unwrap_or(0).min(first.saturating_sub(1));
                before = &self.old_hash;
            }
            if link.previous != before {
                self.verdict
                    .problems
                    .push(Problem::BrokenLink { place: place() });
            }
            if let Some(known) = &self.against.public_key
                && known != key
            {
                self.verdict.problems.push(Problem::OtherLog);
            }
            key.clone_into(&mut self.verdict.public_key);
        } else {
            if self.linked && !follows {
                self.verdict
                    .problems
                    .push(Problem::BrokenLink { place: place() });
            }
            // After lost keys the log goes on with new ones, which nothing old vouches for.
            if self.public.as_ref().is_some_and(|public| public != key) {
                self.verdict
                    .problems
                    .push(Problem::ForeignKey { place: place() });
            }
        }
        if first > self.last + 1 {
            self.verdict.problems.push(Problem::Removed {
                first: self.last + 1,
                last: first - 1,
            });
            self.last = first - 1;
        }
        self.public = Some(key.to_owned());
        self.signature(link, place);
        let log = link.field("log").unwrap_or_default();
        if log != self.log {
            log.clone_into(&mut self.log);
            self.key = self.start(first);
        }
    }

    /// The key of the first record of a log or of what was begun anew.
    fn start(&self, first: u64) -> Option<(u64, ChainKey)> {
        let known = self.against.verification.as_ref()?;
        let start = (known.starts.iter())
            .filter(|s| s.log == self.log && s.first <= first)
            .max_by_key(|s| s.first)?;
        Some((start.first, start.key()?))
    }

    fn signature(&mut self, link: &Link<'_>, place: &impl Fn() -> Place) {
        let by_key =
            (self.public.as_ref()).is_some_and(|key| is_signed(key, &link.hash, link.seal));
        if link.intact && !by_key {
            self.verdict
                .problems
                .push(Problem::ForeignKey { place: place() });
        }
    }

    /// Events are stamped before they wait for the lock: steps of less than two seconds are no finding.
    fn clock(&mut self, link: &Link<'_>) {
        if link.time >= self.time.as_str() {
            link.time.clone_into(&mut self.time);
            return;
        }
        let parse = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
        let (Some(before), Some(now)) = (parse(&self.time), parse(link.time)) else {
            return;
        };
        if (before - now).num_seconds() >= 2 {
            let (first, count) = self.clock_back.unwrap_or((link.number, 0));
            self.clock_back = Some((first, count + 1));
            link.time.clone_into(&mut self.time);
        }
    }

    fn finish(mut self, snapshot: &Snapshot) -> Verdict {
        let last = self.last;
        let problems = &mut self.verdict.problems;
        let notes = &mut self.verdict.notes;
        match &snapshot.state {
            None => {}
            Some(Found::State(state, both)) => {
                if !both {
                    notes.push(Note::OneCopy);
                }
                let mut before = self.hashes_before.iter().rev();
                let behind = before.position(|hash| *hash == state.sha256);
                match behind {
                    _ if state.sha256 == self.hash => {}
                    Some(0) => notes.push(Note::OneBehind),
                    Some(lines) => notes.push(Note::Behind {
                        lines: lines as u64 + 1,
                    }),
                    None if state.seq >= last || state.segment > self.segment => {
                        problems.push(Problem::CutShort {
                            last,
                            expected: state.seq,
                        });
                    }
                    None => problems.push(Problem::StateMismatch { seq: state.seq }),
                }
            }
            Some(Found::Nothing) if snapshot.segments.is_empty() => {}
            Some(Found::Nothing | Found::Damaged) => problems.push(Problem::StateLost),
        }
        for number in std::mem::take(&mut self.kept) {
            match (self.deleted.get(&number), notes.last_mut()) {
                (None, _) => problems.push(Problem::SegmentsMissing {
                    first: number,
                    last: number,
                }),
                // Those of one act are one note.
                (
                    Some(&(more, by)),
                    Some(Note::Deleted {
                        last, records, seq, ..
                    }),
                ) if *seq == by && *last + 1 == number => {
                    *last = number;
                    *records += more;
                }
                (Some(&(records, seq)), _) => notes.push(Note::Deleted {
                    first: number,
                    last: number,
                    records,
                    seq,
                }),
            }
        }
        for (known, _) in std::mem::take(&mut self.wanted) {
            problems.push(Problem::RolledBack { last, known });
        }
        if let Some((seq, count)) = self.clock_back {
            notes.push(Note::ClockBack { seq, count });
        }
        if !self.begun.is_empty() {
            notes.push(Note::NeverClosed {
                acts: self.begun.into_iter().collect(),
            });
        }
        if self.unchecked > 0 {
            notes.push(Note::SealsUnchecked {
                records: self.unchecked,
            });
        }
        self.verdict.ok = self.verdict.problems.is_empty();
        self.verdict.last = last;
        self.verdict
    }
}

/// A gap in the numbers that keys are stepped over; a longer one ends the check of seals.
const MOST_STEPS: u64 = 10_000_000;

fn known(word: &str) -> &'static str {
    [log::CUT_SHORT, log::STATE_LOST, log::STATE_OLD]
        .into_iter()
        .find(|known| *known == word)
        .unwrap_or("other")
}
