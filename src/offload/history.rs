//! What runs took, here and elsewhere: the ground of every estimate. No identity: numbers, a model's
//! name and a place.
//!
//! `places/runs.jsonl` in the program's home, a line a run. A line that a kill has torn costs that
//! line alone; when the file is large, its older half goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::whole_file;

/// Size at which the older half goes.
const MOST_BYTES: u64 = 1 << 20;
/// Newest runs that an estimate looks at.
const RECENT: usize = 20;
/// A send below this says more of buffers than of the line.
pub(super) const TELLING_BYTES: u64 = 16 << 20;

/// One finished run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// When it ended, RFC 3339.
    pub time: String,
    /// `id@version`.
    pub model: String,
    /// Name of the endpoint; `None` for this machine.
    pub endpoint: Option<String>,
    /// Voxels of the scan.
    pub voxels: u64,
    /// Seconds that the plan said, of the part that happens here.
    pub planned_secs: f64,
    /// Seconds from its begin to its end.
    pub seconds: f64,
    /// Requests.
    pub requests: u64,
    /// Numbers that were sent.
    pub values: u64,
    /// Bytes that went over the line.
    pub sent_bytes: u64,
    /// Bytes that came back.
    pub received_bytes: u64,
    /// Until the last byte of each request was taken.
    pub sending_secs: f64,
    /// From then on until the answer began.
    pub server_secs: f64,
    /// Until the answer's last byte.
    pub receiving_secs: f64,
    /// By the prices of the endpoint at that time.
    pub cost: f64,
}

/// What is known of a model on an endpoint, for each number that is sent. Medians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Runs that it comes from.
    pub runs: usize,
    /// Bytes that went out.
    pub sent_bytes: f64,
    /// Bytes that came back.
    pub received_bytes: f64,
    /// Seconds of the server's work.
    pub server_secs: f64,
    /// Seconds of all that is not done here.
    pub away_secs: f64,
}

/// The runs of one home.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// That of a home; it need not exist yet.
    pub fn new(home: &Path) -> Self {
        Self {
            path: home.join("places").join("runs.jsonl"),
        }
    }

    /// Adds a run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, run: &Measured) -> io::Result<()> {
        let mut line = serde_json::to_vec(run)?;
        line.push(b'\n');
        let _lock = locked(&self.path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)?;
        let length = file.seek(SeekFrom::End(0))?;
        if length > 0 {
            // After a torn line, a new one begins.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
            // A full disk: what was written of the line goes away again, if the system lets us.
            let _ = file.set_len(length);
            return Err(error);
        }
        if length + line.len() as u64 > MOST_BYTES {
            let kept = self.read()?;
            let newer = &kept[kept.len() / 2..];
            whole_file::write(&self.path, |to| {
                newer.iter().try_for_each(|run| {
                    serde_json::to_writer(&mut *to, run)?;
                    to.write_all(b"\n")
                })
            })?;
        }
        Ok(())
    }

    /// All runs, the oldest first. What cannot be understood is left out.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(&self) -> io::Result<Vec<Measured>> {
        let mut text = Vec::new();
        match File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            // A file that somebody else has made huge is not read whole.
            other => other?.take(2 * MOST_BYTES).read_to_end(&mut text)?,
        };
        let lines = text.split(|&b| b == b'\n');
        let runs = lines.filter_map(|line| serde_json::from_slice(line).ok());
        Ok(runs.filter(Measured::is_sound).collect())
    }
}

impl Measured {
    /// Whether its numbers can be counted with.
    fn is_sound(&self) -> bool {
        let numbers = [
            self.planned_secs,
            self.seconds,
            self.sending_secs,
            self.server_secs,
            self.receiving_secs,
            self.cost,
        ];
        !self.model.is_empty() && numbers.iter().all(|n| n.is_finite() && *n >= 0.0)
    }
}

/// How much longer runs of a model take here than planned, and from how many runs that is known.
pub fn slowness_here(runs: &[Measured], model: &str) -> Option<(f64, usize)> {
    let ratios = recent(runs, |run| {
        let fits = run.endpoint.is_none() && run.model == model && run.planned_secs > 0.0;
        fits.then(|| run.seconds / run.planned_secs)
    });
    Some((median(ratios.clone())?, ratios.len()))
}

/// What a model takes on an endpoint.
pub fn pace(runs: &[Measured], model: &str, endpoint: &str) -> Option<Pace> {
    let of = |what: fn(&Measured) -> f64| {
        recent(runs, |run| {
            let fits = run.endpoint.as_deref() == Some(endpoint) && run.model == model;
            (fits && run.values > 0).then(|| what(run) / run.values as f64)
        })
    };
    let sent = of(|run| run.sent_bytes as f64);
    Some(Pace {
        runs: sent.len(),
        sent_bytes: median(sent)?,
        received_bytes: median(of(|run| run.received_bytes as f64))?,
        server_secs: median(of(|run| run.server_secs))?,
        away_secs: median(of(|run| {
            run.sending_secs + run.server_secs + run.receiving_secs
        }))?,
    })
}

