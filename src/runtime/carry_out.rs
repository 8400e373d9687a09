//! Each action and the work behind it.

use std::sync::Arc;

use super::home::Home;
use super::jobs::{Jobs, Outbox, Stop, Wake};
use super::open::{LoadError, index_paths, load_key, load_slice};
use super::remote_view::{self, Prepared, Request};
use super::{audit_view, clock, copy, dialogs, models, monitoring, results, servers, train_job};
use crate::app::{
    Action, Event, JobId, Notice, NoticeLevel, SeriesKey, Settings, ToExport, VolumeId,
};
use crate::audit::{self, AuditEvent, Outcome, ParticipantObject};
use crate::dicom;
use crate::inference::Watch;
use crate::volume::{Volume, label_statistics};

/// The working side of the window.
pub struct Runtime {
    home: Home,
    jobs: Jobs,
    log: Arc<audit::Log>,
    last_model: Arc<models::LastModel>,
    prepared: Arc<Prepared>,
}

impl Runtime {
    /// Opens the audit log; without it nothing that touches patients can be done.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn new(home: Home) -> Result<Self, audit::Error> {
        let log = Arc::new(audit::Log::open(home.root())?);
        Ok(Self {
            home,
            jobs: Jobs::new(),
            log,
            last_model: Arc::default(),
            prepared: Arc::default(),
        })
    }

    /// Called after each event.
    pub fn set_wake(&mut self, wake: Wake) {
        self.jobs.set_wake(wake);
    }

    /// Settings as they were saved.
    pub fn settings(&self) -> Settings {
        self.home.load_settings()
    }

    /// What has finished since the last call.
    pub fn poll(&mut self) -> Vec<Event> {
        self.jobs.poll()
    }

    /// Starts an action's work. What touches patient data goes on record first; if that cannot
    /// be written, the work is refused.
    pub fn carry_out(&mut self, action: Action) {
        let mut act = None;
        if let Some(event) = action.audit() {
            let event = audit_event(event, &action);
            // What releases patient data has its outcome on record too.
            let recorded = if matches!(action, Action::Export { .. }) {
                self.log.begin(&event).map(|begun| act = Some(begun))
            } else {
                self.log.append(&event).map(|_| ())
            };
            if let Err(error) = recorded {
                return self.refuse(&action, &error);
            }
        }
        self.start(action, act);
    }

    /// What decides about results or names their reviewer is configuration; how things look is not.
    fn record_settings(&self, new: &Settings) {
        let old = self.home.load_settings();
        let changed: Vec<&str> = [
            ("mirroring", old.mirroring != new.mirroring),
            ("reviewer", old.reviewer != new.reviewer),
        ]
        .iter()
        .filter_map(|&(name, changed)| changed.then_some(name))
        .collect();
        if changed.is_empty() {
            return;
        }
        let file = ParticipantObject::new(audit::ObjectKind::File, "settings.json")
            .with("change", changed.join(" "));
        let event = AuditEvent::new(audit::EventId::SecurityAlert, clock::now_utc())
            .of_type(audit::EventType::SoftwareConfiguration)
            .about(file);
        if let Err(error) = self.log.append(&event) {
            tracing::warn!(%error, "a change of settings is not on record");
        }
    }

    fn refuse(&self, action: &Action, error: &audit::Error) {
        let job = match action {
            Action::Load { job, .. }
            | Action::RunModel { job, .. }
            | Action::Explain { job, .. }
            | Action::Export { job, .. }
            | Action::LoadSegmentation { job, .. }
            | Action::OpenResult { job, .. }
            | Action::Train { job, .. } => Some(*job),
            _ => None,
        };
        let notice = Notice::from_error(
            "Not done: the audit log cannot be written",
            "Access to patient data is kept on record. Free some space or check the rights of the folder, then try again.",
            error,
        );
        self.jobs.outbox().send(Event::Failed { job, notice });
    }

    /// Changes the servers, and tells which there are then.
    fn servers_changed(&self, change: impl FnOnce(&Home) -> Result<(), Stop> + Send + 'static) {
        let home = self.home.clone();
        self.jobs.spawn("servers", None, move |_| {
            change(&home)?;
            Ok(Some(Event::Places(remote_view::places(&home)?)))
        });
    }

    /// Changes the queue, and tells how it is then.
    fn queue_changed(
        &self,
        change: impl FnOnce(&Home) -> Result<(), super::RemoteError> + Send + 'static,
    ) {
        let home = self.home.clone();
        self.jobs.spawn("queue", None, move |outbox| {
            let changed = change(&home).map_err(|e| remote_view::queue_failed(&e));
            outbox.send(Event::QueueRead(remote_view::queue_rows(&home)?));
            changed.map(|()| None)
        });
    }

    fn start(&self, action: Action, act: Option<audit::Act>) {
        match action {
            Action::Ask(what) => self.jobs.spawn("dialog", None, move |_| {
                Ok(Some(Event::Chosen(what, dialogs::ask(what))))
            }),
            Action::Index { job, paths, task } => self.jobs.spawn("index", Some(job), move |_| {
                let opened = index_paths(&paths, &task)?;
                Ok(Some(Event::Indexed {
                    job,
                    worklist: opened.worklist,
                    files: opened.files,
                }))
            }),
            Action::Load {
                job,
                key,
                series,
                volume,
                first,
                task,
            } => {
                self.jobs.spawn("load", Some(job), move |outbox| {
                    if let (SeriesKey::Stack { stack, .. }, Some(headers)) = (&key, &series)
                        && let Ok((data, auto_window)) = load_slice(headers, *stack, first)
                    {
                        let slice = first;
                        outbox.send(Event::Slice {
                            volume,
                            slice,
                            data,
                            auto_window,
                        });
                    }
                    let (data, auto_window) =
                        load_key(&key, series.as_deref(), &task).map_err(load_failed)?;
                    Ok(Some(Event::Loaded {
                        job,
                        volume,
                        data,
                        auto_window,
                    }))
                });
            }
            Action::LoadSlice {
                key,
                series,
                volume,
                slice,
            } => {
                self.jobs.spawn("slice", None, move |_| {
                    let SeriesKey::Stack { stack, .. } = key else {
                        return Ok(None);
                    };
                    // A slice that fails is not told: the load of the whole stack tells it.
                    let loaded = load_slice(&series, stack, slice).ok();
                    Ok(loaded.map(|(data, auto_window)| Event::Slice {
                        volume,
                        slice,
                        data,
                        auto_window,
                    }))
                });
            }
            Action::Thumbnails(wanted) => self.jobs.spawn("thumbnails", None, move |outbox| {
                for (key, patient, study, series) in wanted {
                    let SeriesKey::Stack { stack, .. } = &key else {
                        continue;
                    };
                    let context = dicom::SeriesContext {
                        patient: &patient,
                        study: &study,
                        series: &series,
                    };
                    if let Ok(picture) = dicom::thumbnail(context, *stack) {
                        outbox.send(Event::Thumbnail {
                            key,
                            width: picture.width,
                            height: picture.height,
                            rgba: Arc::new(with_alpha(&picture.rgb)),
                        });
                    }
                }
                Ok(None)
            }),
            Action::ListModels => {
                let home = self.home.clone();
                self.jobs
                    .spawn("models", None, move |_| Ok(Some(models::list(&home))));
            }
            Action::ImportModel(path) => {
                let home = self.home.clone();
                self.jobs.spawn("import", None, move |outbox| {
                    outbox.send(Event::Notice(models::import(&home, &path)?));
                    Ok(Some(models::list(&home)))
                });
            }
            Action::ListPlaces => {
                let home = self.home.clone();
                self.jobs.spawn("servers", None, move |outbox| {
                    outbox.send(Event::Places(remote_view::places(&home)?));
                    Ok(Some(Event::QueueRead(remote_view::queue_rows(&home)?)))
                });
            }
            Action::Copy {
                job,
                inputs,
                wanted,
                task,
            } => {
                let home = self.home.clone();
                self.jobs.spawn("copy", Some(job), move |_| {
                    copy::copy_for_window(&home, job, inputs, &wanted, &task).map(Some)
                });
            }
            Action::AddServer(draft) => {
                self.servers_changed(move |home| servers::add(home, &draft));
            }
            Action::RemoveServer(name) => {
                self.servers_changed(move |home| servers::remove(home, &name));
            }
            Action::SetAsks(name, asks) => {
                self.servers_changed(move |home| servers::set_asks(home, &name, asks));
            }
            Action::TestServer(name, task) => {
                let home = self.home.clone();
                self.jobs.spawn("look", None, move |outbox| {
                    servers::test(&home, &name, outbox, &task);
                    Ok(None)
                });
            }
            Action::PrepareRemote {
                job,
                endpoint,
                model,
                work,
                mirroring,
                task,
            } => {
                let (home, prepared) = (self.home.clone(), Arc::clone(&self.prepared));
                let request = Request {
                    job,
                    endpoint,
                    model,
                    work,
                    mirroring,
                };
                self.jobs.spawn("prepare", Some(job), move |outbox| {
                    prepared.prepare(&home, request, &task, outbox).map(Some)
                });
            }
            Action::SendRemote { job, task } => {
                let (home, prepared) = (self.home.clone(), Arc::clone(&self.prepared));
                self.jobs.spawn("send", Some(job), move |outbox| {
                    prepared.send(&home, job, &task, outbox)
                });
            }
            Action::DropRemote(job) => {
                let prepared = Arc::clone(&self.prepared);
                self.queue_changed(move |home| prepared.drop_job(home, job));
            }
            Action::CloseQueued(name) => {
                self.queue_changed(move |home| remote_view::shown(home, &name));
            }
            Action::ReadQueue => self.queue_changed(|_| Ok(())),
            Action::CancelQueued(name) => {
                self.queue_changed(move |home| remote_view::cancel(home, &name));
            }
            Action::ClearQueue => self.queue_changed(remote_view::clear),
            Action::ReadAudit => {
                let home = self.home.clone();
                self.jobs.spawn("audit", None, move |_| {
                    let page = audit_view::read(&home).map_err(|e| audit_view::failed(&e))?;
                    Ok(Some(Event::AuditRead(Box::new(page))))
                });
            }
            Action::ExportAudit(path) => {
                let home = self.home.clone();
                self.jobs.spawn("audit", None, move |_| {
                    audit_view::export(&home, &path).map(|notice| Some(Event::Notice(notice)))
                });
            }
            Action::ReadComparison(folder) => self.jobs.spawn("comparison", None, move |_| {
                results::read_comparison(&folder).map(Some)
            }),
            Action::Estimate {
                model,
                volume,
                data,
                mirroring,
            } => {
                let (home, last) = (self.home.clone(), Arc::clone(&self.last_model));
                self.jobs.spawn("estimate", None, move |_| {
                    let estimate = models::estimate(&home, &last, &model, &data, mirroring);
                    Ok(Some(Event::Estimated {
                        model,
                        volume,
                        mirroring,
                        estimate,
                    }))
                });
            }
            Action::RunModel {
                job,
                model,
                volume,
                data,
                further,
                mirroring,
                task,
            } => {
                let (home, last) = (self.home.clone(), Arc::clone(&self.last_model));
                self.jobs.spawn("model", Some(job), move |outbox| {
                    let mut loaded = Vec::new();
                    for source in &further {
                        let headers = source.series.as_deref();
                        let read = load_key(&source.key, headers, &task).map_err(load_failed)?;
                        loaded.push(read.0);
                    }
                    let volumes: Vec<&Volume> = std::iter::once(&data)
                        .chain(&loaded)
                        .map(Arc::as_ref)
                        .collect();
                    let watch = watch(job, volume, Arc::clone(&data), outbox.clone());
                    let said = models::assess(&home, &last, &model, &data, &task)?;
                    if let Some((assessments, methods)) = said {
                        return Ok(Some(Event::Assessed {
                            job,
                            volume,
                            assessments,
                            methods,
                        }));
                    }
                    let (segmentation, statistics) =
                        models::run(&home, &last, &model, &volumes, mirroring, watch, &task)?;
                    let segmentation = Arc::new(segmentation);
                    Ok(Some(Event::Segmented {
                        job,
                        volume,
                        segmentation,
                        statistics,
                    }))
                });
            }
            Action::Explain {
                job,
                model,
                volume,
                data,
                assessment,
                image,
                finding,
                method,
                task,
            } => {
                let (home, last) = (self.home.clone(), Arc::clone(&self.last_model));
                self.jobs.spawn("explanation", Some(job), move |_| {
                    let found = models::explain(
                        &home,
                        &last,
                        &model,
                        (&data, image),
                        &finding,
                        method,
                        &task,
                    )?;
                    Ok(Some(Event::Explained {
                        job,
                        volume,
                        assessment,
                        map: Box::new(found),
                    }))
                });
            }
            Action::Export {
                job,
                result,
                data,
                folder,
                task,
            } => {
                let Some(act) = act else { return };
                self.jobs.spawn("export", Some(job), move |_| {
                    let written = task
                        .check()
                        .map_err(Stop::from)
                        .and_then(|()| match &result {
                            ToExport::Segmentation(segmentation) => {
                                results::export_all(segmentation, &data, &folder, &act)
                            }
                            ToExport::Findings(found) => {
                                results::export_findings(found, &data, &folder, &act)
                            }
                        });
                    let now = clock::now_utc();
                    let closed = match &written {
                        Ok(_) => act.done(now),
                        Err(Stop::Cancelled) => act.failed(now, Outcome::MinorFailure, "cancelled"),
                        Err(_) => act.failed(now, Outcome::SeriousFailure, "export failed"),
                    };
                    if let Err(error) = closed {
                        tracing::error!(%error, "the end of an export could not be put on record");
                    }
                    let files = written?;
                    Ok(Some(Event::Exported { job, folder, files }))
                });
            }
            Action::Batch {
                job,
                input,
                output,
                model,
                mirroring,
                task,
            } => {
                let home = self.home.clone();
                self.jobs.spawn("batch", Some(job), move |outbox| {
                    let summary = results::run_batch(
                        &home, &input, &output, &model, mirroring, &task, outbox,
                    )?;
                    Ok(Some(Event::BatchDone { job, summary }))
                });
            }
            Action::Train {
                job,
                recipe,
                data,
                folder,
                task,
            } => {
                self.jobs.spawn("training", Some(job), move |outbox| {
                    let data = data.as_deref();
                    train_job::train(job, &recipe, data, &folder, &task, outbox).map(Some)
                });
            }
            Action::FollowTraining { job, folder, task } => {
                self.jobs.spawn("look on", Some(job), move |outbox| {
                    train_job::follow(job, &folder, &task, outbox).map(Some)
                });
            }
            Action::OpenResult {
                job,
                inputs,
                results: folder,
                task,
            } => {
                let home = self.home.clone();
                self.jobs.spawn("result", Some(job), move |_| {
                    results::open_result(&home, job, &inputs, &folder, &task).map(Some)
                });
            }
            Action::LoadSegmentation {
                job,
                path,
                volume,
                data,
                task,
            } => {
                self.jobs.spawn("segmentation", Some(job), move |_| {
                    let (segmentation, statistics) = results::read_onto(&path, &data, &task)?;
                    let segmentation = Arc::new(segmentation);
                    Ok(Some(Event::Segmented {
                        job,
                        volume,
                        segmentation,
                        statistics,
                    }))
                });
            }
            Action::SaveSettings(settings) => {
                self.record_settings(&settings);
                if let Err(error) = self.home.save_settings(&settings) {
                    tracing::warn!(%error, "settings were not saved");
                }
            }
            Action::NoteReview(note) => monitoring::note_review(&self.home, &note),
            Action::Reveal(path) => reveal(&path),
            Action::Quit => {}
        }
    }
}

