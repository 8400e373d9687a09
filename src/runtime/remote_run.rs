//! A job on a server that this process has taken: seen before it leaves, counted while it does, gone on
//! with here where a person wants that.

use std::sync::{Arc, Mutex, PoisonError};

use super::batch_engine::{Away, LocalEngine};
use super::home::Home;
use super::leaving::Leaving;
use super::models::LoadedModel;
use super::remote::{Purse, Server};
use super::remote_jobs::{INTERRUPTED, RemoteError, RemoteWork};
use crate::audit::Log;
use crate::batch::{self, Engine, Failure, Row, Summary, items};
use crate::monitoring::Through;
use crate::offload::{
    Client, Endpoints, History, Policy, Secrets, Spending, Spent, pace, sending_rate,
};
use crate::queue::{self, Job, JobId, Queue, State};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// Bytes of a value as it is planned.
const VALUE_BYTES: f64 = 4.0;

/// A job that this process has taken.
pub struct RemoteRun {
    home: Home,
    pub(super) job: Job<RemoteWork>,
    pub(super) running: queue::Running,
    /// Its servers, the job's own first; never empty.
    there: Vec<There>,
    log: Log,
    policy: Policy,
    purse: Purse,
    /// Why nothing may be sent, once somebody has looked.
    over: Mutex<Option<String>>,
}

/// A server of a job, and what runs the job's model on it.
struct There {
    server: Arc<Server>,
    engine: LocalEngine,
}

/// How a run of a job ended: the job as it is on disk, and its table.
pub type Ran = (Job<RemoteWork>, Summary, Vec<Row>);

impl RemoteRun {
    /// Takes a job; nothing is sent.
    ///
    /// # Errors
    /// [`RemoteError`]: the endpoint, the model or the job is not there, another process runs it, or
    /// the person's policy cannot be understood.
    pub fn take(home: &Home, queue: &Queue, id: &JobId) -> Result<Self, RemoteError> {
        let policy = Policy::load(home.root())?;
        let running = queue.take(id)?;
        let job: Job<RemoteWork> = queue.find(&id.to_string())?;
        let endpoints = Endpoints::load(home.root())?;
        let history = History::new(home.root()).read().unwrap_or_default();
        let model = LoadedModel::open(home, &job.work.model, Through::Batch)?;
        if model.sha256() != job.work.model_sha256 {
            return Err(RemoteError::OtherWeights(job.work.model));
        }
        if job.work.here_too {
            model.runs_here()?;
        }
        let purse = Purse {
            spending: Spending::new(home.root()),
            limits: policy.limits.clone(),
            job: id.to_string(),
        };
        let mut there = Vec::new();
        for name in job.work.endpoints(&job.endpoint) {
            let profile = endpoints.find(name)?;
            let client = Client::new(profile, Secrets::of_environment())?;
            if let Some(rate) = sending_rate(&history, &profile.name) {
                client.expect_rate(rate);
            }
            let server = Server::new(client, job.work.model_id(), Arc::clone(&running.answers));
            let server = Arc::new(server.counted(purse.clone()));
            let engine = LocalEngine {
                model: model.with_networks_on(Some(Arc::clone(&server) as _)),
                mirroring: job.work.mirroring,
                explain: None,
                away: Some(Away {
                    server: Arc::clone(&server),
                    log: Log::open(home.root())?,
                    policy: policy.clone(),
                }),
                instead_of: None,
            };
            there.push(There { server, engine });
        }
        Ok(Self {
            home: home.clone(),
            job,
            running,
            there,
            log: Log::open(home.root())?,
            policy,
            purse,
            over: Mutex::default(),
        })
    }

    /// The job as it is.
    pub const fn job(&self) -> &Job<RemoteWork> {
        &self.job
    }

    /// The job's own server.
    pub(super) fn server(&self) -> &Server {
        &self.there[0].server
    }

    /// What runs the model on the job's own server.
    pub(super) fn engine(&self) -> &LocalEngine {
        &self.there[0].engine
    }

