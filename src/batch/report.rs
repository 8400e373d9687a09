//! The table at the end: `batch.csv` and `batch.json`.

use std::path::Path;

use serde_json::json;

use super::run::{Row, Summary};
use crate::whole_file;

/// Writes both, each whole or not at all.
pub fn write(output: &Path, model: &str, rows: &[Row], summary: &Summary) -> std::io::Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.volumes_ml) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut head = vec!["series", "title", "status", "reason", "seconds"];
    let columns: Vec<String> = names
        .iter()
        .map(|name| plain(&format!("{name} mL")))
        .collect();
    head.extend(columns.iter().map(String::as_str));
    table.write_record(&head)?;
    for row in rows {
        let mut record = vec![
            plain(&row.key),
            plain(&row.title),
            row.status.word().to_owned(),
            plain(&row.reason),
            format!("{:.1}", row.seconds),
        ];
        for name in &names {
            let volume = row.volumes_ml.iter().find(|(n, _)| n == name);
            record.push(volume.map(|(_, ml)| format!("{ml:.3}")).unwrap_or_default());
        }
        table.write_record(&record)?;
    }
    let table = table
        .into_inner()
        .map_err(|e| std::io::Error::other(e.to_string()))?;
    whole_file::write(&output.join("batch.csv"), |file| -> std::io::Result<()> {
        std::io::Write::write_all(file, &table)
    })?;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "series": row.key,
                "title": row.title,
                "status": row.status.word(),
                "reason": row.reason,
                "seconds": row.seconds,
                "volumes_ml": row.volumes_ml.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "inputs": row.inputs.len(),
                "results": row.results.display().to_string(),
            })
        })
        .collect();
    let all = json!({
        "model": model,
        "software_version": crate::VERSION,
        "notice": crate::RESEARCH_USE,
        "done": summary.done,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "cancelled": summary.cancelled,
        "rows": rows,
    });
    let text = serde_json::to_vec_pretty(&all)?;
    whole_file::write(&output.join("batch.json"), |file| -> std::io::Result<()> {
        std::io::Write::write_all(file, &text)
    })
}

/// A spreadsheet must not take a cell for a formula.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}
