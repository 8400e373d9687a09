//! Where a secret is, and the secret itself only at the moment of its use.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::key_file;
use crate::redact::Sensitive;

/// Where a secret is. The secret is in no file of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SecretPlace {
    /// In a variable of the environment, by its name.
    Environment(String),
    /// In the system's keyring, by the name of its entry.
    Keyring(String),
}

impl SecretPlace {
    /// In a variable of the environment.
    pub fn environment(variable: &str) -> Self {
        Self::Environment(variable.to_owned())
    }

    /// In the system's keyring.
    pub fn keyring(entry: &str) -> Self {
        Self::Keyring(entry.to_owned())
    }

    /// Whether its name can be nothing but a name: no secret pasted in its place.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Self::Environment(name) => {
                (1..=64).contains(&name.len())
                    && !name.starts_with(|c: char| c.is_ascii_digit())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            }
            Self::Keyring(entry) => {
                (1..=32).contains(&entry.len())
                    && entry
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            }
        }
    }
}

/// What opens the places of secrets.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// In place of the environment.
    given: Option<HashMap<String, Sensitive<String>>>,
}

impl Secrets {
    /// Those of the environment.
    pub fn of_environment() -> Self {
        Self::default()
    }

    /// Given ones, by the names of their variables.
    pub fn given<const N: usize>(secrets: [(&str, &str); N]) -> Self {
        let given =
            secrets.map(|(name, value)| (name.to_owned(), Sensitive::new(value.to_owned())));
        Self {
            given: Some(given.into()),
        }
    }

    fn found(&self, variable: &str) -> Option<String> {
        match &self.given {
            Some(given) => given.get(variable).map(|value| value.expose().clone()),
            None => std::env::var(variable).ok(),
        }
    }

    /// What is kept under an entry of the keyring; `None` where nothing is, or there is no keyring.
    pub(super) fn kept(&self, entry: &str) -> Option<Sensitive<String>> {
        let found = match &self.given {
            Some(given) => given.get(entry).map(|value| value.expose().clone()),
            None => key_file::secret(entry).ok(),
        };
        found.map(Sensitive::new)
    }

    /// Keeps something under an entry of the keyring; given ones stay as they were given.
    pub(super) fn keep(&self, entry: &str, value: &Sensitive<String>) -> Result<(), Error> {
        match &self.given {
            Some(_) => Ok(()),
            None => Ok(key_file::store_secret(entry, value.expose().clone())?),
        }
    }

    /// Removes what is kept under an entry of the keyring.
    pub(super) fn forget(&self, entry: &str) -> Result<(), Error> {
        match &self.given {
            Some(_) => Ok(()),
            None => Ok(key_file::forget_secret(entry)?),
        }
    }

    /// Opens a place that may be empty.
    pub(super) fn read_optional(
        &self,
        place: &SecretPlace,
    ) -> Result<Option<Sensitive<String>>, Error> {
        let found = match place {
            SecretPlace::Environment(variable) => self.found(variable),
            SecretPlace::Keyring(_) => return self.read(place).map(Some),
        };
        match found {
            None => Ok(None),
            Some(empty) if empty.trim().is_empty() => Ok(None),
            Some(_) => self.read(place).map(Some),
        }
    }

    /// Opens a place.
    pub(super) fn read(&self, place: &SecretPlace) -> Result<Sensitive<String>, Error> {
        let value = match place {
            SecretPlace::Environment(variable) => self.found(variable),
            SecretPlace::Keyring(entry) => match &self.given {
                Some(given) => given.get(entry).map(|value| value.expose().clone()),
                None => Some(key_file::secret(entry)?),
            },
        };
        let value = value.map(|value| value.trim().to_owned());
        let wrong = |why| match place {
            SecretPlace::Environment(variable) => Error::Secret {
                variable: variable.clone(),
                why,
            },
            SecretPlace::Keyring(entry) => Error::SecretEntry {
                entry: entry.clone(),
                why,
            },
        };
        match value {
            // What goes into a header: a line break in it would begin another one.
            Some(value) if !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(value.into())
            }
            Some(_) => Err(wrong("is empty or holds blanks")),
            None => Err(wrong("is not set")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_printed() {
        let secrets = Secrets::given([("A", "s3cr3t\n"), ("B", ""), ("C", "x\r\nHost: y")]);
        let read = |name| secrets.read(&SecretPlace::environment(name));
        assert_eq!(read("A").unwrap().expose(), "s3cr3t");
        for name in ["B", "C", "D"] {
            let error = read(name).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("Host"), "{error}");
        }
        assert!(!format!("{secrets:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_secret_pasted_for_its_name_is_no_name() {
        for name in ["TOKEN", "A1_B"] {
            assert!(SecretPlace::environment(name).is_plain());
        }
        for name in ["", "1A", "sk-abc", "eyJhbGciOi", "A B"] {
            assert!(!SecretPlace::environment(name).is_plain());
        }
        assert!(SecretPlace::keyring("clinic-server-2").is_plain());
        for name in ["", "eyJhbGciOi", "a b", "a/b", &"a".repeat(33)] {
            assert!(!SecretPlace::keyring(name).is_plain());
        }
    }
}