/// Sends what a run has found so far to the window.
pub(super) fn watch(job: JobId, volume: VolumeId, data: Arc<Volume>, outbox: Outbox) -> Watch {
    Watch(Arc::new(move |preview| {
        let statistics = label_statistics(&data, &preview.segmentation.map);
        outbox.send(Event::Provisional {
            job,
            volume,
            stage: preview.stage,
            segmentation: Arc::new(preview.segmentation),
            statistics,
        });
    }))
}

/// The event of an action: which study, how much, with what. No names.
fn audit_event(kind: audit::EventId, action: &Action) -> AuditEvent {
    let event = AuditEvent::new(kind, clock::now_utc());
    match action {
        Action::Load { key, series, .. } => match (series, key) {
            (Some(headers), SeriesKey::Stack { stack, .. }) => {
                let images = headers.2.stacks.get(*stack).map_or(0, |s| s.images.len());
                event
                    .about(ParticipantObject::study(
                        &headers.1.study_instance_uid,
                        images,
                    ))
                    .about(ParticipantObject::series(&headers.2.series_instance_uid))
            }
            (_, SeriesKey::File(path)) => event.about(ParticipantObject::file(path)),
            _ => event,
        },
        Action::RunModel {
            model,
            data,
            further,
            ..
        } => further.iter().fold(
            about_volume(event, data).about(ParticipantObject::new(
                audit::ObjectKind::Model,
                model.as_str(),
            )),
            |event, source| match &source.key {
                SeriesKey::Stack { series, .. } => event.about(ParticipantObject::series(series)),
                SeriesKey::File(path) => event.about(ParticipantObject::file(path)),
            },
        ),
        Action::Explain { model, data, .. } => about_volume(event, data).about(
            ParticipantObject::new(audit::ObjectKind::Model, model.as_str()),
        ),
        Action::Export { data, folder, .. } => about_volume(event, data)
            .about(ParticipantObject::file(folder).with("role", "destination")),
        Action::LoadSegmentation { data, path, .. } => {
            about_volume(event, data).about(ParticipantObject::file(path))
        }
        Action::Train { recipe, data, .. } => {
            let object = ParticipantObject::file(data.as_deref().unwrap_or(recipe));
            event.about(object.with("role", "training data"))
        }
        Action::ReadAudit => event.about(log_object("shown")),
        Action::ExportAudit(path) => event
            .about(log_object("exported"))
            .about(ParticipantObject::file(path).with("role", "destination")),
        Action::OpenResult { results, .. } => event.about(ParticipantObject::file(results)),
        _ => event,
    }
}