    /// Whether no server can be reached and the person's policy has such work done here.
    pub fn may_fall_back(&self) -> bool {
        self.policy.fallback_to_local
            && self.engine().model.runs_here().is_ok()
            && self.there.iter().all(|there| there.server.is_away())
    }

    /// Whether the person has agreed to all that is sent to this server, and nothing about this is
    /// doubtful: then nobody need be asked.
    pub fn agreed_before(&self, leaving: &Leaving) -> bool {
        let mut profiles = self.there.iter().map(|t| t.server.client().profile());
        profiles.any(|p| p.name == leaving.endpoint && p.without_asking)
            && leaving.over.is_none()
            && leaving.kept_back.is_empty()
            && leaving.doubts().is_empty()
    }

    /// Asks the server whether it has the model, and counts what would leave: reads every series
    /// that is suited, and sends none. Holds it against the limits of the person's policy.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn leaving(&self, task: &Task) -> Result<Leaving, RemoteError> {
        let mut one = [self.asked(0, task)?];
        self.count_all(&mut one, task)?;
        let [leaving] = one;
        self.sum_up(0, leaving)
    }

    /// The same for each server of the job: a series goes to one of them. A server that cannot be
    /// asked is left out of this run, and a line says why; the last one is not.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn leavings(&mut self, task: &Task) -> Result<(Vec<Leaving>, Vec<String>), RemoteError> {
        let (mut all, mut left_out) = (Vec::new(), Vec::new());
        while all.len() < self.there.len() {
            let n = all.len();
            match self.asked(n, task) {
                Ok(leaving) => all.push(leaving),
                Err(error) if self.there.len() == 1 || task.is_cancelled() => return Err(error),
                Err(error) => {
                    let gone = self.there.remove(n);
                    let name = &gone.server.client().profile().name;
                    if let Failure::Reason(why) = Failure::from_error(&error) {
                        left_out.push(format!("{name} is left out: {why}"));
                    }
                }
            }
        }
        self.count_all(&mut all, task)?;
        let summed = all.into_iter().enumerate();
        let all = summed.map(|(n, leaving)| self.sum_up(n, leaving));
        Ok((all.collect::<Result<_, _>>()?, left_out))
    }

    /// Adds up what would leave to each server, of every series that is suited.
    fn count_all(&self, leavings: &mut [Leaving], task: &Task) -> Result<(), RemoteError> {
        let plan = self.job.work.plan()?;
        let engine = self.engine();
        let (worklist, files) = engine.index(&plan.inputs, task)?;
        let all = items(worklist, files, &engine.model(), &plan);
        let suited: Vec<_> = all.iter().filter(|item| item.unsuited.is_none()).collect();
        task.begin("Counting what would leave", suited.len());
        for (n, item) in suited.iter().enumerate() {
            task.check()?;
            let volume = match engine.load(&item.source, task) {
                Ok(volume) => volume,
                Err(Failure::Cancelled) => return Err(Cancelled.into()),
                // It will be a row of the table.
                Err(Failure::Reason(_)) => continue,
            };
            for (place, leaving) in leavings.iter_mut().enumerate() {
                self.count(place, leaving, &volume, task)?;
            }
            task.report(n + 1, suited.len());
        }
        Ok(())
    }

    /// Asks a server whether it has the model; nothing is counted yet.
    pub(super) fn asked(&self, place: usize, task: &Task) -> Result<Leaving, RemoteError> {
        task.begin("Asking the server", 0);
        let There { server, engine } = &self.there[place];
        server.check(&engine.model.parts(), task)?;
        let client = server.client();
        let key = client.server_key().map(|k| k.to_string());
        let name = self.job.work.model_id();
        Ok(Leaving::new(client.profile(), name, key))
    }

    /// Adds what would leave of one series to a server.
    pub(super) fn count(
        &self,
        place: usize,
        leaving: &mut Leaving,
        volume: &Volume,
        task: &Task,
    ) -> Result<(), RemoteError> {
        if let Some(why) = self.policy.keeps(&volume.modality) {
            if !leaving.kept_back.contains(&why) {
                leaving.kept_back.push(why);
            }
            return Ok(());
        }
        let mirroring = self.job.work.mirroring;
        let model = &self.there[place].engine.model;
        let planned = model.plan(volume, mirroring, task)?;
        leaving.series += 1;
        leaving.requests += planned.traffic.calls;
        leaving.sent_bytes += planned.traffic.sent_bytes;
        leaving.received_bytes += planned.traffic.received_bytes;
        leaving.heads += usize::from(may_show_a_face(volume));
        leaving.pictures += usize::from(model.takes_plain_images());
        Ok(())
    }

    /// Adds time and price to what was counted, and holds it against the policy.
    pub(super) fn sum_up(
        &self,
        place: usize,
        mut leaving: Leaving,
    ) -> Result<Leaving, RemoteError> {
        let There { server, engine } = &self.there[place];
        let profile = server.client().profile();
        let history = History::new(self.home.root()).read().unwrap_or_default();
        let pace = pace(&history, &engine.model.key(), &profile.name);
        let values = leaving.sent_bytes as f64 / VALUE_BYTES;
        leaving.server_secs = pace.map(|pace| pace.server_secs * values);
        leaving.priced(profile);
        leaving.over = self.refusal(server, &leaving)?;
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if place == 0 || leaving.over.is_some() {
            over.clone_from(&leaving.over);
        }
        drop(over);
        Ok(leaving)
    }

    /// Why so much may not be sent.
    fn refusal(&self, server: &Server, leaving: &Leaving) -> Result<Option<String>, RemoteError> {
        // What the job has sent before is part of what is counted here.
        let before = self.purse.spending.of_job(&self.purse.job)?;
        let bytes = leaving.sent_bytes + leaving.received_bytes;
        let more = Spent {
            requests: leaving.requests.saturating_sub(before.requests),
            bytes: bytes.saturating_sub(before.bytes),
            cost: (leaving.price.unwrap_or_default() - before.cost).max(0.0),
        };
        let account = self.purse.account(server.client().profile());
        let allowed = self
            .purse
            .spending
            .allows(&account, more, &self.purse.limits);
        Ok(allowed.err().map(|error| error.to_string()))
    }

    /// Does what is left of the job. How it ended is on disk when this returns.
    ///
    /// # Errors
    /// [`RemoteError`] where not even a batch could begin; the job waits then.
    pub fn run(
        mut self,
        task: &Task,
        mut on_row: impl FnMut(usize, &Row),
    ) -> Result<Ran, RemoteError> {
        self.within_limits()?;
        let plan = self.job.work.plan()?;
        self.interrupted()?;
        let here = (self.job.work.here_too).then(|| self.engine_here(None));
        let there = self.there.iter().map(|there| &there.engine);
        let engines: Vec<&dyn Engine> = there.chain(&here).map(|e| e as &dyn Engine).collect();
        let ran = match engines[..] {
            // One alone reads ahead.
            [_] => batch::run(self.engine(), &self.log, &plan, task, &mut on_row),
            _ => batch::run_spread(&engines, &self.log, &plan, task, &mut on_row),
        };
        self.count_moved();
        let left = matches!(&ran, Ok((summary, _)) if summary.cancelled);
        if left && self.may_fall_back() && !task.is_cancelled() {
            return self.run_here(task, on_row);
        }
        let finished = matches!(&ran, Ok((summary, _)) if !summary.cancelled);
        let servers = || self.there.iter().map(|there| &there.server);
        let trouble = servers().find_map(|s| s.trouble()).filter(|_| !finished);
        // What one server may not do any more, another one may do.
        let over: Option<Vec<String>> = servers().map(|s| s.ended()).collect();
        let over = over.filter(|_| !finished).map(|all| all.join("; "));
        let waiting = |why: &str| State::Waiting {
            why: why.to_owned(),
        };
        self.job.state = match (&ran, over, trouble) {
            (_, Some(why), _) => State::Failed { why },
            (_, _, Some(why)) => State::Waiting { why },
            (Err(error), ..) => waiting(&error.to_string()),
            (Ok((summary, _)), ..) => ended(summary, ""),
        };
        self.running.update(&self.job)?;
        let (summary, rows) = ran?;
        Ok((self.job, summary, rows))
    }

    /// Does what is left of the job on this machine, in place of a server that cannot be reached;
    /// each result says so.
    ///
    /// # Errors
    /// As [`RemoteRun::run`].
    pub fn run_here(
        mut self,
        task: &Task,
        on_row: impl FnMut(usize, &Row),
    ) -> Result<Ran, RemoteError> {
        let plan = self.job.work.plan()?;
        self.interrupted()?;
        let engine = self.engine_here(Some(self.job.work.places(&self.job.endpoint)));
        let ran = batch::run(&engine, &self.log, &plan, task, on_row);
        self.job.state = match &ran {
            Err(error) => State::Waiting {
                why: error.to_string(),
            },
            Ok((summary, _)) => ended(
                summary,
                "; on this machine, since the server could not be reached",
            ),
        };
        self.running.update(&self.job)?;
        let (summary, rows) = ran?;
        Ok((self.job, summary, rows))
    }

    /// Whether what was counted may be sent.
    pub(super) fn within_limits(&self) -> Result<(), RemoteError> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.clone()
            .map_or(Ok(()), |why| Err(RemoteError::Over(why)))
    }

    /// What a kill from here on leaves behind.
    pub(super) fn interrupted(&mut self) -> Result<(), RemoteError> {
        self.job.state = State::Waiting {
            why: INTERRUPTED.to_owned(),
        };
        Ok(self.running.update(&self.job)?)
    }

    /// Adds what was exchanged to the job.
    pub(super) fn count_moved(&mut self) {
        for There { server, .. } in &self.there {
            let [sent, received] = server.moved();
            self.job.sent_bytes += sent;
            self.job.received_bytes += received;
        }
    }

    pub(super) fn engine_here(&self, instead_of: Option<String>) -> LocalEngine {
        LocalEngine {
            model: self.engine().model.with_networks_on(None),
            mirroring: self.job.work.mirroring,
            explain: None,
            away: None,
            instead_of,
        }
    }
}

