//! The walk through one file: every element at any depth meets the table, or the rules where the
//! table is silent.

use std::collections::{BTreeMap, BTreeSet};

use super::dates::{is_date, is_date_time, is_offset, is_time, shift_date, shift_date_time};
use super::fragments::{clear_unused, stream_comments};
use super::identity::Identity;
use super::keys::Key;
use super::options::{Dates, Options};
use super::risk::burned_in_risk;
use super::table::{Action, Resolved, decide, resolve};
use super::values::{
    Kind, REMOVED, dummy, is_age, is_code, is_decimal, is_defined_term, is_well_known, known_words,
};
use crate::dicom::{Tree, TreeNode, TreeValue, standard_keyword, standard_vr};
use crate::study::Uid;

/// One de-identified file, still in memory.
#[derive(Debug)]
pub struct Cleaned {
    /// What will be written.
    pub tree: Tree,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// New UIDs: study, series, instance.
    pub uids: [Uid; 3],
    /// Elements by what was done to them.
    pub counts: BTreeMap<&'static str, usize>,
    /// What a person should know, with how often.
    pub doubts: BTreeMap<String, usize>,
    /// Texts of people's own making that the profile keeps, by keyword.
    pub kept_texts: BTreeMap<String, usize>,
    /// Why the pixels may show text.
    pub burned_in: Option<&'static str>,
}

impl Cleaned {
    /// Adds what was done to the pixels to the method (PS3.16 CID 7050).
    pub(super) fn also_done(&mut self, code: &str, meaning: &str) {
        const METHOD: u32 = 0x0012_0063;
        const METHOD_CODES: u32 = 0x0012_0064;
        let said = self.tree.text_of(METHOD);
        let said = format!("{said}\\{code}");
        self.tree.put(TreeNode::new(METHOD, *b"LO", said));
        let codes = self.tree.root.iter_mut().find(|n| n.tag == METHOD_CODES);
        if let Some(TreeNode {
            value: TreeValue::Items(items),
            ..
        }) = codes
        {
            items.push(code_item(code, "DCM", meaning));
        }
    }
}

const RLE_LOSSLESS: &str = "1.2.840.10008.1.2.5";
const CONTENT_SEQUENCE: u32 = 0x0040_A730;
const GRAPHIC_ANNOTATION_SEQUENCE: u32 = 0x0070_0001;
/// A program's name, in a group of texts by people.
const SEGMENT_ALGORITHM_NAME: u32 = 0x0062_0009;

/// Private elements whose numbers are known to be safe: creator, group, element, VR (PS3.15 E.3.10).
const SAFE_PRIVATE: [(&str, u16, u8, [u8; 2]); 29] = [
    ("Philips PET Private Group", 0x7053, 0x00, *b"DS"),
    ("Philips PET Private Group", 0x7053, 0x09, *b"DS"),
    ("ELSCINT1", 0x00E1, 0x21, *b"DS"),
    ("ELSCINT1", 0x01E1, 0x50, *b"DS"),
    ("ELSCINT1", 0x01F1, 0x07, *b"DS"),
    ("ELSCINT1", 0x01F1, 0x26, *b"DS"),
    ("ELSCINT1", 0x01F1, 0x27, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0x23, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0x24, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0x27, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0xBB, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0xBC, *b"DS"),
    ("GEMS_ACQU_01", 0x0019, 0xBD, *b"DS"),
    ("GEMS_PARM_01", 0x0043, 0x39, *b"IS"),
    ("GEMS_HELIOS_01", 0x0045, 0x01, *b"SS"),
    ("GEMS_HELIOS_01", 0x0045, 0x02, *b"FL"),
    ("SIEMENS MR HEADER", 0x0019, 0x0A, *b"US"),
    ("SIEMENS MR HEADER", 0x0019, 0x0B, *b"DS"),
    ("SIEMENS MR HEADER", 0x0019, 0x0C, *b"IS"),
    ("SIEMENS MR HEADER", 0x0019, 0x0E, *b"FD"),
    ("SIEMENS MR HEADER", 0x0019, 0x27, *b"FD"),
    ("SIEMENS MR HEADER", 0x0019, 0x28, *b"FD"),
    ("Philips Imaging DD 001", 0x2001, 0x03, *b"FL"),
    ("Philips MR Imaging DD 001", 0x2005, 0xB0, *b"FL"),
    ("Philips MR Imaging DD 001", 0x2005, 0xB1, *b"FL"),
    ("Philips MR Imaging DD 001", 0x2005, 0xB2, *b"FL"),
    ("Philips MR Imaging DD 001", 0x2005, 0x0D, *b"FL"),
    ("Philips MR Imaging DD 001", 0x2005, 0x0E, *b"FL"),
    ("SPI-P-Private_ICS Release 1", 0x0019, 0x30, *b"DS"),
];

