//! Text in the character sets of PS3.3 C.12.1.1.2, with code extensions (ISO 2022).

use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

/// The character sets of a data set.
#[derive(Clone, Debug, Default)]
pub(super) struct CharacterSets {
    /// Values of Specific Character Set; empty = ISO IR 6.
    names: Vec<String>,
}

impl CharacterSets {
    pub fn new(values: &str) -> Self {
        let names = values
            .split('\\')
            .map(|v| v.trim_matches([' ', '\0']).to_owned())
            .collect();
        Self { names }
    }

    /// Never fails: bytes without meaning become U+FFFD.
    pub fn decode(&self, bytes: &[u8]) -> String {
        if bytes.is_ascii() && !bytes.contains(&0x1B) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        let first = self.names.first().map_or("", String::as_str);
        if bytes.contains(&0x1B) {
            return decode_extended(bytes, first);
        }
        // ISO 2022 IR 149 and 58 without escape, UTF-8 under a wrong name: be generous.
        let name = if first.is_empty() && self.names.len() > 1 {
            &self.names[1]
        } else {
            first
        };
        decode_in(name, bytes)
    }
}

/// One run without escapes.
fn decode_in(name: &str, bytes: &[u8]) -> String {
    if matches!(name, "ISO_IR 148" | "ISO 2022 IR 148") {
        // Latin-5 is Latin-1 with six Turkish letters; dicom-rs does not know it.
        return bytes.iter().map(|&b| latin5(b)).collect();
    }
    let set = match name {
        "" | "ISO_IR 6" | "ISO 2022 IR 6" => None,
        _ => SpecificCharacterSet::from_code(name),
    };
    set.and_then(|set| set.decode(bytes).ok())
        .or_else(|| std::str::from_utf8(bytes).ok().map(str::to_owned))
        .unwrap_or_else(|| {
            bytes
                .iter()
                .map(|&b| if b.is_ascii() { b as char } else { '\u{FFFD}' })
                .collect()
        })
}

const fn latin5(byte: u8) -> char {
    match byte {
        0xD0 => 'Ğ',
        0xDD => 'İ',
        0xDE => 'Ş',
        0xF0 => 'ğ',
        0xFD => 'ı',
        0xFE => 'ş',
        other => other as char,
    }
}

/// Runs between escape sequences, each in the set that its escape names (PS3.3 table C.12-3, C.12-4).
/// Delimiters of values and name parts return to the first set (PS3.5 6.1.2.5.3).
fn decode_extended(bytes: &[u8], first: &str) -> String {
    const ESCAPES: [(&[u8], &str); 18] = [
        (b"\x1B$)C", "ISO 2022 IR 149"),
        (b"\x1B$)A", "ISO 2022 IR 58"),
        (b"\x1B$(D", "ISO 2022 IR 159"),
        (b"\x1B$B", "ISO 2022 IR 87"),
        (b"\x1B$@", "ISO 2022 IR 87"),
        (b"\x1B(J", "ISO 2022 IR 13"),
        (b"\x1B)I", "ISO 2022 IR 13"),
        (b"\x1B(B", "ISO 2022 IR 6"),
        (b"\x1B-A", "ISO 2022 IR 100"),
        (b"\x1B-B", "ISO 2022 IR 101"),
        (b"\x1B-C", "ISO 2022 IR 109"),
        (b"\x1B-D", "ISO 2022 IR 110"),
        (b"\x1B-L", "ISO 2022 IR 144"),
        (b"\x1B-G", "ISO 2022 IR 127"),
        (b"\x1B-F", "ISO 2022 IR 126"),
        (b"\x1B-H", "ISO 2022 IR 138"),
        (b"\x1B-M", "ISO 2022 IR 148"),
        (b"\x1B-T", "ISO 2022 IR 166"),
    ];
    let mut out = String::new();
    let mut set = first;
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest[0] == 0x1B {
            let known = ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape));
            if let Some((escape, name)) = known {
                set = name;
                rest = &rest[escape.len()..];
            } else {
                out.push('\u{FFFD}');
                rest = &rest[1..];
            }
            continue;
        }
        let two_byte = matches!(set, "ISO 2022 IR 87" | "ISO 2022 IR 159");
        let end = rest
            .iter()
            .position(|&b| b == 0x1B || (!two_byte && matches!(b, b'\\' | b'^' | b'=' | b'\n')))
            .unwrap_or(rest.len());
        if end == 0 {
            out.push(rest[0] as char);
            set = first;
            rest = &rest[1..];
            continue;
        }
        let (run, after) = rest.split_at(end);
        match set {
            "ISO 2022 IR 87" => {
                let mut framed = b"\x1B$B".to_vec();
                framed.extend_from_slice(run);
                framed.extend_from_slice(b"\x1B(B");
                out.push_str(&decode_in(set, &framed));
            }
            // JIS X 0212 as its third plane in EUC-JP would need a table that is not in the tree.
            "ISO 2022 IR 159" => out.extend(run.chunks(2).map(|_| '\u{FFFD}')),
            _ => out.push_str(&decode_in(set, run)),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ps3_5_annex_h_decode() {
        // PS3.5 H.3.1: Yamada^Tarou, kanji and kana.
        let japanese =
            b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B";
        let sets = CharacterSets::new("\\ISO 2022 IR 87");
        assert_eq!(
            sets.decode(japanese),
            "Yamada^Tarou=山田^太郎=やまだ^たろう"
        );
        // PS3.5 I.2: Hong^Gildong.
        let korean = b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF";
        let sets = CharacterSets::new("\\ISO 2022 IR 149");
        assert_eq!(sets.decode(korean), "Hong^Gildong=洪^吉洞=홍^길동");
    }

    #[test]
    fn unknown_sets_never_fail() {
        let sets = CharacterSets::new("NO_SUCH_SET");
        assert_eq!(sets.decode(b"A\xFFB"), "A\u{FFFD}B");
        assert_eq!(CharacterSets::default().decode("Äö".as_bytes()), "Äö");
    }

    #[test]
    fn turkish_letters_decode() {
        assert_eq!(
            CharacterSets::new("ISO_IR 148").decode(b"\xC7avu\xFEo\xF0lu"),
            "Çavuşoğlu"
        );
    }
}
