//! `negatoscope queue`: what waits for a server, and `analyze --remote`, which puts it there.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use serde_json::json;

use super::Ending;
use super::analyze::{ending, tell_row, tell_rows};
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::batch::{Plan, Summary};
use crate::offload::Endpoints;
use crate::queue::{Job, JobId, Queue, State};
use crate::runtime::{Home, Leaving, Ran, RemoteRun, RemoteWork, cancel, enqueue};
use crate::task::Task;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// List jobs: what waits, what is done.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Go on with a job, or with all that wait; what was answered before is not asked again.
    Resume {
        /// First characters of its name.
        job: Option<String>,
        /// Send without asking, after showing what leaves.
        #[arg(long)]
        yes: bool,
    },
    /// Take a job back. What a server already has stays with it.
    Cancel {
        /// First characters of its name.
        job: String,
    },
    /// Forget jobs that are over.
    Clear,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let queue = Queue::open(home.root())?;
    match &arguments.what {
        What::List { json } => list(&queue, *json),
        What::Resume { job, yes } => resume(home, &queue, job.as_deref(), *yes),
        What::Cancel { job } => {
            let job: Job<RemoteWork> = queue.find(job)?;
            let job = cancel(&queue, &job.id)?;
            say(&line(&queue, &job))?;
            Ok(Ending::Done)
        }
        What::Clear => {
            let (jobs, _) = queue.list::<RemoteWork>()?;
            for job in jobs.iter().filter(|job| job.state.is_over()) {
                queue.remove(&job.id)?;
            }
            Ok(Ending::Done)
        }
    }
}

/// One line about a job.
fn line(queue: &Queue, job: &Job<RemoteWork>) -> String {
    let state = if !job.state.is_over() && queue.is_running(&job.id) {
        "running"
    } else {
        job.state.name()
    };
    let work = &job.work;
    let first = work.inputs.first().map(|p| p.display().to_string());
    let more = match work.inputs.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    format!(
        "{}  {}  {state:<9}  {} on {}  {}{more} → {}  {}",
        job.id,
        job.created,
        work.model,
        work.places(&job.endpoint),
        first.unwrap_or_default(),
        if work.shown.is_some() {
            "the window".to_owned()
        } else {
            work.output.display().to_string()
        },
        job.state.words()
    )
}

fn list(queue: &Queue, json: bool) -> anyhow::Result<Ending> {
    let (jobs, broken) = queue.list::<RemoteWork>()?;
    for error in &broken {
        eprintln!("negatoscope: {error}");
    }
    if json {
        let rows: Vec<_> = jobs
            .iter()
            .map(|job| {
                let running = !job.state.is_over() && queue.is_running(&job.id);
                json!({
                    "id": job.id, "created": job.created, "endpoint": job.endpoint,
                    "also_on": job.work.also_on,
                    "model": job.work.model, "inputs": job.work.inputs, "output": job.work.output,
                    "state": if running { "running" } else { job.state.name() },
                    "words": job.state.words(),
                    "sent_bytes": job.sent_bytes, "received_bytes": job.received_bytes,
                })
            })
            .collect();
        say_json(&json!({ "jobs": rows }))?;
    } else {
        for job in &jobs {
            say(&line(queue, job))?;
        }
    }
    Ok(if broken.is_empty() {
        Ending::Done
    } else {
        Ending::Partly
    })
}

fn resume(home: &Home, queue: &Queue, name: Option<&str>, yes: bool) -> anyhow::Result<Ending> {
    let jobs: Vec<Job<RemoteWork>> = if let Some(name) = name {
        vec![queue.find(name)?]
    } else {
        let (jobs, _) = queue.list()?;
        jobs.into_iter().filter(|j| !j.state.is_over()).collect()
    };
    let (mut summaries, mut waiting) = (Vec::new(), 0);
    for job in jobs {
        if job.state.is_over() {
            eprintln!("{}", line(queue, &job));
            continue;
        }
        match go(home, queue, &job.id, yes, false) {
            Ok(Some((_, summary))) => summaries.push(summary),
            Ok(None) => waiting += 1,
            Err(error) => {
                eprintln!("negatoscope: job {}: {error:#}", job.id);
                waiting += 1;
            }
        }
    }
    Ok(match (summaries.is_empty(), waiting) {
        (true, 0) => Ending::Done,
        _ => ending(&summaries, waiting),
    })
}

