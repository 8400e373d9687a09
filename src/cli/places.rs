//! `negatoscope analyze --where`: the places where a model could run, side by side; and the one that the
//! person's policy takes.

use std::sync::Arc;

use serde_json::json;

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::batch::Plan;
use crate::monitoring::Through;
use crate::runtime::{Choice, Home, LoadedModel, choices_of};
use crate::task::Task;

/// The places for each model over all that the plan names.
pub(super) fn show(
    home: &Home,
    models: &[String],
    plan: &Plan,
    json: bool,
) -> anyhow::Result<Ending> {
    let mut told = Vec::new();
    let mut can = false;
    for model in models {
        let (key, series, rows) = rows(home, model, plan)?;
        can |= series > 0 && rows.iter().any(|row| row.refused.is_none());
        if !json {
            say(&format!("{key} on {series} series"))?;
            say(&table(&rows))?;
        }
        told.push(json!({ "model": key, "series": series, "places": rows }));
    }
    if json {
        say_json(&json!({ "models": told }))?;
    }
    Ok(if can { Ending::Done } else { Ending::Nothing })
}

/// The endpoint that the policy takes; `None` for this machine.
pub(super) fn chosen(home: &Home, model: &str, plan: &Plan) -> anyhow::Result<Option<String>> {
    let (_, _, rows) = rows(home, model, plan)?;
    let Some(row) = rows.iter().find(|row| row.chosen) else {
        let why = rows.iter().map(|row| {
            let why = row.refused.as_deref().unwrap_or_default();
            format!("{}: {why}", place(row))
        });
        let why: Vec<String> = why.collect();
        anyhow::bail!("it can run nowhere ({})", why.join("; "));
    };
    eprintln!("the policy takes {}", place(row));
    Ok(row.endpoint.clone())
}

fn rows(home: &Home, model: &str, plan: &Plan) -> anyhow::Result<(String, usize, Vec<Choice>)> {
    let model = LoadedModel::open(home, model, Through::Batch)?;
    let task = Arc::new(Task::new());
    let _progress = ProgressLine::start(&task);
    let (series, rows) = choices_of(home, &model, plan, &task)?;
    Ok((model.key(), series, rows))
}

fn place(row: &Choice) -> &str {
    row.endpoint.as_deref().unwrap_or("this machine")
}

/// Columns that stand below each other, and a line for each place that is refused.
fn table(rows: &[Choice]) -> String {
    let head = [
        "",
        "place",
        "time",
        "memory here",
        "sent",
        "received",
        "price",
        "from",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    for row in rows {
        let away = |bytes| row.endpoint.as_ref().map_or("-".to_owned(), |_| mb(bytes));
        lines.push([
            if row.chosen { "*" } else { "" }.to_owned(),
            place(row).to_owned(),
            match (row.seconds, &row.refused) {
                (Some(seconds), None) => format!("{seconds:.1} s"),
                _ => "-".to_owned(),
            },
            mb(row.needed_bytes),
            away(row.sent_bytes),
            away(row.received_bytes),
            match row.price {
                None => "-".to_owned(),
                Some(price) if row.price_is_whole => format!("{price:.4} {}", row.currency),
                Some(price) => format!("{price:.4} {} and computing", row.currency),
            },
            match (row.runs, &row.endpoint) {
                (0, None) => "the plan; not measured yet".to_owned(),
                (0, Some(_)) => "not measured yet".to_owned(),
                (1, _) => "1 run".to_owned(),
                (n, _) => format!("{n} runs"),
            },
        ]);
    }
    let width = |n: usize| lines.iter().map(|line| line[n].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|n| width(n).unwrap_or(0)).collect();
    let mut text: Vec<String> = lines
        .iter()
        .map(|line| {
            let cells = line.iter().zip(&widths);
            let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    for row in rows {
        if let Some(why) = &row.refused {
            text.push(format!("{}: {why}", place(row)));
        }
    }
    text.join("\n")
}
