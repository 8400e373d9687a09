//! A whole file as a tree of elements that can be changed and written again.
//!
//! Only what the parser has understood is written: no preamble, no bytes between or behind elements,
//! no second element of a tag. A file that is cut short is refused. Pixel data stay as bytes.

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use dicom_core::{DataDictionary, Tag, dictionary::DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::charset::CharacterSets;
use super::compose::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};
use super::dataset::Dataset;
use super::decode::FrameReader;
use super::error::Error;
use super::parse::{self, Element, Encoding, Value, tag_text};
use super::scan::{self, Opener};
use super::syntax::Syntax;
use crate::study::{FileSource, Skipped, Uid};
use crate::task::{Cancelled, Task};

/// Files below paths, members of ZIP archives included, and their bytes.
pub struct Sources {
    /// In a stable order.
    pub found: Vec<FileSource>,
    /// What cannot be read, and why.
    pub skipped: Vec<Skipped>,
    opener: Opener,
}

impl Sources {
    /// Looks for files.
    ///
    /// # Errors
    /// The task was stopped.
    pub fn find(paths: &[PathBuf], task: &Task) -> Result<Self, Cancelled> {
        let (found, skipped) = scan::find(paths, task)?;
        let opener = Opener::new(found.iter());
        Ok(Self {
            found,
            skipped,
            opener,
        })
    }

    /// A file as a tree.
    ///
    /// # Errors
    /// It cannot be read, is no DICOM, or is cut short.
    pub fn open(&self, source: &FileSource) -> Result<Tree, Error> {
        Tree::read(self.opener.whole(source)?)
    }
}

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// Group and element number: `0xGGGGEEEE`.
    pub tag: u32,
    /// Two letters; `UN` where the file does not say and the dictionary does not know.
    pub vr: [u8; 2],
    /// The value.
    pub value: TreeValue,
}

/// The value of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeValue {
    /// Bytes of the file; [`Tree::bytes`] gives them.
    Stored(Range<usize>),
    /// Bytes that are new, in the encoding of the tree.
    Written(Vec<u8>),
    /// Items of a sequence.
    Items(Vec<Vec<TreeNode>>),
}

impl TreeNode {
    /// An element with a new value; text is padded when it is written.
    pub fn new(tag: u32, vr: [u8; 2], value: impl Into<Vec<u8>>) -> Self {
        Self {
            tag,
            vr,
            value: TreeValue::Written(value.into()),
        }
    }

    /// A sequence.
    pub fn sequence(tag: u32, items: Vec<Vec<Self>>) -> Self {
        Self {
            tag,
            vr: *b"SQ",
            value: TreeValue::Items(items),
        }
    }
}

/// A whole file.
#[derive(Debug)]
pub struct Tree {
    /// The data set without its pixel data, sorted by tag.
    pub root: Vec<TreeNode>,
    bytes: Vec<u8>,
    encoding: Encoding,
    syntax: Syntax,
    pixels: Option<Pixels>,
    charset: CharacterSets,
    behind_pixels: usize,
}

#[derive(Clone, Debug)]
struct Pixels {
    tag: u32,
    vr: [u8; 2],
    /// The value; fragments with their item tags, up to and with the delimiter.
    range: Range<usize>,
    encapsulated: bool,
}