/// `analyze --remote`: a new job, shown, agreed to and run as far as it goes.
pub(super) fn analyze(
    home: &Home,
    (endpoint, also_on, here_too): (&str, &[String], bool),
    model: &str,
    plan: &Plan,
    yes: bool,
    json: bool,
) -> anyhow::Result<Ending> {
    let known = Endpoints::load(home.root())?;
    for name in std::iter::once(endpoint).chain(also_on.iter().map(String::as_str)) {
        known.find(name)?;
    }
    let queue = Queue::open(home.root())?;
    let work = RemoteWork {
        here_too,
        also_on: also_on.to_vec(),
        ..RemoteWork::new(home, model, plan)?
    };
    let job = enqueue(&queue, endpoint, work)?;
    let result = go(home, &queue, &job.id, yes, json);
    match result {
        Ok(Some((_, summary))) => {
            if json {
                say(std::fs::read_to_string(plan.output.join("batch.json"))?.trim_end())?;
            }
            let job: Job<RemoteWork> = queue.find(&job.id.to_string())?;
            if !job.state.is_over() {
                tell_waiting(&job.id, job.state.words());
            }
            Ok(match ending(&[summary], 0) {
                Ending::Done if !job.state.is_over() => Ending::Partly,
                other => other,
            })
        }
        Ok(None) => Ok(Ending::Nothing),
        Err(error) => {
            tell_waiting(&job.id, "it could not begin");
            Err(error)
        }
    }
}

fn tell_waiting(id: &JobId, why: &str) {
    eprintln!("the job {id} waits ({why}); go on with `negatoscope queue resume {id}`");
}

/// Shows what leaves, asks, and runs; `None` when nobody agreed.
fn go(
    home: &Home,
    queue: &Queue,
    id: &JobId,
    yes: bool,
    json: bool,
) -> anyhow::Result<Option<(Job<RemoteWork>, Summary)>> {
    let task = Arc::new(Task::new());
    let progress = ProgressLine::start(&task);
    let mut run = RemoteRun::take(home, queue, id)?;
    let (leavings, left_out) = match run.leavings(&task) {
        Err(error) if run.may_fall_back() => {
            progress.note(&format!(
                "{error}: the work is done here, as the policy says"
            ));
            let ran = run.run_here(&task, |_, row| tell_row(&progress, row))?;
            drop(progress);
            return told(ran, json).map(Some);
        }
        other => other?,
    };
    for words in &left_out {
        progress.note(words);
    }
    if leavings.len() > 1 {
        progress.note("each series goes to one of these servers, whichever is free:");
    }
    for words in leavings.iter().flat_map(Leaving::lines) {
        progress.note(&words);
    }
    drop(progress);
    if let Some(why) = leavings.iter().find_map(|leaving| leaving.over.clone()) {
        anyhow::bail!("nothing is sent: {why}");
    }
    if !yes && !leavings.iter().all(|leaving| run.agreed_before(leaving)) && !agreed()? {
        tell_waiting(id, "nobody has agreed to sending; `--yes` agrees");
        return Ok(None);
    }
    let progress = ProgressLine::start(&task);
    let ran = run.run(&task, |_, row| tell_row(&progress, row))?;
    drop(progress);
    told(ran, json).map(Some)
}

/// Says how a job ended.
fn told((job, summary, rows): Ran, json: bool) -> anyhow::Result<(Job<RemoteWork>, Summary)> {
    if !json {
        tell_rows(&rows)?;
    }
    eprintln!(
        "{}; results in {}",
        summary.words(),
        job.work.output.display()
    );
    if !matches!(job.state, State::Done { .. }) {
        eprintln!("negatoscope: {}", job.state.words());
    }
    Ok((job, summary))
}

/// Asks the person at the terminal; nobody there is a no.
fn agreed() -> std::io::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(false);
    }
    eprint!("Send this? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
