//! Networks that run on another machine, called with what a network here would get.
//!
//! Everything around the network stays here: conforming, normalizing, moving the patch, weighting,
//! the way back, and all geometry. So a result can only differ from one made here by what the other
//! machine computes. Absent on purpose: networks in the other sense, retries, names of servers.

use std::fmt::Debug;
use std::sync::Arc;

use super::Error;
use super::native::{Native, Workspace};
use super::network::Network;
use super::procedure::NetworkError;
use super::tensor::Array;
use crate::task::Task;

/// One call of a network: numbers alone, nothing that names anyone.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which network of the model: a cascade's stage and a fold, empty where there is one alone.
    pub part: &'a str,
    /// `[1, channels, …size]`.
    pub shape: &'a [usize],
    /// Row-major, prepared as the network wants them.
    pub values: &'a [f32],
}

/// Runs a model's networks elsewhere.
///
/// What comes back has the length that was asked for, and scores are finite: that is the
/// implementation's promise, whatever the other machine says.
pub trait Elsewhere: Debug + Send + Sync {
    /// What ran the network, for the record.
    fn device(&self) -> String;

    /// Most bytes of values that one call may carry.
    fn most_bytes(&self) -> u64;

    /// A label for each point of the last axes.
    ///
    /// # Errors
    /// [`Error::Elsewhere`], [`Error::Cancelled`].
    fn labels(&self, call: &Call<'_>, task: &Task) -> Result<Vec<u8>, Error>;

    /// `heads` scores for each point, head by head.
    ///
    /// # Errors
    /// As [`Elsewhere::labels`].
    fn scores(&self, call: &Call<'_>, heads: usize, task: &Task) -> Result<Vec<f32>, Error>;

    /// A score for each of the `classes` of one whole image.
    ///
    /// # Errors
    /// As [`Elsewhere::labels`].
    fn class_scores(&self, call: &Call<'_>, classes: usize, task: &Task)
    -> Result<Vec<f32>, Error>;
}

/// What a run exchanges with another machine, at most: before any compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls.
    pub calls: u64,
    /// Values that leave.
    pub sent_bytes: u64,
    /// Labels or scores that come back.
    pub received_bytes: u64,
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_bytes: self.received_bytes + other.received_bytes,
        }
    }
}

/// Slabs of slices: those whose labels are wanted, and those that the network must see for them.
struct Slab {
    wanted: std::ops::Range<usize>,
    seen: std::ops::Range<usize>,
}

/// Slices along the first axis in slabs that one call can carry, each with the slices around it that
/// its labels depend on.
fn slabs(network: &Network, dims: [usize; 3], most_bytes: u64) -> Result<Vec<Slab>, Error> {
    let slice = 4 * (dims[1] * dims[2]) as u64;
    let most = usize::try_from(most_bytes / slice.max(1)).unwrap_or(usize::MAX);
    if dims[0] <= most {
        return Ok(vec![Slab {
            wanted: 0..dims[0],
            seen: 0..dims[0],
        }]);
    }
    let reach = network.reach();
    let Some(own) = reach.and_then(|reach| most.checked_sub(2 * reach + 1)) else {
        let why = match reach {
            Some(reach) => format!("each slice needs {reach} others on both sides"),
            None => "its norms need the whole image at once".to_owned(),
        };
        return Err(Error::Input(format!(
            "the other machine takes {} MB at once, less than this model needs ({why})",
            most_bytes / 1_000_000
        )));
    };
    let (own, reach) = (own + 1, reach.unwrap_or(0));
    let starts = (0..dims[0]).step_by(own);
    let slab = |start: usize| {
        let end = (start + own).min(dims[0]);
        Slab {
            wanted: start..end,
            seen: start.saturating_sub(reach)..(end + reach).min(dims[0]),
        }
    };
    Ok(starts.map(slab).collect())
}

/// What [`layers`] exchanges.
///
/// # Errors
/// [`Error::Input`] for a network whose smallest part is more than one call may carry.
pub fn layers_traffic(
    network: &Network,
    dims: [usize; 3],
    most_bytes: u64,
) -> Result<Traffic, Error> {
    let slice = (dims[1] * dims[2]) as u64;
    let each = slabs(network, dims, most_bytes)?;
    Ok(each.iter().fold(Traffic::default(), |sum, slab| {
        let bytes = slab.seen.len() as u64 * slice;
        sum.and(Traffic {
            calls: 1,
            sent_bytes: 4 * bytes,
            received_bytes: bytes,
        })
    }))
}

