//! The state of a run in one file that is whole or not there.
//!
//! A line, the length of a JSON head, the head, numbers as they are in memory, and the SHA-256 of
//! all that. Nothing of chance is stored: it comes from counters.

use std::io::Read as _;
use std::path::Path;

use super::Error;
use crate::model::sha256_hex;
use crate::whole_file;

const FIRST_LINE: &[u8] = b"negatoscope-checkpoint/1\n";
/// Bytes of a checkpoint that are read at most.
const LARGEST: u64 = 16 << 30;

/// An epoch that is done.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpochFigures {
    /// From 0.
    pub epoch: usize,
    /// Mean loss of its steps.
    pub training_loss: f64,
    /// Mean loss on the validation samples.
    pub validation_loss: f64,
    /// AUC or mean Dice on them.
    pub score: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
}

/// Everything that a run needs to go on as if nothing had happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Epoch that is under way.
    pub epoch: usize,
    /// Steps of it that are done.
    pub step: usize,
    /// Steps that are done altogether.
    pub steps: u64,
    /// Sum of the losses of this epoch.
    pub loss: f64,
    /// All tensors.
    pub values: Vec<f32>,
    /// The optimizer's memory.
    pub first: Vec<f32>,
    /// The optimizer's other memory.
    pub second: Vec<f32>,
    /// The running average of the tensors; empty without one.
    pub average: Vec<f32>,
    /// The best tensors so far; empty before the first validation.
    pub best: Vec<f32>,
    /// Their epoch and score.
    pub best_figures: Option<(usize, f64)>,
    /// Epochs that are done.
    pub history: Vec<EpochFigures>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    run: String,
    epoch: usize,
    step: usize,
    steps: u64,
    /// Bits, so that nothing is rounded.
    loss: u64,
    lengths: [usize; 5],
    best_figures: Option<(usize, u64)>,
    history: Vec<[u64; 5]>,
}

impl Head {
    fn figures(&self) -> Vec<EpochFigures> {
        let figures = self.history.iter().map(|e| EpochFigures {
            epoch: e[0] as usize,
            training_loss: f64::from_bits(e[1]),
            validation_loss: f64::from_bits(e[2]),
            score: f64::from_bits(e[3]),
            learning_rate: f64::from_bits(e[4]),
        });
        figures.collect()
    }
}

impl State {
    fn arrays(&self) -> [&Vec<f32>; 5] {
        [
            &self.values,
            &self.first,
            &self.second,
            &self.average,
            &self.best,
        ]
    }

    /// Writes the state; `run` says which recipe and data it belongs to. An older file stays until
    /// the new one is on disk.
    ///
    /// # Errors
    /// [`Error::Io`], e.g. a full disk.
    pub fn write(&self, path: &Path, run: &str) -> Result<(), Error> {
        let history = self.history.iter().map(|e| {
            [
                e.epoch as u64,
                e.training_loss.to_bits(),
                e.validation_loss.to_bits(),
                e.score.to_bits(),
                e.learning_rate.to_bits(),
            ]
        });
        let head = Head {
            run: run.to_owned(),
            epoch: self.epoch,
            step: self.step,
            steps: self.steps,
            loss: self.loss.to_bits(),
            lengths: self.arrays().map(Vec::len),
            best_figures: self.best_figures.map(|(e, s)| (e, s.to_bits())),
            history: history.collect(),
        };
        let head = serde_json::to_vec(&head).expect("a head is plain data");
        let mut bytes = FIRST_LINE.to_vec();
        bytes.extend((head.len() as u64).to_le_bytes());
        bytes.extend(&head);
        for array in self.arrays() {
            bytes.extend(array.iter().flat_map(|v| v.to_le_bytes()));
        }
        let hash = sha256_hex(&bytes);
        whole_file::write(path, |w| -> std::io::Result<()> {
            w.write_all(&bytes)?;
            w.write_all(hash.as_bytes())
        })
        .map_err(|source| Error::Io {
            action: "written",
            source,
            path: path.to_owned(),
        })
    }

