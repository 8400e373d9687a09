//! Unique identifiers of DICOM.

use std::fmt;

/// Why a text is no UID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UID of {length} characters is not of the form 1.2.3 with at most 64 characters")]
pub struct UidError {
    /// Characters found; the text itself may hold anything and is not repeated.
    pub length: usize,
}

/// A UID as in PS3.5 section 9: digits and dots, at most 64 characters.
///
/// Study, series, SOP instance and frame of reference UIDs share this type; field names say which.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(String);

impl Uid {
    /// Checks the form; padding (NUL, blanks) at the end is dropped.
    ///
    /// Components with a leading zero are accepted: they break the standard but are common.
    ///
    /// # Errors
    /// Anything but digits and dots, empty, or over 64 characters. So a UID can be a file name.
    pub fn parse(text: &str) -> Result<Self, UidError> {
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        let fine = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && !text.starts_with('.')
            && !text.ends_with('.')
            && !text.contains("..");
        if fine {
            Ok(Self(text.to_owned()))
        } else {
            Err(UidError {
                length: text.chars().count(),
            })
        }
    }

    /// A UID made of 128 random bits: `2.25.` and the number (PS3.5 B.2).
    pub fn from_u128(bits: u128) -> Self {
        Self(format!("2.25.{bits}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Uid {
    type Error = UidError;
    fn try_from(text: String) -> Result<Self, UidError> {
        Self::parse(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_uid() {
        for text in ["../../etc/passwd", "", "1..2", ".1", "1.", &"1".repeat(65)] {
            assert!(Uid::parse(text).is_err(), "{text}");
        }
        assert_eq!(Uid::parse("1.2.840\0").unwrap().as_str(), "1.2.840");
    }

    #[test]
    fn random_uids_fit_64_characters() {
        assert!(Uid::parse(Uid::from_u128(u128::MAX).as_str()).is_ok());
    }
}
