//! Objects of twenty kinds with planted identities, written byte by byte.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "VRs are written as byte strings"
)]

use std::fs;
use std::path::Path;

/// Every planted text holds this, in some case.
pub const MARK: &str = "qzv";
/// Every planted UID begins with this.
pub const OLD_ROOT: &str = "1.2.999.31337.";

/// Every planted date. More than ten years apart, so that no shifted date is another's old one.
pub const DATES: [&str; 8] = [
    "18010214", "18120215", "18230216", "18340217", "18450218", "18560312", "18670101", "18780101",
];

/// A data set under construction.
#[derive(Clone, Default)]
pub struct Object(pub Vec<(u32, [u8; 2], Value)>);

#[derive(Clone)]
pub enum Value {
    Bytes(Vec<u8>),
    Items(Vec<Object>),
}

impl Object {
    pub fn put(&mut self, tag: u32, vr: &[u8; 2], value: impl AsRef<[u8]>) -> &mut Self {
        let value = Value::Bytes(value.as_ref().to_vec());
        self.0.retain(|(t, _, _)| *t != tag);
        self.0.push((tag, *vr, value));
        self
    }

    pub fn word(&mut self, tag: u32, value: u16) -> &mut Self {
        self.put(tag, b"US", value.to_le_bytes())
    }

    pub fn items(&mut self, tag: u32, items: Vec<Self>) -> &mut Self {
        self.0.push((tag, *b"SQ", Value::Items(items)));
        self
    }

    /// Its bytes in little endian.
    pub fn encode(&self, explicit: bool) -> Vec<u8> {
        let mut sorted = self.0.clone();
        sorted.sort_by_key(|e| e.0);
        let mut out = Vec::new();
        for (tag, vr, value) in &sorted {
            out.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
            out.extend_from_slice(&(*tag as u16).to_le_bytes());
            let mut bytes = match value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Items(items) => {
                    let mut all = Vec::new();
                    for item in items {
                        let inner = item.encode(explicit);
                        all.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
                        all.extend_from_slice(&(inner.len() as u32).to_le_bytes());
                        all.extend_from_slice(&inner);
                    }
                    all
                }
            };
            if bytes.len() % 2 == 1 {
                let zero = matches!(vr, b"UI" | b"OB" | b"UN" | b"OW");
                bytes.push(if zero { 0 } else { b' ' });
            }
            let long = matches!(
                vr,
                b"OB"
                    | b"OW"
                    | b"OF"
                    | b"SQ"
                    | b"UN"
                    | b"UT"
                    | b"UC"
                    | b"UR"
                    | b"OD"
                    | b"OL"
                    | b"OV"
                    | b"SV"
                    | b"UV"
            );
            if !explicit {
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            } else if long {
                out.extend_from_slice(vr);
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            } else {
                out.extend_from_slice(vr);
                out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            }
            out.extend_from_slice(&bytes);
        }
        out
    }

    /// The file, with a preamble and meta elements of the caller's.
    pub fn file(&self, explicit: bool, preamble: &str, meta: &str) -> Vec<u8> {
        let syntax = if explicit {
            "1.2.840.10008.1.2.1"
        } else {
            "1.2.840.10008.1.2"
        };
        let mut out = Self::head(syntax, preamble, meta);
        out.extend_from_slice(&self.encode(explicit));
        out
    }

    /// Preamble and file meta group.
    pub fn head(syntax: &str, preamble: &str, meta: &str) -> Vec<u8> {
        let mut out = preamble.as_bytes().to_vec();
        out.resize(128, 0);
        out.extend_from_slice(b"DICM");
        let mut group = Self::default();
        group.put(0x0002_0010, b"UI", syntax);
        if !meta.is_empty() {
            group.put(0x0002_0003, b"UI", format!("{OLD_ROOT}1"));
            group.put(0x0002_0016, b"AE", meta);
            group.put(0x0002_0100, b"UI", format!("{OLD_ROOT}2"));
            group.put(0x0002_0102, b"OB", meta);
        }
        out.extend_from_slice(&group.encode(true));
        out
    }
}

