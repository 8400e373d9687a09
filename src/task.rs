//! Progress and cancellation, as seen by the work.
//!
//! Work reports into atomics that the window polls, so progress never fills a queue.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The user asked for the work to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// A piece of work that can be watched and stopped. Shared as `Arc<Task>`.
#[derive(Debug, Default)]
pub struct Task {
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    phase: Mutex<String>,
}

/// What a watcher sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What is being done, for people ("Reading slices").
    pub phase: String,
    /// Units finished in this phase.
    pub done: u64,
    /// Units in this phase; 0 while unknown.
    pub total: u64,
}

impl Progress {
    /// Finished part of the phase, 0 to 1; `None` while the total is unknown.
    pub fn fraction(&self) -> Option<f32> {
        (self.total > 0).then(|| (self.done as f64 / self.total as f64).clamp(0.0, 1.0) as f32)
    }
}

impl Task {
    /// A task that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether stopping was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// `Err(Cancelled)` soon after the user asks; call it between units of work.
    ///
    /// # Errors
    /// [`Cancelled`] once [`Task::cancel`] was called.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }

    /// Begins a phase of `total` units (0 = unknown).
    pub fn begin(&self, phase: &str, total: usize) {
        if let Ok(mut name) = self.phase.lock() {
            phase.clone_into(&mut name);
        }
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    /// Sets the finished units of the phase.
    pub fn report(&self, done: usize, total: usize) {
        self.done.store(done as u64, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    /// Adds finished units; for parallel work.
    pub fn advance(&self, units: usize) {
        self.done.fetch_add(units as u64, Ordering::Relaxed);
    }

    /// The state now.
    pub fn progress(&self) -> Progress {
        Progress {
            phase: self.phase.lock().map(|p| p.clone()).unwrap_or_default(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_task_fails_its_next_check() {
        let task = Task::new();
        assert!(task.check().is_ok());
        task.cancel();
        assert_eq!(task.check(), Err(Cancelled));
    }

    #[test]
    fn an_unknown_total_has_no_fraction() {
        let task = Task::new();
        task.begin("Reading", 0);
        assert_eq!(task.progress().fraction(), None);
        task.report(1, 4);
        assert_eq!(task.progress().fraction(), Some(0.25));
    }
}
