//! Where a secret is, and the secret itself only at the moment of its use.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::redact::Sensitive;

/// Where a secret is. The secret is in no file of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SecretPlace {
    /// In a variable of the environment, by its name.
    Environment(String),
}

impl SecretPlace {
    /// In a variable of the environment.
    pub fn environment(variable: &str) -> Self {
        Self::Environment(variable.to_owned())
    }

    /// Whether its name can be nothing but a name: no secret pasted in its place.
    pub(super) fn is_plain(&self) -> bool {
        let Self::Environment(name) = self;
        (1..=64).contains(&name.len())
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
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

    /// Opens a place that may be empty.
    pub(super) fn read_optional(
        &self,
        place: &SecretPlace,
    ) -> Result<Option<Sensitive<String>>, Error> {
        let SecretPlace::Environment(variable) = place;
        match self.found(variable) {
            None => Ok(None),
            Some(empty) if empty.trim().is_empty() => Ok(None),
            Some(_) => self.read(place).map(Some),
        }
    }

    /// Opens a place.
    pub(super) fn read(&self, place: &SecretPlace) -> Result<Sensitive<String>, Error> {
        let SecretPlace::Environment(variable) = place;
        let value = self.found(variable).map(|value| value.trim().to_owned());
        match value {
            // What goes into a header: a line break in it would begin another one.
            Some(value) if !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(value.into())
            }
            Some(_) => Err(Error::Secret {
                variable: variable.clone(),
                why: "is empty or holds blanks",
            }),
            None => Err(Error::Secret {
                variable: variable.clone(),
                why: "is not set",
            }),
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
    }
}