/// De-identifies one file. What cannot be is refused with a reason that names nobody.
///
/// # Errors
/// Directories, documents, voices, and files whose pixels cannot be told from something else.
pub fn clean(mut tree: Tree, options: &Options, key: &Key) -> Result<Cleaned, &'static str> {
    let sop_class_uid = tree.text_of(0x0008_0016);
    refuse_by_class(&tree, &sop_class_uid)?;
    let old = [0x0020_000D, 0x0020_000E, 0x0008_0018].map(|tag| tree.text_of(tag));
    if old.iter().any(String::is_empty) || Uid::parse(&sop_class_uid).is_err() {
        return Err("no study, series and instance UID with a SOP class");
    }
    let burned_in = burned_in_risk(&tree);
    let identity = Identity::gather(&tree, options);
    let patient = patient_of(&tree, &old[0]);
    let mut walk = Walk {
        tree: &tree,
        options,
        key,
        identity,
        sop_class: &sop_class_uid,
        shift_days: key.shift_days(&patient),
        counts: BTreeMap::new(),
        doubts: BTreeMap::new(),
        kept_texts: BTreeMap::new(),
    };
    let mut root = walk.items(&tree.root, 0);
    let uids = old.map(|uid| walk.new_uid(&uid));
    let Walk {
        identity,
        counts,
        mut doubts,
        kept_texts,
        ..
    } = walk;
    let uids = uids.map(|uid| Uid::parse(&uid).expect("a new UID, or an old one that was checked"));
    let pseudonym = key.pseudonym(&patient);
    let mut put = |node: TreeNode| {
        root.retain(|n| n.tag != node.tag);
        root.push(node);
    };
    put(TreeNode::new(0x0008_0018, *b"UI", uids[2].as_str()));
    put(TreeNode::new(0x0020_000D, *b"UI", uids[0].as_str()));
    put(TreeNode::new(0x0020_000E, *b"UI", uids[1].as_str()));
    put(TreeNode::new(0x0010_0010, *b"PN", pseudonym.as_str()));
    put(TreeNode::new(0x0010_0020, *b"LO", pseudonym.as_str()));
    put(TreeNode::new(0x0012_0062, *b"CS", "YES"));
    put(TreeNode::new(0x0012_0063, *b"LO", method(options)));
    put(TreeNode::sequence(
        0x0012_0064,
        options
            .codes()
            .into_iter()
            .map(|(code, meaning)| code_item(code, "DCM", meaning))
            .collect(),
    ));
    put(TreeNode::new(0x0028_0303, *b"CS", options.temporal()));
    root.sort_by_key(|node| node.tag);
    pixels(&mut tree, &identity, &mut doubts)?;
    tree.root = root;
    Ok(Cleaned {
        tree,
        sop_class_uid,
        uids,
        counts,
        doubts,
        kept_texts,
        burned_in,
    })
}

fn refuse_by_class(tree: &Tree, class: &str) -> Result<(), &'static str> {
    if class == "1.2.840.10008.1.3.10" || tree.find(0x0004_1220).is_some() {
        return Err("a directory of files: make it anew for the files that are written");
    }
    if class.starts_with("1.2.840.10008.5.1.4.1.1.104.") || tree.find(0x0042_0011).is_some() {
        return Err("an encapsulated document: its pages cannot be cleaned");
    }
    if class.starts_with("1.2.840.10008.5.1.4.1.1.9.4.") {
        return Err("a recorded voice");
    }
    if class.starts_with("1.2.840.10008.5.1.4.1.1.77.1.") && tree.text_of(0x0008_0060) == "XC" {
        return Err("a photograph of a person");
    }
    Ok(())
}

