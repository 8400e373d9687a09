//! The audit log for the window: checked, and its newest records in words.

use std::collections::VecDeque;
use std::path::Path;

use super::carry_out;
use super::home::Home;
use super::jobs::Stop;
use crate::app::{AuditPage, AuditRow, Notice};
use crate::audit::{self, Filter, Form};
use crate::whole_file;

/// Records that the window lists; the command line lists all.
const MOST: usize = 5000;

/// Checks the log and reads its newest records.
pub(super) fn read(home: &Home) -> Result<AuditPage, audit::Error> {
    let verdict = audit::verify(home.root())?;
    let mut rows = VecDeque::new();
    audit::records(home.root(), |_, record| {
        let Some(record) = record else { return };
        if rows.len() == MOST {
            rows.pop_front();
        }
        let seq = record.seq;
        let [
            _,
            time,
            act,
            _,
            event,
            _,
            outcome,
            reason,
            users,
            objects,
            _,
        ] = audit::row(&record);
        rows.push_back(AuditRow {
            seq,
            time,
            event: match act.as_str() {
                "begin" => format!("{event} begins"),
                act if act.starts_with("end:") => format!("{event} ends"),
                _ => event,
            },
            users,
            objects,
            outcome: if outcome == "0" {
                reason
            } else {
                format!("failed: {reason}")
            },
        });
    })?;
    Ok(AuditPage {
        ok: verdict.ok,
        verdict: verdict
            .findings()
            .iter()
            .map(|f| f.word())
            .collect::<Vec<_>>()
            .join(", "),
        records: verdict.records,
        problems: verdict.problems.iter().map(ToString::to_string).collect(),
        notes: verdict.notes.iter().map(ToString::to_string).collect(),
        rows: rows.into_iter().rev().collect(),
    })
}

/// Writes all records in the form that the file's name asks for.
pub(super) fn export(home: &Home, path: &Path) -> Result<Notice, Stop> {
    let all = Filter::default();
    let done =
        audit::export(home.root(), Form::of_name(path), &all, None).map_err(|e| failed(&e))?;
    whole_file::write(path, |w| w.write_all(&done.text)).map_err(|error| {
        carry_out::failed(
            "The audit log was not saved",
            "Check that the folder can be written and the disk has room, then save again.",
            &error,
        )
    })?;
    Ok(Notice::info(
        "The audit log is saved",
        &format!(
            "{} records in {}. It names studies and people: keep it as safe as the log.",
            done.records,
            path.display()
        ),
    ))
}

pub(super) fn failed(error: &audit::Error) -> Stop {
    carry_out::failed(
        "The audit log cannot be read",
        "Check the rights of the folder, then try again.",
        error,
    )
}
