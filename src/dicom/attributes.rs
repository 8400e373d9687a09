//! Attributes by meaning: text, numbers, vectors; nothing when absent or unusable.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use crate::geometry::DVec3;
use crate::study::Uid;

/// A data set in memory.
pub type Object = InMemDicomObject;

/// First value as text without padding; `None` when empty.
pub fn text(d: &Object, tag: Tag) -> Option<String> {
    let value = d.get(tag)?.to_str().ok()?;
    let value = value.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!value.is_empty()).then(|| value.to_owned())
}

/// All values as text.
pub fn texts(d: &Object, tag: Tag) -> Vec<String> {
    d.get(tag)
        .and_then(|e| e.to_multi_str().ok().map(|values| values.to_vec()))
        .unwrap_or_default()
        .into_iter()
        .map(|v| {
            v.trim_matches(|c: char| c == '\0' || c.is_whitespace())
                .to_owned()
        })
        .collect()
}

/// A well-formed UID.
pub fn uid(d: &Object, tag: Tag) -> Option<Uid> {
    Uid::parse(&text(d, tag)?).ok()
}

/// A whole number.
pub fn int(d: &Object, tag: Tag) -> Option<i64> {
    d.get(tag)?.to_int::<i64>().ok()
}

/// A finite number.
pub fn float(d: &Object, tag: Tag) -> Option<f64> {
    d.get(tag)?.to_float64().ok().filter(|x| x.is_finite())
}

/// Numbers, as many as there are; `None` when one is not a number.
pub fn floats(d: &Object, tag: Tag) -> Option<Vec<f64>> {
    let values = d.get(tag)?.to_multi_float64().ok()?;
    values.iter().all(|x| x.is_finite()).then_some(values)
}

/// Items of a sequence.
pub fn items(d: &Object, tag: Tag) -> &[Object] {
    d.get(tag).and_then(|e| e.items()).unwrap_or(&[])
}

/// First item of a sequence.
pub fn item(d: &Object, tag: Tag) -> Option<&Object> {
    items(d, tag).first()
}

/// A position in LPS mm.
pub fn position(d: &Object) -> Option<DVec3> {
    match floats(d, tags::IMAGE_POSITION_PATIENT)?.as_slice() {
        &[x, y, z] => Some(DVec3::new(x, y, z)),
        _ => None,
    }
}

/// Directions of rows (along columns' index) and columns; unit, at right angles.
pub fn orientation(d: &Object) -> Option<[DVec3; 2]> {
    let values = floats(d, tags::IMAGE_ORIENTATION_PATIENT)?;
    let &[a, b, c, x, y, z] = values.as_slice() else {
        return None;
    };
    let (row, column) = (DVec3::new(a, b, c), DVec3::new(x, y, z));
    // Written with few digits, cosines are off by up to about 1e-2 in old files.
    let unit = |v: DVec3| (v.length() - 1.0).abs() < 0.02;
    if !unit(row) || !unit(column) || row.dot(column).abs() > 0.02 {
        return None;
    }
    let row = row.normalize();
    let column = (column - row * row.dot(column)).normalize();
    Some([row, column])
}

/// Distance between rows and between columns in mm, from `tag`.
pub fn spacing(d: &Object, tag: Tag) -> Option<[f64; 2]> {
    match floats(d, tag)?.as_slice() {
        &[rows, columns] if rows > 0.0 && columns > 0.0 => Some([rows, columns]),
        _ => None,
    }
}