/// Bytes that the line to an endpoint takes in a second; `None` before anything large went there.
pub fn sending_rate(runs: &[Measured], endpoint: &str) -> Option<f64> {
    median(recent(runs, |run| {
        let each = run.sent_bytes / run.requests.max(1);
        let telling = run.endpoint.as_deref() == Some(endpoint) && each >= TELLING_BYTES;
        (telling && run.sending_secs > 0.0).then(|| run.sent_bytes as f64 / run.sending_secs)
    }))
}

fn recent(runs: &[Measured], of: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
    runs.iter().rev().filter_map(of).take(RECENT).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// One process at a time, until the file that this gives is dropped.
pub(super) fn locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        whole_file::make_private_folder(folder)?;
    }
    let lock = File::create(path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run(endpoint: Option<&str>, n: u64) -> Measured {
        Measured {
            time: "2026-11-21T10:00:00Z".to_owned(),
            model: "m@1".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            voxels: 1000,
            planned_secs: 2.0,
            seconds: n as f64,
            requests: 1,
            values: 1000,
            sent_bytes: 2000 * n,
            received_bytes: 1000,
            sending_secs: 1.0,
            server_secs: n as f64,
            receiving_secs: 0.5,
            cost: 0.25,
        }
    }

    #[test]
    fn runs_come_back_and_a_torn_line_costs_itself_alone() {
        let home = tempfile::tempdir().unwrap();
        let history = History::new(home.path());
        assert_eq!(history.read().unwrap(), []);
        history.append(&run(None, 1)).unwrap();
        history.append(&run(Some("ward"), 2)).unwrap();
        let whole = fs::read(&history.path).unwrap();
        let first = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            fs::write(&history.path, &whole[..cut]).unwrap();
            history.append(&run(None, 3)).unwrap();
            let read = history.read().unwrap();
            // The last byte alone is the end of the line: what it ends is whole.
            let expected = match cut {
                n if n == whole.len() - 1 => {
                    vec![run(None, 1), run(Some("ward"), 2), run(None, 3)]
                }
                _ => vec![run(None, 1), run(None, 3)],
            };
            assert_eq!(read, expected, "{cut}");
        }
    }

    #[test]
    fn numbers_that_nobody_could_have_measured_are_left_out() {
        let home = tempfile::tempdir().unwrap();
        let history = History::new(home.path());
        history.append(&run(None, 1)).unwrap();
        let text = fs::read_to_string(&history.path).unwrap();
        let broken = text.replace("\"seconds\":1.0", "\"seconds\":-1.0");
        assert_ne!(text, broken);
        fs::write(&history.path, format!("{text}{broken}{{}}x\n[1]\n\u{0}\n")).unwrap();
        assert_eq!(history.read().unwrap(), [run(None, 1)]);
    }

    #[test]
    fn the_file_stays_small_and_keeps_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let history = History::new(home.path());
        history.append(&run(None, 7)).unwrap();
        let line = fs::read(&history.path).unwrap();
        let many = line.repeat(MOST_BYTES as usize / line.len() + 1);
        fs::write(&history.path, &many).unwrap();
        history.append(&run(Some("new"), 9)).unwrap();
        assert!(fs::metadata(&history.path).unwrap().len() < MOST_BYTES * 6 / 10);
        let read = history.read().unwrap();
        assert_eq!(read.last().unwrap(), &run(Some("new"), 9));
        assert!(read.len() > 1000);
    }

    #[test]
    fn estimates_are_medians_of_recent_runs_of_the_same_model_and_place() {
        let mut runs: Vec<Measured> = [4, 2, 100, 3, 1].map(|n| run(Some("a"), n)).into();
        runs.push(run(Some("b"), 50));
        runs.push(run(None, 8));
        runs.push(Measured {
            model: "other@1".to_owned(),
            ..run(Some("a"), 9)
        });
        assert_eq!(slowness_here(&runs, "m@1"), Some((4.0, 1)));
        assert_eq!(slowness_here(&runs, "none@1"), None);
        let pace = pace(&runs, "m@1", "a").unwrap();
        assert_eq!((pace.runs, pace.sent_bytes), (5, 6.0));
        assert_eq!(pace.server_secs, 3.0 / 1000.0);
        assert_eq!(pace.away_secs, 4.5 / 1000.0);
        assert_eq!(super::pace(&runs, "m@1", "c"), None);
        // Too small to tell anything of the line.
        assert_eq!(sending_rate(&runs, "a"), None);
        runs.push(Measured {
            sent_bytes: 64 << 20,
            sending_secs: 2.0,
            ..run(Some("a"), 1)
        });
        assert_eq!(sending_rate(&runs, "a"), Some((32 << 20) as f64));
    }
}
