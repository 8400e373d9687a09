//! PALETTE COLOR → RGB (PS3.3 C.7.6.3.1.5 and .6).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::Object;
use crate::volume::Voxels;

/// Colors of stored values.
///
/// # Errors
/// What is wrong, in words.
pub fn apply(d: &Object, voxels: &Voxels) -> Result<Voxels, String> {
    let red = table(
        d,
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    )?;
    let green = table(
        d,
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    )?;
    let blue = table(
        d,
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    )?;
    let pick = |table: &(i64, Vec<u8>), stored: f32| {
        let index = (stored as i64 - table.0).clamp(0, table.1.len() as i64 - 1);
        table.1[index as usize]
    };
    let colors = (0..voxels.len()).map(|n| {
        let stored = voxels.stored(n);
        [
            pick(&red, stored),
            pick(&green, stored),
            pick(&blue, stored),
        ]
    });
    Ok(Voxels::Rgb8(colors.collect()))
}

/// First mapped value and entries, 8 bits each.
fn table(d: &Object, descriptor: Tag, data: Tag) -> Result<(i64, Vec<u8>), String> {
    let absent = || "a color palette is absent".to_owned();
    let numbers = d.get(descriptor).ok_or_else(absent)?;
    let numbers = numbers.to_multi_int::<i64>().map_err(|_| absent())?;
    let &[entries, first, bits] = numbers.as_slice() else {
        return Err(absent());
    };
    let entries = if entries == 0 {
        65536
    } else {
        (entries & 0xFFFF) as usize
    };
    let bytes = d
        .get(data)
        .ok_or_else(absent)?
        .to_bytes()
        .map_err(|_| absent())?;
    let values: Vec<u8> = if bits > 8 || bytes.len() >= entries * 2 {
        // 16-bit entries (some writers put 8-bit ones into the low byte).
        let words: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|w| u16::from_le_bytes([w[0], w[1]]))
            .collect();
        let narrow = bits <= 8 || words.iter().all(|w| *w < 256);
        words
            .iter()
            .map(|w| if narrow { *w as u8 } else { (w >> 8) as u8 })
            .collect()
    } else {
        bytes.to_vec()
    };
    if values.len() < entries {
        return Err(format!(
            "a color palette holds {} entries, expected {entries}",
            values.len()
        ));
    }
    Ok((first, values[..entries].to_vec()))
}