impl Tree {
    /// Parses the whole bytes of a file.
    ///
    /// # Errors
    /// No DICOM, cut short, or in a transfer syntax that cannot be written again.
    pub fn read(bytes: Vec<u8>) -> Result<Self, Error> {
        let mut dataset = Dataset::from_file(bytes)?;
        if let Some(error) = dataset.truncated.take() {
            return Err(error);
        }
        let (syntax, encoding) = (dataset.syntax.clone(), dataset.encoding);
        let found = dataset.pixels;
        let (bytes, elements, charset) = dataset.into_parts();
        let bytes = Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.to_vec());
        let pixels = found
            .map(|pixels| {
                let start = pixels.start as usize;
                let end = match pixels.length {
                    Some(length) => start + length as usize,
                    None => fragments_end(&bytes, start)?,
                };
                Ok::<_, Error>(Pixels {
                    tag: number(pixels.tag),
                    vr: pixels.vr.to_bytes(),
                    range: start..end,
                    encapsulated: pixels.length.is_none(),
                })
            })
            .transpose()?;
        if let Some(pixels) = &pixels
            && pixels.range.end > bytes.len()
        {
            return Err(Error::Truncated {
                tag: tag_text(Tag((pixels.tag >> 16) as u16, pixels.tag as u16)),
                declared: pixels.range.len() as u64,
                available: bytes.len().saturating_sub(pixels.range.start) as u64,
            });
        }
        let encapsulated = pixels.as_ref().is_some_and(|p| p.encapsulated);
        let known = match &syntax {
            Syntax::Native(..) | Syntax::Deflated => !encapsulated,
            // A standard syntax of the encapsulated family (video among them) needs no decoder here.
            Syntax::Encapsulated(_, _) => true,
            Syntax::Unknown(uid) => {
                encapsulated && uid.starts_with("1.2.840.10008.1.2.") && !encoding.big_endian
            }
        };
        if !known || (encapsulated && encoding.big_endian) {
            return Err(Error::UnknownSyntax {
                uid: syntax.uid().to_owned(),
            });
        }
        let behind_pixels = pixels
            .as_ref()
            .map_or(0, |p| bytes.len() - p.range.end.min(bytes.len()));
        Ok(Self {
            root: elements.into_iter().map(node).collect(),
            bytes,
            encoding,
            syntax,
            pixels,
            charset,
            behind_pixels,
        })
    }

    /// Bytes of a value; none for a sequence.
    pub fn bytes<'a>(&'a self, node: &'a TreeNode) -> &'a [u8] {
        match &node.value {
            TreeValue::Stored(range) => self.bytes.get(Range::clone(range)).unwrap_or_default(),
            TreeValue::Written(bytes) => bytes,
            TreeValue::Items(_) => &[],
        }
    }

    /// Text in the file's character sets; bytes without meaning become U+FFFD.
    pub fn text(&self, node: &TreeNode) -> String {
        let text = self.charset.decode(self.bytes(node));
        text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
            .to_owned()
    }

    /// The first element of a tag at the top.
    pub fn find(&self, tag: u32) -> Option<&TreeNode> {
        self.root.iter().find(|node| node.tag == tag)
    }

    /// Text of an element at the top; empty when it is absent.
    pub fn text_of(&self, tag: u32) -> String {
        self.find(tag)
            .map_or_else(String::new, |node| self.text(node))
    }

    /// First 16-bit number of an element at the top.
    pub fn word_of(&self, tag: u32) -> Option<u16> {
        let bytes = self.bytes(self.find(tag)?);
        (bytes.len() >= 2).then(|| self.encoding.u16(bytes))
    }

    /// Most significant byte first.
    pub fn big_endian(&self) -> bool {
        self.encoding.big_endian
    }

    /// The tag of the pixel data.
    pub fn pixel_tag(&self) -> Option<u32> {
        self.pixels.as_ref().map(|p| p.tag)
    }

    /// Whether pixel data are in fragments.
    pub fn encapsulated(&self) -> bool {
        self.pixels.as_ref().is_some_and(|p| p.encapsulated)
    }

    /// The pixel data: native values, or fragments with their item tags.
    pub fn pixels(&self) -> &[u8] {
        self.pixels
            .as_ref()
            .map_or(&[], |p| &self.bytes[Range::clone(&p.range)])
    }

    /// The pixel data, to change them in place.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        match &self.pixels {
            Some(p) => &mut self.bytes[Range::clone(&p.range)],
            None => &mut [],
        }
    }

    /// Keeps only the first bytes of native pixel data.
    pub fn cut_pixels(&mut self, length: usize) {
        if let Some(p) = &mut self.pixels
            && !p.encapsulated
        {
            p.range.end = p.range.end.min(p.range.start + length);
        }
    }

    /// Puts native pixel data in the place of fragments; the file becomes explicit VR little endian.
    pub fn unpack_pixels(&mut self, vr: [u8; 2], native: &[u8]) {
        let start = self.bytes.len();
        if let Some(pixels) = &mut self.pixels {
            self.bytes.extend_from_slice(native);
            pixels.range = start..self.bytes.len();
            pixels.vr = vr;
            pixels.encapsulated = false;
            self.encoding = Encoding::EXPLICIT_LE;
            self.syntax = Syntax::native(self.encoding);
        }
    }

    /// The frames as they would be written now.
    ///
    /// # Errors
    /// Pixels that cannot be found.
    pub fn frames(&self) -> Result<FrameReader, Error> {
        let mut bytes = Vec::new();
        let class = self.text_of(0x0008_0016);
        self.write(&mut bytes, &class, &Uid::from_u128(0))?;
        FrameReader::new(bytes)
    }

    /// Whether the transfer syntax loses something of the pixels.
    pub fn is_lossy(&self) -> bool {
        self.syntax.is_lossy()
    }

    /// VR of the pixel data; `OW` without any.
    pub fn pixel_vr(&self) -> [u8; 2] {
        self.pixels.as_ref().map_or(*b"OW", |p| p.vr)
    }

    /// Puts an element at the top, in the place of one of the same tag.
    pub fn put(&mut self, node: TreeNode) {
        self.root.retain(|n| n.tag != node.tag);
        let at = self.root.partition_point(|n| n.tag < node.tag);
        self.root.insert(at, node);
    }

    /// Puts a 16-bit number at the top.
    pub fn put_word(&mut self, tag: u32, word: u16) {
        let mut value = Vec::new();
        push16(&mut value, self.encoding, word);
        self.put(TreeNode::new(tag, *b"US", value));
    }

    /// Bytes of the file behind its pixel data; they are never written.
    pub fn behind_pixels(&self) -> usize {
        self.behind_pixels
    }

    /// UID of the transfer syntax that will be written.
    pub fn written_syntax(&self) -> String {
        match &self.syntax {
            Syntax::Native(..) => Syntax::native(self.encoding).uid().to_owned(),
            Syntax::Deflated => Syntax::native(Encoding::EXPLICIT_LE).uid().to_owned(),
            other => other.uid().to_owned(),
        }
    }

    /// Writes the file: an empty preamble, a file meta group of this program, the tree, the pixels.
    ///
    /// # Errors
    /// The writer's, or a sequence beyond 4 GiB.
    pub fn write(
        &self,
        w: &mut dyn Write,
        sop_class_uid: &str,
        sop_instance_uid: &Uid,
    ) -> std::io::Result<()> {
        let syntax = self.written_syntax();
        let mut meta = Vec::new();
        let put = Encoding::EXPLICIT_LE;
        let mut text = |tag: u32, vr: &[u8; 2], value: &str| {
            let mut value = value.as_bytes().to_vec();
            pad(&mut value, *vr);
            element(&mut meta, put, tag, *vr, &value);
        };
        text(0x0002_0002, b"UI", sop_class_uid);
        text(0x0002_0003, b"UI", sop_instance_uid.as_str());
        text(0x0002_0010, b"UI", &syntax);
        text(0x0002_0012, b"UI", IMPLEMENTATION_CLASS_UID);
        text(0x0002_0013, b"SH", IMPLEMENTATION_VERSION_NAME);
        let mut head = vec![0; 128];
        head.extend_from_slice(b"DICM");
        let mut version = Vec::new();
        element(&mut version, put, 0x0002_0001, *b"OB", &[0, 1]);
        let length = (version.len() + meta.len()) as u32;
        element(&mut head, put, 0x0002_0000, *b"UL", &length.to_le_bytes());
        w.write_all(&head)?;
        w.write_all(&version)?;
        w.write_all(&meta)?;
        // Encapsulated and deflated data sets are explicit little endian (PS3.5 A.4, A.5).
        let encoding = match &self.syntax {
            Syntax::Native(..) => self.encoding,
            _ => Encoding::EXPLICIT_LE,
        };
        w.write_all(&self.encode(&self.root, encoding)?)?;
        if let Some(pixels) = &self.pixels {
            let value = &self.bytes[Range::clone(&pixels.range)];
            let length = if pixels.encapsulated {
                u32::MAX
            } else {
                (value.len() + value.len() % 2) as u32
            };
            let mut head = Vec::new();
            element_head(&mut head, encoding, pixels.tag, pixels.vr, length);
            w.write_all(&head)?;
            w.write_all(value)?;
            if !pixels.encapsulated && value.len() % 2 == 1 {
                w.write_all(&[0])?;
            }
        }
        Ok(())
    }

    fn encode(&self, nodes: &[TreeNode], encoding: Encoding) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for node in nodes {
            let (vr, value) = if let TreeValue::Items(items) = &node.value {
                let mut value = Vec::new();
                for item in items {
                    let inner = self.encode(item, encoding)?;
                    item_head(&mut value, encoding, length_of(inner.len())?);
                    value.extend_from_slice(&inner);
                }
                (*b"SQ", value)
            } else {
                let mut value = self.bytes(node).to_vec();
                pad(&mut value, node.vr);
                (node.vr, value)
            };
            length_of(value.len())?;
            element(&mut out, encoding, node.tag, vr, &value);
        }
        Ok(out)
    }
}

