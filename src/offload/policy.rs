//! What a person has decided once for all runs: where they go, what may leave, what it may cost.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::endpoint::small_text;
use super::spending::Limits;

/// Name of the file in the program's home.
pub const FILE: &str = "places.toml";
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why the policy was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file is not TOML, or holds what no policy has.
    #[error("the policy for places cannot be understood: {}", path.display())]
    Content {
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
        /// The file.
        path: PathBuf,
    },
    /// A limit that is none.
    #[error("a limit is zero or more: {}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("reading the policy for places failed: {}", path.display())]
    File {
        /// What the system said.
        #[source]
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Where runs go when nobody says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefer {
    /// This machine, where it can.
    #[default]
    Local,
    /// A server, where one may.
    Remote,
    /// The place with the shortest time by measured runs.
    Fastest,
    /// The place with the lowest price.
    Cheapest,
}

/// A person's policy. Without a file: this machine, and no limits but those of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// For `--remote auto`.
    pub prefer: Prefer,
    /// Runs that a server cannot be reached for are done here.
    pub fallback_to_local: bool,
    /// Modalities that may leave (`CT`, `MR`, …); all where this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Vec<String>>,
    /// Limits, checked before anything is sent.
    pub limits: Limits,
}

impl Policy {
    /// Reads `places.toml`; an absent file is the usual policy.
    ///
    /// # Errors
    /// The file is there and cannot be understood: a limit that is not understood would be no limit.
    pub fn load(home: &Path) -> Result<Self, PolicyError> {
        let path = home.join(FILE);
        let failed = |source| PolicyError::File {
            source,
            path: path.clone(),
        };
        let Some(text) = small_text(&path, MAX_FILE_BYTES).map_err(failed)? else {
            return Ok(Self::default());
        };
        let policy: Self = toml::from_str(&text).map_err(|source| PolicyError::Content {
            source: Box::new(source),
            path: path.clone(),
        })?;
        let limits = [policy.limits.price_per_job, policy.limits.price_per_day];
        let sound = |limit: &f64| limit.is_finite() && *limit >= 0.0;
        if !limits.iter().flatten().all(sound) {
            return Err(PolicyError::Limit { path });
        }
        Ok(policy)
    }

    /// Why images of a modality may not leave; `None` when they may.
    pub fn keeps(&self, modality: &str) -> Option<String> {
        let allowed = self.modalities.as_ref()?;
        let may = allowed.iter().any(|m| m.eq_ignore_ascii_case(modality));
        let which = match modality {
            "" => "images of no known modality",
            known => known,
        };
        (!may).then(|| {
            format!(
                "{which} may not leave by `modalities` in {FILE}, which names {}",
                match allowed.as_slice() {
                    [] => "none".to_owned(),
                    some => some.join(", "),
                }
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<Policy, PolicyError> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(FILE), text).unwrap();
        Policy::load(home.path())
    }

    #[test]
    fn without_a_file_runs_stay_here_and_nothing_falls_back() {
        let home = tempfile::tempdir().unwrap();
        let policy = Policy::load(home.path()).unwrap();
        assert_eq!(policy, Policy::default());
        assert_eq!(
            (policy.prefer, policy.fallback_to_local),
            (Prefer::Local, false)
        );
        assert_eq!(policy.keeps("MR"), None);
    }

    #[test]
    fn a_policy_is_read_whole_or_not_at_all() {
        let policy = read(
            "prefer = 'cheapest'\nfallback_to_local = true\nmodalities = ['CT']\n\
             [limits]\ncurrency = 'EUR'\nprice_per_job = 2\nprice_per_day = 20.5\nbytes_per_day = 1000\n",
        )
        .unwrap();
        assert_eq!(policy.prefer, Prefer::Cheapest);
        assert_eq!(policy.limits.price_per_job, Some(2.0));
        assert_eq!(policy.limits.bytes_per_day, Some(1000));
        assert_eq!(policy.keeps("ct"), None);
        assert!(policy.keeps("MR").unwrap().contains("names CT"));
        assert!(policy.keeps("").unwrap().contains("no known modality"));
        assert!(read("modalities = []").unwrap().keeps("CT").is_some());
        for wrong in [
            "prefer = 'best'",
            "price_per_job = 1",
            "[limits]\nprice_per_job = -1",
            "[limits]\nprice_per_day = nan",
            "[limits]\nbytes_per_day = -5",
            "[limits]\nprice_per_month = 3",
            "\u{0}",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
