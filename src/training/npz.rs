//! NumPy's `.npz`: a ZIP of arrays, of which those of whole numbers are read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::Error;

/// Bytes of one array at most.
const LARGEST: u64 = 2 << 30;

/// An array of whole numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Its axes.
    pub shape: Vec<usize>,
    /// The last axis fastest.
    pub values: Vec<i64>,
}

/// All arrays of whole numbers, by name.
///
/// # Errors
/// [`Error::Data`], [`Error::Io`].
pub fn read(path: &Path) -> Result<BTreeMap<String, Whole>, Error> {
    let refused = |reason: String| Error::Data {
        reason,
        path: path.to_owned(),
    };
    let file = std::fs::File::open(path).map_err(|source| Error::Io {
        action: "read",
        source,
        path: path.to_owned(),
    })?;
    let mut zip =
        zip::ZipArchive::new(file).map_err(|e| refused(format!("no NumPy archive ({e})")))?;
    let mut arrays = BTreeMap::new();
    for n in 0..zip.len() {
        let member = zip.by_index(n).map_err(|e| refused(e.to_string()))?;
        let name = member
            .name()
            .map_err(|e| refused(e.to_string()))?
            .into_owned();
        let mut bytes = Vec::new();
        member
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| refused(format!("damaged ({e})")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(refused(format!("{name:?} is larger than {LARGEST} bytes")));
        }
        let array = npy(&bytes).map_err(|reason| refused(format!("{name:?}: {reason}")))?;
        arrays.insert(name.trim_end_matches(".npy").to_owned(), array);
    }
    Ok(arrays)
}

/// One `.npy` file (NumPy's format, version 1 to 3).
fn npy(bytes: &[u8]) -> Result<Whole, String> {
    let broken = || "no NumPy array".to_owned();
    if bytes.get(..6) != Some(b"\x93NUMPY") {
        return Err(broken());
    }
    let number = |at: usize| bytes.get(at).copied().map(usize::from).ok_or_else(broken);
    let (length, start) = if number(6)? == 1 {
        (number(8)? + (number(9)? << 8), 10)
    } else {
        let length = (0..4).try_fold(0, |sum, n| {
            Ok::<_, String>(sum + (number(8 + n)? << (8 * n)))
        });
        (length?, 12)
    };
    let end = start + length;
    let header = bytes.get(start..end).ok_or_else(broken)?;
    let header = std::str::from_utf8(header).map_err(|_| broken())?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest);
    if after("'fortran_order':").is_none_or(|rest| !rest.trim_start().starts_with("False")) {
        return Err("an array in Fortran's order".to_owned());
    }
    let kind = after("'descr':")
        .and_then(|rest| rest.split('\'').nth(1))
        .ok_or_else(broken)?;
    let shape = after("'shape':")
        .and_then(|rest| rest.split_once('('))
        .and_then(|(_, rest)| rest.split_once(')'))
        .ok_or_else(broken)?
        .0;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| broken()))
        .collect::<Result<_, _>>()?;
    let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b));
    let data = &bytes[end..];
    let values: Vec<i64> = match kind {
        "|u1" | "|b1" => data.iter().map(|b| i64::from(*b)).collect(),
        "|i1" => data.iter().map(|b| i64::from(b.cast_signed())).collect(),
        "<i8" | "<u8" => words(data).map(i64::from_le_bytes).collect(),
        "<i4" => words(data)
            .map(|w| i64::from(i32::from_le_bytes(w)))
            .collect(),
        "<i2" => words(data)
            .map(|w| i64::from(i16::from_le_bytes(w)))
            .collect(),
        other => return Err(format!("values of type {other:?}")),
    };
    if count != Some(values.len()) {
        return Err(format!("{} values for a shape of {shape:?}", values.len()));
    }
    Ok(Whole { shape, values })
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn arrays_have_their_numbers() {
        let got = npy(&array("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 255])).unwrap();
        assert_eq!(
            (got.shape, got.values),
            (vec![2, 3], vec![1, 2, 3, 4, 5, 255])
        );
        let got = npy(&array("<i2", "(2,)", &[255, 255, 1, 0])).unwrap();
        assert_eq!(got.values, [-1, 1]);
    }

    #[test]
    fn damaged_arrays_are_refused() {
        let whole = array("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 6]);
        for end in 0..whole.len() {
            assert!(npy(&whole[..end]).is_err());
        }
        assert!(npy(&array("<f4", "(1,)", &[0; 4])).is_err());
        assert!(npy(&array("|u1", "(99999999999, 99999999999)", &[0])).is_err());
    }
}
