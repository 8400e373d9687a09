//! Compressed pixel data (PS3.5 A.4): what stands in their fragments beside the frames.

use std::ops::Range;

use super::identity::Identity;

/// Comments and application data in the heads of JPEG streams: how many, and whether one of them
/// repeats an identity.
pub(super) fn stream_comments(fragments: &[u8], identity: &Identity) -> (usize, bool) {
    let (mut count, mut telling) = (0, false);
    for at in items(fragments) {
        let fragment = &fragments[at];
        if !begins_stream(fragment) {
            continue;
        }
        let mut at = 2;
        while let Some(&[0xFF, marker, high, low]) = fragment.get(at..at + 4) {
            // Start of scan, of tile-part: entropy-coded data follow.
            if matches!(marker, 0xDA | 0x90) {
                break;
            }
            let size = usize::from(high) << 8 | usize::from(low);
            let Some(content) = fragment.get(at + 4..at + 2 + size.max(2)) else {
                break;
            };
            let comment = matches!(marker, 0xFE | 0x64 | 0xE1..=0xE7 | 0xE9..=0xED | 0xEF);
            if comment {
                count += 1;
                telling |= identity.is_in_bytes(content);
            }
            at += 2 + size.max(2);
        }
    }
    (count, telling)
}

/// Clears what no frame uses: bytes behind the end of a stream, and streams (of run-length encoding:
/// fragments) beyond the last frame. No length changes. How many places were cleared.
///
/// # Errors
/// An offset table with something else in it.
pub(super) fn clear_unused(
    bytes: &mut [u8],
    frames: usize,
    run_length: bool,
) -> Result<usize, &'static str> {
    let places = items(bytes);
    let Some((table, fragments)) = places.split_first() else {
        return Ok(0);
    };
    if !is_offset_table(&bytes[table.clone()], fragments) {
        return Err("an offset table of the compressed pixels that holds something else");
    }
    let mut unused = Vec::new();
    if run_length {
        unused.extend(fragments.iter().skip(frames).cloned());
    } else {
        let mut streams = 0;
        for (n, place) in fragments.iter().enumerate() {
            streams += usize::from(begins_stream(&bytes[place.clone()]));
            // Nothing that is known begins here: video, or what a writer has cut without a rule.
            if streams == 0 {
                return Ok(0);
            }
            if streams > frames {
                unused.push(place.clone());
                continue;
            }
            let ends =
                (fragments.get(n + 1)).is_none_or(|next| begins_stream(&bytes[next.clone()]));
            let end = |part: &[u8]| part.windows(2).rposition(|two| two == [0xFF, 0xD9]);
            if let Some(last) = end(&bytes[place.clone()]).filter(|_| ends) {
                unused.push(place.start + last + 2..place.end);
            }
        }
    }
    let mut cleared = 0;
    for place in unused {
        let part = &mut bytes[place];
        // Padding to an even length says nothing.
        if part.len() > 1 && part.iter().any(|b| *b != 0) {
            part.fill(0);
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// The values of items, the offset table first.
fn items(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&[0xFE, 0xFF, 0x00, 0xE0, a, b, c, d]) = bytes.get(at..at + 8) {
        let end = at + 8 + u32::from_le_bytes([a, b, c, d]) as usize;
        if end > bytes.len() {
            break;
        }
        found.push(at + 8..end);
        at = end;
    }
    found
}

/// JPEG in its forms, and JPEG 2000.
fn begins_stream(fragment: &[u8]) -> bool {
    matches!(fragment, [0xFF, 0xD8 | 0x4F, 0xFF, ..])
}

/// Empty, or places of fragments.
fn is_offset_table(table: &[u8], fragments: &[Range<usize>]) -> bool {
    let first = fragments.first().map_or(0, |place| place.start);
    let begins = |offset: usize| {
        fragments
            .binary_search_by_key(&(offset + first), |place| place.start)
            .is_ok()
    };
    table.len().is_multiple_of(4)
        && table
            .chunks_exact(4)
            .all(|b| begins(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(values: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            out.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        out.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        out
    }

    const BEGIN: &[u8] = b"\xFF\xD8\xFF\xDAxxxx";
    const END: &[u8] = b"xxxx\xFF\xD9";
    const WHOLE: &[u8] = b"\xFF\xD8\xFF\xDAxx\xFF\xD9";

    #[test]
    fn what_no_frame_uses_becomes_zeros_and_the_rest_stays() {
        let check = |frames, run_length, before: &[&[u8]], after: &[&[u8]], count| {
            let mut bytes = fragments(before);
            assert_eq!(clear_unused(&mut bytes, frames, run_length), Ok(count));
            assert_eq!(bytes, fragments(after), "{before:?}");
        };
        let padded = [WHOLE, b"\0"].concat();
        let named = [WHOLE, b"DOE^JANE"].concat();
        let zeros = [WHOLE, &[0; 8]].concat();
        let two = [
            &0_u32.to_le_bytes()[..],
            &(8 + WHOLE.len() as u32).to_le_bytes(),
        ]
        .concat();
        check(1, false, &[b"", WHOLE], &[b"", WHOLE], 0);
        check(1, false, &[b"", &padded], &[b"", &padded], 0);
        check(1, false, &[b"", &named], &[b"", &zeros], 1);
        // One frame in two fragments, and two frames.
        check(1, false, &[b"", BEGIN, END], &[b"", BEGIN, END], 0);
        check(2, false, &[&two, WHOLE, WHOLE], &[&two, WHOLE, WHOLE], 0);
        // A frame more than there are, and a fragment that is none.
        check(
            1,
            false,
            &[b"", WHOLE, BEGIN, END],
            &[b"", WHOLE, &[0; 8], &[0; 6]],
            2,
        );
        check(2, true, &[b"", b"ab", b"cd"], &[b"", b"ab", b"cd"], 0);
        check(
            1,
            true,
            &[b"", b"ab", b"DOE^JANE"],
            &[b"", b"ab", &[0; 8]],
            1,
        );
        // Video.
        check(
            9,
            false,
            &[b"", b"\0\0\x01\xB3"],
            &[b"", b"\0\0\x01\xB3"],
            0,
        );
    }

    #[test]
    fn an_offset_table_holds_offsets() {
        for table in [&b"DOE^JANE"[..], b"\0\0", &[1, 0, 0, 0], &[0xFF; 4]] {
            let mut bytes = fragments(&[table, WHOLE, WHOLE]);
            assert!(clear_unused(&mut bytes, 2, false).is_err(), "{table:?}");
        }
        assert_eq!(clear_unused(&mut [], 1, false), Ok(0));
        assert_eq!(
            clear_unused(&mut [0xFE, 0xFF, 0, 0xE0, 9, 0, 0, 0], 1, true),
            Ok(0)
        );
    }
}