/// What a patient is told apart by: ID and issuer, else the name, else the study.
fn patient_of(tree: &Tree, study: &str) -> String {
    let (id, issuer) = (tree.text_of(0x0010_0020), tree.text_of(0x0010_0021));
    let name = tree.text_of(0x0010_0010);
    if !id.is_empty() {
        format!("id\0{issuer}\0{id}")
    } else if !name.is_empty() {
        format!("name\0{}", name.to_lowercase())
    } else {
        format!("study\0{study}")
    }
}

/// De-identification Method: values of at most 64 characters.
fn method(options: &Options) -> String {
    let codes: Vec<&str> = options.codes().iter().map(|(code, _)| *code).collect();
    let codes: Vec<String> = codes.chunks(7).map(|part| part.join(" ")).collect();
    format!(
        "Negatoscope {}\\PS3.15 E.1-1 {}\\{}",
        crate::VERSION,
        super::TABLE_EDITION,
        codes.join("\\")
    )
}

fn code_item(value: &str, scheme: &str, meaning: &str) -> Vec<TreeNode> {
    vec![
        TreeNode::new(0x0008_0100, *b"SH", value),
        TreeNode::new(0x0008_0102, *b"SH", scheme),
        TreeNode::new(0x0008_0104, *b"LO", meaning),
    ]
}

/// The element with another value.
fn with(node: &TreeNode, value: impl Into<Vec<u8>>) -> TreeNode {
    TreeNode::new(node.tag, node.vr, value)
}

struct Walk<'a> {
    tree: &'a Tree,
    options: &'a Options,
    key: &'a Key,
    identity: Identity,
    sop_class: &'a str,
    shift_days: i64,
    counts: BTreeMap<&'static str, usize>,
    doubts: BTreeMap<String, usize>,
    kept_texts: BTreeMap<String, usize>,
}

