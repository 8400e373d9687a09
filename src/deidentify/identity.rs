//! The words by which the people of one file are known, to find them where no table looks.

use std::collections::BTreeSet;

use super::options::Options;
use super::table::{Resolved, resolve};
use super::values::{Kind, is_known_word};
use crate::dicom::{Tree, TreeNode, TreeValue, standard_vr};

/// Attributes beside person names whose values are identities.
const IDENTITIES: [u32; 23] = [
    0x0008_0050,
    0x0008_0080,
    0x0008_0081,
    0x0008_0092,
    0x0008_0094,
    0x0008_1040,
    0x0010_0020,
    0x0010_1000,
    0x0010_1040,
    0x0010_1090,
    0x0010_2154,
    0x0010_2155,
    0x0010_2297,
    0x0010_2299,
    0x0012_0040,
    0x0012_0042,
    0x0018_A003,
    0x0038_0010,
    0x0038_0300,
    0x0038_0400,
    0x0040_1102,
    0x0040_1103,
    0x0040_A353,
];

/// Words of names, and whole identifiers, in lower case.
#[derive(Debug, Default)]
pub(super) struct Identity {
    words: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl Identity {
    /// Collects what will be removed from a file.
    pub(super) fn gather(tree: &Tree, options: &Options) -> Self {
        let mut identity = Self::default();
        identity.nodes(tree, &tree.root, options);
        identity
    }

    fn nodes(&mut self, tree: &Tree, nodes: &[TreeNode], options: &Options) {
        for node in nodes {
            if let TreeValue::Items(items) = &node.value {
                for item in items {
                    self.nodes(tree, item, options);
                }
                continue;
            }
            let vr = standard_vr(node.tag).unwrap_or(node.vr);
            let person = Kind::of(vr) == Kind::Person;
            let listed = person || IDENTITIES.contains(&node.tag);
            if !listed || resolve(node.tag, options) == Resolved::Keep {
                continue;
            }
            let text = tree.text(node).to_lowercase();
            for value in text.split('\\') {
                if person {
                    let words = value.split(|c: char| !c.is_alphanumeric());
                    self.words
                        .extend(words.filter(|w| is_telling(w, 3)).map(str::to_owned));
                } else {
                    let value = value.trim();
                    if is_telling(value, 5) {
                        self.values.insert(value.to_owned());
                    }
                }
            }
        }
    }

    /// Whether a text repeats an identity.
    pub(super) fn is_in(&self, text: &str) -> bool {
        if self.words.is_empty() && self.values.is_empty() {
            return false;
        }
        let text = text.to_lowercase();
        text.split(|c: char| !c.is_alphanumeric())
            .any(|word| self.words.contains(word))
            || self.values.iter().any(|value| text.contains(value))
            || self
                .words
                .iter()
                .any(|word| word.chars().count() >= 5 && text.contains(word))
    }

    /// Whether a value is one of the removed identifiers itself.
    pub(super) fn is_value(&self, text: &str) -> bool {
        self.values.contains(&text.to_lowercase())
    }

    /// The same for bytes that may hold text in one-byte or two-byte characters.
    pub(super) fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        let long = |word: &&String| word.chars().count() >= 5;
        let needles = self.words.iter().filter(long).chain(&self.values);
        let lower = bytes.to_ascii_lowercase();
        let found = |needle: &[u8]| {
            !needle.is_empty() && lower.windows(needle.len()).any(|part| part == needle)
        };
        needles.into_iter().any(|needle| {
            let wide: Vec<u8> = needle.encode_utf16().flat_map(u16::to_le_bytes).collect();
            found(needle.as_bytes()) || found(&wide)
        })
    }
}

/// Long enough, and no word that descriptions are full of.
fn is_telling(word: &str, shortest: usize) -> bool {
    const EMPTY: [&str; 8] = [
        "none",
        "unknown",
        "anonymous",
        "anonymized",
        "removed",
        "anon",
        "patient",
        "test",
    ];
    word.chars().count() >= shortest && !EMPTY.contains(&word) && !is_known_word(word)
}
