//! Servers for the window: what is set up, what would leave, runs that a person has agreed to, and
//! the jobs that wait.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::carry_out::{failed, watch};
use super::compute::behind_the_window;
use super::home::Home;
use super::jobs::{Outbox, Stop};
use super::leaving::Leaving;
use super::models::LoadedModel;
use super::open::{LoadError, load_key};
use super::places::{Choice, choices};
use super::remote_jobs::{RemoteError, RemoteWork};
use super::remote_run::RemoteRun;
use super::remote_shown::{Ended, close, job_for};
use super::results::batch_row;
use crate::app::{
    ChannelSource, Event, JobId, LeavingPage, Notice, NoticeLevel, Place, PlaceEstimate, QueueRow,
    RemoteWork as Wanted, VolumeId,
};
use crate::batch::Plan;
use crate::export::Format;
use crate::offload::{Endpoints, Looked, look};
use crate::queue::{Job, Queue, State};
use crate::task::Task;
use crate::volume::{Volume, label_statistics};

const SENT: [&str; 3] = [
    "Image values, resampled and normalized for the model",
    "How many voxels each piece has",
    "The model's name, and a random number for each request",
];
const STAYS: [&str; 6] = [
    "Name, identifier, birth date, age and sex of the patient",
    "Dates and times of study, series and images",
    "All UIDs and accession numbers",
    "Institution, physicians, device, protocol",
    "Position, orientation and voxel size; the mask is put back in place here",
    "Private and all other attributes, file and folder names",
];

/// Servers that are set up.
pub(super) fn places(home: &Home) -> Result<Vec<Place>, Stop> {
    let endpoints = Endpoints::load(home.root()).map_err(|e| {
        failed(
            "The model servers cannot be read",
            "Runs stay on this machine. `negatoscope endpoints list` says more.",
            &e,
        )
    })?;
    let place = |profile: &crate::offload::Profile| Place {
        name: profile.name.clone(),
        url: profile.url.clone(),
        region: profile.region.clone(),
        models: profile.models.clone(),
        asks: !profile.without_asking,
    };
    Ok(endpoints.all().iter().map(place).collect())
}

/// What a run on open images would take on each server; nothing where that cannot be said.
pub(super) fn place_estimates(
    home: &Home,
    model: &LoadedModel,
    volume: &Volume,
    mirroring: bool,
) -> Vec<PlaceEstimate> {
    let rows = choices(home, model, volume, mirroring, &Task::new());
    let rows = rows.unwrap_or_else(|error| {
        tracing::warn!(%error, "the places cannot be compared");
        Vec::new()
    });
    let estimate = |row: Choice| {
        Some(PlaceEstimate {
            words: words_of(&row),
            place: row.endpoint?,
            refused: row.refused,
        })
    };
    rows.into_iter().filter_map(estimate).collect()
}

fn words_of(row: &Choice) -> String {
    let mut words = match row.seconds {
        Some(seconds) if row.runs > 0 => vec![format!("about {seconds:.0} s")],
        _ => vec!["time not measured yet".to_owned()],
    };
    words.push(format!("sends {:.1} MB", row.sent_bytes as f64 / 1e6));
    if let Some(price) = row.price {
        let more = if row.price_is_whole {
            ""
        } else {
            " and computing"
        };
        words.push(format!("{price:.2} {}{more}", row.currency));
    }
    words.join("  ·  ")
}

/// The jobs, the oldest first; none where nothing was ever sent.
pub(super) fn queue_rows(home: &Home) -> Result<Vec<QueueRow>, Stop> {
    if !home.root().join("queue").exists() {
        return Ok(Vec::new());
    }
    let read = || {
        let queue = Queue::open(home.root())?;
        let (jobs, broken) = queue.list::<RemoteWork>()?;
        if let Some(error) = broken.first() {
            tracing::warn!(%error, "a job could not be read");
        }
        let row = |job: Job<RemoteWork>| {
            let is_over = job.state.is_over();
            let running = !is_over && queue.is_running(&job.id);
            let state = if running { "running" } else { job.state.name() };
            QueueRow {
                id: job.id.to_string(),
                created: job.created,
                endpoint: job.work.places(&job.endpoint),
                model: job.work.model,
                inputs: job.work.inputs,
                image: job.work.shown,
                output: job.work.output,
                state: state.to_owned(),
                words: job.state.words().to_owned(),
                is_over,
            }
        };
        Ok(jobs.into_iter().map(row).collect())
    };
    read().map_err(|e: RemoteError| queue_failed(&e))
}

