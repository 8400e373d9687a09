//! Appending: one record at a time, on disk before the work that it announces may start.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use ring::digest;

use super::keys::{DataKey, Found, Keys, Secret, SigningSeed, Start, State, random, sync_folder};
use super::line::{self, ChainKey, Kind, MAX_BYTES, NOTHING_BEFORE};
use super::segment::{self, Tail};
use super::text::{base64, hex};
use super::{
    Act, AuditEvent, Error, EventId, EventType, ObjectKind, Outcome, ParticipantObject, Pseudonyms,
    Receipt, plain,
};
use crate::whole_file;

/// When a log starts a new file, and how often it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A segment of at least this size is closed.
    pub segment_bytes: u64,
    /// Records between two checkpoints.
    pub checkpoint_every: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            checkpoint_every: 256,
        }
    }
}

/// The log of one home folder. Cheap to clone; any number of threads and processes may append.
#[derive(Clone, Debug)]
pub struct Log {
    folder: PathBuf,
    keys: Keys,
    limits: Limits,
}

/// What a record is in its act, as it stands in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Begin,
    End(u64),
    Alert(&'static str),
    /// Segments that are deleted with it, as `retention` names them.
    Removed(String),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Begin => f.write_str("begin"),
            Self::End(begin) => write!(f, "end:{begin}"),
            Self::Alert(word) => write!(f, "alert:{word}"),
            Self::Removed(segments) => write!(f, "removed:{segments}"),
        }
    }
}

/// Alerts: the word in the record, and the outcome.
type Alert = (&'static str, Outcome);

pub(super) const TORN: &str = "torn";
pub(super) const CUT_SHORT: &str = "cut-short";
pub(super) const STATE_LOST: &str = "state-lost";
pub(super) const STATE_OLD: &str = "state-old";
pub(super) const DISK_FULL: &str = "disk-full";
pub(super) const CONTINUED: &str = "continued";

/// All reasons that alerts give.
pub(super) const REASONS: [&str; 6] = [
    "a half-written record was found and kept aside",
    "records are missing at the end of the log",
    "the file with the log's keys and its newest record was missing or unreadable",
    "the file with the log's keys was older than the log",
    "the disk was full; what was asked for was refused",
    "the log of an earlier version goes on here",
];

/// The reason that an alert's record gives for its word.
pub(super) fn reason(word: &str) -> &'static str {
    [TORN, CUT_SHORT, STATE_LOST, STATE_OLD, DISK_FULL, CONTINUED]
        .iter()
        .position(|known| *known == word)
        .map_or("an alert of another version", |n| REASONS[n])
}

const TORN_LINE: Alert = (TORN, Outcome::MinorFailure);
const MISSING: Alert = (CUT_SHORT, Outcome::SeriousFailure);
const LOST: Alert = (STATE_LOST, Outcome::SeriousFailure);
const OLD: Alert = (STATE_OLD, Outcome::SeriousFailure);

/// Lines that the state on disk may be behind after a power loss: it waits for the disk this often.
pub(super) const MOST_BEHIND: u64 = 16;

/// Space that is given up when the disk is full, so that this can be put on record. Nothing else goes
/// on record until it is there again.
const RESERVE: u64 = 1 << 20;

/// The end of the log, under the lock.
struct Position {
    state: State,
    file: File,
    path: PathBuf,
    data: DataKey,
    alerts: Vec<(Alert, ParticipantObject)>,
}

impl Log {
    /// Opens the log in `home/audit`, creating the folder (for its owner alone, where the system can).
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(home: &Path) -> Result<Self, Error> {
        Self::open_with(home, Limits::default())
    }

