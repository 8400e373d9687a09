//! Weights as the bytes of a `weights.safetensors`, read tensor by tensor.

use serde_json::{Map, Value, json};

/// Names and shapes of tensors, in order, and a way to read the n-th: the file's bytes.
///
/// Besides the result, one tensor at a time is in memory.
///
/// # Errors
/// The first of `read`.
///
/// # Panics
/// When `read` gives another number of values than the shape has.
pub fn safetensors<E>(
    tensors: &[(&str, &[usize])],
    mut read: impl FnMut(usize) -> Result<Vec<f32>, E>,
) -> Result<Vec<u8>, E> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
    }
    let mut text = Value::Object(header).to_string();
    // Data starts at a multiple of 8.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut bytes = Vec::with_capacity(8 + text.len() + end);
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
    for (n, (_, shape)) in tensors.iter().enumerate() {
        let values = read(n)?;
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "values fill their shape"
        );
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let tensors: [(&str, &[usize]); 3] = [("b", &[2, 1]), ("a", &[]), ("empty", &[0, 3])];
        let values = [vec![1.5, -2.0], vec![f32::MIN_POSITIVE], Vec::new()];
        let bytes = safetensors(&tensors, |n| Ok::<_, ()>(values[n].clone())).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), 3);
        for ((name, shape), values) in tensors.iter().zip(&values) {
            let tensor = read.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
            assert_eq!(tensor.shape(), *shape);
            let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(tensor.data(), expected);
        }
    }
}
