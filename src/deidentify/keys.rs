//! The secret behind new UIDs, pseudonyms and shifted dates.
//!
//! Everything is HMAC-SHA-256 of the old value under one key of this home: the same in gives the
//! same out in every run, and without the key nobody can try old values out.

use std::path::Path;

use ring::hmac;

use super::Error;
use crate::key_file::KeyFile;
use crate::study::Uid;

/// The key of a project.
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(‹redacted›)")
    }
}

impl Key {
    /// A key of 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The key in `home/deidentify/key`; a new one, for its owner alone, when there is none.
    ///
    /// # Errors
    /// The key cannot be read or made, is something else, or others may read its file.
    pub fn open(home: &Path) -> Result<Self, Error> {
        let file = KeyFile::new(home, "deidentify/key");
        let path = file.path();
        let text = file.read_or_make(|bytes| hex(bytes).into_bytes())?;
        let rights = file.open_to_others().map_err(|source| Error::Io {
            action: "reading",
            source,
            path: path.clone(),
        })?;
        if let Some(mode) = rights {
            return Err(Error::KeyOpen { mode, path });
        }
        let text = String::from_utf8_lossy(&text);
        parse(text.trim())
            .map(|bytes| Self::new(&bytes))
            .ok_or(Error::Key { path })
    }

    fn digest(&self, purpose: &str, value: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(value);
        let tag = context.sign();
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// A new UID in the place of an old one: `2.25.` and a UUID (PS3.5 B.2; RFC 9562, version 8).
    pub fn uid(&self, old: &str) -> Uid {
        let digest = self.digest("uid", old.as_bytes());
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        bits[6] = bits[6] & 0x0F | 0x80;
        bits[8] = bits[8] & 0x3F | 0x80;
        Uid::from_u128(u128::from_be_bytes(bits))
    }

    /// A name for a patient: letters and digits that are not read for others.
    pub fn pseudonym(&self, patient: &str) -> String {
        const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        let digest = self.digest("patient", patient.as_bytes());
        let letters: String = digest[..12]
            .iter()
            .map(|b| char::from(LETTERS[usize::from(b % 32)]))
            .collect();
        format!("NS{letters}")
    }

    /// Days by which a patient's dates move: −3650 to −1.
    pub fn shift_days(&self, patient: &str) -> i64 {
        let digest = self.digest("days", patient.as_bytes());
        let mut bits = [0; 8];
        bits.copy_from_slice(&digest[..8]);
        -1 - (u64::from_be_bytes(bits) % 3650) as i64
    }

    /// What a report calls a file.
    pub fn file_label(&self, path: &str) -> String {
        let digest = self.digest("file", path.as_bytes());
        hex(&digest[..8])
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

fn parse(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_gives_the_same_answers_and_another_key_others() {
        let (a, b) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        assert_eq!(a.uid("1.2.3"), Key::new(&[1; 32]).uid("1.2.3"));
        assert_ne!(a.uid("1.2.3"), a.uid("1.2.4"));
        assert_ne!(a.uid("1.2.3"), b.uid("1.2.3"));
        assert_ne!(a.pseudonym("p"), b.pseudonym("p"));
        assert!(Uid::parse(a.uid("1.2.3").as_str()).is_ok());
        let days: Vec<i64> = (0..2000).map(|n| a.shift_days(&n.to_string())).collect();
        assert!(days.iter().all(|d| (-3650..=-1).contains(d)));
        assert!(days.iter().any(|&d| d < -3000) && days.iter().any(|&d| d > -600));
    }

    /// HMAC-SHA-256 by another implementation (Python's hmac).
    #[test]
    fn a_uid_is_the_hmac_of_the_old_one() {
        let key = Key::new(&std::array::from_fn(|n| n as u8));
        assert_eq!(key.uid("1.2.840.99.1").as_str(), UID_OF_PYTHON);
    }
    const UID_OF_PYTHON: &str = "2.25.47135738555562456004710441704462686753";

    #[test]
    fn the_key_is_made_once_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let first = Key::open(home.path()).unwrap().uid("1.2");
        assert_eq!(Key::open(home.path()).unwrap().uid("1.2"), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let path = home.path().join("deidentify/key");
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            assert!(matches!(
                Key::open(home.path()),
                Err(Error::KeyOpen { mode: 0o644, .. })
            ));
        }
    }
}
