//! Models on servers, as the window sees them: where a model may run, what would leave before it
//! does, and what waits.

use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Action, App, AskFor, ChannelSource, Command, Dialog, JobId, JobKind, ModelSummary, Notice,
    SeriesKey, VolumeId,
};
use crate::findings::Segmentation;
use crate::task::Task;
use crate::volume::{LabelStatistics, Volume};

/// A model server that a person has set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Where it computes, for people.
    pub region: String,
    /// Models that may be asked there; empty: any.
    pub models: Vec<String>,
    /// Whether a person is asked before each sending.
    pub asks: bool,
}

impl Place {
    /// Whether it may be asked for a model, and whether the model's networks can run elsewhere.
    fn takes(&self, model: &ModelSummary) -> bool {
        let id = model.key.split('@').next().unwrap_or_default();
        self.models.is_empty() || self.models.iter().any(|m| m == id)
    }
}

/// A model server as a person has typed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerDraft {
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Certificates of its authority (PEM), in place of the system's.
    pub authority: Option<PathBuf>,
    /// SHA-256 of public keys of which one must be in its chain, apart by spaces or commas.
    pub pins: String,
    /// Variable of the environment that holds a bearer token; empty: none.
    pub token_variable: String,
    /// Models that may be asked there, apart by spaces or commas; empty: any.
    pub models: String,
    /// Where it computes, for people.
    pub region: String,
    /// What its operator keeps and for how long, for people.
    pub retention: String,
    /// Whether plain http is allowed, to this machine alone.
    pub plain_http: bool,
}

/// What a server has shown when it was tested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTest {
    /// Its name here.
    pub name: String,
    /// Step by step, what was found.
    pub steps: Vec<(String, String)>,
    /// Where a person signs in, and the code to type there; while it is waited for.
    pub sign_in: Option<(String, String)>,
    /// Why the test ended before its end; empty where it did not.
    pub problem: String,
    /// Whether it is still under way.
    pub is_running: bool,
}

/// What a run on a server would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceEstimate {
    /// The server's name.
    pub place: String,
    /// Time, bytes and price in words.
    pub words: String,
    /// Why it cannot run there.
    pub refused: Option<String>,
}

/// What a run would send, for a person to see before it does.
#[derive(Clone, Debug, PartialEq)]
pub struct LeavingPage {
    /// The job that waits for the person's word.
    pub job: JobId,
    /// The endpoint's name.
    pub endpoint: String,
    /// Names and what they are, line by line: destination, certificate, amounts, price.
    pub facts: Vec<(String, String)>,
    /// What is sent.
    pub sent: Vec<String>,
    /// What is not.
    pub stays: Vec<String>,
    /// What is doubtful about sending it.
    pub doubts: Vec<String>,
    /// Why it may not be sent: a limit of the person's policy.
    pub refused: Option<String>,
    /// The person has agreed to all that is sent to this server, and nothing here is doubtful.
    pub agreed_before: bool,
    /// One of the pieces as the server would see it: width, height, RGBA.
    pub picture: Option<(usize, usize, Arc<Vec<u8>>)>,
}

/// A job for a server, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueRow {
    /// Its name.
    pub id: String,
    /// When it was made, UTC.
    pub created: String,
    /// `id@version`.
    pub model: String,
    /// The endpoint.
    pub endpoint: String,
    /// Files, folders, archives.
    pub inputs: Vec<PathBuf>,
    /// For images that are shown in a window: which of the files' ([`SeriesKey::word`]).
    pub image: Option<String>,
    /// Folder for results, where they are not shown.
    pub output: PathBuf,
    /// "waiting", "running", "done", "failed", "cancelled".
    pub state: String,
    /// What there is to say about it.
    pub words: String,
    /// Whether there is nothing left to do.
    pub is_over: bool,
}

impl QueueRow {
    /// Whether it waits for somebody to go on with it.
    pub fn waits(&self) -> bool {
        !self.is_over && self.state != "running"
    }
}

