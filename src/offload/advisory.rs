//! Servers of versions with known holes. A warning for people: nothing is refused for it.
//!
//! # Source
//! NVIDIA's security bulletins for Triton Inference Server of August 2025 (all releases up to 25.06) and
//! of May 2026 (fixed in 26.03). Servers tell their own version; 24.10 is 2.51.0, and each month's
//! release counts one up (25.07 is 2.59.1).

use super::protocol::ServerMetadata;

/// A hole that versions before `fixed` have.
struct Hole {
    fixed: [u32; 3],
    words: &'static str,
}

const TRITON: [Hole; 2] = [
    Hole {
        fixed: [2, 59, 1],
        words: "remote code execution, CVE-2025-23310, -23311, -23319, -23320 and -23334; fixed in release 25.07",
    },
    Hole {
        fixed: [2, 67, 0],
        words: "a way past authentication, CVE-2026-24207; fixed in release 26.03",
    },
];

/// What is known against the version that a server tells; nothing where it tells none.
pub fn known_holes(server: &ServerMetadata) -> Vec<String> {
    if !server.name.eq_ignore_ascii_case("triton") {
        return Vec::new();
    }
    let Some(version) = version_of(&server.version) else {
        return Vec::new();
    };
    let open = TRITON.iter().filter(|hole| version < hole.fixed);
    open.map(|hole| format!("Triton before {} has {}", words_of(hole.fixed), hole.words))
        .collect()
}

fn words_of([major, minor, patch]: [u32; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// `2.51.0`, also with words behind it.
fn version_of(text: &str) -> Option<[u32; 3]> {
    let number = |part: Option<&str>| {
        let part = part?;
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    let mut parts = text.trim().split('.');
    Some([
        number(parts.next())?,
        number(parts.next())?,
        number(parts.next()).unwrap_or(0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_warned_of_and_new_and_unknown_ones_are_not() {
        let count = |name: &str, version: &str| {
            let server = ServerMetadata {
                name: name.to_owned(),
                version: version.to_owned(),
                extensions: Vec::new(),
            };
            known_holes(&server).len()
        };
        for (name, version, holes) in [
            ("triton", "2.51.0", 2),
            ("triton", "2.59.0", 2),
            ("triton", "2.59.1", 1),
            ("triton", "2.60", 1),
            ("Triton", "2.66.0dev", 1),
            ("triton", "2.67.0", 0),
            ("triton", "3.0.0", 0),
            ("triton", "10.1", 0),
            ("triton", "", 0),
            ("triton", "nightly", 0),
            ("triton", "99999999999.1.0", 0),
            ("mlserver", "1.7.1", 0),
        ] {
            assert_eq!(count(name, version), holes, "{name} {version}");
        }
    }
}
