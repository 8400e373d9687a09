//! Runs on servers whose result the window shows: on images that are open.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch_engine::LocalEngine;
use super::home::Home;
use super::leaving::Leaving;
use super::remote_jobs::{RemoteError, RemoteWork};
use super::remote_run::RemoteRun;
use crate::batch::Failure;
use crate::findings::{Assessment, ExplanationMethod, Segmentation};
use crate::inference::{Call, Elsewhere, Error, Watch};
use crate::queue::{Job, JobId, Queue, State};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// What a job says whose answers are all here.
const ANSWERED: &str =
    "answered; open its images and go on to see the result, nothing is sent again";
/// What a job says that was done here in place of a server, until its result has been shown.
const DONE_HERE: &str = "done on this machine, since the server could not be reached";
/// Longest time that is spent on a picture of what leaves.
const PICTURE_TIME: Duration = Duration::from_secs(2);

/// How a run for the window ended.
pub(super) enum Ended {
    /// With a result.
    Result(Box<Segmentation>),
    /// With what a model of whole images says, and how that can be explained here. Its job is done.
    Findings(Vec<Assessment>, Vec<ExplanationMethod>),
    /// The server is away; the job waits, and says why.
    Waits(String),
    /// A person stopped it; the job waits.
    Stopped,
    /// It cannot be done.
    Failed(String),
}

/// The job that waits for the same work at the same place, or a new one.
pub(super) fn job_for(
    queue: &Queue,
    endpoint: &str,
    work: RemoteWork,
) -> Result<JobId, RemoteError> {
    let (jobs, _) = queue.list::<RemoteWork>()?;
    let same = |job: &&Job<RemoteWork>| {
        !job.state.is_over() && job.endpoint == endpoint && job.work == work
    };
    let known = jobs.iter().filter(same).find(|j| !queue.is_running(&j.id));
    match known {
        Some(job) => Ok(job.id.clone()),
        None => Ok(super::enqueue(queue, endpoint, work)?.id),
    }
}

/// A result is on screen: its job is done.
pub(super) fn close(home: &Home, name: &str) -> Result<(), RemoteError> {
    let queue = Queue::open(home.root())?;
    let mut job: Job<RemoteWork> = queue.find(name)?;
    let running = queue.take(&job.id)?;
    job.state = State::Done {
        words: "shown".to_owned(),
    };
    Ok(running.update(&job)?)
}

impl RemoteRun {
    /// Asks the server whether it has the model, and counts what would leave of open images.
    pub(super) fn leaving_of(
        &self,
        volumes: &[&Volume],
        task: &Task,
    ) -> Result<Leaving, RemoteError> {
        let mut leaving = self.asked(0, task)?;
        if let Some(first) = volumes.first() {
            self.count(0, &mut leaving, first, task)?;
        }
        self.sum_up(0, leaving)
    }

    /// One of the pieces that would leave, as a gray picture: width, height, RGBA.
    pub(super) fn picture(
        &self,
        volumes: &[&Volume],
        task: &Task,
    ) -> Option<(usize, usize, Arc<Vec<u8>>)> {
        task.begin("Looking at what would leave", 0);
        let rehearsal = Arc::new(Rehearsal {
            most_bytes: self.server().most_bytes(),
            begun: Instant::now(),
            best: Mutex::default(),
        });
        let there = Arc::clone(&rehearsal) as Arc<dyn Elsewhere>;
        // It stops itself when it has seen enough; what it was stopped by does not matter.
        let _ = self
            .engine()
            .model
            .rehearse(volumes, self.job().work.mirroring, there, task);
        let best = rehearsal
            .best
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let best = best.as_ref()?;
        let [low, high] = best.range;
        let gray = best.values.iter().flat_map(|v| {
            let level = ((v - low) / (high - low).max(f32::MIN_POSITIVE) * 255.0) as u8;
            [level, level, level, 255]
        });
        Some((best.width, best.height, Arc::new(gray.collect())))
    }

    /// Lets the job wait.
    pub(super) fn put_off(mut self, why: String) -> Result<(), RemoteError> {
        self.job.state = State::Waiting { why };
        Ok(self.running.update(&self.job)?)
    }

    /// Whether anything has left for the job, this time or earlier.
    pub(super) fn has_sent(&self) -> bool {
        self.job.sent_bytes > 0 || self.running.answers.count() > 0
    }

    /// Runs on open images; `watch` is shown a mask before it is whole. The job waits until its mask
    /// has been shown.
    pub(super) fn run_shown(
        mut self,
        volumes: &[&Volume],
        watch: Watch,
        task: &Task,
    ) -> Result<Ended, RemoteError> {
        self.within_limits()?;
        self.interrupted()?;
        let ran = on_images(self.engine(), volumes, ANSWERED, watch.clone(), task);
        self.count_moved();
        if ran.is_err() && self.may_fall_back() && !task.is_cancelled() {
            return self.here_shown(volumes, watch, task);
        }
        let failed = |why: String| (State::Failed { why: why.clone() }, Ended::Failed(why));
        let (state, ended) = match (ran, self.server().ended(), self.server().trouble()) {
            (Ok(ended), ..) => ended,
            (Err(_), Some(why), _) => failed(why),
            (Err(_), _, Some(why)) => (waiting(&why), Ended::Waits(why)),
            (Err(Failure::Cancelled), ..) => (waiting("stopped"), Ended::Stopped),
            (Err(Failure::Reason(why)), ..) => failed(why),
        };
        self.job.state = state;
        self.running.update(&self.job)?;
        Ok(ended)
    }