/// Kind, SOP class, modality, whether it has pixels.
pub const KINDS: [(&str, &str, &str, bool); 20] = [
    ("ct", "1.2.840.10008.5.1.4.1.1.2", "CT", true),
    ("mr", "1.2.840.10008.5.1.4.1.1.4", "MR", true),
    ("cr", "1.2.840.10008.5.1.4.1.1.1", "CR", true),
    ("dx", "1.2.840.10008.5.1.4.1.1.1.1", "DX", true),
    ("mg", "1.2.840.10008.5.1.4.1.1.1.2", "MG", true),
    ("us", "1.2.840.10008.5.1.4.1.1.6.1", "US", true),
    ("sc", "1.2.840.10008.5.1.4.1.1.7", "OT", true),
    ("xa", "1.2.840.10008.5.1.4.1.1.12.1", "XA", true),
    ("nm", "1.2.840.10008.5.1.4.1.1.20", "NM", true),
    ("pt", "1.2.840.10008.5.1.4.1.1.128", "PT", true),
    ("enhanced-mr", "1.2.840.10008.5.1.4.1.1.4.1", "MR", true),
    ("seg", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", true),
    ("sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR", false),
    ("ko", "1.2.840.10008.5.1.4.1.1.88.59", "KO", false),
    ("pr", "1.2.840.10008.5.1.4.1.1.11.1", "PR", false),
    (
        "rtstruct",
        "1.2.840.10008.5.1.4.1.1.481.3",
        "RTSTRUCT",
        false,
    ),
    ("rtplan", "1.2.840.10008.5.1.4.1.1.481.5", "RTPLAN", false),
    ("rtdose", "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE", true),
    ("ecg", "1.2.840.10008.5.1.4.1.1.9.1.1", "ECG", false),
    ("pdf", "1.2.840.10008.5.1.4.1.1.104.1", "DOC", false),
];

/// Makes distinct markers, in the character set of an object.
pub struct Planter {
    count: usize,
    charset: usize,
}

/// Specific Character Set, and what follows a marker: letters in its bytes.
const CHARSETS: [(&str, &[u8]); 6] = [
    ("", b""),
    ("ISO_IR 100", b"\xFC\xE9\xDF"),
    ("ISO_IR 192", "Дмитрий山田".as_bytes()),
    ("\\ISO 2022 IR 87", b"\x1B$B;3ED\x1B(B"),
    ("GB18030", b"\xCD\xF5\xD0\xA1"),
    ("ISO_IR 144", b"\xB4\xDC\xD8\xE2"),
];

impl Planter {
    /// A new identity: `Qzv00042x` with letters of the character set.
    fn text(&mut self) -> Vec<u8> {
        self.count += 1;
        let mut text = format!("Qzv{:05}x", self.count).into_bytes();
        text.extend_from_slice(CHARSETS[self.charset].1);
        text
    }

    fn plain(&mut self) -> String {
        self.count += 1;
        format!("QZV{:05}X", self.count)
    }

    fn person(&mut self) -> Vec<u8> {
        let mut name = self.text();
        name.push(b'^');
        name.extend_from_slice(&self.text());
        name
    }

    fn uid(&mut self) -> String {
        self.count += 1;
        format!("{OLD_ROOT}9.{}", self.count)
    }

    fn code(&mut self) -> Object {
        let mut item = Object::default();
        item.put(0x0008_0100, b"SH", self.plain())
            .put(0x0008_0102, b"SH", "99LOCAL")
            .put(0x0008_0104, b"LO", self.text());
        item
    }

    /// Identities that any object may carry at any depth.
    fn people(&mut self, to: &mut Object) {
        to.put(0x0008_0090, b"PN", self.person())
            .put(0x0008_1050, b"PN", self.person())
            .put(0x0008_1070, b"PN", self.person())
            .put(0x0010_4000, b"LT", self.text())
            .put(0x0008_1030, b"LO", self.text())
            .put(0x0008_0081, b"ST", self.text())
            .put(0x0010_2297, b"PN", self.person())
            .put(0x0018_9185, b"ST", self.text())
            .put(0x0040_A160, b"UT", self.text())
            .put(0x0009_0010, b"LO", self.text())
            .put(0x0009_1001, b"LO", self.text());
        let mut private = Object::default();
        private.put(0x0010_0010, b"PN", self.person());
        to.items(0x0009_1002, vec![private]);
    }

    fn base(&mut self, n: usize, kind: usize) -> Object {
        let (_, class, modality, _) = KINDS[kind];
        let mut o = Object::default();
        let name = self.person();
        let charset = CHARSETS[self.charset].0;
        if !charset.is_empty() {
            o.put(0x0008_0005, b"CS", charset);
        }
        o.put(0x0008_0016, b"UI", class)
            .put(0x0008_0018, b"UI", instance_uid(n))
            .put(0x0020_000D, b"UI", format!("{OLD_ROOT}5.{}", n / 20))
            .put(0x0020_000E, b"UI", format!("{OLD_ROOT}6.{n}"))
            .put(0x0008_0060, b"CS", modality)
            .put(0x0008_0020, b"DA", "18010214")
            .put(0x0008_0021, b"DA", "18120215")
            .put(0x0008_0022, b"DA", "18230216")
            .put(0x0008_0023, b"DA", "18340217")
            .put(0x0008_002A, b"DT", "18450218101112.123456+0100")
            .put(0x0008_0030, b"TM", "101112")
            .put(0x0010_0030, b"DA", "18560312")
            .put(0x0010_0010, b"PN", &name)
            .put(0x0010_0020, b"LO", self.plain())
            .put(0x0010_1000, b"LO", self.text())
            .put(0x0010_1001, b"PN", self.person())
            .put(0x0010_1040, b"LO", self.text())
            .put(0x0010_2154, b"SH", self.plain())
            .put(0x0008_0050, b"SH", self.plain())
            .put(0x0020_0010, b"SH", self.plain())
            .put(0x0008_0080, b"LO", self.text())
            .put(0x0008_1010, b"SH", self.plain())
            .put(0x0018_1000, b"LO", self.text())
            .put(0x0008_103E, b"LO", self.text())
            .put(0x0018_1030, b"LO", self.text())
            .put(0x0020_4000, b"LT", self.text())
            .put(0x0032_1032, b"PN", self.person())
            // The name again, where no table looks for it.
            .put(0x0008_1090, b"LO", &name)
            .put(0x0018_0015, b"CS", "CHEST")
            .put(0x0018_5100, b"CS", self.plain() + " MUCH TOO LONG")
            // A text that says it is a number, and a number that says it is a text.
            .put(0x0018_0050, b"DS", self.plain())
            .put(0x0028_0106, b"LO", self.plain())
            // In groups of patient and visit, not in the table.
            .put(0x0010_9998, b"LO", self.plain())
            .put(0x0038_0100, b"SQ", b"")
            .put(0x4FFE_0001, b"LO", self.plain());
        self.people(&mut o);
        let mut inner = Object::default();
        self.people(&mut inner);
        inner
            .put(0x0040_1001, b"SH", self.plain())
            .put(0x0040_0007, b"LO", self.text());
        let mut deep = Object::default();
        self.people(&mut deep);
        let coded = self.code();
        deep.items(0x0040_1101, vec![coded]);
        let mut middle = Object::default();
        middle.items(0x0040_A073, vec![deep]);
        inner.items(0x0008_2112, vec![middle]);
        o.items(0x0040_0275, vec![inner.clone()]);
        let mut reference = Object::default();
        reference
            .put(0x0008_1150, b"UI", "1.2.840.10008.5.1.4.1.1.2")
            .put(0x0008_1155, b"UI", instance_uid(0));
        let mut with_people = reference.clone();
        self.people(&mut with_people);
        o.items(0x0008_1140, vec![with_people]);
        o.items(0x0008_1115, vec![inner]);
        o
    }

    fn report(&mut self, o: &mut Object) {
        let mut name = Object::default();
        name.put(0x0008_0100, b"SH", "121070")
            .put(0x0008_0102, b"SH", "DCM")
            .put(0x0008_0104, b"LO", "Findings");
        let content = |kind: &str| {
            let mut c = Object::default();
            c.put(0x0040_A010, b"CS", "CONTAINS")
                .put(0x0040_A040, b"CS", kind)
                .items(0x0040_A043, vec![name.clone()]);
            c
        };
        let mut text = content("TEXT");
        text.put(0x0040_A160, b"UT", self.text());
        let mut person = content("PNAME");
        person.put(0x0040_A123, b"PN", self.person());
        let mut uid = content("UIDREF");
        uid.put(0x0040_A124, b"UI", self.uid());
        let mut date = content("DATE");
        date.put(0x0040_A121, b"DA", "18670101");
        let mut image = content("IMAGE");
        let mut reference = Object::default();
        reference
            .put(0x0008_1150, b"UI", "1.2.840.10008.5.1.4.1.1.2")
            .put(0x0008_1155, b"UI", instance_uid(0));
        image.items(0x0008_1199, vec![reference]);
        let mut container = content("CONTAINER");
        container.items(0x0040_A730, vec![text.clone(), person.clone()]);
        o.put(0x0040_A040, b"CS", "CONTAINER")
            .items(0x0040_A730, vec![text, person, uid, date, image, container]);
        let mut observer = Object::default();
        observer
            .put(0x0040_A075, b"PN", self.person())
            .put(0x0040_A027, b"LO", self.text())
            .put(0x0040_A030, b"DT", "18780101120000");
        o.items(0x0040_A073, vec![observer]);
    }

    fn object(&mut self, n: usize, kind: usize) -> Object {
        let mut o = self.base(n, kind);
        let (name, _, _, pixels) = KINDS[kind];
        if pixels {
            o.word(0x0028_0002, 1)
                .put(0x0028_0004, b"CS", "MONOCHROME2")
                .word(0x0028_0010, 4)
                .word(0x0028_0011, 4)
                .word(0x0028_0100, 16)
                .word(0x0028_0101, 12)
                .word(0x0028_0102, 11)
                .word(0x0028_0103, 0);
            o.0.retain(|e| e.0 != 0x0028_0106);
            // Two more pixels than the image has, as letters; and what lies behind.
            let mut samples: Vec<u8> = (0..16_u16).flat_map(|v| (v * 100).to_le_bytes()).collect();
            samples.extend_from_slice(self.plain().as_bytes());
            o.put(0x7FE0_0010, b"OW", samples);
            o.put(0xFFFC_FFFC, b"OB", self.plain());
            o.put(0x6000_3000, b"OW", self.plain())
                .put(0x6000_4000, b"LT", self.text())
                .put(0x6000_1500, b"LO", self.text())
                .put(0x6000_0022, b"LO", self.text());
        }
        o.put(0x5000_0022, b"LO", self.text())
            .put(0x5000_3000, b"OW", self.plain());
        match name {
            "sr" | "ko" => self.report(&mut o),
            "pdf" => {
                o.put(0x0042_0011, b"OB", format!("%PDF-1.4 {}", self.plain()));
            }
            "seg" => {
                let mut segment = Object::default();
                segment
                    .word(0x0062_0004, 1)
                    .put(0x0062_0005, b"LO", "Lesion")
                    .put(0x0062_0006, b"ST", self.text())
                    .put(0x0062_0021, b"UI", self.uid());
                o.items(0x0062_0002, vec![segment]);
            }
            "rtstruct" => {
                let mut roi = Object::default();
                roi.put(0x3006_0026, b"LO", self.text())
                    .put(0x3006_0028, b"ST", self.text())
                    .put(0x3006_0024, b"UI", self.uid());
                o.items(0x3006_0020, vec![roi])
                    .put(0x3006_0002, b"SH", self.plain())
                    .put(0x3006_00A6, b"PN", self.person());
            }
            "rtplan" => {
                o.put(0x300A_0002, b"SH", self.plain())
                    .put(0x300A_0004, b"ST", self.text())
                    .put(0x300E_0008, b"PN", self.person());
            }
            "pr" => {
                let mut text = Object::default();
                text.put(0x0070_0006, b"ST", self.text());
                let mut note = Object::default();
                note.put(0x0070_0002, b"CS", "LAYER")
                    .items(0x0070_0008, vec![text]);
                o.items(0x0070_0001, vec![note])
                    .put(0x0070_0084, b"PN", self.person());
            }
            "ecg" => {
                let mut group = Object::default();
                group.put(0x003A_0020, b"SH", self.plain()).put(
                    0x5400_1010,
                    b"OW",
                    [1_u8, 0, 2, 0],
                );
                o.items(0x5400_0100, vec![group]);
                let mut note = Object::default();
                note.put(0x0070_0006, b"ST", self.text());
                o.items(0x0040_B020, vec![note]);
            }
            _ => {}
        }
        o
    }
}

/// The SOP Instance UID of object `n`.
pub fn instance_uid(n: usize) -> String {
    format!("{OLD_ROOT}7.{n}")
}

/// Writes `count` objects below a folder; returns how many distinct markers they hold.
pub fn plant(folder: &Path, count: usize) -> usize {
    let mut planter = Planter {
        count: 0,
        charset: 0,
    };
    for n in 0..count {
        planter.charset = n % CHARSETS.len();
        let object = planter.object(n, n % KINDS.len());
        let (preamble, meta) = (planter.plain(), planter.plain());
        let name = planter.plain();
        let place = folder.join(planter.plain());
        fs::create_dir_all(&place).unwrap();
        // Every third file without VRs.
        let bytes = object.file(n % 3 != 2, &preamble, &meta);
        fs::write(place.join(format!("{name}.dcm")), bytes).unwrap();
    }
    planter.count
}