/// What a server is asked for.
#[derive(Clone, Debug)]
pub enum RemoteWork {
    /// The model on the open images.
    Open {
        /// Where the result is shown.
        volume: VolumeId,
        /// Voxels.
        data: Arc<Volume>,
        /// Its files.
        files: Vec<PathBuf>,
        /// Which of the files' images.
        image: String,
        /// The images of the model's further channels.
        further: Vec<ChannelSource>,
    },
    /// The model on a folder of studies.
    Folder {
        /// Folder of studies.
        input: PathBuf,
        /// Folder of results.
        output: PathBuf,
    },
    /// A job that waits, by its name; model and place are its own.
    Queued(String),
}

/// What the window knows of servers.
#[derive(Clone, Debug, Default)]
pub struct RemoteState {
    /// Servers that are set up.
    pub places: Vec<Place>,
    /// The one that runs go to; this machine when `None`. Never kept between sessions.
    pub chosen: Option<String>,
    /// What waits for a person's word.
    pub leaving: Option<LeavingPage>,
    /// Jobs, the oldest first.
    pub queue: Vec<QueueRow>,
    /// Whether the list of jobs is open.
    pub queue_shown: bool,
    /// Whether the list of servers is open.
    pub servers_shown: bool,
    /// Certificates that were chosen for a server that is being added.
    pub authority: Option<PathBuf>,
    /// The last test of a server.
    pub tested: Option<ServerTest>,
    /// Stops that test.
    pub testing: Option<Arc<Task>>,
    /// A waiting job, to be gone on with when its images are loaded.
    pub going_on: Option<QueueRow>,
}

impl App {
    /// The chosen model.
    pub fn chosen_model(&self) -> Option<&ModelSummary> {
        let key = self.selected_model.as_ref()?;
        self.models.iter().find(|model| model.key == *key)
    }

    /// Servers that may run the chosen model.
    pub fn places(&self) -> Vec<&Place> {
        let model = self.chosen_model();
        let takes = |place: &&Place| model.is_some_and(|model| place.takes(model));
        self.remote.places.iter().filter(takes).collect()
    }

    /// The server that the chosen model would run on; this machine when `None`.
    pub fn place(&self) -> Option<&Place> {
        let chosen = self.remote.chosen.as_ref()?;
        self.places().into_iter().find(|p| p.name == *chosen)
    }

