//! The audit log as the window shows it: the verdict, and the newest records in words.

/// A record in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number.
    pub seq: u64,
    /// Event Date Time, UTC.
    pub time: String,
    /// What happened.
    pub event: String,
    /// Who took part.
    pub users: String,
    /// What it was about.
    pub objects: String,
    /// How it went, when it went wrong.
    pub outcome: String,
}

impl AuditRow {
    /// Whether each of the words stands somewhere in the record, in any case.
    pub fn holds(&self, words: &str) -> bool {
        let all = [
            &self.time,
            &self.event,
            &self.users,
            &self.objects,
            &self.outcome,
        ]
        .map(|text| text.to_lowercase());
        words
            .to_lowercase()
            .split_whitespace()
            .all(|word| all.iter().any(|text| text.contains(word)))
    }
}

/// What was found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// Whether nothing is in doubt.
    pub ok: bool,
    /// The verdict's words.
    pub verdict: String,
    /// Records in the log.
    pub records: u64,
    /// What is not as it was written.
    pub problems: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// The newest records, the newest first.
    pub rows: Vec<AuditRow>,
}

/// The auditor's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditView {
    /// Whether it is open.
    pub shown: bool,
    /// What was found; `None` while it is being read.
    pub page: Option<AuditPage>,
    /// Words that shown records hold.
    pub words: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_all_words_in_any_case_and_place() {
        let row = AuditRow {
            time: "2026-01-31T12:00:00.000Z".to_owned(),
            event: "Export begins".to_owned(),
            users: "anna; negatoscope".to_owned(),
            ..AuditRow::default()
        };
        for words in ["", "export", "ANNA 2026-01", "begins negato"] {
            assert!(row.holds(words), "{words}");
        }
        assert!(!row.holds("anna import"));
    }
}
