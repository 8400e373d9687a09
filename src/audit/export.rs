//! Many records in the form of others, one a line.

use std::path::Path;

use super::message::{COLUMNS, atna_xml, fhir, host_name, row};
use super::verdict::Place;
use super::{Error, Filter, Pseudonyms, read};

/// A form of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Messages of DICOM PS3.15 A.5.
    AtnaXml,
    /// FHIR R4 AuditEvent (NDJSON).
    Fhir,
    /// A table.
    Csv,
}

impl Form {
    /// By a file's name: `.csv`, `.json` and `.ndjson` (FHIR), else messages in XML.
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("csv") => Self::Csv,
            Some("json" | "ndjson") => Self::Fhir,
            _ => Self::AtnaXml,
        }
    }
}

/// What was written, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// UTF-8.
    pub text: Vec<u8>,
    /// Records in it.
    pub records: usize,
    /// Lines of the log that are damaged, or whose key is not here.
    pub unreadable: Vec<Place>,
}

/// Writes the records that a filter lets through; `reduce` puts pseudonyms in place of identifiers.
///
/// # Errors
/// The log exists but cannot be read.
pub fn export(
    home: &Path,
    form: Form,
    filter: &Filter,
    reduce: Option<&Pseudonyms>,
) -> Result<Exported, Error> {
    let source = host_name();
    let mut done = Exported::default();
    if form == Form::Csv {
        done.text
            .extend(csv_line(&COLUMNS.map(str::to_owned)).into_bytes());
    }
    read::records(home, |place, record| {
        let Some(record) = record else {
            done.unreadable.push(place);
            return;
        };
        if !filter.lets_through(&record) {
            return;
        }
        let record = reduce.map_or_else(|| record.clone(), |p| p.reduced(&record));
        done.records += 1;
        let line = match form {
            Form::AtnaXml => atna_xml(&record, &source) + "\n",
            Form::Fhir => fhir(&record, &source).to_string() + "\n",
            Form::Csv => csv_line(&row(&record)),
        };
        done.text.extend(line.into_bytes());
    })?;
    Ok(done)
}

/// RFC 4180. No cell has an end of line in it.
fn csv_line(cells: &[String]) -> String {
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| {
            if cell.contains([',', '"', ';']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        })
        .collect();
    cells.join(",") + "\r\n"
}
