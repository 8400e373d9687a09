//! A batch over several engines at once: whoever is free takes the next series, each series once.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::engine::{Engine, Failure};
use super::plan::Plan;
use super::run::{
    Batch, Error, Kept, Prepared, Row, Status, Summary, guarded, lock, secs, volumes_of,
};
use crate::audit::Log;
use crate::task::Task;

/// Runs a batch on several engines of one model; `on_row` hears every change of a row.
///
/// An engine that cannot go on gives its series back and takes no other; the batch is cancelled when
/// none can. Memory: one item's volumes for each engine.
///
/// # Errors
/// As [`super::run`].
///
/// # Panics
/// Without an engine.
pub fn run_spread(
    engines: &[&dyn Engine],
    log: &Log,
    plan: &Plan,
    task: &Task,
    mut on_row: impl FnMut(usize, &Row),
) -> Result<(Summary, Vec<Row>), Error> {
    let first = *engines.first().expect("there is an engine to run on");
    let mut prepared = Prepared::new(first, plan, task, &mut on_row)?;
    let waiting: VecDeque<usize> = (0..prepared.rows.len())
        .filter(|&n| prepared.rows[n].status == Status::Waiting)
        .collect();
    let total = waiting.len();
    let shared = Shared {
        queue: Mutex::new(Queue {
            waiting,
            under_way: 0,
        }),
        changed: Condvar::new(),
        steps: engines.iter().map(|_| Mutex::default()).collect(),
    };
    let batch = |engine| Batch {
        engine,
        log,
        plan,
        model: prepared.model.clone(),
        items: &prepared.items,
    };
    let batches: Vec<Batch<'_, dyn Engine + '_>> =
        engines.iter().map(|engine| batch(*engine)).collect();
    let (rows, journal) = (&mut prepared.rows, &mut prepared.journal);
    let snapshot: Vec<Row> = rows.clone();
    let mut ended = 0;
    let (news, heard) = channel();
    std::thread::scope(|scope| {
        for (batch, step) in batches.iter().zip(&shared.steps) {
            let (news, shared, snapshot) = (news.clone(), &shared, &snapshot);
            scope.spawn(move || work(batch, shared, step, snapshot, &news));
        }
        // The workers hold the other ends: when the last of them goes, this loop ends.
        drop(news);
        loop {
            match heard.recv_timeout(Duration::from_millis(30)) {
                Ok(News::Begun(index)) => {
                    rows[index].status = Status::Running;
                    on_row(index, &rows[index]);
                }
                Ok(News::Ended(index, outcome, seconds)) => {
                    let row = &mut rows[index];
                    row.seconds = seconds;
                    ended += usize::from(batches[0].ended(row, index, *outcome, journal));
                    on_row(index, row);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            shared.show(task, ended, total);
        }
    });
    // What no engine could do waits for another day.
    let left = rows.iter().any(|row| row.status == Status::Waiting);
    prepared.end(plan, left)
}

enum News {
    Begun(usize),
    Ended(usize, Box<Result<Kept, Failure>>, f64),
}

struct Queue {
    waiting: VecDeque<usize>,
    /// Series that an engine has; each may come back.
    under_way: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// What each engine is at.
    steps: Vec<Mutex<Option<Arc<Task>>>>,
}

impl Shared {
    /// The next series; `None` when all are ended or the batch is to stop. Waits while an engine has
    /// one that it might give back.
    fn take(&self, step: &Task) -> Option<usize> {
        let mut queue = lock(&self.queue);
        loop {
            if step.is_cancelled() {
                return None;
            }
            if let Some(index) = queue.waiting.pop_front() {
                queue.under_way += 1;
                return Some(index);
            }
            if queue.under_way == 0 {
                return None;
            }
            queue = self
                .changed
                .wait_timeout(queue, Duration::from_millis(200))
                .map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
    }

    fn ended(&self, given_back: Option<usize>) {
        let mut queue = lock(&self.queue);
        queue.under_way -= 1;
        if let Some(index) = given_back {
            queue.waiting.push_front(index);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Passes cancellation down and progress up.
    fn show(&self, task: &Task, ended: usize, total: usize) {
        let steps: Vec<Arc<Task>> = (self.steps.iter())
            .filter_map(|step| lock(step).clone())
            .collect();
        if task.is_cancelled() {
            steps.iter().for_each(|step| step.cancel());
        }
        let parts = steps.iter().map(|s| s.progress().fraction().unwrap_or(0.0));
        let parts = (parts.sum::<f32>() * 1000.0) as usize;
        task.begin(&format!("{ended} of {total}"), total * 1000);
        task.report((ended * 1000 + parts).min(total * 1000), total * 1000);
    }
}

/// One engine takes series until there are none, or it cannot go on.
fn work(
    batch: &Batch<'_, dyn Engine + '_>,
    shared: &Shared,
    place: &Mutex<Option<Arc<Task>>>,
    rows: &[Row],
    news: &Sender<News>,
) {
    loop {
        let step = Arc::new(Task::new());
        *lock(place) = Some(Arc::clone(&step));
        let Some(index) = shared.take(&step) else {
            *lock(place) = None;
            return;
        };
        let start = Instant::now();
        // The other end lives as long as this thread.
        let _ = news.send(News::Begun(index));
        let outcome = volumes_of(batch.engine, batch.log, &batch.items[index], &step)
            .and_then(|volumes| guarded(|| batch.one(index, &rows[index], &volumes, &step)));
        let gives_back = matches!(outcome, Err(Failure::Cancelled));
        let _ = news.send(News::Ended(index, Box::new(outcome), secs(start)));
        shared.ended(gives_back.then_some(index));
        if gives_back {
            *lock(place) = None;
            return;
        }
    }
}
