//! The lines of a keyed log: records, checkpoints, and the first line of each segment.
//!
//! ```text
//! {"segment":1,"previous":"…","time":"…","log":"…","first":1,"key":"…",…,"signature":"…","sha256":"…"}
//! {"record":1,"previous":"…","time":"…","act":"…","box":"…","mac":"…","sha256":"…"}
//! {"checkpoint":1,"previous":"…","time":"…","log":"…","next":"…","signature":"…","sha256":"…"}
//! ```
//!
//! `previous` is the `sha256` of the line before; `sha256` is taken over all bytes before it. The seal
//! (`mac` or `signature`) stands over the SHA-256 of all bytes before the seal.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use ring::{digest, hmac};

use super::text::{hex, unhex};

/// Longest line in bytes: enough for any event, and a bound for reading damaged logs.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What the first line names as the hash before it.
pub(super) const NOTHING_BEFORE: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

const SHA: &[u8] = b",\"sha256\":\"";
const MAC: &[u8] = b",\"mac\":\"";
const SIGNATURE: &[u8] = b",\"signature\":\"";

/// The key that seals one record, and from which the next one follows.
///
/// The step is one-way: who has a key can seal what comes after it, and nothing before.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ChainKey(pub(super) [u8; 32]);

impl ChainKey {
    /// The key of the next record.
    pub(super) fn next(&self) -> Self {
        Self(tag(&self.key(), &[b"next"]))
    }

    /// The seal of a record whose bytes have the hash.
    pub(super) fn seal(&self, hash: &[u8; 32]) -> [u8; 32] {
        tag(&self.key(), &[b"mac", hash])
    }

    /// Both of the above for the price of one key.
    pub(super) fn seal_and_next(&self, hash: &[u8; 32]) -> ([u8; 32], Self) {
        let key = self.key();
        (tag(&key, &[b"mac", hash]), Self(tag(&key, &[b"next"])))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl std::fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainKey(‹redacted›)")
    }
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// What is signed: a word that keeps these signatures apart from all others, and the hash.
fn signed_text(hash: &[u8; 32]) -> Vec<u8> {
    [b"negatoscope audit log\0".as_slice(), hash].concat()
}

/// Whether a signature (hexadecimal) over a line's hash is by the key (hexadecimal).
pub(super) fn is_signed(key: &str, hash: &[u8; 32], signature: &[u8]) -> bool {
    let (Some(key), Some(signature)) = (unhex::<32>(key.as_bytes()), unhex::<64>(signature)) else {
        return false;
    };
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed_text(hash), &signature)
        .is_ok()
}

/// Closes a line that a key seals; `open` lacks its last brace.
pub(super) fn sealed(open: String, key: &ChainKey) -> (String, String) {
    close(open, MAC, |hash| hex(&key.seal(hash)))
}

/// Closes a line that a person's later check needs no secret for.
pub(super) fn signed(open: String, key: &Ed25519KeyPair) -> (String, String) {
    close(open, SIGNATURE, |hash| {
        hex(key.sign(&signed_text(hash)).as_ref())
    })
}

/// The line without its end of line, and its hash.
fn close(open: String, name: &[u8], seal: impl Fn(&[u8; 32]) -> String) -> (String, String) {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(open.as_bytes());
    let tail = format!("{}{}\"", ascii(name), seal(&finished(context.clone())));
    context.update(tail.as_bytes());
    let sha256 = hex(&finished(context));
    (format!("{open}{tail}{}{sha256}\"}}", ascii(SHA)), sha256)
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("names of fields are ASCII")
}

fn finished(context: digest::Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Record,
    Checkpoint,
}

/// A line as far as the chain needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) kind: Kind,
    /// Number of the segment, of the record, or of the newest record before the checkpoint.
    pub(super) number: u64,
    /// Hash that it names as the one before.
    pub(super) previous: &'a str,
    /// Event Date Time, as text.
    pub(super) time: &'a str,
    /// Bytes between the time and the seal.
    pub(super) rest: &'a str,
    /// What the seal stands over.
    pub(super) hash: [u8; 32],
    /// Hexadecimal digits of the seal.
    pub(super) seal: &'a [u8],
    /// Hash that it states.
    pub(super) sha256: &'a str,
    /// Whether its bytes have that hash.
    pub(super) intact: bool,
}