/// Keyword of the standard dictionary.
pub fn standard_keyword(tag: u32) -> Option<&'static str> {
    StandardDataDictionary
        .by_tag(Tag((tag >> 16) as u16, tag as u16))
        .map(DataDictionaryEntry::alias)
}

/// VR of the standard dictionary; of several, the first.
pub fn standard_vr(tag: u32) -> Option<[u8; 2]> {
    parse::dictionary_vr(Tag((tag >> 16) as u16, tag as u16)).map(dicom_core::VR::to_bytes)
}

fn number(tag: Tag) -> u32 {
    u32::from(tag.0) << 16 | u32::from(tag.1)
}

fn node(element: Element) -> TreeNode {
    TreeNode {
        tag: number(element.tag),
        vr: element.vr.to_bytes(),
        value: match element.value {
            Value::Bytes(range) => TreeValue::Stored(range),
            Value::Items(items) => TreeValue::Items(
                items
                    .into_iter()
                    .map(|item| item.into_iter().map(node).collect())
                    .collect(),
            ),
        },
    }
}

/// End of encapsulated pixel data: behind the sequence delimiter.
fn fragments_end(bytes: &[u8], start: usize) -> Result<usize, Error> {
    let truncated = |pos: usize, declared: u64| Error::Truncated {
        tag: "(7fe0,0010)".to_owned(),
        declared,
        available: bytes.len().saturating_sub(pos) as u64,
    };
    let mut pos = start;
    loop {
        let Some(head) = bytes.get(pos..pos + 8) else {
            return Err(truncated(pos, 8));
        };
        let length = Encoding::EXPLICIT_LE.u32(&head[4..]) as usize;
        match head[..4] {
            [0xFE, 0xFF, 0x00, 0xE0] if length <= bytes.len() - pos - 8 => pos += 8 + length,
            [0xFE, 0xFF, 0xDD, 0xE0] => return Ok(pos + 8),
            _ => return Err(truncated(pos, length as u64)),
        }
    }
}

