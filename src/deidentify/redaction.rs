//! A person's list of what to blacken: rectangles for kinds of images, and for single files.
//!
//! ```json
//! {"rules": [
//!   {"modality": "US", "manufacturer": "ACME", "rows": 480, "columns": 640, "regions": [[0, 0, 640, 40]]},
//!   {"file": "scan/0001.dcm", "regions": [[10, 10, 200, 24], [10, 440, 300, 24]]}
//! ]}
//! ```
//!
//! A rule applies when everything that it names is so; all rules that apply count together.

use std::fs;
use std::path::Path;

use super::Error;
use super::text::Region;
use crate::dicom::Tree;

/// More is no list that a person has written.
const LARGEST: u64 = 4 << 20;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redactions {
    rules: Vec<Rule>,
}

/// Rectangles (x, y, width, height in pixels, from the upper left corner) and where they apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    /// End of a path, or the name of a file in a report.
    file: Option<String>,
    sop_class: Option<String>,
    modality: Option<String>,
    manufacturer: Option<String>,
    rows: Option<u16>,
    columns: Option<u16>,
    regions: Vec<Region>,
}

impl Redactions {
    /// Regions for all images of so many rows and columns; an empty list without regions.
    pub fn for_size(rows: u16, columns: u16, regions: Vec<Region>) -> Self {
        if regions.is_empty() {
            return Self::default();
        }
        Self {
            rules: vec![Rule {
                rows: Some(rows),
                columns: Some(columns),
                regions,
                ..Rule::default()
            }],
        }
    }

    /// What two lists say together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Reads a list.
    ///
    /// # Errors
    /// The file cannot be read, is no list, or holds a rule without a condition or without a region.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            action: "reading",
            source,
            path: path.to_owned(),
        };
        if fs::metadata(path).map_err(io)?.len() > LARGEST {
            return Err(io(std::io::Error::other("too large for a list")));
        }
        let text = fs::read_to_string(path).map_err(io)?;
        let wrong = |what: String| Error::Redactions {
            what,
            path: path.to_owned(),
        };
        let list: Self = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        for (n, rule) in list.rules.iter().enumerate() {
            let number = n + 1;
            if rule.regions.is_empty() {
                return Err(wrong(format!("rule {number} has no regions")));
            }
            if rule.regions.iter().any(|r| r.width == 0 || r.height == 0) {
                return Err(wrong(format!("rule {number} has an empty region")));
            }
            if *rule
                == (Rule {
                    regions: rule.regions.clone(),
                    ..Rule::default()
                })
            {
                return Err(wrong(format!(
                    "rule {number} does not say where it applies"
                )));
            }
        }
        Ok(list)
    }

    /// The regions for a file: `path` is where it was found, `label` what a report calls it.
    ///
    /// # Errors
    /// A region that lies outside of the image.
    pub(super) fn regions(
        &self,
        tree: &Tree,
        path: &str,
        label: &str,
    ) -> Result<Vec<Region>, &'static str> {
        let mut regions: Vec<Region> = self
            .rules
            .iter()
            .filter(|rule| rule.applies(tree, path, label))
            .flat_map(|rule| rule.regions.clone())
            .collect();
        regions.sort_unstable();
        regions.dedup();
        let size = |tag| usize::from(tree.word_of(tag).unwrap_or(0));
        let (rows, columns) = (size(0x0028_0010), size(0x0028_0011));
        if regions.iter().any(|r| r.x >= columns || r.y >= rows) {
            return Err("a region of the redaction list lies outside of the image");
        }
        Ok(regions)
    }
}

impl Rule {
    fn applies(&self, tree: &Tree, path: &str, label: &str) -> bool {
        let says = |wanted: &Option<String>, tag| {
            wanted
                .as_ref()
                .is_none_or(|w| tree.text_of(tag).eq_ignore_ascii_case(w.trim()))
        };
        let counts = |wanted: Option<u16>, tag| wanted.is_none_or(|w| tree.word_of(tag) == Some(w));
        self.file
            .as_ref()
            .is_none_or(|file| file == label || Path::new(path).ends_with(file))
            && says(&self.sop_class, 0x0008_0016)
            && says(&self.modality, 0x0008_0060)
            && says(&self.manufacturer, 0x0008_0070)
            && counts(self.rows, 0x0028_0010)
            && counts(self.columns, 0x0028_0011)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_say_too_little_or_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        let check = |text: &str, expected: Option<&str>| {
            fs::write(&path, text).unwrap();
            match (Redactions::read(&path), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check(
            r#"{"rules":[{"modality":"US","regions":[[0,0,9,9]]}]}"#,
            None,
        );
        check(
            r#"{"rules":[{"modality":"US"}]}"#,
            Some("rule 1 has no regions"),
        );
        check(
            r#"{"rules":[{"regions":[[0,0,9,9]]}]}"#,
            Some("does not say where"),
        );
        check(
            r#"{"rules":[{"modality":"US","regions":[[0,0,0,9]]}]}"#,
            Some("empty region"),
        );
        check(
            r#"{"rules":[{"modalty":"US","regions":[[0,0,9,9]]}]}"#,
            Some("unknown field"),
        );
        check(
            r#"{"rules":[{"modality":"US","regions":[[0,0,-1,9]]}]}"#,
            Some("invalid"),
        );
    }
}
