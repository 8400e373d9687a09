//! Progress on a terminal: one line that overwrites itself. Silent elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::task::Task;

/// Draws the progress of a task until it is dropped.
pub struct ProgressLine {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressLine {
    /// Starts drawing, when standard error is a terminal.
    pub fn start(task: &Arc<Task>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        if !std::io::stderr().is_terminal() {
            return Self { over, thread: None };
        }
        let (task, flag) = (Arc::clone(task), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let progress = task.progress();
                let percent = progress.fraction().map(|f| format!(" {:3.0} %", f * 100.0));
                eprint!("\r\x1b[K{}{}", progress.phase, percent.unwrap_or_default());
                let _ = std::io::stderr().flush();
                std::thread::sleep(Duration::from_millis(100));
            }
            eprint!("\r\x1b[K");
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl ProgressLine {
    /// Says something on standard error, above the line.
    pub fn note(&self, text: &str) {
        let clear = if self.thread.is_some() {
            "\r\x1b[K"
        } else {
            ""
        };
        eprintln!("{clear}{text}");
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
