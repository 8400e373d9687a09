//! A copy of the open study without identity.

use std::path::PathBuf;

use super::{Action, App, Command, Dialog, JobId, JobKind, Notice, SeriesKey};

/// What a copy is made of and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyWanted {
    /// All series of the study, or the open one alone.
    pub whole_study: bool,
    /// Intervals of dates, age, sex, technique and structure stay, as most research needs it.
    pub for_research: bool,
    /// Faces are taken out of CT and MR of heads.
    pub deface: bool,
    /// What looks like text in the pixels is blackened.
    pub redact_found: bool,
    /// What is blackened in every image of this many columns and rows.
    pub regions: Vec<PixelRegion>,
    /// Columns and rows of the image that the regions were drawn on.
    pub drawn_on: [usize; 2],
    /// The person has looked at all images with their regions, and no text is left.
    pub reviewed: bool,
    /// Where it goes.
    pub folder: Option<PathBuf>,
}

/// A rectangle of an image's pixels; rows from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelRegion {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl PixelRegion {
    /// Between two corners in pixels, each corner's pixel included, as far as it lies in an image of
    /// so many columns and rows. `None` where that is less than two pixels in a direction.
    pub fn between(a: [f32; 2], b: [f32; 2], size: [usize; 2]) -> Option<Self> {
        let span = |axis: usize| {
            let last = size[axis].checked_sub(1)? as f32;
            let (low, high) = (a[axis].min(b[axis]), a[axis].max(b[axis]));
            if high < 0.0 || low >= last + 1.0 {
                return None;
            }
            let (first, end) = (low.floor().max(0.0), high.floor().min(last));
            (end > first).then_some((first as usize, (end - first) as usize + 1))
        };
        let ((x, width), (y, height)) = (span(0)?, span(1)?);
        Some(Self {
            x,
            y,
            width,
            height,
        })
    }
}

/// The copy as the window shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyState {
    /// As the person has chosen.
    pub wanted: CopyWanted,
    /// The job while it runs.
    pub job: Option<JobId>,
    /// What was done, line by line; doubts and what remains after it.
    pub done: Vec<String>,
    /// What the person must know about the copy.
    pub doubts: Vec<String>,
}

impl App {
    /// Carries out a command about the copy.
    pub(super) fn copy_command(&mut self, command: Command) {
        match command {
            Command::ShowCopy => {
                if self.copy_files(true).is_empty() {
                    self.notices.push(Notice::info(
                        "Nothing to copy",
                        "Open a DICOM study first. Volume files have no attributes to take away.",
                    ));
                } else {
                    self.copy.done.clear();
                    self.copy.doubts.clear();
                    // What was drawn on another image, and said of it, does not hold for this one.
                    let size = self.workspace.open.as_ref().map(|open| {
                        let [columns, rows, _] = open.data.geometry.dims();
                        [columns, rows]
                    });
                    let wanted = &mut self.copy.wanted;
                    wanted.regions.clear();
                    wanted.reviewed = false;
                    wanted.drawn_on = size.unwrap_or_default();
                    self.dialog = Some(Dialog::Copy);
                }
            }
            Command::SetCopy(wanted) => {
                let folder = self.copy.wanted.folder.take();
                self.copy.wanted = CopyWanted { folder, ..wanted };
            }
            Command::StartCopy => self.start_copy(),
            _ => {}
        }
    }

    /// Files of the open series, or of all series of its study.
    pub fn copy_files(&self, whole_study: bool) -> Vec<PathBuf> {
        let open = self.workspace.open.as_ref();
        let Some(SeriesKey::Stack { series, .. }) = open.map(|open| &open.key) else {
            return Vec::new();
        };
        let Some((_, study, series)) = self.browser.find(series) else {
            return Vec::new();
        };
        let chosen = if whole_study {
            study.series.iter().collect()
        } else {
            vec![series]
        };
        let sources = chosen.into_iter().flat_map(|series| {
            let images = series.stacks.iter().flat_map(|stack| &stack.images);
            images.map(|image| &image.source).chain(&series.objects)
        });
        let mut files: Vec<PathBuf> = sources.map(|source| source.file().clone()).collect();
        files.sort();
        files.dedup();
        files
    }

    fn start_copy(&mut self) {
        let inputs = self.copy_files(self.copy.wanted.whole_study);
        if self.copy.job.is_some() || inputs.is_empty() || self.copy.wanted.folder.is_none() {
            return;
        }
        let (job, task) = self.start(
            JobKind::Export,
            "Writing a copy without identity".to_owned(),
        );
        self.copy.job = Some(job);
        self.copy.done.clear();
        self.copy.doubts.clear();
        self.actions.push(Action::Copy {
            job,
            inputs,
            wanted: self.copy.wanted.clone(),
            task,
        });
    }

    /// Says what was done.
    pub(super) fn copied(&mut self, job: JobId, done: Vec<String>, doubts: Vec<String>) {
        self.finish(job);
        self.copy.done = done;
        self.copy.doubts = doubts;
        if self.dialog != Some(Dialog::Copy) {
            self.notices.push(Notice::info(
                "The copy without identity is written",
                &self.copy.done.join("; "),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PixelRegion;

    #[test]
    fn a_region_has_the_pixels_under_both_corners_and_stays_in_the_image() {
        let size = [64, 48];
        let region = |x, y, width, height| {
            Some(PixelRegion {
                x,
                y,
                width,
                height,
            })
        };
        let between = |a, b| PixelRegion::between(a, b, size);
        assert_eq!(between([3.2, 5.9], [9.0, 6.1]), region(3, 5, 7, 2));
        // From the lower right as from the upper left.
        assert_eq!(between([9.0, 6.1], [3.2, 5.9]), region(3, 5, 7, 2));
        // Beyond the edges it ends at them.
        assert_eq!(between([-20.0, -3.0], [500.0, 400.0]), region(0, 0, 64, 48));
        assert_eq!(between([62.5, 46.5], [70.0, 47.2]), region(62, 46, 2, 2));
        // A click, a line, and what lies beside the image are none.
        assert_eq!(between([3.0, 3.0], [3.9, 3.9]), None);
        assert_eq!(between([3.0, 3.0], [3.9, 9.0]), None);
        assert_eq!(between([-9.0, 3.0], [-1.0, 9.0]), None);
        assert_eq!(between([64.0, 3.0], [70.0, 9.0]), None);
        assert_eq!(PixelRegion::between([0.0; 2], [9.0; 2], [0, 0]), None);
    }
}