    /// Reads a state of the same run.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a damaged file or one of another run, [`Error::Io`].
    pub fn read(path: &Path, run: &str) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Checkpoint {
            reason: reason.to_owned(),
            path: path.to_owned(),
        };
        let io = |source| Error::Io {
            action: "read",
            source,
            path: path.to_owned(),
        };
        if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
            return Err(refused("it is too large"));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        Self::parse(&bytes, run).map_err(|reason| refused(&reason))
    }

    fn parse(bytes: &[u8], run: &str) -> Result<Self, String> {
        let damaged = || "it is damaged".to_owned();
        let end = bytes.len().checked_sub(64).ok_or_else(damaged)?;
        let (body, hash) = bytes.split_at(end);
        if sha256_hex(body).as_bytes() != hash {
            return Err(damaged());
        }
        let rest = body.strip_prefix(FIRST_LINE).ok_or_else(damaged)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (head, mut rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let head: Head = serde_json::from_slice(head).map_err(|_| damaged())?;
        if head.run != run {
            return Err("its recipe or its data were others".to_owned());
        }
        let mut arrays = Vec::new();
        for length in head.lengths {
            let size = length.checked_mul(4).ok_or_else(damaged)?;
            let (array, other) = rest.split_at_checked(size).ok_or_else(damaged)?;
            rest = other;
            let words = array.as_chunks::<4>().0;
            arrays.push(words.iter().map(|w| f32::from_le_bytes(*w)).collect());
        }
        let mut arrays = arrays.into_iter();
        let mut next = || arrays.next().unwrap_or_default();
        let history = head.figures();
        Ok(Self {
            epoch: head.epoch,
            step: head.step,
            steps: head.steps,
            loss: f64::from_bits(head.loss),
            values: next(),
            first: next(),
            second: next(),
            average: next(),
            best: next(),
            best_figures: head.best_figures.map(|(e, s)| (e, f64::from_bits(s))),
            history,
        })
    }
}

/// Bytes of a checkpoint's head that are read at most.
const LARGEST_HEAD: u64 = 16 << 20;

/// The epochs that a checkpoint tells of, whatever run it belongs to, without its tensors: for
/// looking on. What is damaged further back is not seen.
///
/// # Errors
/// [`Error::Checkpoint`], [`Error::Io`].
pub fn history(path: &Path) -> Result<Vec<EpochFigures>, Error> {
    let io = |source| Error::Io {
        action: "read",
        source,
        path: path.to_owned(),
    };
    let damaged = || Error::Checkpoint {
        reason: "it is damaged".to_owned(),
        path: path.to_owned(),
    };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mut start = [0; FIRST_LINE.len() + 8];
    file.read_exact(&mut start).map_err(|_| damaged())?;
    let (line, length) = start.split_at(FIRST_LINE.len());
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes are left"));
    if line != FIRST_LINE || length > LARGEST_HEAD {
        return Err(damaged());
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).map_err(io)?;
    let head: Head = serde_json::from_slice(&head).map_err(|_| damaged())?;
    Ok(head.figures())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            epoch: 3,
            step: 7,
            steps: 37,
            loss: 0.1 + 0.2,
            values: vec![1.0, -0.0, f32::MIN_POSITIVE],
            first: vec![0.3],
            second: Vec::new(),
            average: vec![2.0],
            best: vec![5.0, 6.0],
            best_figures: Some((2, 0.1)),
            history: vec![EpochFigures {
                epoch: 0,
                training_loss: 0.7,
                validation_loss: f64::NAN,
                score: 0.9,
                learning_rate: 1e-3,
            }],
        }
    }

    #[test]
    fn a_state_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.bin");
        let mut state = state();
        state.history[0].validation_loss = 0.6;
        state.write(&path, "run").unwrap();
        assert_eq!(State::read(&path, "run").unwrap(), state);
        assert_eq!(history(&path).unwrap(), state.history);
        let other = State::read(&path, "other").unwrap_err();
        assert!(
            other.to_string().contains("its recipe or its data"),
            "{other}"
        );
    }

    #[test]
    fn damage_is_seen_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.bin");
        state().write(&path, "run").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            assert!(State::parse(&whole[..end], "run").is_err());
        }
        for end in 0..60 {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(history(&path).is_err());
        }
        for at in (0..whole.len()).step_by(3) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(State::parse(&altered, "run").is_err());
        }
    }

    #[test]
    fn a_full_disk_leaves_the_old_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.bin");
        state().write(&path, "run").unwrap();
        let before = std::fs::read(&path).unwrap();
        // Nothing can be written into a folder that is gone.
        let nowhere = folder.path().join("gone").join("checkpoint.bin");
        assert!(matches!(
            state().write(&nowhere, "run"),
            Err(Error::Io { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