/// The state of a job whose batch has ended so.
fn ended(summary: &Summary, note: &str) -> State {
    let words = format!("{}{note}", summary.words());
    if summary.cancelled {
        State::Waiting {
            why: "stopped".to_owned(),
        }
    } else if summary.done == 0 && summary.failed > 0 {
        State::Failed { why: words }
    } else {
        State::Done { words }
    }
}

/// Whether the outline of a face may be seen in the slices: a head, or nobody says what, that is
/// large enough (Schwarz et al. 2021 match such images with photographs).
fn may_show_a_face(volume: &Volume) -> bool {
    const HEADS: [&str; 7] = ["HEAD", "BRAIN", "SKULL", "FACE", "NECK", "ORBIT", "SINUS"];
    let part = volume.source.body_part.to_ascii_uppercase();
    let sliced = ["MR", "CT", "PT", ""].contains(&volume.modality.as_str());
    let (dims, spacing) = (volume.geometry.dims(), volume.geometry.spacing_mm());
    let large = (0..3).all(|axis| dims[axis] as f64 * spacing[axis] >= 100.0);
    sliced && large && (part.trim().is_empty() || HEADS.iter().any(|head| part.contains(head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::phantom::{head_geometry, head_mr};

    #[test]
    fn heads_are_doubted_and_small_or_other_parts_are_not() {
        let mut volume = head_mr(1, head_geometry()).volume;
        assert!(may_show_a_face(&volume));
        volume.source.body_part = String::new();
        assert!(may_show_a_face(&volume));
        volume.source.body_part = "ABDOMEN".to_owned();
        assert!(!may_show_a_face(&volume));
        volume.source.body_part = "HEADNECK".to_owned();
        volume.modality = "CT".to_owned();
        assert!(may_show_a_face(&volume));
        volume.modality = "US".to_owned();
        assert!(!may_show_a_face(&volume));
    }
}