    /// Runs on open images on this machine, in place of a server that cannot be reached; the result
    /// says so.
    pub(super) fn here_shown(
        mut self,
        volumes: &[&Volume],
        watch: Watch,
        task: &Task,
    ) -> Result<Ended, RemoteError> {
        self.interrupted()?;
        let here = self.engine_here(Some(self.job.endpoint.clone()));
        let (state, ended) = match on_images(&here, volumes, DONE_HERE, watch, task) {
            Ok(ended) => ended,
            Err(Failure::Cancelled) => (waiting("stopped"), Ended::Stopped),
            Err(Failure::Reason(reason)) => (
                State::Failed {
                    why: reason.clone(),
                },
                Ended::Failed(reason),
            ),
        };
        self.job.state = state;
        self.running.update(&self.job)?;
        Ok(ended)
    }
}

fn waiting(why: &str) -> State {
    State::Waiting {
        why: why.to_owned(),
    }
}

/// What a model finds on open images, and what its job says then: a mask's until it has been shown.
/// Findings are one small answer an image, and not waited for.
fn on_images(
    engine: &LocalEngine,
    volumes: &[&Volume],
    words: &str,
    watch: Watch,
    task: &Task,
) -> Result<(State, Ended), Failure> {
    if !engine.model.classifies() {
        let found = engine.segment_of(volumes, Some(watch), task)?;
        return Ok((waiting(words), Ended::Result(Box::new(found))));
    }
    let [image] = volumes else {
        return Err(Failure::Reason("it looks at one series alone".to_owned()));
    };
    let found = engine.assess_of(image, task)?;
    let done = State::Done {
        words: "shown".to_owned(),
    };
    Ok((
        done,
        Ended::Findings(found, engine.model.explanation_methods()),
    ))
}

/// Stands in for the server before anything leaves: keeps the piece that shows most.
#[derive(Debug)]
struct Rehearsal {
    most_bytes: u64,
    begun: Instant,
    best: Mutex<Option<Slice>>,
}

#[derive(Debug)]
struct Slice {
    width: usize,
    height: usize,
    values: Vec<f32>,
    range: [f32; 2],
    spread: f64,
}

impl Slice {
    /// The middle of a call's first channel.
    fn of(call: &Call<'_>) -> Option<Self> {
        let [.., height, width] = *call.shape else {
            return None;
        };
        let depth: usize = call.shape.get(2..call.shape.len() - 2)?.iter().product();
        let start = depth / 2 * height * width;
        let values = call.values.get(start..start + height * width)?.to_vec();
        let finite = values.iter().copied().filter(|v| v.is_finite());
        let range = finite.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], v| {
            [low.min(v), high.max(v)]
        });
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
        let spread = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
        Some(Self {
            width,
            height,
            values,
            range,
            spread,
        })
    }
}

impl Rehearsal {
    fn see(&self, call: &Call<'_>) -> Result<(), Error> {
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = Slice::of(call)
            && best
                .as_ref()
                .is_none_or(|known| slice.spread > known.spread)
        {
            *best = Some(slice);
        }
        if self.begun.elapsed() > PICTURE_TIME {
            return Err(Error::Cancelled(Cancelled));
        }
        Ok(())
    }
}

impl Elsewhere for Rehearsal {
    fn device(&self) -> String {
        "none".to_owned()
    }

    fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    fn labels(&self, call: &Call<'_>, _task: &Task) -> Result<Vec<u8>, Error> {
        self.see(call)?;
        Ok(vec![0; call.shape[2..].iter().product()])
    }

    fn scores(&self, call: &Call<'_>, heads: usize, _task: &Task) -> Result<Vec<f32>, Error> {
        self.see(call)?;
        let points: usize = call.shape[2..].iter().product();
        Ok(vec![0.0; heads * points])
    }

    fn class_scores(
        &self,
        call: &Call<'_>,
        classes: usize,
        _task: &Task,
    ) -> Result<Vec<f32>, Error> {
        self.see(call)?;
        Ok(vec![0.0; classes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_slice_of_the_piece_that_shows_most_is_kept() {
        let rehearsal = Rehearsal {
            most_bytes: 1 << 20,
            begun: Instant::now(),
            best: Mutex::default(),
        };
        let task = Task::new();
        let shape = [1, 1, 3, 2, 2];
        for top in [0.0, 5.0, 1.0] {
            let mut values = [0.0; 12];
            values[7] = top;
            let call = Call {
                part: "",
                shape: &shape,
                values: &values,
            };
            assert_eq!(rehearsal.labels(&call, &task).unwrap().len(), 12);
            assert_eq!(rehearsal.scores(&call, 3, &task).unwrap().len(), 36);
        }
        let best = rehearsal.best.lock().unwrap();
        let best = best.as_ref().unwrap();
        assert_eq!((best.width, best.height), (2, 2));
        assert_eq!(best.values, [0.0, 0.0, 0.0, 5.0]);
        assert_eq!(best.range, [0.0, 5.0]);
    }
}
