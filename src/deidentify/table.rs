//! Table E.1-1 of PS3.15 as data, and what it says of one attribute.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::options::{Dates, Options};

const TABLE: &str = include_str!("../../assets/deidentify/table_e1-1.tsv");

/// What the Basic Profile does to an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Replace with a dummy value.
    D,
    /// Replace with an empty or a dummy value.
    Z,
    /// Remove.
    X,
    /// Replace with a new UID.
    U,
    /// Z unless D is needed (type 1).
    ZD,
    /// X unless Z is needed (type 2).
    XZ,
    /// X unless D is needed.
    XD,
    /// X unless Z or D is needed.
    XZD,
    /// X unless Z or new UIDs inside of the sequence are needed.
    XZU,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Eight hexadecimal digits, some of them `x`; or `private`.
    pub tag: &'static str,
    /// The Basic Profile's column.
    pub action: Action,
    /// Option columns: name and `K` or `C`.
    pub options: Vec<(&'static str, char)>,
    /// Name.
    pub name: &'static str,
}

/// What is done to one attribute, when the options are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A row of the table without an option that is on.
    Basic(Action),
    /// An option keeps it; sequences are still walked.
    Keep,
    /// An option cleans it.
    Clean,
    /// Not in the table.
    Unlisted,
}

/// All rows, in the order of their tags.
pub fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        TABLE
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| parse(line).expect("the table is part of the program and tested"))
            .collect()
    })
}

fn parse(line: &'static str) -> Option<Row> {
    let mut columns = line.split('\t');
    let (tag, action, options, name) = (
        columns.next()?,
        columns.next()?,
        columns.next()?,
        columns.next()?,
    );
    let action = match action {
        "D" => Action::D,
        "Z" => Action::Z,
        "X" => Action::X,
        "U" => Action::U,
        "Z/D" => Action::ZD,
        "X/Z" => Action::XZ,
        "X/D" => Action::XD,
        "X/Z/D" => Action::XZD,
        "X/Z/U*" => Action::XZU,
        _ => return None,
    };
    let options = options
        .split_whitespace()
        .map(|option| {
            let (name, does) = option.split_once('=')?;
            Some((name, does.chars().next()?))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Row {
        tag,
        action,
        options,
        name,
    })
}

/// The row of a tag.
pub(super) fn row(tag: u32) -> Option<&'static Row> {
    static BY_TAG: OnceLock<HashMap<u32, &'static Row>> = OnceLock::new();
    let by_tag = BY_TAG.get_or_init(|| {
        rows()
            .iter()
            .filter_map(|row| Some((u32::from_str_radix(row.tag, 16).ok()?, row)))
            .collect()
    });
    let pattern = |name: &str| rows().iter().find(|row| row.tag == name);
    if let Some(row) = by_tag.get(&tag) {
        return Some(row);
    }
    let (group, number) = (tag >> 16, tag & 0xFFFF);
    if group % 2 == 1 {
        return pattern("private");
    }
    match (group & 0xFF00, number) {
        (0x5000, _) => pattern("50xxxxxx"),
        (0x6000, 0x3000) => pattern("60xx3000"),
        (0x6000, 0x4000) => pattern("60xx4000"),
        _ => None,
    }
}

/// What the table and the options say of a tag.
pub(super) fn resolve(tag: u32, options: &Options) -> Resolved {
    let Some(row) = row(tag) else {
        return Resolved::Unlisted;
    };
    let mut clean = false;
    for &(name, does) in &row.options {
        let on = match name {
            "uids" => options.uids,
            "device" => options.device,
            "institution" => options.institution,
            "characteristics" => options.characteristics,
            "full" => options.dates == Dates::Full,
            "modified" => options.dates == Dates::Modified,
            "descriptors" => options.descriptors,
            "structured" => options.structured,
            "graphics" => options.graphics,
            "private" => options.private,
            _ => false,
        };
        if on && does == 'K' {
            return Resolved::Keep;
        }
        clean |= on;
    }
    if clean {
        Resolved::Clean
    } else {
        Resolved::Basic(row.action)
    }
}

