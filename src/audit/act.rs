//! Acts: what is about to be done, on record, and how it ended, on record too.

use std::ops::Deref;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::log::Part;
use super::{AuditEvent, Error, EventId, Log, Outcome};

/// Proof that an event is on record: made by [`Log`] and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    seq: u64,
    sha256: String,
    event: EventId,
}

impl Receipt {
    pub(super) const fn new(seq: u64, sha256: String, event: EventId) -> Self {
        Self { seq, sha256, event }
    }

    /// Number of the record.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Hash of the record.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What was put on record.
    pub const fn event(&self) -> EventId {
        self.event
    }
}

/// An act that is on record as begun. Its outcome goes on record under the number of its beginning:
/// by [`Self::done`], [`Self::failed`] or [`Self::close`], or as unknown when it is dropped.
#[derive(Debug)]
pub struct Act {
    log: Log,
    receipt: Receipt,
    event: AuditEvent,
    begun: Instant,
    open: bool,
}

/// The outcome of an act that nobody closed.
pub(super) const UNKNOWN: &str = "the act ended without saying how";

impl Act {
    pub(super) fn new(log: Log, receipt: Receipt, event: AuditEvent) -> Self {
        Self {
            log,
            receipt,
            event,
            begun: Instant::now(),
            open: true,
        }
    }

    /// What was put on record as the beginning, to be told again with an outcome.
    pub const fn event(&self) -> &AuditEvent {
        &self.event
    }

    /// The time by the clock of its beginning, for an end that nobody gives a time for.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.event.time + self.begun.elapsed()
    }

    /// The act succeeded.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn done(self, now: DateTime<Utc>) -> Result<Receipt, Error> {
        let event = self.event.clone().at(now);
        self.close(&event)
    }

    /// The act failed. The words hold no patient data.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn failed(
        self,
        now: DateTime<Utc>,
        outcome: Outcome,
        why: impl ToString,
    ) -> Result<Receipt, Error> {
        let event = self.event.clone().at(now).failed(outcome, why);
        self.close(&event)
    }

    /// The act ended as this event tells.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn close(mut self, outcome: &AuditEvent) -> Result<Receipt, Error> {
        self.open = false;
        self.log.put(outcome, Part::End(self.receipt.seq))
    }
}

/// An act is the proof that its beginning is on record.
impl Deref for Act {
    type Target = Receipt;
    fn deref(&self) -> &Receipt {
        &self.receipt
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let event = self.event.clone().at(self.now());
        let event = event.failed(Outcome::MinorFailure, UNKNOWN);
        if let Err(error) = self.log.put(&event, Part::End(self.receipt.seq)) {
            tracing::error!(%error, "the end of an act could not be put on record");
        }
    }
}