impl Walk<'_> {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn doubt(&mut self, what: impl Into<String>) {
        *self.doubts.entry(what.into()).or_default() += 1;
    }

    fn items(&mut self, nodes: &[TreeNode], depth: usize) -> Vec<TreeNode> {
        let creators: BTreeMap<(u16, u8), String> = nodes
            .iter()
            .filter(|n| (n.tag >> 16) % 2 == 1 && (0x10..=0xFF).contains(&(n.tag & 0xFFFF)))
            .map(|n| (((n.tag >> 16) as u16, n.tag as u8), self.tree.text(n)))
            .collect();
        let mut blocks = BTreeSet::new();
        let mut out: Vec<TreeNode> = Vec::with_capacity(nodes.len());
        let mut before = None;
        for node in nodes {
            if before == Some(node.tag) {
                // Other readers may show the second one: only the first is written.
                self.count("removed");
                self.doubt("a second element of one tag was removed");
                continue;
            }
            before = Some(node.tag);
            let (group, number) = ((node.tag >> 16) as u16, node.tag as u16);
            if number == 0 || group < 8 {
                self.count("removed");
            } else if group % 2 == 1 {
                let block = (group, (number >> 8) as u8);
                let safe = creators
                    .get(&block)
                    .and_then(|creator| self.safe_private(node, creator));
                if let Some(kept) = safe {
                    blocks.insert(block);
                    self.count("kept");
                    out.push(kept);
                } else if !(0x10..=0xFF).contains(&number) {
                    self.count("removed");
                }
            } else if let Some(kept) = self.node(node, depth) {
                out.push(kept);
            }
        }
        for (group, block) in blocks {
            let tag = u32::from(group) << 16 | u32::from(block);
            let creator = creators[&(group, block)].clone();
            out.push(TreeNode::new(tag, *b"LO", creator));
        }
        out.sort_by_key(|node| node.tag);
        out
    }

    fn safe_private(&self, node: &TreeNode, creator: &str) -> Option<TreeNode> {
        if !self.options.private {
            return None;
        }
        let (group, element) = ((node.tag >> 16) as u16, node.tag as u8);
        let (_, _, _, vr) = SAFE_PRIVATE
            .iter()
            .find(|(c, g, e, _)| *c == creator && *g == group && *e == element)?;
        let bytes = self.tree.bytes(node);
        let fine = match Kind::of(*vr) {
            Kind::Number(size) => !bytes.is_empty() && bytes.len().is_multiple_of(size),
            _ => self
                .tree
                .text(node)
                .split('\\')
                .all(|v| is_decimal(v.trim())),
        };
        let is_value = !matches!(node.value, TreeValue::Items(_));
        (fine && is_value && (node.vr == *vr || node.vr == *b"UN")).then(|| TreeNode {
            vr: *vr,
            ..node.clone()
        })
    }

    fn node(&mut self, node: &TreeNode, depth: usize) -> Option<TreeNode> {
        let group = node.tag >> 16;
        if matches!(group & 0xFF00, 0x5000 | 0x6000) {
            // Of an overlay or curve nothing stays, its frame included.
            self.count("removed");
            if self.options.graphics {
                self.doubt("overlays and curves cannot be cleaned and were removed");
            }
            return None;
        }
        match resolve(node.tag, self.options) {
            Resolved::Keep => self.keep(node, depth),
            Resolved::Clean => self.clean(node, depth),
            Resolved::Basic(action) => self.basic(node, action, depth),
            Resolved::Unlisted => self.unlisted(node, depth),
        }
    }

    fn basic(&mut self, node: &TreeNode, action: Action, depth: usize) -> Option<TreeNode> {
        match decide(action, node.tag, self.sop_class, depth > 0) {
            Action::X => {
                self.count("removed");
                None
            }
            Action::Z => Some(self.empty(node)),
            Action::U => Some(self.renamed(node, depth)),
            _ => Some(self.replaced(node, depth)),
        }
    }

    fn empty(&mut self, node: &TreeNode) -> TreeNode {
        self.count("emptied");
        let value = match node.value {
            TreeValue::Items(_) => TreeValue::Items(Vec::new()),
            _ => TreeValue::Written(Vec::new()),
        };
        TreeNode { value, ..*node }
    }

    fn walked(&mut self, node: &TreeNode, items: &[Vec<TreeNode>], depth: usize) -> TreeNode {
        let items = items.iter().map(|i| self.items(i, depth + 1)).collect();
        TreeNode::sequence(node.tag, items)
    }

    /// D: a dummy.
    fn replaced(&mut self, node: &TreeNode, depth: usize) -> TreeNode {
        self.count("replaced");
        if let TreeValue::Items(items) = &node.value {
            let dummy_item = match node.tag {
                CONTENT_SEQUENCE => {
                    self.doubt("the content of a report was removed: clean-structured-content keeps its structure");
                    let mut item = vec![
                        TreeNode::new(0x0040_A010, *b"CS", "CONTAINS"),
                        TreeNode::new(0x0040_A040, *b"CS", "TEXT"),
                        TreeNode::new(0x0040_A160, *b"UT", REMOVED),
                    ];
                    let name = code_item("121106", "DCM", "Comment");
                    item.insert(2, TreeNode::sequence(0x0040_A043, vec![name]));
                    item
                }
                GRAPHIC_ANNOTATION_SEQUENCE => {
                    self.doubt("graphic annotations were removed: clean-graphics keeps shapes");
                    let text = vec![
                        TreeNode::new(0x0070_0004, *b"CS", "DISPLAY"),
                        TreeNode::new(0x0070_0006, *b"ST", REMOVED),
                        TreeNode::new(0x0070_0014, *b"FL", vec![0; 8]),
                        TreeNode::new(0x0070_0015, *b"CS", "N"),
                    ];
                    vec![
                        TreeNode::new(0x0070_0002, *b"CS", REMOVED),
                        TreeNode::sequence(0x0070_0008, vec![text]),
                    ]
                }
                0x0008_0082 | 0x0040_1101 => code_item(REMOVED, "99NS", "Removed"),
                _ => return self.walked(node, items, depth),
            };
            return TreeNode::sequence(node.tag, vec![dummy_item]);
        }
        let listed = Kind::of(standard_vr(node.tag).unwrap_or(node.vr));
        let written = Kind::of(node.vr);
        if listed == Kind::Uid || written == Kind::Uid {
            let value = self.key.uid(&self.tree.text(node));
            return with(node, value.as_str());
        }
        // Bytes in the place of text are a text of an unknown writer.
        let kind = if written == Kind::Bytes {
            listed
        } else {
            written
        };
        if kind == Kind::Sequence {
            return with(node, Vec::new());
        }
        with(node, dummy(kind))
    }

    /// U: each UID by its new one.
    fn renamed(&mut self, node: &TreeNode, depth: usize) -> TreeNode {
        if let TreeValue::Items(items) = &node.value {
            self.count("walked");
            return self.walked(node, items, depth);
        }
        self.count("new uid");
        let text = self.tree.text(node);
        if text.is_empty() {
            return with(node, Vec::new());
        }
        let uids: Vec<String> = text
            .split('\\')
            .map(|old| {
                let old = old.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                if is_well_known(old) {
                    old.to_owned()
                } else {
                    self.key.uid(old).as_str().to_owned()
                }
            })
            .collect();
        with(node, uids.join("\\"))
    }

    /// The UIDs of the file itself.
    fn new_uid(&self, old: &str) -> String {
        if self.options.uids && Uid::parse(old).is_ok() {
            old.to_owned()
        } else {
            self.key.uid(old).as_str().to_owned()
        }
    }

    /// K: kept in a valid form.
    fn keep(&mut self, node: &TreeNode, depth: usize) -> Option<TreeNode> {
        if let TreeValue::Items(items) = &node.value {
            self.count("walked");
            return Some(self.walked(node, items, depth));
        }
        if node.tag == 0x0008_0201 {
            return Some(self.offset(node));
        }
        if node.tag == 0x0034_0007 {
            return Some(self.replaced(node, depth));
        }
        self.checked(node, true)
    }

    /// C: cleaned.
    fn clean(&mut self, node: &TreeNode, depth: usize) -> Option<TreeNode> {
        if let TreeValue::Items(items) = &node.value {
            self.count("cleaned");
            return Some(self.walked(node, items, depth));
        }
        let vr = standard_vr(node.tag).unwrap_or(node.vr);
        match Kind::of(vr) {
            _ if node.tag == 0x0008_0201 => Some(self.offset(node)),
            Kind::Date | Kind::Time | Kind::DateTime => self.checked(node, true),
            Kind::ShortText | Kind::LongText => {
                let words = known_words(&self.tree.text(node));
                if words.is_empty() || self.identity.is_in(&words) {
                    let action = super::table::row(node.tag)?.action;
                    return self.basic(node, action, depth);
                }
                self.count("cleaned");
                let longest = if vr == *b"SH" { 16 } else { 64 };
                let words: String = words.chars().take(longest).collect();
                Some(with(node, words.trim()))
            }
            _ => {
                let action = super::table::row(node.tag)?.action;
                self.basic(node, action, depth)
            }
        }
    }

    fn offset(&mut self, node: &TreeNode) -> TreeNode {
        if is_offset(&self.tree.text(node)) {
            self.count("kept");
            node.clone()
        } else {
            self.empty(node)
        }
    }

    /// What the table does not list.
    fn unlisted(&mut self, node: &TreeNode, depth: usize) -> Option<TreeNode> {
        let Some(keyword) = standard_keyword(node.tag) else {
            self.count("removed");
            self.doubt("an attribute that is not in the dictionary was removed");
            return None;
        };
        let group = node.tag >> 16;
        // Patient, trial, visit and request modules: what is not listed there goes, but for species.
        let of_people = matches!(group, 0x0010 | 0x0012 | 0x0032 | 0x0038 | 0x4008);
        let species = matches!(
            node.tag,
            0x0010_2201 | 0x0010_2202 | 0x0010_2210 | 0x0010_2292 | 0x0010_2293 | 0x0010_9431
        );
        if of_people && !species {
            self.count("removed");
            return None;
        }
        let listed = standard_vr(node.tag).unwrap_or(node.vr);
        let (expected, found) = (Kind::of(listed), Kind::of(node.vr));
        if let TreeValue::Items(items) = &node.value {
            if expected == Kind::Sequence {
                self.count("walked");
                return Some(self.walked(node, items, depth));
            }
            self.count("removed");
            self.doubt(format!("{keyword} was a sequence and was removed"));
            return None;
        }
        let numbers =
            |kind| matches!(kind, Kind::Number(_) | Kind::Bytes) || kind == Kind::Sequence;
        if expected == Kind::Sequence
            || expected != found
                && expected.is_string() != found.is_string()
                && !(numbers(expected) && numbers(found))
        {
            self.count("removed");
            self.doubt(format!("{keyword} had another VR and was removed"));
            return None;
        }
        if expected == Kind::ShortText {
            return Some(self.unlisted_text(node));
        }
        self.checked(node, false)
    }

    /// Short texts that the table does not know: technique is written in ASCII by machines, labels and
    /// names of protocols by people.
    fn unlisted_text(&mut self, node: &TreeNode) -> TreeNode {
        let text = self.tree.text(node);
        let by_people = matches!(
            node.tag >> 16,
            0x0062 | 0x0068 | 0x0070 | 0x0072 | 0x0074 | 0x0076 | 0x0078 | 0x0088 | 0x2200
        ) && node.tag != SEGMENT_ALGORITHM_NAME;
        let known = known_words(&text);
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
        let foreign = |c: char| !c.is_ascii() && !"µμ°²³±×·–".contains(c);
        if by_people && letters(&known) != letters(&text) || text.contains(foreign) {
            self.count("replaced");
            self.doubt("a text of people's own making was replaced, or cut to known words");
            let fine = !known.is_empty() && !self.identity.is_in(&known);
            return with(node, if fine { &known } else { REMOVED });
        }
        self.short_text(node)
    }

    /// Keeps a value of the form that its VR demands; `listed` when an option keeps it.
    fn checked(&mut self, node: &TreeNode, listed: bool) -> Option<TreeNode> {
        let expected = Kind::of(standard_vr(node.tag).unwrap_or(node.vr));
        // The file's own numbers, the dictionary's texts: a lie in the VR does not get around a check.
        let kind = if expected.is_string() {
            expected
        } else {
            Kind::of(node.vr)
        };
        if kind.is_string() && !Kind::of(node.vr).is_string() {
            return Some(self.empty(node));
        }
        match kind {
            Kind::Number(size) => {
                let bytes = self.tree.bytes(node);
                // Without VRs in the file, a text may stand where numbers should.
                let letters =
                    bytes.len() >= 6 && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
                Some(self.keep_if(node, bytes.len().is_multiple_of(size) && !letters))
            }
            Kind::Bytes | Kind::Sequence => self.bulk(node),
            Kind::Uid => Some(self.uid(node, listed)),
            Kind::Date | Kind::Time | Kind::DateTime => Some(self.temporal(node, kind)),
            Kind::Age => {
                let text = self.tree.text(node);
                let old = text.ends_with('Y') && text.get(..3).is_some_and(|n| n >= "090");
                if is_age(&text) && old {
                    self.count("cleaned");
                    return Some(with(node, "090Y"));
                }
                Some(self.keep_if(node, text.is_empty() || is_age(&text)))
            }
            Kind::Decimal => {
                let text = self.tree.text(node);
                let fine = |v: &str| is_decimal(v) && !self.identity.is_value(v);
                Some(self.keep_if(node, text.split('\\').all(|v| fine(v.trim()))))
            }
            Kind::Code => Some(self.codes(node)),
            Kind::ShortText => Some(self.short_text(node)),
            Kind::LongText | Kind::Entity | Kind::Address if listed => Some(self.short_text(node)),
            Kind::LongText => {
                let empty = self.tree.text(node).is_empty();
                Some(self.long_text(node, empty))
            }
            Kind::Person => Some(self.replaced(node, 1)),
            Kind::Entity | Kind::Address => {
                self.count("removed");
                None
            }
        }
    }

    fn keep_if(&mut self, node: &TreeNode, fine: bool) -> TreeNode {
        if fine {
            self.count("kept");
            return node.clone();
        }
        self.doubt(
            "a number that repeats an identity, or a value without the form of its VR, was emptied",
        );
        self.empty(node)
    }

    /// Tables and samples stay where they belong; other bytes may hold anything.
    fn bulk(&mut self, node: &TreeNode) -> Option<TreeNode> {
        let numbers = matches!(&node.vr, b"OF" | b"OD" | b"OL" | b"OV");
        let home = matches!(node.tag >> 16, 0x0028 | 0x5400 | 0x7FE0 | 0x0066 | 0x0022);
        if (!numbers && !home) || node.vr == *b"UN" {
            self.count("removed");
            self.doubt("bytes of unknown content were removed");
            return None;
        }
        if self.identity.is_in_bytes(self.tree.bytes(node)) {
            self.count("removed");
            self.doubt("bytes that repeat an identity were removed");
            return None;
        }
        self.count("kept");
        Some(node.clone())
    }

    fn uid(&mut self, node: &TreeNode, listed: bool) -> TreeNode {
        let text = self.tree.text(node);
        let fine = text.is_empty() || text.split('\\').all(|uid| Uid::parse(uid).is_ok());
        // Classes and schemes are no instances, whoever assigned them.
        let class = matches!(
            node.tag,
            0x0008_0016
                | 0x0008_001A
                | 0x0008_001B
                | 0x0008_1150
                | 0x0008_010C
                | 0x0008_0117
                | 0x0008_0118
                | 0x0008_115A
                | 0x0040_DB00
        );
        if fine && (listed || class) {
            self.count("kept");
            return node.clone();
        }
        self.renamed(node, 0)
    }

    fn temporal(&mut self, node: &TreeNode, kind: Kind) -> TreeNode {
        let text = self.tree.text(node);
        if text.is_empty() {
            return self.empty(node);
        }
        let days = match self.options.dates {
            Dates::Removed => return self.empty(node),
            Dates::Modified => self.shift_days,
            Dates::Full => 0,
        };
        let values: Option<Vec<String>> = text
            .split('\\')
            .map(|value| {
                let value = value.trim();
                match kind {
                    _ if value.is_empty() => Some(String::new()),
                    Kind::Time => is_time(value).then(|| value.to_owned()),
                    Kind::Date if days != 0 => shift_date(value, days),
                    Kind::Date => is_date(value).then(|| value.to_owned()),
                    _ if days != 0 => shift_date_time(value, days),
                    _ => is_date_time(value).then(|| value.to_owned()),
                }
            })
            .collect();
        let Some(values) = values else {
            self.doubt("a date or time without its form was emptied");
            return self.empty(node);
        };
        self.count(if days != 0 && kind != Kind::Time {
            "date shifted"
        } else {
            "kept"
        });
        with(node, values.join("\\"))
    }

    fn codes(&mut self, node: &TreeNode) -> TreeNode {
        let text = self.tree.text(node);
        let fine =
            |term: &str| is_defined_term(term) || is_code(term) && !self.identity.is_in(term);
        if text.split('\\').all(|term| fine(term.trim())) {
            self.count("kept");
            return node.clone();
        }
        let terms: Vec<&str> = text
            .split('\\')
            .map(|term| if fine(term.trim()) { term } else { REMOVED })
            .collect();
        let terms = terms.join("\\");
        self.count("replaced");
        self.doubt("a code that repeats an identity, or is none, was replaced");
        with(node, terms)
    }

    fn short_text(&mut self, node: &TreeNode) -> TreeNode {
        let text = self.tree.text(node);
        if text.is_empty() {
            self.count("kept");
            return node.clone();
        }
        let short = text.split('\\').all(|value| value.chars().count() <= 64);
        if !short || text.contains('\u{FFFD}') || self.identity.is_in(&text) {
            self.count("replaced");
            self.doubt("a kept text that repeats an identity, or cannot be read, was replaced");
            return with(node, REMOVED);
        }
        self.count("kept");
        let keyword = standard_keyword(node.tag).unwrap_or("unknown");
        *self.kept_texts.entry(keyword.to_owned()).or_default() += 1;
        node.clone()
    }

    fn long_text(&mut self, node: &TreeNode, empty: bool) -> TreeNode {
        if empty {
            self.count("kept");
            return node.clone();
        }
        self.count("replaced");
        if self.options.descriptors {
            let words = known_words(&self.tree.text(node));
            if !words.is_empty() && !self.identity.is_in(&words) {
                return with(node, words);
            }
        }
        with(node, REMOVED)
    }
}