fn length_of(length: usize) -> std::io::Result<u32> {
    u32::try_from(length)
        .ok()
        .filter(|&l| l < u32::MAX - 1)
        .ok_or_else(|| std::io::Error::other("a value is over 4 GiB"))
}

/// Even length: text with a blank, UIDs and bytes with a zero (PS3.5 6.2).
fn pad(value: &mut Vec<u8>, vr: [u8; 2]) {
    if value.len() % 2 == 1 {
        let text = [
            b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST",
            b"TM", b"UC", b"UR", b"UT",
        ];
        value.push(if text.contains(&&vr) { b' ' } else { 0 });
    }
}

fn push16(out: &mut Vec<u8>, encoding: Encoding, value: u16) {
    out.extend_from_slice(&if encoding.big_endian {
        value.to_be_bytes()
    } else {
        value.to_le_bytes()
    });
}

fn push32(out: &mut Vec<u8>, encoding: Encoding, value: u32) {
    out.extend_from_slice(&if encoding.big_endian {
        value.to_be_bytes()
    } else {
        value.to_le_bytes()
    });
}

fn item_head(out: &mut Vec<u8>, encoding: Encoding, length: u32) {
    push16(out, encoding, 0xFFFE);
    push16(out, encoding, 0xE000);
    push32(out, encoding, length);
}

