//! Every transfer syntax against an independent decoder (pydicom 3.0.2, see the data's own list).

use std::path::PathBuf;

use negatoscope::dicom::{Decoded, PixelFormat, Samples, decode_file};

/// The folder of test data, or a word that the test was skipped.
pub fn data() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    found
}

fn bytes_le(samples: &Samples, out: &mut Vec<u8>) {
    match samples {
        Samples::U8(v) => out.extend(v),
        Samples::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Samples::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Samples::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Samples::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Samples::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Samples::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
    }
}

fn values(decoded: &Decoded) -> Vec<f64> {
    let mut out = Vec::new();
    for frame in &decoded.frames {
        match &frame.samples {
            Samples::U8(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::I16(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::U16(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::I32(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::U32(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::F32(v) => out.extend(v.iter().map(|&x| f64::from(x))),
            Samples::F64(v) => out.extend(v),
        }
    }
    out
}

fn shape(decoded: &Decoded) -> Vec<u64> {
    let PixelFormat {
        rows,
        columns,
        samples,
        ..
    } = decoded.format;
    let mut shape = vec![rows as u64, columns as u64];
    if decoded.frames.len() > 1 {
        shape.insert(0, decoded.frames.len() as u64);
    }
    if samples > 1 {
        shape.push(samples as u64);
    }
    shape
}

fn sha256(bytes: &[u8]) -> String {
    use ring::digest::{SHA256, digest};
    use std::fmt::Write as _;
    digest(&SHA256, bytes)
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[test]
fn every_listed_syntax_decodes_as_the_independent_reader_does() {
    let Some(data) = data() else { return };
    let list: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("dicom-expected.json")).unwrap()).unwrap();
    let mut failures = Vec::new();
    let (mut exact, mut close) = (0, 0);
    for (name, expected) in list["files"].as_object().unwrap() {
        let Some(wanted_shape) = expected["decoded_shape"].as_array() else {
            continue;
        };
        let decoded = match decode_file(std::fs::read(data.join(name)).unwrap()) {
            Ok(decoded) => decoded,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let wanted_shape: Vec<u64> = wanted_shape.iter().map(|n| n.as_u64().unwrap()).collect();
        if shape(&decoded) != wanted_shape {
            failures.push(format!(
                "{name}: shape {:?}, not {wanted_shape:?}",
                shape(&decoded)
            ));
            continue;
        }
        let values = values(&decoded);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let figures = format!("min {low} max {high} mean {mean:.3}");
        if let Some(wanted) = expected["sha256_le"].as_str() {
            let mut bytes = Vec::new();
            for frame in &decoded.frames {
                bytes_le(&frame.samples, &mut bytes);
            }
            if sha256(&bytes) == wanted {
                exact += 1;
            } else {
                failures.push(format!(
                    "{name}: other samples; {figures}; wanted min {} max {} mean {}",
                    expected["min"], expected["max"], expected["mean"]
                ));
            }
        } else {
            let wanted = |key: &str| expected[key].as_f64().unwrap();
            // Lossy decoders differ in rounding and chroma upsampling: a few units at edges, hardly
            // any in the mean. 2 % of the range for the extremes, 0.2 % for the mean.
            let range = (wanted("max") - wanted("min")).max(1.0);
            let fine = (low - wanted("min")).abs() <= 0.02 * range + 1.0
                && (high - wanted("max")).abs() <= 0.02 * range + 1.0
                && (mean - wanted("mean")).abs() <= 0.002 * range;
            if fine {
                close += 1;
            } else {
                failures.push(format!(
                    "{name}: {figures}; wanted min {} max {} mean {}",
                    expected["min"], expected["max"], expected["mean"]
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{exact} files bit for bit, {close} lossy files within tolerance");
    assert!(exact >= 60 && close >= 12, "{exact} exact, {close} close");
}