pub(super) fn queue_failed(error: &RemoteError) -> Stop {
    failed(
        "The server jobs cannot be read",
        "Nothing is lost. `negatoscope queue list` says more.",
        error,
    )
}

/// Takes a job back that waits.
pub(super) fn cancel(home: &Home, name: &str) -> Result<(), RemoteError> {
    let queue = Queue::open(home.root())?;
    let job: Job<RemoteWork> = queue.find(name)?;
    super::cancel(&queue, &job.id)?;
    Ok(())
}

/// Forgets the jobs that are over.
pub(super) fn clear(home: &Home) -> Result<(), RemoteError> {
    let queue = Queue::open(home.root())?;
    let (jobs, _) = queue.list::<RemoteWork>()?;
    for job in jobs.iter().filter(|job| job.state.is_over()) {
        queue.remove(&job.id)?;
    }
    Ok(())
}

/// The result of a job is on screen.
pub(super) fn shown(home: &Home, name: &str) -> Result<(), RemoteError> {
    close(home, name)
}

/// Runs that wait for a person's word, by the window's job.
#[derive(Default)]
pub(super) struct Prepared(Mutex<HashMap<JobId, Ready>>);

/// A job of the queue that this process has taken.
struct Ready {
    run: RemoteRun,
    /// For images that are open: where the result is shown, and their voxels.
    open: Option<(VolumeId, Vec<Arc<Volume>>)>,
}

/// What is to be prepared.
pub(super) struct Request {
    pub job: JobId,
    pub endpoint: String,
    pub model: String,
    pub work: Wanted,
    pub mirroring: bool,
}

impl Prepared {
    /// Counts what a run would send; it waits for a word then.
    pub fn prepare(
        &self,
        home: &Home,
        request: Request,
        task: &Task,
        outbox: &Outbox,
    ) -> Result<Event, Stop> {
        let (job, endpoint) = (request.job, request.endpoint.clone());
        let taken = take(home, request, task);
        let (run, open) = taken.map_err(|error| not_prepared(&error))?;
        let counted = behind_the_window(|| count(&run, open.as_ref(), task));
        let (leaving, looked, picture) = match counted {
            Ok(counted) => counted,
            Err(_) if run.may_fall_back() && !task.is_cancelled() => {
                let ended = behind_the_window(|| here(job, open, run, task, outbox));
                return told(home, &endpoint, ended, outbox);
            }
            Err(error) => {
                let waits = run.server().trouble();
                let kept = match &waits {
                    Some(why) => run.put_off(why.clone()),
                    None => forget(home, run),
                };
                if let Err(error) = kept {
                    tracing::warn!(%error, "a job could not be kept");
                }
                outbox.send(Event::QueueRead(queue_rows(home)?));
                return Err(match (waits, error) {
                    (_, RemoteError::Cancelled(_)) => Stop::Cancelled,
                    (Some(why), _) => waiting(&endpoint, why),
                    (None, error) => not_prepared(&error),
                });
            }
        };
        let mut page = page(job, &leaving, &looked, picture, run.has_sent());
        page.agreed_before = run.agreed_before(&leaving);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(job, Ready { run, open });
        Ok(Event::Leaving(Box::new(page)))
    }

    /// Does what a person has agreed to.
    pub fn send(
        &self,
        home: &Home,
        job: JobId,
        task: &Task,
        outbox: &Outbox,
    ) -> Result<Option<Event>, Stop> {
        let Some(Ready { run, open }) = self.taken(job) else {
            return Ok(None);
        };
        let endpoint = run.job().endpoint.clone();
        let ended = match open {
            Some((volume, volumes)) => {
                behind_the_window(|| show(job, volume, &volumes, run, task, outbox))
            }
            None => behind_the_window(|| folder(job, run, task, outbox)),
        };
        told(home, &endpoint, ended, outbox).map(Some)
    }

    /// Lets go of what nobody agreed to; a job that never began is forgotten.
    pub fn drop_job(&self, home: &Home, job: JobId) -> Result<(), RemoteError> {
        match self.taken(job) {
            Some(ready) if !ready.run.has_sent() => forget(home, ready.run),
            _ => Ok(()),
        }
    }

    fn taken(&self, job: JobId) -> Option<Ready> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&job)
    }
}

type Open = Option<(VolumeId, Vec<Arc<Volume>>)>;