fn element_head(out: &mut Vec<u8>, encoding: Encoding, tag: u32, vr: [u8; 2], length: u32) {
    push16(out, encoding, (tag >> 16) as u16);
    push16(out, encoding, tag as u16);
    if !encoding.explicit {
        push32(out, encoding, length);
        return;
    }
    let short = [
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
        b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    match u16::try_from(length) {
        Ok(length) if short.contains(&&vr) => {
            out.extend_from_slice(&vr);
            push16(out, encoding, length);
        }
        // PS3.5 6.2.2: a value too long for its VR's short form is written as UN.
        _ => {
            let vr = if short.contains(&&vr) { *b"UN" } else { vr };
            out.extend_from_slice(&vr);
            out.extend_from_slice(&[0, 0]);
            push32(out, encoding, length);
        }
    }
}

fn element(out: &mut Vec<u8>, encoding: Encoding, tag: u32, vr: [u8; 2], value: &[u8]) {
    element_head(out, encoding, tag, vr, value.len() as u32);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(data: &[u8], syntax: &str) -> Vec<u8> {
        let mut bytes = vec![b'x'; 128];
        bytes.extend_from_slice(b"DICM");
        let mut uid = syntax.as_bytes().to_vec();
        pad(&mut uid, *b"UI");
        element(&mut bytes, Encoding::EXPLICIT_LE, 0x0002_0010, *b"UI", &uid);
        bytes.extend_from_slice(data);
        bytes
    }

    fn written(tree: &Tree) -> Vec<u8> {
        let mut out = Vec::new();
        tree.write(&mut out, "1.2.840.10008.5.1.4.1.1.7", &Uid::from_u128(5))
            .unwrap();
        out
    }

    #[test]
    fn a_tree_is_written_as_it_was_read_in_every_encoding() {
        for (syntax, explicit, big_endian) in [
            ("1.2.840.10008.1.2", false, false),
            ("1.2.840.10008.1.2.1", true, false),
            ("1.2.840.10008.1.2.2", true, true),
        ] {
            let encoding = Encoding {
                explicit,
                big_endian,
            };
            let mut inner = Vec::new();
            element(&mut inner, encoding, 0x0008_1155, *b"UI", b"1.2.3\0");
            let mut item = Vec::new();
            item_head(&mut item, encoding, inner.len() as u32);
            item.extend_from_slice(&inner);
            let mut data = Vec::new();
            element(&mut data, encoding, 0x0008_0060, *b"CS", b"CT");
            element(&mut data, encoding, 0x0008_1140, *b"SQ", &item);
            element(&mut data, encoding, 0x7FE0_0010, *b"OW", &[1, 2, 3, 4]);
            let tree = Tree::read(file(&data, syntax)).unwrap();
            let out = written(&tree);
            assert_eq!(&out[..128], &[0; 128], "the preamble is empty");
            assert!(out.ends_with(&data), "{syntax}");
            assert_eq!(tree.pixels(), [1, 2, 3, 4]);
        }
    }

    #[test]
    fn what_is_cut_short_is_refused_and_what_follows_pixels_is_dropped() {
        let put = Encoding::EXPLICIT_LE;
        let mut data = Vec::new();
        element(&mut data, put, 0x0008_0060, *b"CS", b"CT");
        element_head(&mut data, put, 0x7FE0_0010, *b"OB", u32::MAX);
        for part in [&b""[..], b"abcd"] {
            item_head(&mut data, put, part.len() as u32);
            data.extend_from_slice(part);
        }
        let open = data.clone();
        data.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        let whole = data.clone();
        data.extend_from_slice(b"trailing identity");
        let jpeg = "1.2.840.10008.1.2.4.50";
        assert!(matches!(
            Tree::read(file(&open, jpeg)),
            Err(Error::Truncated { .. })
        ));
        let tree = Tree::read(file(&data, jpeg)).unwrap();
        assert_eq!(tree.behind_pixels(), 17);
        assert!(written(&tree).ends_with(&whole));
        let mut short = Vec::new();
        element_head(&mut short, put, 0x7FE0_0010, *b"OW", 100);
        short.extend_from_slice(&[0; 50]);
        assert!(Tree::read(file(&short, "1.2.840.10008.1.2.1")).is_err());
    }
}