    /// As [`Self::open`], with limits of one's own.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open_with(home: &Path, limits: Limits) -> Result<Self, Error> {
        let folder = folder(home);
        private_folder(&folder)?;
        let keys = Keys::of(home);
        keys.create()?;
        Ok(Self {
            folder,
            keys,
            limits,
        })
    }

    /// Puts an event on record: when this returns, the record has reached the disk.
    ///
    /// A half-written line that a crash left behind is kept aside in a file of its own, and a
    /// damaged end of the log is put on record, before the event is.
    ///
    /// # Errors
    /// The log cannot be written. Nothing was put on record then.
    pub fn append(&self, event: &AuditEvent) -> Result<Receipt, Error> {
        self.put(event, Part::Whole)
    }

    /// Puts the beginning of an act on record; its outcome is to follow through [`Act`].
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn begin(&self, event: &AuditEvent) -> Result<Act, Error> {
        let receipt = self.put(event, Part::Begin)?;
        Ok(Act::new(self.clone(), receipt, event.clone()))
    }

    /// Signs the log as it stands and gives the signed line, to be kept elsewhere.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn checkpoint(&self, time: DateTime<Utc>) -> Result<String, Error> {
        let _lock = self.lock()?;
        let mut at = self.position(time)?;
        self.write_alerts(&mut at, time)?;
        self.write_checkpoint(&mut at, time)
    }

    /// Moves the key that checks all seals to a file elsewhere: from then on it is not here.
    ///
    /// # Errors
    /// It was taken already, or one of the files cannot be written.
    pub fn take_verification_key(&self, to: &Path) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.keys.take_verification(to)
    }

    /// What makes pseudonyms for records that leave this machine.
    ///
    /// # Errors
    /// The key cannot be read or made.
    pub fn pseudonyms(&self) -> Result<Pseudonyms, Error> {
        let _lock = self.lock()?;
        self.keys
            .secret(Secret::Pseudonyms)
            .map(|key| Pseudonyms::new(&key))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn put(&self, event: &AuditEvent, part: Part) -> Result<Receipt, Error> {
        let _lock = self.lock()?;
        self.keep_reserve()?;
        let mut at = self.position(event.time)?;
        let written = self
            .write_alerts(&mut at, event.time)
            .and_then(|()| self.write_record(&mut at, event, part));
        match written {
            Ok(receipt) => {
                if let Err(error) = self.tend(&mut at, event.time) {
                    // The record stands; this is tried again with the next one.
                    tracing::warn!(%error, "the audit log could not be tended to");
                }
                Ok(receipt)
            }
            Err(error) => {
                if error.is_full_disk() {
                    self.record_full_disk(&mut at, event);
                }
                Err(error)
            }
        }
    }

    /// One writer at a time among all threads and processes; released with the handle.
    fn lock(&self) -> Result<File, Error> {
        let path = lock_path(&self.folder);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("opening", &path))?;
        file.lock().map_err(io_error("locking", &path))?;
        Ok(file)
    }

    /// Finds the end of the log, puts right what a crash left, and says what else is wrong.
    fn position(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        let data = DataKey::new(&self.keys.secret(Secret::Data)?);
        let found = self.keys.read_state()?;
        let newest = segment::list(&self.folder)?.pop();
        let mut alerts = Vec::new();
        let Some(state) = found.state().cloned() else {
            // No keys: a new log, or one that lost them.
            let lost = newest.is_some() || found == Found::Damaged;
            return self.start(newest, lost.then_some(LOST), data, time);
        };
        let (number, path) = match newest {
            Some((number, path)) if number >= state.segment.max(1) => (number, path),
            // The file that the state speaks of is gone; or a crash in making the very first one.
            _ => {
                if state.segment > 0 {
                    alerts.push((MISSING, log_object().with("expected", state.seq)));
                }
                return self.begin_segment(state, "", data, alerts, time);
            }
        };
        let mut file = open_segment(&path)?;
        let tail = Tail::read(&mut file).map_err(io_error("reading", &path))?;
        if !tail.torn.is_empty() {
            alerts.push((
                TORN_LINE,
                self.set_aside(&mut file, &path, &tail, state.seq)?,
            ));
        }
        let mut at = Position {
            state,
            file,
            path,
            data,
            alerts,
        };
        if number == at.state.segment + 1 && tail.line.is_empty() {
            // A crash in making the next file.
            return self.begin_segment(at.state, "", at.data, at.alerts, time);
        }
        let newest = tail.newest();
        let in_step = newest.is_some_and(|link| link.sha256 == at.state.sha256);
        if in_step && number == at.state.segment {
            return Ok(at);
        }
        // A crash between a line and the state, or a power loss: the state catches up.
        if let Some(mut caught_up) = self.catch_up(&at.state)? {
            self.keys.write_state(&mut caught_up, true)?;
            at.state = caught_up;
            return Ok(at);
        }
        match newest {
            Some(link) if number > at.state.segment || link.number > at.state.seq => {
                // The log is older than its keys can be: they were put back. They must not be used again.
                let newest = Some((number, at.path));
                self.start(newest, Some(OLD), at.data, time)
            }
            // The state knows more than the log: lines are missing. Numbers go on after them, so
            // that the gap stays visible for good.
            other => {
                let object = log_object()
                    .with("newest", other.map_or(0, |link| link.number))
                    .with("expected", at.state.seq);
                at.alerts.push((MISSING, object));
                if number == at.state.segment && !tail.line.is_empty() {
                    Ok(at)
                } else {
                    self.begin_segment(at.state, "", at.data, at.alerts, time)
                }
            }
        }
    }

    /// The state behind the lines that follow on it, when there are few and its keys have sealed them all.
    fn catch_up(&self, state: &State) -> Result<Option<State>, Error> {
        let (mut state, before) = (state.clone(), state.segment);
        let (mut adopted, mut all) = (0, true);
        for (number, path) in segment::list(&self.folder)? {
            if number < before {
                continue;
            }
            let file = File::open(&path).map_err(io_error("opening", &path))?;
            segment::Lines::new(file, u64::MAX)
                .each(|line| {
                    let link = match line {
                        segment::Line::Whole(line) => line::Link::read(line),
                        segment::Line::Torn(_) => return true,
                    };
                    let follows = link.filter(|l| l.intact && l.previous == state.sha256);
                    if adopted > 0 || follows.is_some() {
                        all &= follows.is_some_and(|link| adopt(&mut state, &link, number));
                        adopted += 1;
                    }
                    all
                })
                .map_err(io_error("reading", &path))?;
        }
        Ok((all && (1..=MOST_BEHIND).contains(&adopted)).then_some(state))
    }

    /// New keys: for a new log, after the log of an earlier version, or after keys were lost.
    fn start(
        &self,
        newest: Option<(u64, PathBuf)>,
        why: Option<Alert>,
        data: DataKey,
        time: DateTime<Utc>,
    ) -> Result<Position, Error> {
        let mut alerts = Vec::new();
        let (mut seq, mut sha256, mut segment) = (0, NOTHING_BEFORE.to_owned(), 0);
        if let Some((number, path)) = newest {
            let mut file = open_segment(&path)?;
            let tail = Tail::read(&mut file).map_err(io_error("reading", &path))?;
            segment = number;
            if let Some(link) = tail.newest() {
                link.sha256.clone_into(&mut sha256);
            }
            seq = segment::highest_record(&path).map_err(io_error("reading", &path))?;
            if !tail.torn.is_empty() {
                alerts.push((TORN_LINE, self.set_aside(&mut file, &path, &tail, seq)?));
            }
        } else if let Some(old) = plain::summary(&self.folder)? {
            seq = old.last;
            sha256 = old.hash;
        }
        if let Some(why) = why {
            alerts.push((why, log_object().with("newest", seq)));
        }
        let mut state = State {
            generation: 0,
            log: hex(&random::<16>()?),
            seq,
            sha256,
            segment,
            checkpoint: seq,
            chain: ChainKey(random()?),
            signing: SigningSeed::fresh()?,
        };
        self.keys
            .add_start(Start::new(&state.log, seq + 1, &state.chain))?;
        self.keys.write_state(&mut state, true)?;
        self.begin_segment(state, why.map_or("", |(word, _)| word), data, alerts, time)
    }

    /// Makes the next file of the log, with its signed first line.
    fn begin_segment(
        &self,
        mut state: State,
        restart: &str,
        data: DataKey,
        mut alerts: Vec<(Alert, ParticipantObject)>,
        time: DateTime<Utc>,
    ) -> Result<Position, Error> {
        let number = state.segment + 1;
        let path = segment::path(&self.folder, number);
        let mut text = line::open(Kind::Segment, number, &state.sha256, &stamp(time));
        let _ = write!(
            text,
            ",\"log\":\"{}\",\"first\":{},\"key\":\"{}\"",
            state.log,
            state.seq + 1,
            state.signing.public()
        );
        if !restart.is_empty() {
            let _ = write!(text, ",\"restart\":\"{restart}\"");
        }
        if number == 1
            && let Some(old) = plain::summary(&self.folder)?
        {
            let _ = write!(
                text,
                ",\"old_records\":{},\"old_bytes\":{},\"old_sha256\":\"{}\"",
                old.last, old.bytes, old.sha256
            );
            let alert = (CONTINUED, Outcome::Success);
            let object = ParticipantObject::new(ObjectKind::AuditLog, "log.jsonl")
                .with("records", old.last)
                .with("sha256", old.sha256)
                .with("problems", old.problems);
            alerts.insert(0, (alert, object));
        }
        let (line, sha256) = line::signed(text, &state.signing.pair());
        let file = open_segment(&path)?;
        sync_folder(&self.folder);
        let mut at = Position {
            state: state.clone(),
            file,
            path,
            data,
            alerts,
        };
        at.write(&line)?;
        state.segment = number;
        state.sha256 = sha256;
        at.advance(&self.keys, state)?;
        Ok(at)
    }

    fn write_alerts(&self, at: &mut Position, time: DateTime<Utc>) -> Result<(), Error> {
        for ((word, outcome), object) in std::mem::take(&mut at.alerts) {
            let mut event = AuditEvent::new(EventId::SecurityAlert, time).about(object);
            if outcome == Outcome::Success {
                event.event_type = Some(EventType::AuditRecordingStarted);
                reason(word).clone_into(&mut event.outcome_description);
            } else {
                event = event.failed(outcome, reason(word));
            }
            self.write_record(at, &event, Part::Alert(word))?;
        }
        Ok(())
    }

    fn write_record(
        &self,
        at: &mut Position,
        event: &AuditEvent,
        part: Part,
    ) -> Result<Receipt, Error> {
        let seq = at.state.seq + 1;
        let text = serde_json::to_vec(event).expect("strings, numbers and lists always serialize");
        let sealed = at.data.seal(&at.state.log, seq, text)?;
        let mut open = line::open(Kind::Record, seq, &at.state.sha256, &stamp(event.time));
        let _ = write!(open, ",\"act\":\"{part}\",\"box\":\"{}\"", base64(&sealed));
        let (line, sha256) = line::sealed(open, &at.state.chain);
        at.write(&line)?;
        let mut next = at.state.clone();
        next.seq = seq;
        next.sha256.clone_from(&sha256);
        next.chain = next.chain.next();
        at.advance(&self.keys, next)?;
        Ok(Receipt::new(seq, sha256, event.id))
    }

    fn write_checkpoint(&self, at: &mut Position, time: DateTime<Utc>) -> Result<String, Error> {
        let state = &at.state;
        let next_key = state.signing.next();
        let mut open = line::open(Kind::Checkpoint, state.seq, &state.sha256, &stamp(time));
        let _ = write!(
            open,
            ",\"log\":\"{}\",\"next\":\"{}\"",
            state.log,
            next_key.public()
        );
        let (line, sha256) = line::signed(open, &state.signing.pair());
        at.write(&line)?;
        let mut next = at.state.clone();
        next.checkpoint = next.seq;
        next.sha256 = sha256;
        next.signing = next_key;
        at.advance(&self.keys, next)?;
        Ok(line)
    }

    /// What is due after a record: a checkpoint, the next file.
    fn tend(&self, at: &mut Position, time: DateTime<Utc>) -> Result<(), Error> {
        let long = at.length()? >= self.limits.segment_bytes;
        if long || at.state.seq - at.state.checkpoint >= self.limits.checkpoint_every {
            self.write_checkpoint(at, time)?;
        }
        if long {
            let full = at.path.clone();
            let data = DataKey::new(&self.keys.secret(Secret::Data)?);
            *at = self.begin_segment(at.state.clone(), "", data, Vec::new(), time)?;
            if let Ok(metadata) = fs::metadata(&full) {
                let mut rights = metadata.permissions();
                rights.set_readonly(true);
                let _ = fs::set_permissions(&full, rights);
            }
        }
        Ok(())
    }

    /// Sees to it that the reserve is there; without it the disk counts as full.
    fn keep_reserve(&self) -> Result<(), Error> {
        let path = self.folder.join("reserve");
        if path.exists() {
            return Ok(());
        }
        fs::write(&path, vec![0; RESERVE as usize])
            .map_err(io_error("reserving space in", &path))
            .or_else(|error| {
                let _ = fs::remove_file(&path);
                if error.is_full_disk() {
                    Err(error)
                } else {
                    Ok(())
                }
            })
    }

    /// Gives the reserve up for one record about the full disk, once for each time that it fills.
    fn record_full_disk(&self, at: &mut Position, refused: &AuditEvent) {
        if fs::remove_file(self.folder.join("reserve")).is_err() {
            return;
        }
        let alert = AuditEvent::new(EventId::SecurityAlert, refused.time)
            .of_type(EventType::AuditRecordingStopped)
            .failed(Outcome::MajorFailure, reason(DISK_FULL))
            .about(log_object().with("refused", refused.kind().meaning));
        if let Err(error) = self.write_record(at, &alert, Part::Alert(DISK_FULL)) {
            tracing::error!(%error, "the full disk could not be put on record");
        }
    }

    /// Moves a half-written line into a file of its own.
    fn set_aside(
        &self,
        file: &mut File,
        path: &Path,
        tail: &Tail,
        seq: u64,
    ) -> Result<ParticipantObject, Error> {
        let (name, aside) = self.free_name(seq + 1);
        whole_file::write(&aside, |w| w.write_all(&tail.torn))
            .map_err(io_error("writing", &aside))?;
        file.set_len(tail.end)
            .and_then(|()| file.sync_data())
            .map_err(io_error("writing", path))?;
        let hash = digest::digest(&digest::SHA256, &tail.torn);
        Ok(log_object()
            .with("kept_in", name)
            .with("bytes", tail.torn.len())
            .with("sha256", hex(hash.as_ref())))
    }

    fn free_name(&self, seq: u64) -> (String, PathBuf) {
        (0..u32::MAX)
            .map(|n| format!("torn-{seq}-{n}.part"))
            .map(|name| (name.clone(), self.folder.join(name)))
            .find(|(_, path)| !path.exists())
            .expect("some number is free")
    }
}

