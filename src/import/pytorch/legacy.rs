//! The form before PyTorch 1.6: a magic number, three more pickles, storage keys, raw storages.
//!
//! ```text
//! pickle(magic) pickle(1001) pickle(system) pickle(root) pickle([key, …]) (count: i64, elements)…
//! ```

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::build::{Item, Storages};
use super::source::{Source, printable};
use super::{Fault, Value, machine};

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

/// What the file holds; its storages are found, not read.
pub(super) fn root(file: &mut (impl Read + Seek), length: u64) -> Result<Value, Fault> {
    file.seek(SeekFrom::Start(0))?;
    let mut source = Source::new(BufReader::new(file), length);
    let not_a_checkpoint = Fault::NotACheckpoint("neither an archive nor the older form");
    // Whatever the first bytes are instead, they are no damaged checkpoint but something else.
    match source.array::<2>() {
        Ok([0x80, 2..=5]) => {}
        _ => return Err(not_a_checkpoint),
    }
    match machine::run(&mut source, &mut Storages::behind(), length) {
        Ok(built) if matches!(built.top, Item::Int(MAGIC)) => {}
        Ok(_) => return Err(not_a_checkpoint),
        Err(fault) => return Err(fault),
    }
    let version = machine::run(&mut source, &mut Storages::behind(), length)?;
    if !matches!(version.top, Item::Int(PROTOCOL)) {
        return Err(source.fault("another version than 1001 of the older form"));
    }
    let none = Storages::behind();
    let system =
        machine::run(&mut source, &mut Storages::behind(), length)?.finish(&none, length)?;
    if system.get("little_endian").and_then(Value::as_bool) != Some(true) {
        return Err(source.fault("another byte order than little"));
    }
    let mut storages = Storages::behind();
    let root = machine::run(&mut source, &mut storages, length)?;
    let keys = machine::run(&mut source, &mut Storages::behind(), length)?.finish(&none, length)?;
    place(&mut source, &mut storages, &keys)?;
    root.finish(&storages, length)
}

/// Walks the storages behind the pickles and notes where each starts.
fn place<R: Read + Seek>(
    source: &mut Source<BufReader<R>>,
    storages: &mut Storages,
    keys: &Value,
) -> Result<(), Fault> {
    let keys = keys
        .as_list()
        .ok_or_else(|| source.fault("no list of storages"))?;
    for key in keys {
        let key = key
            .as_str()
            .ok_or_else(|| source.fault("a storage's key is no text"))?;
        let Some(number) = storages.number(key) else {
            return Err(source.fault(format!("storage {} is not used", printable(key))));
        };
        let count = i64::from_le_bytes(source.array()?);
        let storage = &mut storages.all[number];
        if storage.start.is_some() {
            return Err(source.fault(format!("storage {} is there twice", printable(key))));
        }
        if u64::try_from(count) != Ok(storage.count) {
            return Err(source.fault(format!(
                "storage {} has {count} elements, {} were declared",
                printable(key),
                storage.count
            )));
        }
        let bytes = storage
            .count
            .checked_mul(storage.dtype.size() as u64)
            .ok_or_else(|| source.fault("a storage larger than any file"))?;
        storage.start = Some(source.read());
        source.skip(bytes)?;
    }
    if source.left() > 0 {
        return Err(source.fault(format!("{} bytes after the end", source.left())));
    }
    Ok(())
}
