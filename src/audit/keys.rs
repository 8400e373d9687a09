//! The secrets of a log and the place where it stands: files of the account alone, beside the log's folder.
//!
//! `audit-keys/state` holds the key of the next record and what the newest line is. It is written over
//! in place, in two copies, so that the key of a record is gone once the record is on disk (as far as a
//! file system and a disk forget what is written over; a copy-on-write file system does not).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};

use super::Error;
use super::line::ChainKey;
use super::log::io_error;
use super::text::{hex, unhex};
use crate::key_file::KeyFile;
use crate::whole_file;

/// Where a log stands, and the keys of its next lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Counts writes of the state, to tell the newer of two copies.
    pub(super) generation: u64,
    /// Random name of the log.
    pub(super) log: String,
    /// Newest record.
    pub(super) seq: u64,
    /// Hash of the newest line.
    pub(super) sha256: String,
    /// Number of the segment that it stands in.
    pub(super) segment: u64,
    /// Newest record under a checkpoint.
    pub(super) checkpoint: u64,
    /// Seals record `seq + 1`.
    pub(super) chain: ChainKey,
    /// Signs the next checkpoint or segment.
    pub(super) signing: SigningSeed,
}

/// The secret half of a signature key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SigningSeed([u8; 32]);

impl std::fmt::Debug for SigningSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSeed(‹redacted›)")
    }
}

impl SigningSeed {
    pub(super) fn fresh() -> Result<Self, Error> {
        random().map(Self)
    }

    /// The key of the next checkpoint; one-way, like the keys of records.
    pub(super) fn next(&self) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut next = [0; 32];
        next.copy_from_slice(hmac::sign(&key, b"next signing key").as_ref());
        Self(next)
    }

    pub(super) fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.0).expect("any 32 bytes are a seed")
    }

    pub(super) fn public(&self) -> String {
        hex(self.pair().public_key().as_ref())
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Chance)?;
    Ok(bytes)
}

/// One copy of the state on disk.
const SLOT: u64 = 4096;
/// Longest state in bytes, with its hash.
const SLOT_BYTES: usize = 1024;

#[derive(serde::Serialize, serde::Deserialize)]
struct StateText {
    generation: u64,
    log: String,
    seq: u64,
    sha256: String,
    segment: u64,
    checkpoint: u64,
    chain: String,
    signing: String,
}

impl State {
    /// A slot: length, JSON, SHA-256 of the JSON, zeros.
    fn bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(&StateText {
            generation: self.generation,
            log: self.log.clone(),
            seq: self.seq,
            sha256: self.sha256.clone(),
            segment: self.segment,
            checkpoint: self.checkpoint,
            chain: hex(&self.chain.0),
            signing: hex(&self.signing.0),
        })
        .expect("numbers and strings serialize");
        let mut bytes = (text.len() as u16).to_le_bytes().to_vec();
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
        bytes.resize(SLOT_BYTES, 0);
        bytes
    }

    fn parse(slot: &[u8]) -> Option<Self> {
        let (length, rest) = slot.split_at_checked(2)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        let (text, rest) = rest.split_at_checked(length)?;
        let (hash, rest) = rest.split_at_checked(32)?;
        let whole = digest::digest(&digest::SHA256, text).as_ref() == hash
            && rest.iter().all(|&byte| byte == 0);
        let text: StateText = whole.then(|| serde_json::from_slice(text).ok())??;
        Some(Self {
            generation: text.generation,
            log: text.log,
            seq: text.seq,
            sha256: text.sha256,
            segment: text.segment,
            checkpoint: text.checkpoint,
            chain: ChainKey(unhex(text.chain.as_bytes())?),
            signing: SigningSeed(unhex(text.signing.as_bytes())?),
        })
    }
}

/// The state as it was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such file.
    Nothing,
    /// There is one, and no copy in it can be read.
    Damaged,
    /// The newer copy, and whether the other one is readable too.
    State(Box<State>, bool),
}

impl Found {
    pub(super) fn state(&self) -> Option<&State> {
        match self {
            Self::State(state, _) => Some(state),
            _ => None,
        }
    }
}

/// Keys that stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// Encrypts events.
    Data,
    /// Makes pseudonyms.
    Pseudonyms,
}

/// The folder of the secrets.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    home: PathBuf,
    folder: PathBuf,
}

