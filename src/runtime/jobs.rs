//! Threads that report through one bounded channel.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::app::{Event, JobId, Notice, NoticeLevel};

/// Called after each event, so that a sleeping window looks at it.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Why a job ended early.
#[derive(Debug)]
pub enum Stop {
    /// As asked.
    Cancelled,
    /// With this message.
    Failed(Notice),
}

impl From<crate::task::Cancelled> for Stop {
    fn from(_: crate::task::Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Starts jobs and collects what they report.
pub struct Jobs {
    sender: SyncSender<Event>,
    receiver: Receiver<Event>,
    wake: Arc<Mutex<Wake>>,
}

/// What a job sends its events with.
#[derive(Clone)]
pub struct Outbox {
    sender: SyncSender<Event>,
    wake: Arc<Mutex<Wake>>,
}

impl Outbox {
    /// Sends an event; waits while the channel is full. Lost only when the window is gone.
    pub fn send(&self, event: Event) {
        if self.sender.send(event).is_ok()
            && let Ok(wake) = self.wake.lock()
        {
            wake();
        }
    }
}

impl Jobs {
    pub fn new() -> Self {
        let (sender, receiver) = sync_channel(256);
        let wake: Wake = Arc::new(|| {});
        Self {
            sender,
            receiver,
            wake: Arc::new(Mutex::new(wake)),
        }
    }

    pub fn set_wake(&self, wake: Wake) {
        if let Ok(mut slot) = self.wake.lock() {
            *slot = wake;
        }
    }

    pub fn poll(&self) -> Vec<Event> {
        self.receiver.try_iter().collect()
    }

    pub fn outbox(&self) -> Outbox {
        Outbox {
            sender: self.sender.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// Runs `work` on a thread; its end, failure or panic becomes an event.
    pub fn spawn(
        &self,
        name: &str,
        job: Option<JobId>,
        work: impl FnOnce(&Outbox) -> Result<Option<Event>, Stop> + Send + 'static,
    ) {
        let outbox = self.outbox();
        let body = {
            let outbox = outbox.clone();
            move || {
                let ended = catch_unwind(AssertUnwindSafe(|| work(&outbox)));
                match (ended, job) {
                    (Ok(Ok(Some(event))), _) => outbox.send(event),
                    (Ok(Ok(None)), _) | (Ok(Err(Stop::Cancelled)), None) => {}
                    (Ok(Err(Stop::Cancelled)), Some(job)) => outbox.send(Event::Cancelled(job)),
                    (Ok(Err(Stop::Failed(notice))), job) => {
                        outbox.send(Event::Failed { job, notice });
                    }
                    (Err(_), job) => outbox.send(Event::Failed {
                        job,
                        notice: panicked(),
                    }),
                }
            }
        };
        let started = std::thread::Builder::new()
            .name(name.to_owned())
            // Deep recursion in foreign decoders must not end the program.
            .stack_size(8 << 20)
            .spawn(body);
        if let Err(error) = started {
            let notice =
                Notice::from_error("Too busy", "The system gives no more threads.", &error);
            outbox.send(Event::Failed { job, notice });
        }
    }
}

fn panicked() -> Notice {
    Notice {
        level: NoticeLevel::Error,
        title: "An error in Negatoscope".to_owned(),
        text: "The work was stopped, nothing was changed. Please report what you did.".to_owned(),
        details: Vec::new(),
    }
}