/// Labels of a box of prepared values, `[k][j][i]`, by layers elsewhere; in slabs where one call
/// cannot carry all, with the same labels as in one.
///
/// # Errors
/// As [`Elsewhere::labels`]; [`Error::Input`] as [`layers_traffic`]; [`Error::Elsewhere`] for labels
/// that the model does not have.
pub fn layers(
    elsewhere: &dyn Elsewhere,
    network: &Network,
    values: &[f32],
    dims: [usize; 3],
    task: &Task,
) -> Result<Vec<u8>, Error> {
    let slice = dims[1] * dims[2];
    let mut labels = Vec::with_capacity(values.len());
    let all = slabs(network, dims, elsewhere.most_bytes())?;
    task.begin("On the other machine", all.len());
    for (n, slab) in all.iter().enumerate() {
        task.check()?;
        let shape = [1, 1, slab.seen.len(), dims[1], dims[2]];
        let call = Call {
            part: "",
            shape: &shape,
            values: &values[slab.seen.start * slice..slab.seen.end * slice],
        };
        let found = elsewhere.labels(&call, task)?;
        let first = slab.wanted.start - slab.seen.start;
        let wanted = first * slice..(first + slab.wanted.len()) * slice;
        let wanted = found.get(wanted).ok_or_else(|| short(found.len()))?;
        let classes = network.classes();
        if let Some(label) = wanted.iter().find(|l| usize::from(**l) >= classes) {
            return Err(Error::Elsewhere(
                format!(
                    "it sent the label {label}, the model has 0 to {}",
                    classes - 1
                )
                .into(),
            ));
        }
        labels.extend_from_slice(wanted);
        task.report(n + 1, all.len());
    }
    Ok(labels)
}

fn short(length: usize) -> Error {
    Error::Elsewhere(format!("it sent {length} values, fewer than were asked for").into())
}

/// A score for each class of an image, as the network would give it here.
///
/// # Errors
/// As [`Elsewhere::class_scores`]; [`Error::Elsewhere`] for scores that cannot be those of the model.
pub(super) fn classes(
    elsewhere: &dyn Elsewhere,
    input: &Array,
    classes: usize,
    task: &Task,
) -> Result<Vec<f32>, Error> {
    let call = Call {
        part: "",
        shape: &input.shape,
        values: &input.values,
    };
    let scores = elsewhere.class_scores(&call, classes, task)?;
    if scores.len() != classes || scores.iter().any(|s| !s.is_finite()) {
        return Err(Error::Elsewhere(
            format!(
                "it sent {} scores for {classes} classes, or one that is no number",
                scores.len()
            )
            .into(),
        ));
    }
    Ok(scores)
}

/// What whole images exchange.
///
/// # Errors
/// [`Error::Input`] for an image that is more than one call may carry.
pub(super) fn classes_traffic(
    images: usize,
    size: &[usize],
    classes: usize,
    most_bytes: u64,
) -> Result<Traffic, Error> {
    let image = 4 * size.iter().product::<usize>() as u64;
    if image > most_bytes {
        return Err(Error::Input(format!(
            "the other machine takes {most_bytes} bytes at once, an image of this model has {image}"
        )));
    }
    Ok(Traffic {
        calls: images as u64,
        sent_bytes: image * images as u64,
        received_bytes: 4 * (classes * images) as u64,
    })
}

/// Networks on patches, here or elsewhere.
pub(super) enum Patches<'a> {
    /// On this machine.
    Here {
        members: &'a [Native],
        workspace: Workspace,
    },
    /// On another one: the part's name for each fold.
    There {
        elsewhere: Arc<dyn Elsewhere>,
        parts: Vec<String>,
        heads: usize,
    },
}

impl<'a> Patches<'a> {
    /// On this machine, by fold.
    pub fn here(members: &'a [Native]) -> Self {
        Self::Here {
            members,
            workspace: Workspace::default(),
        }
    }

    /// Runs a fold on a patch of shape `[1, channels, …patch]`.
    pub fn run(
        &mut self,
        fold: usize,
        shape: &[usize],
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
        task: &Task,
    ) -> Result<(), NetworkError> {
        match self {
            Self::Here { members, workspace } => {
                let input = Array::new(shape, patch.to_vec());
                let results = members[fold].run(&input, workspace, task)?;
                take(0, &results[0].values);
            }
            Self::There {
                elsewhere,
                parts,
                heads,
            } => {
                let call = Call {
                    part: &parts[fold],
                    shape,
                    values: patch,
                };
                let scores = elsewhere.scores(&call, *heads, task)?;
                let points: usize = shape[2..].iter().product();
                if scores.len() != *heads * points {
                    return Err(short(scores.len()).into());
                }
                take(0, &scores);
            }
        }
        Ok(())
    }
}

/// What patches exchange.
pub(super) fn patches_traffic(
    runs: u64,
    channels: usize,
    heads: usize,
    patch: &[usize],
) -> Traffic {
    let points = patch.iter().product::<usize>() as u64;
    Traffic {
        calls: runs,
        sent_bytes: 4 * runs * points * channels as u64,
        received_bytes: 4 * runs * points * heads as u64,
    }
}

/// Bytes held around one patch that is computed elsewhere: its values and scores, twice each, as
/// numbers and on their way.
pub(super) fn patch_bytes(channels: usize, heads: usize, patch: &[usize]) -> u64 {
    let points = patch.iter().product::<usize>() as u64;
    8 * points * (channels + heads) as u64
}