fn log_object(what: &str) -> ParticipantObject {
    ParticipantObject::new(audit::ObjectKind::AuditLog, "audit").with("use", what)
}

/// Adds the study that a volume came from.
pub fn about_volume(event: AuditEvent, volume: &Volume) -> AuditEvent {
    match &volume.source.study_instance_uid {
        Some(uid) => event.about(ParticipantObject::study(
            uid,
            volume.source.known_images().count(),
        )),
        None => event,
    }
}

fn load_failed(error: LoadError) -> Stop {
    if let LoadError::Cancelled(_) = error {
        return Stop::Cancelled;
    }
    Stop::Failed(Notice::from_error(
        "The series could not be opened",
        "The files are damaged or of a kind that is not read yet. Other series are not affected.",
        &error,
    ))
}

fn reveal(path: &std::path::Path) {
    let program = if cfg!(windows) {
        "explorer"
    } else if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    if let Err(error) = std::process::Command::new(program).arg(path).spawn() {
        tracing::warn!(%error, "the file manager could not be started");
    }
}

/// A failed job as a notice.
pub fn failed(title: &str, advice: &str, error: &dyn std::error::Error) -> Stop {
    Stop::Failed(Notice {
        level: NoticeLevel::Error,
        ..Notice::from_error(title, advice, error)
    })
}

/// Opaque RGBA from RGB.
fn with_alpha(rgb: &[[u8; 3]]) -> Vec<u8> {
    rgb.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect()
}