impl<'a> Link<'a> {
    /// Reads a line without its end of line; `None` when it is none of ours.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let (kind, rest) = [
            ("{\"record\":", Kind::Record),
            ("{\"checkpoint\":", Kind::Checkpoint),
            ("{\"segment\":", Kind::Segment),
        ]
        .into_iter()
        .find_map(|(start, kind)| Some((kind, text.strip_prefix(start)?)))?;
        let (number, rest) = rest.split_once(",\"previous\":\"")?;
        // One text for each number.
        let number: u64 = (number == "0" || !number.starts_with(['0', '+']))
            .then(|| number.parse().ok())
            .flatten()?;
        let (previous, rest) = rest.split_at_checked(64)?;
        let rest = rest.strip_prefix("\",\"time\":\"")?;
        let (time, _) = rest.split_once('"')?;

        let (before_sha, end) = line.split_at_checked(line.len().checked_sub(SHA.len() + 66)?)?;
        let sha256 = end.strip_prefix(SHA)?.strip_suffix(b"\"}")?;
        let (name, digits) = if kind == Kind::Record {
            (MAC, 64)
        } else {
            (SIGNATURE, 128)
        };
        let at = before_sha.len().checked_sub(name.len() + digits + 1)?;
        let (body, seal) = before_sha.split_at_checked(at)?;
        let seal = seal.strip_prefix(name)?.strip_suffix(b"\"")?;
        let rest_at = line.len() - rest.len() + time.len() + 1;
        let rest = text.get(rest_at..body.len())?;

        let mut context = digest::Context::new(&digest::SHA256);
        context.update(body);
        let hash = finished(context.clone());
        context.update(&before_sha[at..]);
        let sha256 = std::str::from_utf8(sha256).ok()?;
        Some(Self {
            kind,
            number,
            previous,
            time,
            rest,
            hash,
            seal,
            sha256,
            intact: hex(&finished(context)) == sha256,
        })
    }

    /// A field between time and seal whose value is a plain string of ours (no escapes).
    pub(super) fn field(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.rest;
        loop {
            let (found, after) = rest.strip_prefix(",\"")?.split_once("\":")?;
            let (value, next) = if let Some(quoted) = after.strip_prefix('"') {
                quoted.split_once('"')?
            } else {
                after.split_at(after.find(',').unwrap_or(after.len()))
            };
            if found == name {
                return Some(value);
            }
            rest = next;
        }
    }
}

/// Lines from JSON objects: everything before the seal.
pub(super) fn open(kind: Kind, number: u64, previous: &str, time: &str) -> String {
    let word = match kind {
        Kind::Segment => "segment",
        Kind::Record => "record",
        Kind::Checkpoint => "checkpoint",
    };
    format!("{{\"{word}\":{number},\"previous\":\"{previous}\",\"time\":\"{time}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> (String, String) {
        let mut text = open(Kind::Record, 7, NOTHING_BEFORE, "2026-01-31T12:00:00.000Z");
        text.push_str(",\"act\":\"begin\",\"box\":\"AAAA\"");
        sealed(text, &ChainKey([7; 32]))
    }

    #[test]
    fn a_line_says_what_was_put_into_it() {
        let (line, sha256) = record();
        let link = Link::read(line.as_bytes()).unwrap();
        assert!(link.intact);
        assert_eq!((link.kind, link.number), (Kind::Record, 7));
        assert_eq!(
            (link.previous, link.sha256),
            (NOTHING_BEFORE, sha256.as_str())
        );
        assert_eq!(link.field("act"), Some("begin"));
        assert_eq!(link.field("box"), Some("AAAA"));
        assert_eq!(link.field("other"), None);
        assert_eq!(link.time, "2026-01-31T12:00:00.000Z");
        let seal = hex(&ChainKey([7; 32]).seal(&link.hash));
        assert_eq!(link.seal, seal.as_bytes());
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn every_flipped_bit_shows() {
        let (line, _) = record();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bytes = line.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(
                    Link::read(&bytes).is_none_or(|link| !link.intact),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn each_key_follows_from_the_one_before_by_hmac() {
        let key = ChainKey([1; 32]);
        let plain = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), b"next");
        assert_eq!(key.next().0, plain.as_ref());
        let (seal, next) = key.seal_and_next(&[9; 32]);
        assert_eq!((seal, next.0), (key.seal(&[9; 32]), key.next().0));
    }

    #[test]
    fn signatures_are_of_the_key_and_the_line() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let other = Ed25519KeyPair::from_seed_unchecked(&[4; 32]).unwrap();
        let public =
            |pair: &Ed25519KeyPair| hex(ring::signature::KeyPair::public_key(pair).as_ref());
        let text = open(Kind::Checkpoint, 9, NOTHING_BEFORE, "t");
        let (line, _) = signed(text, &pair);
        let link = Link::read(line.as_bytes()).unwrap();
        assert!(link.intact && is_signed(&public(&pair), &link.hash, link.seal));
        assert!(!is_signed(&public(&other), &link.hash, link.seal));
        assert!(!is_signed(&public(&pair), &[0; 32], link.seal));
    }

    /// FIPS 180-2, appendix B.1.
    #[test]
    fn hashes_are_sha_256() {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"abc");
        assert_eq!(
            hex(&finished(context)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
