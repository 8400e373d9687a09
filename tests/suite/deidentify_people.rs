//! People who do not exist: names in seven alphabets, numbers, dates, places, as they stand in files.

/// One identity, and the bytes in which it was planted.
#[derive(Clone, Debug)]
pub struct Identity {
    pub what: &'static str,
    pub text: String,
    pub planted: Vec<u8>,
}

/// Specific Character Sets that take turns.
pub const CHARSETS: [&str; 8] = [
    "",
    "ISO_IR 100",
    "ISO_IR 144",
    "ISO_IR 166",
    "ISO_IR 192",
    "\\ISO 2022 IR 87",
    "\\ISO 2022 IR 149",
    "GB18030",
];

/// Syllables with their bytes in EUC-KR (KS X 1001).
const KOREAN: &str = "김이박최정강조윤장임한오서신권황안송류홍민준지우현수영진혜경";
const KOREAN_BYTES: &[u8; 60] =
    b"\xB1\xE8\xC0\xCC\xB9\xDA\xC3\xD6\xC1\xA4\xB0\xAD\xC1\xB6\xC0\xB1\xC0\xE5\xC0\xD3\
\xC7\xD1\xBF\xC0\xBC\xAD\xBD\xC5\xB1\xC7\xC8\xB2\xBE\xC8\xBC\xDB\xB7\xF9\xC8\xAB\
\xB9\xCE\xC1\xD8\xC1\xF6\xBF\xEC\xC7\xF6\xBC\xF6\xBF\xB5\xC1\xF8\xC7\xFD\xB0\xE6";
/// Characters with their bytes in GB18030.
const CHINESE: &str =
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧伟芳娜敏静丽强磊";
const CHINESE_BYTES: &[u8; 76] =
    b"\xCD\xF5\xC0\xEE\xD5\xC5\xC1\xF5\xB3\xC2\xD1\xEE\xD5\xD4\xBB\xC6\xD6\xDC\xCE\xE2\
\xD0\xEC\xCB\xEF\xBA\xFA\xD6\xEC\xB8\xDF\xC1\xD6\xBA\xCE\xB9\xF9\xC2\xED\xC2\xDE\
\xC1\xBA\xCB\xCE\xD6\xA3\xD0\xBB\xBA\xAB\xCC\xC6\xB7\xEB\xD3\xDA\xB6\xAD\xCF\xF4\
\xCE\xB0\xB7\xBC\xC4\xC8\xC3\xF4\xBE\xB2\xC0\xF6\xC7\xBF\xC0\xDA";

/// Invents people, always the same ones.
pub struct Town {
    state: u64,
    /// Index into [`CHARSETS`].
    pub charset: usize,
    /// Everyone so far.
    pub known: Vec<Identity>,
}