fn take(home: &Home, request: Request, task: &Task) -> Result<(RemoteRun, Open), RemoteError> {
    let queue = Queue::open(home.root())?;
    let plan = |inputs: Vec<PathBuf>, output: PathBuf| Plan {
        inputs,
        output,
        formats: Format::ALL.to_vec(),
        explain: None,
        resume: true,
        mirroring: request.mirroring,
        channels: Vec::new(),
    };
    let (id, open) = match request.work {
        Wanted::Queued(name) => {
            let job = queue.find::<RemoteWork>(&name)?;
            // What is shown before it leaves is one server's.
            if !job.work.also_on.is_empty() {
                return Err(RemoteError::Several);
            }
            (job.id, None)
        }
        Wanted::Folder { input, output } => {
            let work = RemoteWork::new(home, &request.model, &plan(vec![input], output))?;
            (job_for(&queue, &request.endpoint, work)?, None)
        }
        Wanted::Open {
            volume,
            data,
            files,
            image,
            further,
        } => {
            let work = RemoteWork::new(home, &request.model, &plan(files, PathBuf::new()))?;
            let work = RemoteWork {
                shown: Some(image),
                formats: Vec::new(),
                ..work
            };
            let mut volumes = vec![data];
            for source in &further {
                volumes.push(channel(source, task)?);
            }
            (
                job_for(&queue, &request.endpoint, work)?,
                Some((volume, volumes)),
            )
        }
    };
    Ok((RemoteRun::take(home, &queue, &id)?, open))
}

