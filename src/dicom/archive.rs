//! Members of ZIP archives, with bounds on what they may grow to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest member that is taken into memory.
const LARGEST: u64 = 4 << 30;
/// Deflate cannot do better than about 1032 to 1.
const RATIO: u64 = 1100;

/// Index and name of each file in the archive.
///
/// # Errors
/// What is wrong, in words.
pub fn members(archive: &Path) -> Result<Vec<(usize, String)>, String> {
    let mut zip = open(archive)?;
    (0..zip.len())
        .filter_map(|index| match zip.by_index_raw(index) {
            Ok(member) if member.is_file() => {
                let name = member
                    .name()
                    .map_or_else(|_| format!("member {index}"), |n| n.into_owned());
                Some(Ok((index, name)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(format!(
                "a member of the ZIP archive is damaged ({error})"
            ))),
        })
        .collect()
}

/// Bytes of a member.
///
/// # Errors
/// What is wrong, in words.
pub fn member(archive: &Path, index: usize) -> Result<Vec<u8>, String> {
    let mut zip = open(archive)?;
    let mut member = zip
        .by_index(index)
        .map_err(|e| format!("the ZIP member cannot be read ({e})"))?;
    let declared = member.size();
    if declared > LARGEST || declared > member.compressed_size().saturating_mul(RATIO) + (1 << 16) {
        return Err(format!(
            "the ZIP member declares {declared} bytes, more than it can hold"
        ));
    }
    let mut bytes = Vec::new();
    // The declared size may lie; the reader stops one byte beyond it.
    (&mut member)
        .take(declared + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("the ZIP member is damaged ({e})"))?;
    if bytes.len() as u64 > declared {
        return Err("the ZIP member is longer than it declares".to_owned());
    }
    Ok(bytes)
}

fn open(archive: &Path) -> Result<zip::ZipArchive<File>, String> {
    let file = File::open(archive).map_err(|e| format!("the archive cannot be opened ({e})"))?;
    zip::ZipArchive::new(file).map_err(|e| format!("not a readable ZIP archive ({e})"))
}
