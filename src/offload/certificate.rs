//! What a certificate says of itself, for people: subject, issuer, the days that it holds, its key.
//!
//! A reader of just so much DER (X.690) and X.509 (RFC 5280 section 4.1) as that takes. Nothing is
//! decided by it: whether a certificate is good is `tls`'s business.

use chrono::{DateTime, NaiveDateTime, Utc};

use super::endpoint::Pin;
use super::protocol::cleaned;

/// A certificate, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: `CN=…, O=…`.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// First moment at which it holds.
    pub not_before: DateTime<Utc>,
    /// Last one.
    pub not_after: DateTime<Utc>,
    /// SHA-256 of its public key.
    pub key: Pin,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag, its content, and all of its bytes.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (&tag, rest) = all.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (first as usize, rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked((first & 0x7f) as usize)?;
                let length = digits.iter().fold(0_usize, |n, &d| n << 8 | d as usize);
                (length, rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content, &all[..all.len() - after.len()]))
    }

    /// The content of the next value, if it has that tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|v| v.0 == tag).map(|v| v.1)
    }
}

impl Certificate {
    /// Reads a certificate; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut inside = Der(Der(Der(der).expect(SEQUENCE)?).expect(SEQUENCE)?);
        // The version stands in front where it is not 1.
        let (tag, ..) = inside.next()?;
        if tag == 0xa0 {
            inside.next()?;
        }
        inside.expect(SEQUENCE)?;
        let issuer = name(inside.expect(SEQUENCE)?)?;
        let mut validity = Der(inside.expect(SEQUENCE)?);
        let subject = name(inside.expect(SEQUENCE)?)?;
        let (tag, _, key) = inside.next()?;
        (tag == SEQUENCE).then_some(())?;
        Some(Self {
            subject,
            issuer,
            not_before: time(&mut validity)?,
            not_after: time(&mut validity)?,
            key: Pin::of(key),
        })
    }
}

fn name(content: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = Der(content);
    while !sets.0.is_empty() {
        let mut set = Der(sets.expect(SET)?);
        while !set.0.is_empty() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let kind = pair.expect(OBJECT_IDENTIFIER)?;
            let (_, value, _) = pair.next()?;
            // RFC 4514 section 3.
            let word = match kind {
                [0x55, 0x04, 0x03] => "CN",
                [0x55, 0x04, 0x06] => "C",
                [0x55, 0x04, 0x07] => "L",
                [0x55, 0x04, 0x08] => "ST",
                [0x55, 0x04, 0x0a] => "O",
                [0x55, 0x04, 0x0b] => "OU",
                _ => continue,
            };
            parts.push(format!(
                "{word}={}",
                cleaned(&String::from_utf8_lossy(value), 100)
            ));
        }
    }
    Some(parts.join(", "))
}

fn time(from: &mut Der<'_>) -> Option<DateTime<Utc>> {
    let (tag, text, _) = from.next()?;
    let text = std::str::from_utf8(text).ok()?;
    let whole = match tag {
        // Two digits: 1950 to 2049 (RFC 5280 section 4.1.2.5.1).
        UTC_TIME => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            format!("{}{text}", if year < 50 { "20" } else { "19" })
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&whole, "%Y%m%d%H%M%SZ").ok()?;
    Some(time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData, date_time_ymd};

    fn made() -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new(vec!["models.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2060, 3, 4);
        params.distinguished_name = rcgen::DistinguishedName::new();
        let names = &mut params.distinguished_name;
        names.push(DnType::CommonName, "models\u{202e}");
        names.push(DnType::OrganizationName, "Hospital");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (der, key)
    }

    #[test]
    fn a_certificate_is_told_as_it_was_made() {
        let (der, key) = made();
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.subject, "CN=models\u{fffd}, O=Hospital");
        assert_eq!(read.issuer, read.subject);
        assert_eq!(read.not_before.to_rfc3339(), "2026-01-02T00:00:00+00:00");
        // From 2050 on, the other form of time.
        assert_eq!(read.not_after.to_rfc3339(), "2060-03-04T00:00:00+00:00");
        assert_eq!(read.key, Pin::of(&key.subject_public_key_info()));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let (der, _) = made();
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]), None, "{end}");
        }
        for at in 0..der.len() {
            for bit in [0x01, 0x80] {
                let mut changed = der.clone();
                changed[at] ^= bit;
                let _ = Certificate::read(&changed);
            }
        }
        assert_eq!(
            Certificate::read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            None
        );
    }
}
