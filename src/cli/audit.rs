//! `negatoscope audit`: the log of who did what.

use serde_json::json;

use super::Ending;
use super::print::{say, say_json};
use crate::audit;
use crate::runtime::Home;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Print all records.
    Show {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Check that no record was changed, removed or reordered.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    match arguments.what {
        What::Show { json } => show(home, json),
        What::Verify { json } => verify(home, json),
    }
}

fn show(home: &Home, json: bool) -> anyhow::Result<Ending> {
    let mut damaged = 0;
    let mut lines = Vec::new();
    audit::records(home.root(), |line, record| match record {
        Some(record) if json => {
            lines.push(serde_json::to_string(&record).expect("a record that was read is written"));
        }
        Some(record) => lines.push(line_of(&record)),
        None => {
            damaged += 1;
            eprintln!("negatoscope: line {line} is damaged");
        }
    })?;
    if !lines.is_empty() {
        say(&lines.join("\n"))?;
    }
    Ok(match (damaged, lines.len()) {
        (0, _) => Ending::Done,
        (_, 0) => Ending::Nothing,
        _ => Ending::Partly,
    })
}

fn verify(home: &Home, json: bool) -> anyhow::Result<Ending> {
    let verdict = audit::verify(home.root())?;
    let problems: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
    if json {
        say_json(&json!({
            "ok": verdict.ok,
            "records": verdict.records,
            "problems": problems,
            "notes": verdict.notes,
        }))?;
    } else {
        let mut lines: Vec<String> = verdict.notes.iter().map(|n| format!("note: {n}")).collect();
        lines.extend(problems);
        lines.push(if verdict.ok {
            format!("{} records, the chain is whole", verdict.records)
        } else {
            format!("{} records, the chain is BROKEN", verdict.records)
        });
        say(&lines.join("\n"))?;
    }
    Ok(if verdict.ok {
        Ending::Done
    } else {
        Ending::Nothing
    })
}

/// One record on one line.
fn line_of(record: &audit::Record) -> String {
    let event = &record.event;
    let who = event
        .participants
        .first()
        .map_or("", |p| p.user_id.as_str());
    let objects: Vec<String> = event
        .objects
        .iter()
        .map(|o| match o.instances {
            Some(n) => format!("{} ({n} instances)", o.id),
            None => o.id.clone(),
        })
        .collect();
    let kind = event
        .id
        .type_code()
        .unwrap_or_else(|| event.id.code())
        .meaning;
    let outcome = &event.outcome_description;
    format!(
        "{:>6}  {}  {who}  {kind}  {}  {outcome}",
        record.seq,
        event
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        objects.join(", ")
    )
}