impl Keys {
    pub(super) fn of(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            folder: home.join("audit-keys"),
        }
    }

    /// Makes the folder, for its owner alone where the system can.
    pub(super) fn create(&self) -> Result<(), Error> {
        super::log::private_folder(&self.folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn read_state(&self) -> Result<Found, Error> {
        let path = self.path("state");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(2 * SLOT).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(io_error("reading", &path)(e)),
        }
        let slot = |n: usize| {
            let from = n * SLOT as usize;
            State::parse(bytes.get(from..from + SLOT as usize)?)
        };
        Ok(match (slot(0), slot(1)) {
            (Some(a), Some(b)) => {
                let newer = if a.generation >= b.generation { a } else { b };
                Found::State(Box::new(newer), true)
            }
            (Some(one), None) | (None, Some(one)) => Found::State(Box::new(one), false),
            (None, None) => Found::Damaged,
        })
    }

    /// Writes the state over both copies, the older one first, so that no copy of an old key is left.
    ///
    /// With `wait` the disk has it before this returns. Without, a power loss may put the state back by
    /// what was written since the last wait; a crash of the program does not.
    pub(super) fn write_state(&self, state: &mut State, wait: bool) -> Result<(), Error> {
        let path = self.path("state");
        let mut file = match OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let file = private_file(&path)?;
                file.set_len(2 * SLOT)
                    .and_then(|()| file.sync_all())
                    .map_err(io_error("writing", &path))?;
                sync_folder(&self.folder);
                Ok(file)
            }
            opened => opened,
        }
        .map_err(io_error("opening", &path))?;
        state.generation += 1;
        let bytes = state.bytes();
        let mut put = |slot: u64| {
            file.seek(SeekFrom::Start(slot * SLOT))?;
            file.write_all(&bytes)
        };
        let first = state.generation % 2;
        put(first).map_err(io_error("writing", &path))?;
        if wait {
            file.sync_data().map_err(io_error("writing", &path))?;
        }
        // This one may fail: the copy above is the newer one.
        let _ = file
            .seek(SeekFrom::Start((1 - first) * SLOT))
            .and_then(|_| file.write_all(&bytes));
        Ok(())
    }

    /// The key of one purpose, 32 random bytes; made when there is none.
    pub(super) fn secret(&self, name: Secret) -> Result<[u8; 32], Error> {
        let file = self.file(name);
        let text = file.read_or_make(|bytes| hex(bytes).into_bytes())?;
        unhex(text.trim_ascii()).ok_or_else(|| Error::Key { path: file.path() })
    }

    /// The key of one purpose, if there is one.
    pub(super) fn known_secret(&self, name: Secret) -> Result<Option<[u8; 32]>, Error> {
        let file = self.file(name);
        let parse = |text: Vec<u8>| unhex(text.trim_ascii());
        match file.read()?.map(parse) {
            None => Ok(None),
            Some(None) => Err(Error::Key { path: file.path() }),
            Some(bytes) => Ok(bytes),
        }
    }

    fn file(&self, name: Secret) -> KeyFile {
        let name = match name {
            Secret::Data => "audit-keys/data",
            Secret::Pseudonyms => "audit-keys/pseudonyms",
        };
        KeyFile::new(&self.home, name)
    }

    /// The keys from which all seals can be checked; `None` once they were taken away.
    pub(super) fn verification(&self) -> Result<Option<VerificationKey>, Error> {
        VerificationKey::read(&self.path(VERIFICATION))
    }

    /// Adds the first key of a chain to those that seals are checked with.
    pub(super) fn add_start(&self, start: Start) -> Result<(), Error> {
        let mut known = self.verification().ok().flatten().unwrap_or_default();
        known.starts.push(start);
        known.write(&self.path(VERIFICATION))
    }

    /// Moves the verification key to a file elsewhere and erases it here.
    pub(super) fn take_verification(&self, to: &Path) -> Result<(), Error> {
        let path = self.path(VERIFICATION);
        let Some(known) = self.verification()? else {
            return Err(Error::KeyTaken);
        };
        known.write(to)?;
        let length = fs::metadata(&path)
            .map_err(io_error("reading", &path))?
            .len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(&vec![0; length as usize])?;
                file.sync_all()
            })
            .and_then(|()| fs::remove_file(&path))
            .map_err(io_error("erasing", &path))
    }

    /// Names of files that others than the account may read.
    pub(super) fn open_to_others(&self) -> Vec<String> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let Ok(entries) = fs::read_dir(&self.folder) else {
                return Vec::new();
            };
            entries
                .flatten()
                .filter(|e| {
                    e.metadata()
                        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0)
                })
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect()
        }
        #[cfg(not(unix))]
        Vec::new()
    }
}

const VERIFICATION: &str = "verification.json";

/// Where a chain of keys begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Start {
    /// Random name of the log.
    pub(super) log: String,
    /// First record that is sealed by this chain.
    pub(super) first: u64,
    /// Its key.
    chain: String,
    /// Against slips in copying.
    check: String,
}

impl Start {
    pub(super) fn new(log: &str, first: u64, key: &ChainKey) -> Self {
        let mut start = Self {
            log: log.to_owned(),
            first,
            chain: hex(&key.0),
            check: String::new(),
        };
        start.check = start.expected_check();
        start
    }

    fn expected_check(&self) -> String {
        let text = format!("{} {} {}", self.log, self.first, self.chain);
        hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8])
    }

    pub(super) fn key(&self) -> Option<ChainKey> {
        (self.check == self.expected_check())
            .then(|| unhex(self.chain.as_bytes()))
            .flatten()
            .map(ChainKey)
    }
}

