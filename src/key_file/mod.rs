//! The keys of a home: files for the account alone, or wrapped by a master key in the system's keyring.
//!
//! Comes in: a home and the name of a key. Goes out: its bytes. A home keeps its keys in files until a
//! person moves them ([`move_to`]); a home that works without a desktop can so never be locked out by
//! one. A wrapped file is `NWRAP1\n`, the master key's id, a nonce, and the content under AES-256-GCM
//! with the key's name bound in.
//!
//! Absent on purpose: what the keys are for, and keys that change with every record (`audit-keys/state`).

mod system;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::whole_file;
use system::{ID_BYTES, Master};
pub use system::{forget_secret, secret, store_secret};

/// Keys that a home may have, by their files.
const NAMES: [&str; 4] = [
    "audit-keys/data",
    "audit-keys/pseudonyms",
    "deidentify/key",
    "queue/key",
];

const MARK: &[u8; 7] = b"NWRAP1\n";
/// Says that keys which are made from now on are wrapped.
const CHOICE: &str = "keys-in-keyring";

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {}", path.display())]
    Io {
        /// `reading`, `writing`, …
        action: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
    /// The environment forbids what is needed.
    #[error("the system's keyring is needed, and NEGATOSCOPE_KEYRING=off turns it off")]
    Off,
    /// No session, no service, or it is locked.
    #[error("the system's keyring cannot be used ({0}); log in to the desktop and unlock it")]
    Unreachable(String),
    /// The master key is not in the keyring any more.
    #[error(
        "the system's keyring does not hold the master key (service negatoscope, user master-key) any more; \
         put the keyring back from a backup, or go on with new keys: negatoscope keys give-up"
    )]
    Vanished,
    /// Another master key is there.
    #[error(
        "the master key in the system's keyring is not the one that wrapped this key; put the keyring back \
         from a backup, or go on with new keys: negatoscope keys give-up: {}", path.display()
    )]
    OtherMaster {
        /// The wrapped key.
        path: PathBuf,
    },
    /// The file was changed.
    #[error("the wrapped key was changed: {}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A secret that nobody stored.
    #[error("the system's keyring has no entry {0:?} (negatoscope keys store {0})")]
    NoEntry(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Chance,
}

/// Where keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In files for the account alone.
    Files,
    /// In files that open with the master key in the system's keyring.
    Keyring,
    /// Some so, some so: a move did not end.
    Both,
}

impl Place {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Files => "in private files",
            Self::Keyring => "in the system's keyring",
            Self::Both => "some in private files, some in the system's keyring",
        }
    }
}

/// A key of a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    home: PathBuf,
    name: &'static str,
}

impl KeyFile {
    /// By its file below the home.
    pub fn new(home: &Path, name: &'static str) -> Self {
        debug_assert!(NAMES.contains(&name), "{name} would not be moved");
        Self {
            home: home.to_owned(),
            name,
        }
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.home.join(self.name)
    }

    /// Its content; `None` when there is no such file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path();
        match fs::read(&path) {
            Ok(bytes) if bytes.starts_with(MARK) => {
                unwrap(&Master::of_keyring()?, self.name, &bytes, &path).map(Some)
            }
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("reading", &path)(e)),
        }
    }

    /// Its content; made from 32 random bytes when there is none. Whoever comes first makes it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read_or_make(&self, content: impl Fn(&[u8; 32]) -> Vec<u8>) -> Result<Vec<u8>, Error> {
        if let Some(there) = self.read()? {
            return Ok(there);
        }
        let path = self.path();
        if let Some(folder) = path.parent() {
            whole_file::make_private_folder(folder).map_err(io_error("creating", folder))?;
        }
        let mut bytes = content(&random()?);
        if self.home.join(CHOICE).exists() {
            bytes = wrap(&Master::of_keyring()?, self.name, &bytes)?;
        }
        whole_file::make_private(&path, &bytes).map_err(io_error("creating", &path))?;
        let gone = || io_error("reading", &path)(ErrorKind::NotFound.into());
        self.read()?.ok_or_else(gone)
    }

    /// The rights of its file, when others than the account may read it.
    ///
    /// # Errors
    /// The file is not there.
    pub fn open_to_others(&self) -> io::Result<Option<u32>> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(self.path())?.permissions().mode() & 0o777;
            Ok((mode & 0o077 != 0).then_some(mode))
        }
        #[cfg(not(unix))]
        Ok(None)
    }
}

/// Where the keys of a home are.
pub fn place(home: &Path) -> Place {
    let wrapped: Vec<bool> = NAMES
        .iter()
        .filter_map(|name| fs::read(home.join(name)).ok())
        .map(|bytes| bytes.starts_with(MARK))
        .collect();
    match (wrapped.contains(&true), wrapped.contains(&false)) {
        (true, true) => Place::Both,
        (true, false) => Place::Keyring,
        (false, false) if home.join(CHOICE).exists() => Place::Keyring,
        (false, _) => Place::Files,
    }
}

