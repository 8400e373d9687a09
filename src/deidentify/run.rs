//! Many files: each is written whole under its new name, or named in the report with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::clean::{Cleaned, clean};
use super::faces::{Faces, is_head};
use super::pixel_work::{PixelWork, PixelsDone};
use super::report::{Line, Report};
use super::{Error, Key, Options};
use crate::audit::Receipt;
use crate::dicom::Sources;
use crate::task::Task;
use crate::whole_file;

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Files, folders, ZIP archives.
    pub inputs: &'a [PathBuf],
    /// Folder to write; made when absent.
    pub out: &'a Path,
    /// What is kept beyond the Basic Profile.
    pub options: Options,
    /// Write files whose pixels may show text.
    pub allow_burned_in: bool,
    /// What is done to pixels.
    pub pixel_work: PixelWork,
    /// The secret.
    pub key: &'a Key,
}

/// De-identifies everything below the inputs.
///
/// The names of written files are new UIDs: `study/series/instance.dcm`. Nothing in a written file
/// depends on the time or the order, so a run that was killed goes on where it was: files that are
/// there with the same content are left alone.
///
/// # Errors
/// The folder lies in what is read, cannot be written, or the task was stopped. A file that cannot
/// be read or cleaned is no error: the report names it.
pub fn run(request: &Request<'_>, _on_record: &Receipt, task: &Task) -> Result<Report, Error> {
    refuse_overlap(request)?;
    task.begin("Looking for files", 0);
    let sources = Sources::find(request.inputs, task)?;
    let files = sources.found.len() + sources.skipped.len();
    let mut report = Report::new(&request.options, request.allow_burned_in, files);
    for skipped in &sources.skipped {
        report.refused.push(Line {
            file: request.key.file_label(&skipped.source.to_string()),
            reason: skipped.reason.clone(),
        });
    }
    fs::create_dir_all(request.out).map_err(|source| Error::Io {
        action: "creating",
        source,
        path: request.out.to_owned(),
    })?;
    remove_leftovers(request.out);
    let faces = if request.pixel_work.deface {
        Faces::find(&sources, task)?
    } else {
        Faces::default()
    };
    task.begin("De-identifying", sources.found.len());
    let mut seen = Seen::default();
    for source in &sources.found {
        task.check()?;
        task.advance(1);
        let path = source.to_string();
        let file = request.key.file_label(&path);
        let cleaned = sources
            .open(source)
            .map_err(reason_of)
            .and_then(|mut tree| {
                seen.looked_at_head = is_head(&tree);
                let work = &request.pixel_work;
                let pixels = work.carry_out(&mut tree, &path, &file, &faces)?;
                let mut cleaned = clean(tree, &request.options, request.key)?;
                if request.pixel_work.reviewed && !pixels.regions.is_empty() {
                    cleaned.also_done("113101", "Clean Pixel Data Option");
                }
                if pixels.defaced {
                    cleaned.also_done("113102", "Clean Recognizable Visual Features Option");
                }
                Ok((cleaned, pixels))
            });
        match cleaned {
            Ok((cleaned, pixels)) => seen.take(cleaned, &pixels, file, request, &mut report)?,
            Err(reason) => report.refused.push(Line { file, reason }),
        }
    }
    report.patients = seen.patients.len();
    report.studies = seen.studies.len();
    report.series = seen.series.len();
    report.conclude(&request.options, seen.heads);
    Ok(report)
}

#[derive(Default)]
struct Seen {
    paths: BTreeSet<PathBuf>,
    patients: BTreeSet<String>,
    studies: BTreeSet<String>,
    series: BTreeSet<String>,
    looked_at_head: bool,
    heads: usize,
}