/// What seals are checked with: who has it could also forge them, so it belongs to the auditor.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VerificationKey {
    pub(super) starts: Vec<Start>,
}

impl VerificationKey {
    /// Reads a key that was taken away; `None` when there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = read_small(path)? else {
            return Ok(None);
        };
        let damaged = || Error::Key {
            path: path.to_owned(),
        };
        let key: Self = serde_json::from_slice(&text).map_err(|_| damaged())?;
        if key.starts.iter().all(|start| start.key().is_some()) {
            Ok(Some(key))
        } else {
            Err(damaged())
        }
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).expect("strings and numbers serialize");
        whole_file::write_private(path, |w| w.write_all(&text)).map_err(io_error("writing", path))
    }
}

/// Seals and opens what records hold.
pub(super) struct DataKey(LessSafeKey);

impl DataKey {
    pub(super) fn new(bytes: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    fn context(log: &str, seq: u64) -> Aad<Vec<u8>> {
        Aad::from(format!("negatoscope audit record\0{log}\0{seq}").into_bytes())
    }

    /// Nonce, ciphertext and tag. The nonce is random: one key serves 2³² records (NIST SP 800-38D, 8.3).
    pub(super) fn seal(&self, log: &str, seq: u64, mut text: Vec<u8>) -> Result<Vec<u8>, Error> {
        let nonce = random::<NONCE_LEN>()?;
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Self::context(log, seq),
                &mut text,
            )
            .map_err(|_| Error::Chance)?;
        Ok([nonce.as_slice(), &text].concat())
    }

    /// The text; `None` when it was sealed by another key, for another record, or changed.
    pub(super) fn open(&self, log: &str, seq: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let length = self
            .0
            .open_in_place(nonce, Self::context(log, seq), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }
}

fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("reading", path)(e)),
    }
}

/// A new file that only its owner may read.
fn private_file(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(io_error("creating", path))
}

/// New names reach the disk with the folder. Not every file system allows this.
pub(super) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            generation: 0,
            log: "ab".repeat(16),
            seq: 3,
            sha256: "cd".repeat(32),
            segment: 1,
            checkpoint: 0,
            chain: ChainKey([5; 32]),
            signing: SigningSeed([6; 32]),
        }
    }

    #[test]
    fn an_old_key_is_in_no_copy_and_one_damaged_copy_does_no_harm() {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::of(home.path());
        keys.create().unwrap();
        assert_eq!(keys.read_state().unwrap(), Found::Nothing);
        let mut state = state();
        for n in 0..5_u8 {
            state.chain = ChainKey([n; 32]);
            keys.write_state(&mut state, n % 2 == 0).unwrap();
            let path = keys.path("state");
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(text.matches(&hex(&[n; 32])).count(), 2);
            assert!(n == 0 || !text.contains(&hex(&[n - 1; 32])));
            for slot in 0..2 {
                let mut damaged = bytes.clone();
                damaged[slot * SLOT as usize + 40] ^= 1;
                fs::write(&path, &damaged).unwrap();
                assert_eq!(
                    keys.read_state().unwrap(),
                    Found::State(Box::new(state.clone()), false)
                );
            }
            fs::write(&path, &bytes).unwrap();
            assert_eq!(
                keys.read_state().unwrap(),
                Found::State(Box::new(state.clone()), true)
            );
        }
        fs::write(keys.path("state"), "x").unwrap();
        assert_eq!(keys.read_state().unwrap(), Found::Damaged);
    }

    #[test]
    fn a_record_is_opened_only_as_itself() {
        let key = DataKey::new(&[1; 32]);
        let sealed = key.seal("log", 7, b"text".to_vec()).unwrap();
        assert_eq!(key.open("log", 7, &sealed).unwrap(), b"text");
        assert_ne!(key.seal("log", 7, b"text".to_vec()).unwrap(), sealed);
        assert!(key.open("log", 8, &sealed).is_none());
        assert!(key.open("gol", 7, &sealed).is_none());
        assert!(DataKey::new(&[2; 32]).open("log", 7, &sealed).is_none());
        assert!(key.open("log", 7, &sealed[..20]).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_for_their_owner_alone_and_stay_the_same() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::of(home.path());
        keys.create().unwrap();
        let secret = keys.secret(Secret::Data).unwrap();
        assert_eq!(keys.secret(Secret::Data).unwrap(), secret);
        keys.add_start(Start::new("log", 1, &ChainKey([3; 32])))
            .unwrap();
        keys.write_state(&mut state(), true).unwrap();
        assert_eq!(keys.open_to_others(), Vec::<String>::new());
        let elsewhere = home.path().join("taken.json");
        keys.take_verification(&elsewhere).unwrap();
        assert!(keys.verification().unwrap().is_none());
        let taken = VerificationKey::read(&elsewhere).unwrap().unwrap();
        assert_eq!(taken.starts[0].key(), Some(ChainKey([3; 32])));
        let mode = fs::metadata(&elsewhere).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(keys.path("data"), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(keys.open_to_others(), ["data"]);
    }
}
