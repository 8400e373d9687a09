//! What was done, told without naming anyone.

use std::collections::BTreeMap;

use super::options::Options;
use super::pixel_work::PixelsDone;
use super::text::{FoundText, Region};

/// Edition of the table's Basic Profile column.
pub const TABLE_EDITION: &str = "2026c";

/// The report of a run: counts, doubts and new names; files are called by keyed hashes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// `negatoscope-deidentification-1`.
    pub format: &'static str,
    /// This program.
    pub program: String,
    /// Table E.1-1, edition.
    pub table: &'static str,
    /// Codes and meanings of PS3.16 CID 7050.
    pub method: Vec<(&'static str, &'static str)>,
    /// Whether files with possible burned-in text were written all the same.
    pub burned_in_allowed: bool,
    /// Files found.
    pub files: usize,
    /// Files written in this run.
    pub written: usize,
    /// Files that an earlier run had written with the same content.
    pub already_there: usize,
    /// Files that repeat an instance of this run.
    pub repeated: usize,
    /// Patients, studies and series among what was written or already there.
    pub patients: usize,
    /// Studies.
    pub studies: usize,
    /// Series.
    pub series: usize,
    /// Elements by what was done.
    pub attributes: BTreeMap<String, usize>,
    /// Doubts with how often.
    pub doubts: BTreeMap<String, usize>,
    /// Short texts that the profile keeps, by keyword: a person should look at them.
    pub kept_texts: BTreeMap<String, usize>,
    /// Not written: pixels may show text.
    pub held_back: Vec<Line>,
    /// Not written: cannot be de-identified.
    pub refused: Vec<Line>,
    /// Written in spite of a risk.
    pub risky: Vec<Line>,
    /// What looks like text in the pixels, before anything was done to them.
    pub text_found: Vec<TextFound>,
    /// Files with blackened regions.
    pub redacted: Vec<Redacted>,
    /// Files whose face was taken out.
    pub defaced: usize,
    /// Files whose pixels could not be looked at.
    pub unseen: usize,
    /// What remains after all of this.
    pub residual_risk: Vec<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// Keyed hash of its path.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// Lines of text that were found in one file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TextFound {
    /// Keyed hash of its path.
    pub file: String,
    /// Frames that were looked at.
    pub frames: usize,
    /// Where: x, y, width, height; with a score and the number of letters.
    pub lines: Vec<FoundText>,
}

/// One file with blackened regions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Redacted {
    /// Keyed hash of its path.
    pub file: String,
    /// x, y, width, height in every frame.
    pub regions: Vec<Region>,
    /// Frames.
    pub frames: usize,
    /// Whether a person's list holds some of the regions; the others were found by the program.
    pub by_list: bool,
    /// Whether a person said that no text is left.
    pub reviewed: bool,
}

impl Report {
    /// What was seen in the pixels of a file, and done to them.
    pub(super) fn tell_pixels(&mut self, pixels: &PixelsDone, file: &str, reviewed: bool) {
        self.unseen += usize::from(pixels.unseen);
        if !pixels.found.is_empty() {
            self.text_found.push(TextFound {
                file: file.to_owned(),
                frames: pixels.frames,
                lines: pixels.found.clone(),
            });
        }
        if !pixels.regions.is_empty() {
            self.redacted.push(Redacted {
                file: file.to_owned(),
                regions: pixels.regions.clone(),
                frames: pixels.frames,
                by_list: pixels.by_list,
                reviewed,
            });
        }
    }

    pub(super) fn new(options: &Options, burned_in_allowed: bool, files: usize) -> Self {
        Self {
            format: "negatoscope-deidentification-1",
            program: format!("negatoscope {}", crate::VERSION),
            table: TABLE_EDITION,
            method: options.codes(),
            burned_in_allowed,
            files,
            written: 0,
            already_there: 0,
            repeated: 0,
            patients: 0,
            studies: 0,
            series: 0,
            attributes: BTreeMap::new(),
            doubts: BTreeMap::new(),
            kept_texts: BTreeMap::new(),
            held_back: Vec::new(),
            refused: Vec::new(),
            risky: Vec::new(),
            text_found: Vec::new(),
            redacted: Vec::new(),
            defaced: 0,
            unseen: 0,
            residual_risk: Vec::new(),
        }
    }

    /// Files that are in the folder now.
    pub fn present(&self) -> usize {
        self.written + self.already_there
    }

    /// Says what a person has to weigh before the files go anywhere.
    pub(super) fn conclude(&mut self, options: &Options, heads: usize) {
        let mut say = |text: String| self.residual_risk.push(text);
        say("text in pixels was searched for by its looks: small, faint, slanted and handwritten text is missed".into());
        if self.unseen > 0 {
            say(format!(
                "the pixels of {} files could not be decoded and were not searched",
                self.unseen
            ));
        }
        let alone = self.redacted.iter().filter(|r| !r.reviewed).count();
        if alone > 0 {
            say(format!(
                "{alone} files have blackened regions that no person has looked at"
            ));
        }
        if !self.risky.is_empty() {
            say(format!(
                "{} files were written although their pixels may show text",
                self.risky.len()
            ));
        }
        if heads > 0 {
            say(format!(
                "{heads} images of heads: a face can be made of them; faces were not removed"
            ));
        }
        if self.defaced > 0 {
            say(format!(
                "the faces of {} files were taken out by an estimate of the brain; eyes in part, ears and the shape of the skull remain",
                self.defaced
            ));
        }
        if !self.kept_texts.is_empty() {
            let count: usize = self.kept_texts.values().sum();
            say(format!(
                "{count} short texts in {} attributes were kept as the profile says; see kept_texts",
                self.kept_texts.len()
            ));
        }
        let kept: [(bool, &str); 5] = [
            (
                options.uids,
                "old UIDs were kept: whoever has the originals can find them",
            ),
            (
                options.device,
                "devices can be told by their names and serial numbers",
            ),
            (options.institution, "the institution was kept"),
            (
                options.characteristics,
                "sex, age, size and weight were kept: rare combinations can identify",
            ),
            (
                options.dates == super::options::Dates::Full,
                "dates were kept: with other records they can identify",
            ),
        ];
        for (_, text) in kept.into_iter().filter(|(on, _)| *on) {
            say(text.into());
        }
        say("pseudonyms are tied to persons by the key in this program's home: keep it as safe as the originals".into());
    }
}