impl Seen {
    fn take(
        &mut self,
        cleaned: Cleaned,
        pixels: &PixelsDone,
        file: String,
        request: &Request<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        report.tell_pixels(pixels, &file, request.pixel_work.reviewed);
        if let Some(reason) = pixels.face {
            let reason = reason.to_owned();
            report.held_back.push(Line { file, reason });
            return Ok(());
        }
        if let Some(reason) = pixels.risk {
            let line = Line {
                file: file.clone(),
                reason: reason.to_owned(),
            };
            if !request.allow_burned_in {
                report.held_back.push(line);
                return Ok(());
            }
            report.risky.push(line);
        }
        let [study, series, instance] = &cleaned.uids;
        let folder = request.out.join(study.as_str()).join(series.as_str());
        let path = folder.join(format!("{instance}.dcm"));
        let mut bytes = Vec::new();
        let encoded = cleaned
            .tree
            .write(&mut bytes, &cleaned.sop_class_uid, instance);
        if let Err(error) = encoded {
            report.refused.push(Line {
                file,
                reason: error.to_string(),
            });
            return Ok(());
        }
        let first = self.paths.insert(path.clone());
        match fs::read(&path) {
            Ok(there) if there == bytes && first => report.already_there += 1,
            Ok(there) if there == bytes => {
                report.repeated += 1;
                return Ok(());
            }
            Ok(_) => {
                let reason = if first {
                    "a file of this new name is there with other content: use another folder"
                } else {
                    "a second instance with the same UID and other content"
                };
                report.refused.push(Line {
                    file,
                    reason: reason.to_owned(),
                });
                return Ok(());
            }
            Err(_) => {
                let failed = |source| Error::Io {
                    action: "writing",
                    source,
                    path: path.clone(),
                };
                fs::create_dir_all(&folder).map_err(failed)?;
                whole_file::write(&path, |w: &mut dyn Write| w.write_all(&bytes))
                    .map_err(failed)?;
                report.written += 1;
            }
        }
        self.heads += usize::from(self.looked_at_head && !pixels.defaced);
        report.defaced += usize::from(pixels.defaced);
        self.patients.insert(cleaned.tree.text_of(0x0010_0020));
        self.studies.insert(study.to_string());
        self.series.insert(series.to_string());
        for (what, count) in cleaned.counts {
            *report.attributes.entry(what.to_owned()).or_default() += count;
        }
        for (into, from) in [
            (&mut report.doubts, cleaned.doubts),
            (&mut report.kept_texts, cleaned.kept_texts),
        ] {
            for (what, count) in from {
                *into.entry(what).or_default() += count;
            }
        }
        Ok(())
    }
}

/// Why a file cannot be read, without values of the file.
fn reason_of(error: crate::dicom::Error) -> String {
    match error {
        crate::dicom::Error::UnknownSyntax { .. } => {
            "a transfer syntax that is not supported".to_owned()
        }
        error => error.to_string(),
    }
}

/// What is written must not be read in the next run, nor lie among the originals.
fn refuse_overlap(request: &Request<'_>) -> Result<(), Error> {
    let real = |path: &Path| -> PathBuf {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // The folder may not exist yet: its nearest ancestor that does is what counts.
        for ancestor in absolute.ancestors() {
            if let Ok(found) = ancestor.canonicalize() {
                let rest = absolute.strip_prefix(ancestor).unwrap_or(Path::new(""));
                return found.join(rest);
            }
        }
        absolute
    };
    let out = real(request.out);
    for input in request.inputs {
        let input = real(input);
        if out.starts_with(&input) || input.starts_with(&out) {
            return Err(Error::Overlap {
                path: request.out.to_owned(),
            });
        }
    }
    Ok(())
}

/// Unfinished files of runs that are no more: `.name.dcm.pid-number.part`.
fn remove_leftovers(out: &Path) {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(path) else {
            return Vec::new();
        };
        entries.flatten().map(|entry| entry.path()).collect()
    };
    for study in folders(out) {
        for series in folders(&study) {
            for file in folders(&series) {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let process = name
                    .strip_prefix('.')
                    .and_then(|n| n.strip_suffix(".part"))
                    .and_then(|n| n.rsplit_once(".dcm."))
                    .and_then(|(_, tail)| tail.split('-').next()?.parse::<u32>().ok());
                let dead = process.is_some_and(|id| {
                    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{id}")).exists()
                });
                if dead {
                    let _ = fs::remove_file(&file);
                }
            }
        }
    }
}
