//! `negatoscope audit`: the log of who did what.

use super::Ending;
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
        What::Show { json } => {
            let mut damaged = 0;
            audit::records(home.root(), |line, record| match record {
                Some(record) if json => {
                    if let Ok(text) = serde_json::to_string(&record) {
                        println!("{text}");
                    }
                }
                Some(record) => println!("{}", line_of(&record)),
                None => {
                    damaged += 1;
                    eprintln!("line {line} is damaged");
                }
            })?;
            Ok(if damaged == 0 {
                Ending::Done
            } else {
                Ending::Partly
            })
        }
        What::Verify { json } => {
            let verdict = audit::verify(home.root())?;
            if json {
                let problems: Vec<String> =
                    verdict.problems.iter().map(ToString::to_string).collect();
                let value = serde_json::json!({
                    "ok": verdict.ok,
                    "records": verdict.records,
                    "problems": problems,
                    "notes": verdict.notes,
                });
                println!("{}", serde_json::to_string_pretty(&value)?);
            } else {
                for note in &verdict.notes {
                    println!("note: {note}");
                }
                for problem in &verdict.problems {
                    println!("{problem}");
                }
                if verdict.ok {
                    println!("{} records, the chain is whole", verdict.records);
                }
            }
            Ok(if verdict.ok {
                Ending::Done
            } else {
                Ending::Nothing
            })
        }
    }
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
