//! What of a record may leave this machine: no identifier of a patient, no path, no free text.
//!
//! The same identifier gives the same pseudonym always, and without the key of this home nobody can
//! try identifiers out.

use ring::hmac;

use super::act::UNKNOWN;
use super::text::hex;
use super::{ObjectKind, ParticipantObject, Record, log, session};
use crate::study::Uid;

/// Details whose values are words of this program or hashes of what is no patient's.
const PLAIN_DETAILS: &[&str] = &[
    "role",
    "method",
    "table",
    "burned_in",
    "anonymized",
    "encrypted",
    "sha256",
    "record",
    "record_sha256",
    "act",
    "tls",
    "certificate_sha256",
    "refused",
];

/// Makes pseudonyms.
pub struct Pseudonyms(hmac::Key);

impl Pseudonyms {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn of(&self, purpose: &str, value: &str) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(value.as_bytes());
        let mut out = [0; 16];
        out.copy_from_slice(&context.sign().as_ref()[..16]);
        out
    }

    fn word(&self, purpose: &str, value: &str) -> String {
        format!("{purpose}-{}", hex(&self.of(purpose, value)))
    }

    /// The record as it may leave.
    pub fn reduced(&self, record: &Record) -> Record {
        let mut record = record.clone();
        let event = &mut record.event;
        for object in &mut event.objects {
            self.reduce(object);
        }
        let text = &mut event.outcome_description;
        let ours = [UNKNOWN, session::KILLED].contains(&text.as_str())
            || log::REASONS.contains(&text.as_str());
        if !ours {
            // Reasons may end with a path.
            text.clear();
        }
        record
    }

    fn reduce(&self, object: &mut ParticipantObject) {
        object.id = match object.kind {
            ObjectKind::Study | ObjectKind::Series => {
                Uid::from_u128(u128::from_be_bytes(self.of("uid", &object.id))).to_string()
            }
            ObjectKind::Patient => self.word("patient", &object.id),
            ObjectKind::File => self.word("file", &object.id),
            ObjectKind::Model | ObjectKind::Node | ObjectKind::AuditLog => return,
        };
        for (name, value) in &mut object.detail {
            let plain = PLAIN_DETAILS.contains(&name.as_str())
                || value.parse::<u64>().is_ok_and(|n| n < 1_000_000)
                || matches!(value.as_str(), "true" | "false");
            if !plain {
                *value = self.word("value", value);
            }
        }
    }
}