/// Native pixels of exactly the declared size, without overlays in unused bits; comments of
/// compressed frames without identity.
fn pixels(
    tree: &mut Tree,
    identity: &Identity,
    doubts: &mut BTreeMap<String, usize>,
) -> Result<(), &'static str> {
    if tree.pixel_tag().is_none() {
        return Ok(());
    }
    let mut doubt = |what: &str| *doubts.entry(what.to_owned()).or_default() += 1;
    if tree.behind_pixels() > 0 {
        doubt("bytes behind the pixel data were removed");
    }
    // An overlay plane without data of its own lies in bits of the pixels (PS3.5 8.1.2).
    let embedded = (0..16).any(|n| {
        let group = 0x6000_0000 + (n << 17);
        tree.find(group | 0x0010).is_some() && tree.find(group | 0x3000).is_none()
    });
    if tree.encapsulated() {
        if embedded {
            return Err("an overlay inside of compressed pixels");
        }
        let (comments, telling) = stream_comments(tree.pixels(), identity);
        if telling {
            return Err("a comment inside of the compressed pixels repeats an identity");
        }
        if comments > 0 {
            doubt("compressed frames carry comments of their encoder");
        }
        let frames = frames_of(tree).min(usize::MAX as u128) as usize;
        let run_length = tree.written_syntax() == RLE_LOSSLESS;
        if clear_unused(tree.pixels_mut(), frames, run_length)? > 0 {
            doubt("bytes of compressed pixels that no frame uses were cleared");
        }
        return Ok(());
    }
    let Some(needed) = native_length(tree) else {
        doubt("the size of the pixel data could not be checked");
        return Ok(());
    };
    let found = tree.pixels().len();
    if (found as u128) < needed {
        return Err("pixel data shorter than its declared size");
    }
    let needed = needed as usize;
    if found > needed + needed % 2 {
        doubt("bytes behind the last pixel were removed");
    }
    tree.cut_pixels(needed);
    if embedded {
        clear_unused_bits(tree);
        doubt("overlays in unused bits of the pixels were cleared");
    }
    Ok(())
}