fn channel(source: &ChannelSource, task: &Task) -> Result<Arc<Volume>, RemoteError> {
    match load_key(&source.key, source.series.as_deref(), task) {
        Ok((volume, _)) => Ok(volume),
        Err(LoadError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(error) => Err(RemoteError::Series(error.to_string())),
    }
}

/// Width, height, RGBA.
type Picture = (usize, usize, Arc<Vec<u8>>);

fn count(
    run: &RemoteRun,
    open: Option<&(VolumeId, Vec<Arc<Volume>>)>,
    task: &Task,
) -> Result<(Leaving, Looked, Option<Picture>), RemoteError> {
    let (leaving, picture) = match open {
        Some((_, volumes)) => {
            let volumes: Vec<&Volume> = volumes.iter().map(Arc::as_ref).collect();
            (run.leaving_of(&volumes, task)?, run.picture(&volumes, task))
        }
        None => (run.leaving(task)?, None),
    };
    task.check()?;
    let looked = look(run.server().client().profile())?;
    Ok((leaving, looked, picture))
}

/// Forgets a job of which nothing has left.
fn forget(home: &Home, run: RemoteRun) -> Result<(), RemoteError> {
    let id = run.job().id.clone();
    if run.has_sent() {
        return Ok(());
    }
    drop(run);
    Ok(Queue::open(home.root())?.remove(&id)?)
}

/// What the window is told of a run that has ended.
fn told(
    home: &Home,
    endpoint: &str,
    ended: Result<Sent, RemoteError>,
    outbox: &Outbox,
) -> Result<Event, Stop> {
    outbox.send(Event::QueueRead(queue_rows(home)?));
    match ended.map_err(|error| not_prepared(&error))? {
        Sent::Event(event) => Ok(event),
        Sent::Waits(why) => Err(waiting(endpoint, why)),
        Sent::Stopped => Err(Stop::Failed(Notice {
            level: NoticeLevel::Warning,
            ..Notice::info(
                "Stopped",
                "What was sent is with the server, which may still be working on it. The job waits in the menu Analysis, Server jobs…: go on there, or cancel it.",
            )
        })),
        Sent::Failed(why) => Err(Stop::Failed(Notice {
            level: NoticeLevel::Error,
            details: vec![why],
            ..Notice::info(
                "The server's answer could not be used",
                "The images are not changed. The reason stands under Details.",
            )
        })),
    }
}

/// How what was agreed to has ended.
enum Sent {
    Event(Event),
    Waits(String),
    Stopped,
    Failed(String),
}

fn show(
    job: JobId,
    volume: VolumeId,
    volumes: &[Arc<Volume>],
    run: RemoteRun,
    task: &Task,
    outbox: &Outbox,
) -> Result<Sent, RemoteError> {
    let queued = run.job().id.to_string();
    let images: Vec<&Volume> = volumes.iter().map(Arc::as_ref).collect();
    let watch = watch(job, volume, Arc::clone(&volumes[0]), outbox.clone());
    let ended = run.run_shown(&images, watch, task)?;
    Ok(returned(job, queued, volume, images[0], ended))
}

fn returned(job: JobId, queued: String, volume: VolumeId, image: &Volume, ended: Ended) -> Sent {
    match ended {
        Ended::Result(segmentation) => {
            let statistics = label_statistics(image, &segmentation.map);
            Sent::Event(Event::Returned {
                job,
                queued,
                volume,
                segmentation: Arc::new(*segmentation),
                statistics,
            })
        }
        Ended::Findings(assessments, methods) => Sent::Event(Event::Assessed {
            job,
            volume,
            assessments,
            methods,
        }),
        Ended::Waits(why) => Sent::Waits(why),
        Ended::Stopped => Sent::Stopped,
        Ended::Failed(why) => Sent::Failed(why),
    }
}

/// On this machine, in place of a server that cannot be reached.
fn here(
    job: JobId,
    open: Open,
    run: RemoteRun,
    task: &Task,
    outbox: &Outbox,
) -> Result<Sent, RemoteError> {
    outbox.send(Event::Notice(Notice::info(
        &format!("{} cannot be reached: this machine does its work", run.job().endpoint),
        "So says fallback_to_local in places.toml. Nothing is sent, and the result says where it was made.",
    )));
    let Some((volume, volumes)) = open else {
        let (_, summary, _) = run.run_here(task, |index, row| {
            outbox.send(Event::BatchRow {
                index,
                row: batch_row(row),
            });
        })?;
        let summary = summary.words();
        return Ok(Sent::Event(Event::BatchDone { job, summary }));
    };
    let queued = run.job().id.to_string();
    let images: Vec<&Volume> = volumes.iter().map(Arc::as_ref).collect();
    let watch = watch(job, volume, Arc::clone(&volumes[0]), outbox.clone());
    let ended = run.here_shown(&images, watch, task)?;
    Ok(returned(job, queued, volume, images[0], ended))
}

fn folder(job: JobId, run: RemoteRun, task: &Task, outbox: &Outbox) -> Result<Sent, RemoteError> {
    let (ended, summary, _) = run.run(task, |index, row| {
        outbox.send(Event::BatchRow {
            index,
            row: batch_row(row),
        });
    })?;
    let State::Waiting { why } = ended.state else {
        let summary = summary.words();
        return Ok(Sent::Event(Event::BatchDone { job, summary }));
    };
    Ok(if summary.cancelled && task.is_cancelled() {
        Sent::Stopped
    } else {
        Sent::Waits(why)
    })
}

fn waiting(endpoint: &str, why: String) -> Stop {
    Stop::Failed(Notice {
        level: NoticeLevel::Warning,
        details: vec![why],
        ..Notice::info(
            &format!("{endpoint} cannot be asked now: the job waits"),
            "Nothing is lost; what was answered is kept. Go on in the menu Analysis, Server jobs…, when the server is back, or run the model on this machine.",
        )
    })
}

fn not_prepared(error: &RemoteError) -> Stop {
    match error {
        RemoteError::Cancelled(_) => Stop::Cancelled,
        error => failed(
            "The run on the server was not begun",
            "Nothing has left this machine. The reason stands under Details.",
            error,
        ),
    }
}

fn page(
    job: JobId,
    leaving: &Leaving,
    looked: &Looked,
    picture: Option<Picture>,
    goes_on: bool,
) -> LeavingPage {
    let mut facts = leaving.facts();
    let mut at = 1;
    let mut fact = |name: &str, what: String| {
        facts.insert(at, (name.to_owned(), what));
        at += 1;
    };
    match (&looked.tls_version, &looked.certificate) {
        (Some(version), Some(certificate)) => {
            fact("Encryption", version.clone());
            let until = certificate.not_after.format("%Y-%m-%d");
            fact(
                "Certificate",
                format!(
                    "{}, issued by {}, holds until {until}",
                    certificate.subject, certificate.issuer
                ),
            );
        }
        (Some(version), None) => fact("Encryption", version.clone()),
        (None, _) => fact(
            "Encryption",
            "none: the server is on this machine".to_owned(),
        ),
    }
    if goes_on {
        facts.push((
            "Goes on".to_owned(),
            "A part was answered before and is not sent again".to_owned(),
        ));
    }
    let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect();
    LeavingPage {
        job,
        endpoint: leaving.endpoint.clone(),
        facts,
        sent: words(&SENT),
        stays: words(&STAYS),
        doubts: leaving
            .doubts()
            .into_iter()
            .chain(leaving.kept_back.clone())
            .collect(),
        refused: leaving.over.clone(),
        agreed_before: false,
        picture,
    }
}
