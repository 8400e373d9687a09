//! Standard output: results alone, and no complaint when nobody reads on.

use std::io::{ErrorKind, Write};

/// Writes text and an end of line to standard output. A closed pipe (`… | head`) is no error.
///
/// # Errors
/// Standard output cannot be written (a full disk).
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes JSON to standard output.
///
/// # Errors
/// As [`say`].
pub(super) fn say_json(value: &serde_json::Value) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?)
}