/// Bytes that native pixel data need; `None` when an attribute is absent.
fn native_length(tree: &Tree) -> Option<u128> {
    let word = |tag| tree.word_of(tag).map(u128::from);
    let frames = frames_of(tree);
    let (rows, columns) = (word(0x0028_0010)?, word(0x0028_0011)?);
    let samples = word(0x0028_0002).unwrap_or(1);
    let bits = word(0x0028_0100)?;
    let values = rows
        .checked_mul(columns)?
        .checked_mul(samples)?
        .checked_mul(frames)?;
    // Chrominance of two pixels in one (PS3.3 C.7.6.3.1.2).
    let values = match &*tree.text_of(0x0028_0004) {
        "YBR_FULL_422" | "YBR_PARTIAL_422" => values / 3 * 2,
        _ => values,
    };
    Some(values.checked_mul(bits)?.div_ceil(8))
}

fn frames_of(tree: &Tree) -> u128 {
    let said = tree.text_of(0x0028_0008).parse::<u128>();
    said.unwrap_or(1).max(1)
}

/// Bits beyond the stored ones become what the sign says, or zero.
fn clear_unused_bits(tree: &mut Tree) {
    let word = |tree: &Tree, tag| tree.word_of(tag).map_or(0, u32::from);
    let (bits, stored) = (word(tree, 0x0028_0100), word(tree, 0x0028_0101));
    let high = word(tree, 0x0028_0102);
    let signed = word(tree, 0x0028_0103) == 1;
    let big_endian = tree.big_endian();
    if !matches!(bits, 8 | 16) || stored == 0 || stored >= bits || high + 1 < stored {
        return;
    }
    let low = high + 1 - stored;
    let mask = ((1_u32 << stored) - 1) << low;
    for bytes in tree.pixels_mut().chunks_exact_mut(bits as usize / 8) {
        let value = match (&*bytes, big_endian) {
            ([a, b], false) => u32::from(u16::from_le_bytes([*a, *b])),
            ([a, b], true) => u32::from(u16::from_be_bytes([*a, *b])),
            (one, _) => u32::from(one[0]),
        };
        let mut kept = value & mask;
        if signed && low == 0 && value >> high & 1 == 1 {
            kept |= !mask;
        }
        match (bytes, big_endian) {
            (bytes @ [_, _], false) => bytes.copy_from_slice(&(kept as u16).to_le_bytes()),
            (bytes @ [_, _], true) => bytes.copy_from_slice(&(kept as u16).to_be_bytes()),
            (one, _) => one[0] = kept as u8,
        }
    }
}
