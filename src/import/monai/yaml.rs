//! YAML as the values that JSON has: plain scalars as PyYAML reads them, no anchors, tags or merges.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};

/// Containers in containers, at most.
const DEEPEST: usize = 64;

/// A container that is not closed yet.
enum Open {
    List(Vec<Value>),
    /// With the key that waits for its value.
    Map(Map<String, Value>, Option<String>),
}

/// Reads one document.
///
/// # Errors
/// In words, with the line.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut done: Option<Value> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let at = |what: &str| format!("{what} in line {}", span.start.line());
        let value = match event {
            Event::Scalar(text, style, 0, None) => {
                if style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Value::String(text.into_owned())
                }
            }
            Event::SequenceStart(0, None) => {
                open.push(Open::List(Vec::new()));
                if open.len() > DEEPEST {
                    return Err(at("too many lists in lists"));
                }
                continue;
            }
            Event::MappingStart(0, None) => {
                open.push(Open::Map(Map::new(), None));
                if open.len() > DEEPEST {
                    return Err(at("too many dictionaries in dictionaries"));
                }
                continue;
            }
            Event::SequenceEnd => match open.pop() {
                Some(Open::List(items)) => Value::Array(items),
                _ => return Err(at("an end without a list")),
            },
            Event::MappingEnd => match open.pop() {
                Some(Open::Map(map, None)) => Value::Object(map),
                _ => return Err(at("a key without a value")),
            },
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..) => {
                return Err(at("an anchor, alias or tag (not supported)"));
            }
            _ => continue,
        };
        match open.last_mut() {
            None if done.is_some() => return Err(at("a second document")),
            None => done = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                Some(name) => {
                    if map.insert(name, value).is_some() {
                        return Err(at("a key that is there twice"));
                    }
                }
                None => {
                    *key = Some(match value {
                        Value::String(name) if name != "<<" => name,
                        Value::Number(number) => number.to_string(),
                        _ => return Err(at("a key that is no plain text")),
                    });
                }
            },
        }
    }
    done.filter(|_| open.is_empty())
        .ok_or_else(|| "the document is empty or not closed".to_owned())
}

/// A plain scalar, by the rules of YAML 1.1 that PyYAML follows.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    let octal =
        digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.len() - digits.len() <= 1
        && !octal
    {
        if let Ok(whole) = text.parse::<i64>() {
            return json!(whole);
        }
        // PyYAML wants a point before an exponent, and a sign behind it.
        let exponent = text.find(['e', 'E']);
        let mantissa = &text[..exponent.unwrap_or(text.len())];
        let signed = exponent.is_none_or(|at| text[at + 1..].starts_with(['+', '-']));
        if mantissa.contains('.')
            && signed
            && let Ok(value) = text.parse::<f64>()
            && value.is_finite()
        {
            return json!(value);
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_flows_and_scalars_are_read_as_pyyaml_reads_them() {
        let text = "a: [1, 2.5, 'x', \"@b\"]\nb:\n  - true\n  - _target_: UNet\n    lr: 1e-3\n    eps: 1.0e-5\nc: $@a\nd: ~\n0: background\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "a": [1, 2.5, "x", "@b"],
                "b": [true, { "_target_": "UNet", "lr": "1e-3", "eps": 1e-5 }],
                "c": "$@a", "d": null, "0": "background",
            })
        );
    }

    #[test]
    fn anchors_tags_and_depth_are_refused() {
        assert!(parse("a: &x [1]\nb: *x").unwrap_err().contains("anchor"));
        assert!(parse("a: !!python/object:os.system x").is_err());
        assert!(parse("a: 1\na: 2").unwrap_err().contains("twice"));
        assert!(parse(&"[".repeat(100)).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(80), "]".repeat(80))).is_err());
        assert!(parse("").is_err());
    }
}