/// Takes a line into the state that a crash kept out of it; `false` when the state's keys did not seal it.
fn adopt(state: &mut State, link: &line::Link<'_>, number: u64) -> bool {
    let fits = match link.kind {
        Kind::Record => {
            link.number == state.seq + 1
                && number == state.segment
                && hex(&state.chain.seal(&link.hash)).as_bytes() == link.seal
        }
        Kind::Checkpoint => {
            link.number == state.seq
                && number == state.segment
                && line::is_signed(&state.signing.public(), &link.hash, link.seal)
        }
        Kind::Segment => {
            number == state.segment + 1
                && line::is_signed(&state.signing.public(), &link.hash, link.seal)
        }
    };
    if fits {
        link.sha256.clone_into(&mut state.sha256);
        match link.kind {
            Kind::Record => {
                state.seq += 1;
                state.chain = state.chain.next();
            }
            Kind::Checkpoint => {
                state.checkpoint = state.seq;
                state.signing = state.signing.next();
            }
            Kind::Segment => state.segment = number,
        }
    }
    fits
}

impl Position {
    fn length(&self) -> Result<u64, Error> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(io_error("reading", &self.path))?.len())
    }

    /// Writes one line and waits for the disk. On failure nothing of it stays, if the system lets us.
    fn write(&mut self, line: &str) -> Result<(), Error> {
        let bytes = line.len() + 1;
        if bytes > MAX_BYTES {
            let limit = MAX_BYTES;
            return Err(Error::TooLarge { bytes, limit });
        }
        let before = self.length()?;
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| {
                let _ = self.file.set_len(before);
                io_error("writing", &self.path)(source)
            })
    }

    /// Puts the state behind the line that was just written; without it the line goes away again.
    fn advance(&mut self, keys: &Keys, mut next: State) -> Result<(), Error> {
        // What is signed is rare, and its keys are not to come back.
        let signed = next.signing != self.state.signing || next.segment != self.state.segment;
        let wait = signed || next.seq.is_multiple_of(MOST_BEHIND);
        if let Err(error) = keys.write_state(&mut next, wait) {
            let length = self.length()?;
            if let Ok(tail) = Tail::read(&mut self.file) {
                let _ = self.file.set_len(length - tail.line.len() as u64 - 1);
            }
            return Err(error);
        }
        self.state = next;
        Ok(())
    }
}

fn log_object() -> ParticipantObject {
    ParticipantObject::new(ObjectKind::AuditLog, "audit")
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn open_segment(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(io_error("opening", path))
}

pub(super) fn folder(home: &Path) -> PathBuf {
    home.join("audit")
}

pub(super) fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// Makes a folder for its owner alone, where the system can.
pub(super) fn private_folder(folder: &Path) -> Result<(), Error> {
    whole_file::make_private_folder(folder).map_err(io_error("creating", folder))
}

pub(super) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        action,
        source,
        path: path.to_owned(),
    }
}

impl Error {
    /// Whether there was no space left for the record.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}
