//! Dates: their forms (PS3.5 6.2), and shifted ones.

use chrono::{Days, NaiveDate};

/// A date without meaning, where a value must be.
pub(super) const DUMMY_DATE: &str = "19700101";

/// `20260131`, or the old `2026.01.31`; no partial and no impossible dates.
fn date(text: &str) -> Option<NaiveDate> {
    let digits: String = match text.as_bytes() {
        [_, _, _, _, b'.', _, _, b'.', _, _] => text.replace('.', ""),
        _ => text.to_owned(),
    };
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    NaiveDate::parse_from_str(&digits, "%Y%m%d").ok()
}

fn shifted(date: NaiveDate, days: i64) -> Option<String> {
    let by = Days::new(days.unsigned_abs());
    let moved = if days < 0 {
        date.checked_sub_days(by)?
    } else {
        date.checked_add_days(by)?
    };
    Some(moved.format("%Y%m%d").to_string())
}

/// A date moved by whole days.
pub(super) fn shift_date(text: &str, days: i64) -> Option<String> {
    shifted(date(text)?, days)
}

/// A date-time moved by whole days; time of day, precision and offset stay.
pub(super) fn shift_date_time(text: &str, days: i64) -> Option<String> {
    let (day, rest) = (text.get(..8)?, text.get(8..)?);
    let (time, offset) = match rest.find(['+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let fine = (time.is_empty() || is_time(time)) && (offset.is_empty() || is_offset(offset));
    fine.then(|| Some(format!("{}{rest}", shift_date(day, days)?)))
        .flatten()
}

/// `hhmmss.ffffff` or a beginning of it, or the old form with colons.
pub(super) fn is_time(text: &str) -> bool {
    let plain = text.replace(':', "");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, "0"));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    matches!(whole.len(), 2 | 4 | 6)
        && digits(whole)
        && !fraction.is_empty()
        && fraction.len() <= 6
        && digits(fraction)
        && text.len() <= 16
}

/// `+0100`.
pub(super) fn is_offset(text: &str) -> bool {
    text.len() == 5 && text.starts_with(['+', '-']) && text[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Whether a whole date or date-time can be kept as it is.
pub(super) fn is_date(text: &str) -> bool {
    date(text).is_some()
}

pub(super) fn is_date_time(text: &str) -> bool {
    shift_date_time(text, 0).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_move_by_days_and_keep_the_rest() {
        assert_eq!(shift_date("20240301", -1).unwrap(), "20240229");
        assert_eq!(shift_date("2024.03.01", -1).unwrap(), "20240229");
        let check = |text, expected: Option<&str>| {
            assert_eq!(shift_date_time(text, -366).as_deref(), expected, "{text}");
        };
        check("20250101", Some("20240101"));
        check(
            "20250101120000.123456+0100",
            Some("20240101120000.123456+0100"),
        );
        check("2025010112-0500", Some("2024010112-0500"));
        check("202501", None);
        check("20251301", None);
        check("20250101Smith", None);
        check("20250101120000.12345678", None);
        assert!(shift_date("Smith^Jo", -1).is_none());
        assert!(shift_date("00000000", -1).is_none());
    }

    #[test]
    fn times_have_their_form() {
        for text in [
            "10",
            "1011",
            "101112",
            "101112.5",
            "10:11:12",
            "101112.123456",
        ] {
            assert!(is_time(text), "{text}");
        }
        for text in ["", "1", "101112.", "Smith", "10111213", "101112.1234567"] {
            assert!(!is_time(text), "{text}");
        }
    }
}
