//! One line of the log, and the hash that chains it to the line before.

use ring::digest;

use super::AuditEvent;

/// Longest record in bytes: enough for any event, and a bound for reading damaged logs.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What the first record names as the hash before it.
pub(super) const NOTHING_BEFORE: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// How the hash follows the hashed part: `…,"sha256":"<64 digits>"}`.
const SEAL: &str = ",\"sha256\":\"";
const SEAL_BYTES: usize = SEAL.len() + 64 + 2;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Hash of the record before; zeros for the first.
    pub previous: String,
    /// What happened.
    pub event: AuditEvent,
    /// SHA-256 over the bytes of the line before this field, closed by `}`.
    #[serde(default)]
    pub sha256: String,
}

/// The part of a record that the chain needs, also of records with events of later versions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) previous: String,
    pub(super) sha256: String,
}

/// The line of a record without its end of line, and its hash.
pub(super) fn line(seq: u64, previous: &str, event: &AuditEvent) -> (String, String) {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        seq: u64,
        previous: &'a str,
        event: &'a AuditEvent,
    }
    let body = serde_json::to_string(&Body {
        seq,
        previous,
        event,
    })
    .expect("strings, numbers and lists always serialize");
    let sha256 = hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
    let mut line = body;
    line.pop();
    line.push_str(SEAL);
    line.push_str(&sha256);
    line.push_str("\"}");
    (line, sha256)
}

/// Reads a line's link. `Ok(false)` when its bytes do not have the hash that it states.
///
/// `None` when it is no record at all.
pub(super) fn check(line: &[u8]) -> Option<(Link, bool)> {
    let link: Link = serde_json::from_slice(line).ok()?;
    let split = line.len().checked_sub(SEAL_BYTES)?;
    let (body, seal) = line.split_at(split);
    let sealed_so = seal
        .strip_prefix(SEAL.as_bytes())
        .and_then(|rest| rest.strip_suffix(b"\"}"))
        .is_some_and(|digits| digits == link.sha256.as_bytes());
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(body);
    context.update(b"}");
    let intact = sealed_so && hex(context.finish().as_ref()) == link.sha256;
    Some((link, intact))
}

/// SHA-256 of bytes, in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventId;

    #[test]
    fn a_line_states_the_hash_of_its_own_bytes() {
        let event = AuditEvent::new(EventId::Export, chrono::DateTime::UNIX_EPOCH);
        let (line, sha256) = line(7, NOTHING_BEFORE, &event);
        let (link, intact) = check(line.as_bytes()).unwrap();
        assert!(intact);
        assert_eq!((link.seq, &link.sha256), (7, &sha256));
        let record: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(record.event, event);
    }

    /// FIPS 180-2, appendix B.1.
    #[test]
    fn hashes_are_sha_256() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
