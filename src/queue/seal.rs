//! Files that only this home can read: AES-256-GCM under a key of their own.
//!
//! A file is `NSEAL1\n`, 32 random bytes, and the sealed content with its tag. Its key is drawn
//! from the home's by HKDF-SHA-256 with the random bytes as salt, so no two files share key and
//! nonce. A file's name is sealed in with it: one put in another's place does not open.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use super::Error;
use crate::key_file::KeyFile;
use crate::whole_file;

const MARK: &[u8; 7] = b"NSEAL1\n";
const SALT: usize = 32;

/// The key of a home.
pub struct Seal([u8; 32]);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(‹redacted›)")
    }
}

impl Seal {
    /// The key of a home's queue; a new one, for its owner alone, when there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Key`], [`Error::KeyFile`].
    pub fn open(home: &Path) -> Result<Self, Error> {
        let file = KeyFile::new(home, "queue/key");
        let key = |why| Error::Key {
            why,
            path: file.path(),
        };
        let bytes = file.read_or_make(|bytes| bytes.to_vec())?;
        let rights = file.open_to_others();
        if rights
            .map_err(Error::io("reading", &file.path()))?
            .is_some()
        {
            return Err(key("may be read by others: take their rights away"));
        }
        let bytes = bytes.try_into();
        bytes.map(Self).map_err(|_| key("does not have 32 bytes"))
    }

    fn key(&self, salt: &[u8]) -> LessSafeKey {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let okm = prk.expand(&[b"negatoscope queue file"], &AES_256_GCM);
        LessSafeKey::new(UnboundKey::from(okm.expect("one key is short enough")))
    }

    /// Writes a file whole or not at all; `name` is what it is known by.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut salt = [0; SALT];
        fill(&mut salt, path)?;
        let mut sealed = content.to_vec();
        self.key(&salt)
            .seal_in_place_append_tag(nonce(), Aad::from(name.as_bytes()), &mut sealed)
            .map_err(|_| Error::io("sealing", path)(std::io::Error::other("too large")))?;
        whole_file::write(path, |w| -> std::io::Result<()> {
            w.write_all(MARK)?;
            w.write_all(&salt)?;
            w.write_all(&sealed)
        })
        .map_err(Error::io("writing", path))
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Sealed`] for anything that is not the file of this name as written.
    pub fn read(&self, path: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("reading", path)(e)),
        };
        let changed = || Error::Sealed {
            path: path.to_owned(),
        };
        let from = MARK.len() + SALT;
        if bytes.len() < from || !bytes.starts_with(MARK) {
            return Err(changed());
        }
        let key = self.key(&bytes[MARK.len()..from]);
        let length = key
            .open_in_place(nonce(), Aad::from(name.as_bytes()), &mut bytes[from..])
            .map_err(|_| changed())?
            .len();
        bytes.drain(..from);
        bytes.truncate(length);
        Ok(Some(bytes))
    }
}

/// Each file has a key of its own, which seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn fill(bytes: &mut [u8], path: &Path) -> Result<(), Error> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Error::io("drawing", path)(std::io::Error::other("no random numbers")))
}

/// Makes a folder that only its owner may enter.
pub(super) fn make_private(folder: &Path) -> Result<(), Error> {
    whole_file::make_private_folder(folder).map_err(Error::io("creating", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_opens_by_its_key_and_name_alone_and_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open(folder.path()).unwrap();
        let path = folder.path().join("file");
        seal.write(&path, "a", b"some content").unwrap();
        assert_eq!(seal.read(&path, "a").unwrap().unwrap(), b"some content");
        // The same key is found again; content never lies there in clear, and no two files are alike.
        let again = Seal::open(folder.path()).unwrap();
        assert_eq!(again.read(&path, "a").unwrap().unwrap(), b"some content");
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|w| w == b"some"));
        seal.write(&path, "a", b"some content").unwrap();
        assert_ne!(fs::read(&path).unwrap(), bytes);
        assert!(matches!(seal.read(&path, "b"), Err(Error::Sealed { .. })));
        let other = tempfile::tempdir().unwrap();
        let other = Seal::open(other.path()).unwrap();
        assert!(matches!(other.read(&path, "a"), Err(Error::Sealed { .. })));
        assert_eq!(seal.read(&folder.path().join("none"), "a").unwrap(), None);
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(matches!(seal.read(&path, "a"), Err(Error::Sealed { .. })));
            fs::write(&path, &bytes[..n]).unwrap();
            assert!(matches!(seal.read(&path, "a"), Err(Error::Sealed { .. })));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Seal::open(folder.path()).unwrap();
        let key = folder.path().join("queue/key");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Seal::open(folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("may be read by others"),
            "{error}"
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, b"short").unwrap();
        assert!(Seal::open(folder.path()).is_err());
    }
}