    /// Why the chosen model can run nowhere yet: its weights are not here, and no server is chosen.
    pub fn runs_nowhere(&self) -> Option<&'static str> {
        let is_far = self.chosen_model().is_some_and(|m| m.only_on_a_server);
        match (is_far && self.place().is_none(), self.places().is_empty()) {
            (false, _) => None,
            (true, true) => Some(
                "This model's weights are not on this machine. Add the server that has them under \
                 Analysis, Model servers…",
            ),
            (true, false) => Some(
                "This model's weights are not on this machine: choose the server that it runs on",
            ),
        }
    }

    /// What a run of the chosen model on the open images would take on a server.
    pub fn place_estimate(&self, place: &str) -> Option<&PlaceEstimate> {
        let Some(Ok(estimate)) = &self.estimate else {
            return None;
        };
        estimate.places.iter().find(|p| p.place == place)
    }

    /// Jobs that wait for somebody to go on with them.
    pub fn waiting_jobs(&self) -> usize {
        self.remote.queue.iter().filter(|row| row.waits()).count()
    }

    /// Carries out a command about servers.
    pub(super) fn remote(&mut self, command: Command) {
        match command {
            Command::SetPlace(place) => self.remote.chosen = place,
            Command::SendRemote => self.send_remote(),
            Command::ShowQueue => {
                self.remote.queue_shown = true;
                self.actions.push(Action::ReadQueue);
            }
            Command::HideQueue => self.remote.queue_shown = false,
            Command::ShowServers => {
                self.remote.servers_shown = true;
                self.actions.push(Action::ListPlaces);
            }
            Command::HideServers => {
                self.remote.servers_shown = false;
                self.stop_test();
            }
            Command::ChooseAuthority => self.ask(AskFor::ServerAuthority),
            Command::AddServer(draft) => self.actions.push(Action::AddServer(draft)),
            Command::RemoveServer(name) => {
                if self.remote.tested.as_ref().is_some_and(|t| t.name == name) {
                    self.stop_test();
                }
                self.actions.push(Action::RemoveServer(name));
            }
            Command::SetAsks(name, asks) => self.actions.push(Action::SetAsks(name, asks)),
            Command::TestServer(name) => {
                self.remote.tested = Some(ServerTest {
                    name: name.clone(),
                    is_running: true,
                    ..ServerTest::default()
                });
                let task = Arc::new(Task::new());
                self.remote.testing = Some(Arc::clone(&task));
                self.actions.push(Action::TestServer(name, task));
            }
            Command::StopTest => self.stop_test(),
            Command::GoOn(id) => self.go_on(&id),
            Command::CancelQueued(id) => self.actions.push(Action::CancelQueued(id)),
            Command::ClearQueue => self.actions.push(Action::ClearQueue),
            _ => {}
        }
    }

    /// Lets go of a test; what it waits for is no longer waited for.
    fn stop_test(&mut self) {
        self.remote.tested = None;
        if let Some(task) = self.remote.testing.take() {
            task.cancel();
        }
    }

    /// What a test has found; one that was let go of says nothing more.
    pub(super) fn server_tested(&mut self, test: ServerTest) {
        let shown = self.remote.tested.as_mut();
        if let Some(shown) = shown.filter(|t| t.name == test.name && t.is_running) {
            *shown = test;
        }
    }

    /// Asks what a run of the chosen model on a server would send; nothing is sent yet.
    pub(super) fn prepare(&mut self, endpoint: String, work: RemoteWork) -> Option<JobId> {
        let model = match &work {
            RemoteWork::Queued(_) => String::new(),
            _ => self.selected_model.clone()?,
        };
        let kind = match &work {
            RemoteWork::Open { .. } => JobKind::Model,
            RemoteWork::Folder { .. } | RemoteWork::Queued(_) => JobKind::Batch,
        };
        let (job, task) = self.start(kind, format!("Asking {endpoint}"));
        self.actions.push(Action::PrepareRemote {
            job,
            endpoint,
            model,
            work,
            mirroring: self.settings.mirroring,
            task,
        });
        Some(job)
    }

    /// Asks what a run on the open images would send.
    pub(super) fn prepare_open(&mut self, endpoint: String, further: Vec<ChannelSource>) {
        let Some(open) = &self.workspace.open else {
            return;
        };
        let work = RemoteWork::Open {
            volume: open.id,
            data: Arc::clone(&open.data),
            files: self.files_of(&open.key),
            image: open.key.word(),
            further,
        };
        self.prepare(endpoint, work);
    }

    /// Files and archives that a key's images lie in.
    fn files_of(&self, key: &SeriesKey) -> Vec<PathBuf> {
        let (series, stack) = match key {
            SeriesKey::File(path) => return vec![path.clone()],
            SeriesKey::Stack { series, stack } => (series, *stack),
        };
        let found = self.browser.find(series);
        let images = found.and_then(|(_, _, s)| s.stacks.get(stack));
        let mut files: Vec<PathBuf> = images
            .iter()
            .flat_map(|stack| &stack.images)
            .map(|image| image.source.file().clone())
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// Shows what would leave.
    pub(super) fn leaving(&mut self, page: LeavingPage) {
        let waits = |job: &super::Job| job.id == page.job && !job.task.is_cancelled();
        if self.jobs.iter().any(waits) {
            let agreed = page.agreed_before;
            let facts = page.facts.iter();
            let leaves = facts.filter(|(name, _)| name == "Leaves" || name == "Price");
            let words: Vec<String> = leaves
                .map(|(name, what)| format!("{name}: {what}"))
                .collect();
            let title = format!("Sending to {} without asking", page.endpoint);
            self.remote.leaving = Some(page);
            if agreed {
                self.notices.push(Notice::info(&title, &words.join("; ")));
                self.send_remote();
            } else {
                self.dialog = Some(Dialog::Leaving);
            }
        } else {
            self.finish(page.job);
            self.actions.push(Action::DropRemote(page.job));
        }
    }

    /// The person has seen it and agrees.
    fn send_remote(&mut self) {
        let Some(page) = self.remote.leaving.take() else {
            return;
        };
        self.dialog = (self.batch.job == Some(page.job)).then_some(Dialog::Batch);
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == page.job) else {
            return;
        };
        job.title = format!("Running on {}", page.endpoint);
        self.actions.push(Action::SendRemote {
            job: page.job,
            task: Arc::clone(&job.task),
        });
    }

    /// The person does not agree: nothing is sent.
    pub(super) fn decline_leaving(&mut self) {
        if let Some(page) = self.remote.leaving.take() {
            self.finish(page.job);
            self.actions.push(Action::DropRemote(page.job));
        }
    }

    fn go_on(&mut self, id: &str) {
        let Some(row) = self.remote.queue.iter().find(|row| row.id == *id) else {
            return;
        };
        if self.running(JobKind::Batch).is_some() || self.running(JobKind::Model).is_some() {
            self.notices.push(Notice::info(
                "Another run is under way",
                "Go on with this job when it has ended.",
            ));
            return;
        }
        let row = row.clone();
        if row.image.is_none() {
            self.batch.input = row.inputs.first().cloned();
            self.batch.output = Some(row.output);
            self.batch.rows.clear();
            self.batch.summary = None;
            self.batch.job = self.prepare(row.endpoint, RemoteWork::Queued(row.id));
            return;
        }
        let files = row.inputs.clone();
        self.remote.going_on = Some(row);
        self.remote.queue_shown = false;
        if !self.go_on_with_open() {
            self.open_paths(files);
        }
    }

    /// Goes on with a job when its images are open; opens them when they are at hand. Whether they
    /// are.
    pub(super) fn go_on_with_open(&mut self) -> bool {
        let Some(row) = &self.remote.going_on else {
            return false;
        };
        let is_it =
            |key: &SeriesKey| Some(key.word()) == row.image && self.files_of(key) == row.inputs;
        let open = self.workspace.open.as_ref().filter(|o| o.loading.is_none());
        if !open.is_some_and(|open| is_it(&open.key)) {
            let key = self.browser.keys().into_iter().find(is_it);
            return key.map(|key| self.open_series(key)).is_some();
        }
        let Some(row) = self.remote.going_on.take() else {
            return false;
        };
        self.selected_model = Some(row.model);
        self.remote.chosen = Some(row.endpoint.clone());
        self.ask_estimate();
        match self.channel_sources() {
            Ok(sources) => {
                self.prepare_open(row.endpoint, sources.into_iter().skip(1).collect());
            }
            Err(reason) => self.estimate = Some(Err(reason)),
        }
        true
    }

    /// Shows what a server's answers make, and only then lets the job go.
    pub(super) fn returned(
        &mut self,
        job: JobId,
        queued: String,
        volume: VolumeId,
        segmentation: Arc<Segmentation>,
        statistics: Vec<LabelStatistics>,
    ) {
        self.finish(job);
        if self.workspace.open.as_ref().is_some_and(|o| o.id == volume) {
            self.show_results(volume, segmentation, statistics);
            self.actions.push(Action::CloseQueued(queued));
        } else {
            self.notices.push(Notice::info(
                "A result waits for its images",
                "Another series was opened while the server worked. The menu Analysis, Server jobs… opens the images and shows it; nothing is sent again.",
            ));
            self.actions.push(Action::ReadQueue);
        }
        self.ask_estimate();
    }
}
