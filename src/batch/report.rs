//! The table at the end: `batch.csv` and `batch.json`.

use std::io;
use std::path::Path;

use serde_json::json;

use super::run::{Row, Summary};
use crate::whole_file;

/// Writes both, each whole or not at all.
pub(super) fn write(output: &Path, model: &str, rows: &[Row], summary: &Summary) -> io::Result<()> {
    let table = table(rows).map_err(io::Error::other)?;
    whole_file::write(&output.join("batch.csv"), |w| w.write_all(&table))?;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "series": row.key,
                "title": row.title,
                "status": row.status.word(),
                "reason": row.reason,
                "seconds": (row.seconds * 1000.0).round() / 1000.0,
                "volumes_ml": row.volumes_ml.iter()
                    .map(|(name, ml)| (name.clone(), json!(ml)))
                    .collect::<serde_json::Map<_, _>>(),
                "findings": row.findings.iter()
                    .map(|(name, p, call)| json!({ "name": name, "probability": p, "call": call }))
                    .collect::<Vec<_>>(),
                "inputs": row.inputs.len(),
                "results": row.results.display().to_string(),
            })
        })
        .collect();
    let all = json!({
        "shape": "negatoscope-batch/1",
        "notice": crate::RESEARCH_USE,
        "software": { "name": "Negatoscope", "version": crate::VERSION },
        "model": model,
        "done": summary.done,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "cancelled": summary.cancelled,
        "unreadable_files": summary.unreadable,
        "rows": rows,
    });
    let mut text = serde_json::to_vec_pretty(&all)?;
    text.push(b'\n');
    whole_file::write(&output.join("batch.json"), |w| w.write_all(&text))
}

/// A line for each series, a column for each segment of any of them.
fn table(rows: &[Row]) -> Result<Vec<u8>, csv::Error> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.volumes_ml) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut found: Vec<&str> = Vec::new();
    for (name, ..) in rows.iter().flat_map(|row| &row.findings) {
        if !found.contains(&name.as_str()) {
            found.push(name);
        }
    }
    let mut table = csv::Writer::from_writer(Vec::new());
    let fixed = ["series", "title", "status", "reason", "seconds"].map(str::to_owned);
    let segments = names.iter().map(|name| plain(&format!("{name} mL")));
    let findings = (found.iter()).flat_map(|name| [plain(name), plain(&format!("{name} call"))]);
    table.write_record(fixed.into_iter().chain(segments).chain(findings))?;
    for row in rows {
        let fixed = [
            plain(&row.key),
            plain(&row.title),
            row.status.word().to_owned(),
            plain(&row.reason),
            format!("{:.1}", row.seconds),
        ];
        let segments = names.iter().map(|name| {
            let volume = row.volumes_ml.iter().find(|(n, _)| n == name);
            volume.map(|(_, ml)| format!("{ml:.3}")).unwrap_or_default()
        });
        let findings = found.iter().flat_map(|name| {
            let finding = row.findings.iter().find(|(n, ..)| n == name);
            finding.map_or_else(Default::default, |(_, p, call)| {
                [format!("{p:.4}"), call.clone()]
            })
        });
        table.write_record(fixed.into_iter().chain(segments).chain(findings))?;
    }
    table.into_inner().map_err(|e| e.into_error().into())
}

/// Text that no spreadsheet takes for a formula.
///
/// # Source
/// OWASP, CSV Injection.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Status;

    #[test]
    fn a_series_name_is_no_formula_and_missing_segments_are_empty() {
        let row = |title: &str, status, volumes_ml: &[(&str, f64)]| Row {
            key: "1.2/3".into(),
            title: title.into(),
            status,
            reason: String::new(),
            seconds: 1.25,
            volumes_ml: volumes_ml
                .iter()
                .map(|(n, v)| ((*n).to_owned(), *v))
                .collect(),
            findings: vec![],
            inputs: vec![],
            results: "out".into(),
        };
        let rows = [
            row("=cmd()", Status::Done, &[("Left", 1.5), ("Right", 2.0)]),
            row("b, c", Status::Failed, &[]),
        ];
        let text = String::from_utf8(table(&rows).unwrap()).unwrap();
        assert_eq!(
            text,
            "series,title,status,reason,seconds,Left mL,Right mL\n\
             1.2/3,'=cmd(),done,,1.2,1.500,2.000\n\
             1.2/3,\"b, c\",failed,,1.2,,\n"
        );
    }
}