/// Moves all keys of a home; gives how many. The new form of a key is on disk, and opens, before the old
/// one goes, so that a move that ends half-way has lost nothing and can be done again.
///
/// # Errors
/// [`Error`].
pub fn move_to(home: &Path, to: Place) -> Result<usize, Error> {
    let choice = home.join(CHOICE);
    let into = to == Place::Keyring;
    let master = if into {
        let master = Master::of_keyring_or_new()?;
        write_private(&choice, b"")?;
        Some(master)
    } else {
        remove_if_there(&choice)?;
        None
    };
    let mut moved = 0;
    for name in NAMES {
        let file = KeyFile::new(home, name);
        let path = file.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) if bytes.starts_with(MARK) != into => bytes,
            Ok(_) => continue,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(io_error("reading", &path)(e)),
        };
        let new = match &master {
            Some(master) => {
                let wrapped = wrap(master, name, &bytes)?;
                // By the key as the keyring gives it, not as this program remembers it.
                let opened = unwrap(&Master::read_anew()?, name, &wrapped, &path)?;
                if opened != bytes {
                    return Err(Error::Changed { path });
                }
                wrapped
            }
            None => unwrap(&Master::of_keyring()?, name, &bytes, &path)?,
        };
        write_private(&path, &new)?;
        moved += 1;
    }
    Ok(moved)
}

/// Sets wrapped keys aside that the keyring does not open; new ones are made when they are needed. Gives
/// the names of their files. What the old keys sealed stays closed until they are put back.
///
/// # Errors
/// [`Error::Io`].
pub fn give_up(home: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut aside = Vec::new();
    for name in NAMES {
        let file = KeyFile::new(home, name);
        let lost = |e: &Error| {
            matches!(
                e,
                Error::Vanished | Error::OtherMaster { .. } | Error::Changed { .. }
            )
        };
        if !file.read().is_err_and(|e| lost(&e)) {
            continue;
        }
        let path = file.path();
        let to = (1..u32::MAX)
            .map(|n| path.with_extension(format!("lost-{n}")))
            .find(|to| !to.exists())
            .expect("some number is free");
        fs::rename(&path, &to).map_err(io_error("renaming", &path))?;
        aside.push(to);
    }
    if !aside.is_empty() {
        remove_if_there(&home.join(CHOICE))?;
    }
    Ok(aside)
}

fn wrap(master: &Master, name: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut sealed = content.to_vec();
    cipher(master)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| Error::Chance)?;
    Ok([MARK.as_slice(), &master.id(), &nonce, &sealed].concat())
}

fn unwrap(master: &Master, name: &str, bytes: &[u8], path: &Path) -> Result<Vec<u8>, Error> {
    let changed = || Error::Changed {
        path: path.to_owned(),
    };
    let rest = bytes.strip_prefix(MARK.as_slice()).ok_or_else(changed)?;
    let (id, rest) = rest.split_at_checked(ID_BYTES).ok_or_else(changed)?;
    if id != master.id() {
        return Err(Error::OtherMaster {
            path: path.to_owned(),
        });
    }
    let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(changed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
    let mut content = sealed.to_vec();
    let length = cipher(master)
        .open_in_place(nonce, Aad::from(name.as_bytes()), &mut content)
        .map_err(|_| changed())?
        .len();
    content.truncate(length);
    Ok(content)
}

fn cipher(master: &Master) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, master.bytes()).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Chance)?;
    Ok(bytes)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    whole_file::write_private(path, |w| w.write_all(bytes)).map_err(io_error("writing", path))
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("removing", path)(e)),
        _ => Ok(()),
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        action,
        source,
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_by_its_master_and_name_alone_and_unchanged() {
        let (master, other) = (Master::new([1; 32]), Master::new([2; 32]));
        let path = Path::new("key");
        let wrapped = wrap(&master, "queue/key", b"some key").unwrap();
        assert_eq!(
            unwrap(&master, "queue/key", &wrapped, path).unwrap(),
            b"some key"
        );
        assert!(!wrapped.windows(4).any(|w| w == b"some"));
        assert!(matches!(
            unwrap(&other, "queue/key", &wrapped, path),
            Err(Error::OtherMaster { .. })
        ));
        assert!(matches!(
            unwrap(&master, "deidentify/key", &wrapped, path),
            Err(Error::Changed { .. })
        ));
        for n in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[n] ^= 1;
            assert!(unwrap(&master, "queue/key", &changed, path).is_err());
            assert!(unwrap(&master, "queue/key", &wrapped[..n], path).is_err());
        }
    }

    #[test]
    fn without_a_choice_a_key_is_a_file_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(place(home.path()), Place::Files);
        let file = KeyFile::new(home.path(), "queue/key");
        assert_eq!(file.read().unwrap(), None);
        let made = file.read_or_make(|bytes| bytes.to_vec()).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), made);
        assert_eq!(file.read_or_make(|_| Vec::new()).unwrap(), made);
        assert_eq!(file.open_to_others().unwrap(), None);
        assert_eq!(place(home.path()), Place::Files);
        assert_eq!(give_up(home.path()).unwrap(), Vec::<PathBuf>::new());
    }
}