/// A compound action decided by the attribute's type in the IOD where it is known.
///
/// Where it is not, the choice that keeps the object valid: neither an empty nor a dummy value
/// tells anything.
///
/// # Source
/// PS3.15 E.1.1 and table E.1-1a; types: PS3.3 C.7.5.1, C.7.3.1, C.7.6.1, C.17.2.
pub(super) fn decide(action: Action, tag: u32, sop_class: &str, nested: bool) -> Action {
    // Acquisition and content of single frames: optional, or empty where unknown.
    const SINGLE_FRAME: [&str; 22] = [
        "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "3", "3.1", "4", "5", "6", "6.1",
        "7", "12.1", "12.2", "20", "128", "481.1", "77.1.4", "77.1.1",
    ];
    let single = sop_class
        .strip_prefix("1.2.840.10008.5.1.4.1.1.")
        .is_some_and(|rest| SINGLE_FRAME.contains(&rest));
    let therapy = sop_class.starts_with("1.2.840.10008.5.1.4.1.1.481.");
    let decided = match (tag, nested) {
        // General Series, General Study, SOP Common: type 3.
        (
            0x0008_0012 | 0x0008_0013 | 0x0008_0021 | 0x0008_0031 | 0x0018_1030 | 0x0008_1072
            | 0x0008_0080 | 0x0008_0082 | 0x0008_1010 | 0x0008_1110,
            false,
        ) => Some(Action::X),
        (0x0008_1070, false) => Some(if therapy { Action::Z } else { Action::X }),
        // General Image: type 2C; other content is of type 1.
        (0x0008_0023 | 0x0008_0033, false) if single => Some(Action::Z),
        (0x0008_002A | 0x0018_1000 | 0x0018_1400 | 0x0018_700A, false) if single => Some(Action::X),
        // SR Document Series: type 2; General Series: type 3.
        (0x0008_1111, false) => Some(if sop_class.contains(".1.1.88.") {
            Action::Z
        } else {
            Action::X
        }),
        _ => None,
    };
    decided.unwrap_or(match action {
        Action::ZD | Action::XD | Action::XZD => Action::D,
        Action::XZ => Action::Z,
        Action::XZU => Action::U,
        plain => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows per action of edition 2026c, counted when the table was gathered.
    #[test]
    fn the_table_has_the_rows_of_its_edition() {
        let count = |action| rows().iter().filter(|r| r.action == action).count();
        assert_eq!(rows().len(), 656);
        assert_eq!(count(Action::D), 93);
        assert_eq!(count(Action::Z), 42);
        assert_eq!(count(Action::X), 416);
        assert_eq!(count(Action::U), 55);
        assert_eq!(count(Action::XD), 23);
        assert_eq!(count(Action::XZ), 11);
        assert_eq!(count(Action::XZD), 8);
        assert_eq!(count(Action::ZD), 6);
        assert_eq!(count(Action::XZU), 2);
    }

    /// Rows read from PS3.15 itself.
    #[test]
    fn rows_say_what_the_standard_says() {
        let check = |tag: u32, action, options: &[(&str, char)]| {
            let row = row(tag).unwrap();
            assert_eq!(row.action, action, "{}", row.name);
            assert_eq!(row.options, options, "{}", row.name);
        };
        check(0x0010_0010, Action::Z, &[]);
        check(0x0010_0030, Action::Z, &[]);
        check(0x0008_0018, Action::U, &[("uids", 'K')]);
        check(0x0008_103E, Action::X, &[("descriptors", 'C')]);
        check(0x0008_0022, Action::XZ, &[("full", 'K'), ("modified", 'C')]);
        check(0x0018_1002, Action::U, &[("uids", 'K'), ("device", 'K')]);
        check(0x0010_1010, Action::X, &[("characteristics", 'K')]);
        check(0x0008_0080, Action::XZD, &[("institution", 'K')]);
        check(0x0040_A730, Action::D, &[("structured", 'C')]);
        check(0x6002_3000, Action::X, &[("graphics", 'C')]);
        check(0x5004_1234, Action::X, &[("graphics", 'C')]);
        check(0x0009_0010, Action::X, &[("private", 'C')]);
        assert!(row(0x0028_0010).is_none());
    }

    #[test]
    fn compound_actions_follow_the_type() {
        let ct = "1.2.840.10008.5.1.4.1.1.2";
        let sr = "1.2.840.10008.5.1.4.1.1.88.33";
        let check = |tag, class, expected| {
            let row = row(tag).unwrap();
            assert_eq!(
                decide(row.action, tag, class, false),
                expected,
                "{}",
                row.name
            );
        };
        check(0x0008_0023, ct, Action::Z);
        check(0x0008_0023, sr, Action::D);
        check(0x0008_0021, ct, Action::X);
        check(0x0008_1111, sr, Action::Z);
        check(0x0008_1111, ct, Action::X);
        check(0x0018_1000, ct, Action::X);
        check(0x0018_1000, "1.2.840.10008.5.1.4.1.1.66.4", Action::D);
        check(0x0008_1140, ct, Action::U);
    }
}