impl Town {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            charset: 0,
            known: Vec::new(),
        }
    }

    /// SplitMix64.
    pub fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn note(&mut self, what: &'static str, text: &str, planted: &[u8]) -> Vec<u8> {
        self.known.push(Identity {
            what,
            text: text.to_owned(),
            planted: planted.to_vec(),
        });
        planted.to_vec()
    }

    /// Adds an identity that is planted in a form of its own: pixels, bits.
    pub fn note_form(&mut self, what: &'static str, text: &str, planted: &[u8]) {
        self.note(what, text, planted);
    }

    fn digits(&mut self, n: usize) -> String {
        (0..n)
            .map(|_| char::from(b'0' + self.below(10) as u8))
            .collect()
    }

    /// A word that is no word of any language.
    pub fn latin(&mut self) -> String {
        const SYLLABLES: [&str; 24] = [
            "bra", "kov", "lim", "vez", "dor", "nuk", "tsa", "pel", "gri", "zow", "hul", "mif",
            "jaq", "rux", "sem", "tyv", "wob", "quin", "fex", "cla", "dju", "ork", "yst", "vum",
        ];
        let parts: String = (0..4).map(|_| SYLLABLES[self.below(24)]).collect();
        parts[..1].to_uppercase() + &parts[1..]
    }

    /// A word in the alphabet of the character set, with its bytes.
    fn native(&mut self) -> (String, Vec<u8>) {
        let from = |town: &mut Self, all: &str, bytes: &[u8]| -> (String, Vec<u8>) {
            let all: Vec<char> = all.chars().collect();
            (0..5)
                .map(|_| town.below(all.len()))
                .map(|n| (all[n], bytes[2 * n..2 * n + 2].to_vec()))
                .fold((String::new(), Vec::new()), |mut word, (c, b)| {
                    word.0.push(c);
                    word.1.extend(b);
                    word
                })
        };
        let run = |town: &mut Self, first: u32, count: usize, byte: Option<u8>| {
            let mut word = (String::new(), Vec::new());
            for _ in 0..7 {
                let n = town.below(count);
                let letter = char::from_u32(first + n as u32).unwrap();
                word.0.push(letter);
                match byte {
                    Some(byte) => word.1.push(byte + n as u8),
                    None => word.1.extend(letter.to_string().bytes()),
                }
            }
            word
        };
        match CHARSETS[self.charset] {
            // Я of ISO 8859-5 to я.
            "ISO_IR 144" => run(self, 0x0410, 64, Some(0xB0)),
            "ISO_IR 166" => run(self, 0x0E01, 46, Some(0xA1)),
            "ISO_IR 192" => match self.below(3) {
                0 => run(self, 0x0391, 17, None),
                1 => run(self, 0x0627, 20, None),
                _ => run(self, 0x4E10, 2000, None),
            },
            "\\ISO 2022 IR 87" => {
                let mut word = (String::new(), b"\x1B$B".to_vec());
                for _ in 0..6 {
                    let n = self.below(80);
                    word.0.push(char::from_u32(0x30A1 + n as u32).unwrap());
                    word.1.extend([0x25, 0x21 + n as u8]);
                }
                word.1.extend(b"\x1B(B");
                word
            }
            "\\ISO 2022 IR 149" => {
                let (text, bytes) = from(self, KOREAN, KOREAN_BYTES);
                (text, [b"\x1B$)C".to_vec(), bytes].concat())
            }
            "GB18030" => from(self, CHINESE, CHINESE_BYTES),
            other => {
                let text = self.latin();
                if other.is_empty() {
                    return (text.clone(), text.into_bytes());
                }
                let letter = self.below(24);
                let accent = char::from_u32(0xE0 + letter as u32).unwrap();
                let mut bytes = text.clone().into_bytes();
                bytes.push(0xE0 + letter as u8);
                (text + &accent.to_string(), bytes)
            }
        }
    }

    /// Family and given name.
    pub fn person(&mut self, what: &'static str) -> Vec<u8> {
        let (family, family_bytes) = self.native();
        let given = self.latin();
        self.note(what, &family, &family_bytes);
        self.note(what, &given, given.as_bytes());
        let bytes = [&family_bytes[..], b"^", given.as_bytes()].concat();
        self.note(what, &format!("{family}^{given}"), &bytes)
    }

    /// Words of somebody's own, in which a name stands.
    pub fn text(&mut self, what: &'static str) -> Vec<u8> {
        let (name, bytes) = self.native();
        self.note(what, &name, &bytes);
        [b"seen with ", &bytes[..], b" today"].concat()
    }

    /// An identifier of letters and digits.
    pub fn number(&mut self, what: &'static str) -> String {
        let number = match what {
            "phone" => format!("+49-30-{}", self.digits(9)),
            "accession" => format!("A{}Q", self.digits(10)),
            "serial" => format!("SN-{}X", self.digits(8)),
            _ => format!("M{}K{}", self.digits(4), self.digits(4)),
        };
        self.note(what, &number, number.as_bytes());
        number
    }

    pub fn place(&mut self, what: &'static str) -> String {
        let place = format!("{} {}", self.latin(), 10 + self.below(90));
        self.note(what, &place, place.as_bytes());
        place
    }

    /// In the years 1850 to 1949: no other number of a file looks like it.
    pub fn date(&mut self, what: &'static str) -> String {
        let (year, month, day) = (
            1850 + self.below(100),
            1 + self.below(12),
            1 + self.below(28),
        );
        let date = format!("{year}{month:02}{day:02}");
        self.note(what, &date, date.as_bytes());
        date
    }

    pub fn uid(&mut self) -> String {
        let uid = format!("1.2.276.0.723{}.{}", self.digits(5), self.digits(6));
        self.note("uid", &uid, uid.as_bytes());
        uid
    }
}
