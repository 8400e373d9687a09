//! What a server says when it refuses: `error`, then `detail`, then text.

use serde_json::Value;

use super::{MAX_JSON_DEPTH, depth_of};

/// Longest message that is kept.
const LONGEST: usize = 300;

/// The words of a refusal, short and on one line.
pub(in crate::offload) fn message_of(body: &[u8]) -> String {
    let json = (depth_of(body) <= MAX_JSON_DEPTH)
        .then(|| serde_json::from_slice::<Value>(body).ok())
        .flatten();
    let from_json = json.as_ref().and_then(|value| {
        // The last two are AWS's: the model's own words before the service's.
        ["error", "detail", "message", "OriginalMessage", "Message"]
            .iter()
            .filter_map(|key| value.get(key))
            .find_map(words)
    });
    let text = from_json.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        // The page of a proxy: its title says it all.
        match between(&text, "<title>", "</title>") {
            Some(title) => title.to_owned(),
            None => text.into_owned(),
        }
    });
    cleaned(&text, LONGEST)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// A text, or the messages of a list of faults (`[{"loc": …, "msg": …}]`).
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let all: Vec<&str> = list
                .iter()
                .filter_map(|item| item.get("msg").unwrap_or(item).as_str())
                .collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(map) => map.get("message").and_then(words),
        _ => None,
    }
}

/// At most `longest` characters on one line: no control characters, nothing that turns the direction
/// of writing. Words of a server end up in logs and on screens.
pub(in crate::offload) fn cleaned(text: &str, longest: usize) -> String {
    let shown = |c: char| match c {
        '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => ' ',
        c => c,
    };
    let all: String = text.chars().take(longest * 4).map(shown).collect();
    let words: Vec<&str> = all.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_servers_way_to_refuse_is_read() {
        let check = |body: &str, expected: &str| assert_eq!(message_of(body.as_bytes()), expected);
        // Triton, KServe.
        check(r#"{"error":"no such model"}"#, "no such model");
        // MLServer and KServe on JSON that they cannot read.
        check(
            r#"{"detail":[{"loc":["body"],"msg":"field required","type":"x"},{"msg":"again"}]}"#,
            "field required; again",
        );
        check(r#"{"detail":"Not Found"}"#, "Not Found");
        // SageMaker, Vertex AI.
        check(
            r#"{"Message":"Received server error (500)","OriginalStatusCode":500,"OriginalMessage":"out of memory"}"#,
            "out of memory",
        );
        check(
            r#"{"error":{"code":429,"message":"Quota exceeded","status":"X"}}"#,
            "Quota exceeded",
        );
        check(r#"{"error":null,"detail":"only this"}"#, "only this");
        check("Internal Server Error", "Internal Server Error");
        check(
            "<html><head><title>413 Request Entity Too Large</title></head><body>…",
            "413 Request Entity Too Large",
        );
        check("", "");
    }

    #[test]
    fn words_of_a_server_stay_on_one_short_line() {
        assert_eq!(
            cleaned("a\r\n\u{1b}[31mb\u{202e}c\0", 50),
            "a [31mb\u{fffd}c"
        );
        assert_eq!(
            cleaned(&"x".repeat(1000), 10),
            format!("{}…", "x".repeat(10))
        );
    }
}
