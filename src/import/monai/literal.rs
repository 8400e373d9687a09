//! Literals of Python, as far as configurations use them. Nothing is evaluated.

use serde_json::{Value, json};

/// Lists in lists, at most.
const DEEPEST: usize = 16;

/// Whether a text is an id such as `a::b#0`, and nothing more.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '#'))
        && !text.starts_with(['#', ':'])
}

/// A number, text, list, tuple, truth value, `None` or `@id`; `None` for anything else.
pub fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text.trim() };
    let value = reader.value(0)?;
    reader.rest.trim().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip(&mut self, what: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        if self.skip('[') {
            return self.list(']', depth).map(|(items, _)| Value::Array(items));
        }
        if self.skip('(') {
            let (mut items, comma) = self.list(')', depth)?;
            // (1) is a number in brackets, (1,) a tuple.
            return if items.len() == 1 && !comma {
                items.pop()
            } else {
                Some(Value::Array(items))
            };
        }
        for quote in ['\'', '"'] {
            if self.skip(quote) {
                let end = self.rest.find(quote)?;
                let text = &self.rest[..end];
                if text.contains('\\') || text.starts_with(['$', '@', '%']) {
                    return None;
                }
                self.rest = &self.rest[end + 1..];
                return Some(Value::String(text.to_owned()));
            }
        }
        let end = self
            .rest
            .find(|c: char| matches!(c, ',' | ']' | ')') || c.is_whitespace())
            .unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        match word {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            _ if word.strip_prefix('@').is_some_and(is_id) => Some(Value::String(word.to_owned())),
            _ => number(word),
        }
    }

    /// Items up to the end, and whether a comma stood before it.
    fn list(&mut self, end: char, depth: usize) -> Option<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if self.skip(end) {
                return Some((items, comma));
            }
            if !items.is_empty() && !comma {
                return None;
            }
            self.rest = self.rest.trim_start();
            items.push(self.value(depth + 1)?);
            comma = self.skip(',');
        }
    }
}

fn number(word: &str) -> Option<Value> {
    let digits = word.trim_start_matches(['-', '+']);
    if word.len() - digits.len() > 1
        || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    if let Ok(whole) = word.parse::<i64>() {
        return Some(json!(whole));
    }
    let value: f64 = word.parse().ok()?;
    value.is_finite().then(|| json!(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_are_read() {
        assert_eq!(parse("[1, (2.5,), -3e2]"), Some(json!([1, [2.5], -300.0])));
        assert_eq!(parse("(4)"), Some(json!(4)));
        assert_eq!(parse("@a::b"), Some(json!("@a::b")));
        for no in [
            "1 + 1",
            "[i for i in x]",
            "import os",
            "os.system('x')",
            "@a + '/b'",
            "'a' 'b'",
            "[1 2]",
            "1e999",
            "'$x'",
        ] {
            assert_eq!(parse(no), None, "{no}");
        }
    }
}
