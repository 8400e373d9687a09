//! RLE Lossless (PS3.5 annex G): segments of PackBits, one per byte of a sample, high byte first.

/// Decodes a frame into samples of `bytes_per_sample`, little endian, interleaved by pixel.
///
/// # Errors
/// What is wrong, in words. Never takes more memory than the frame.
pub fn decode(
    data: &[u8],
    pixels: usize,
    samples: usize,
    bytes_per_sample: usize,
) -> Result<Vec<u8>, String> {
    let word = |n: usize| {
        let b: [u8; 4] = data.get(n * 4..n * 4 + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(b) as usize)
    };
    let count = word(0).ok_or("the RLE header is cut short")?;
    let expected = samples * bytes_per_sample;
    if count != expected {
        return Err(format!("{count} RLE segments, expected {expected}"));
    }
    let mut out = vec![0; pixels * expected];
    for segment in 0..count {
        let start = word(1 + segment).ok_or("the RLE header is cut short")?;
        let end = if segment + 1 < count {
            word(2 + segment).ok_or("the RLE header is cut short")?
        } else {
            data.len()
        };
        let bytes = data
            .get(start..end)
            .filter(|_| start >= 64)
            .ok_or("an RLE segment lies outside of the data")?;
        let (sample, byte) = (segment / bytes_per_sample, segment % bytes_per_sample);
        let offset = sample * bytes_per_sample + (bytes_per_sample - 1 - byte);
        unpack(bytes, pixels, |n, value| out[n * expected + offset] = value)?;
    }
    Ok(out)
}

fn unpack(bytes: &[u8], pixels: usize, mut put: impl FnMut(usize, u8)) -> Result<(), String> {
    let mut at = 0;
    let mut n = 0;
    while n < pixels {
        let Some(&control) = bytes.get(at) else {
            return Err(format!("an RLE segment holds {n} of {pixels} pixels"));
        };
        at += 1;
        match control as i8 {
            -128 => {}
            control if control >= 0 => {
                let run = control as usize + 1;
                let Some(values) = bytes.get(at..at + run) else {
                    return Err("an RLE run is cut short".to_owned());
                };
                at += run;
                for &value in values.iter().take(pixels - n) {
                    put(n, value);
                    n += 1;
                }
            }
            control => {
                let run = usize::from(control.unsigned_abs()) + 1;
                let Some(&value) = bytes.get(at) else {
                    return Err("an RLE run is cut short".to_owned());
                };
                at += 1;
                for _ in 0..run.min(pixels - n) {
                    put(n, value);
                    n += 1;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_packbits_decodes() {
        // Apple's TN1023 example: literal and repeated runs.
        let packed = [
            0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7,
            0xAA,
        ];
        let want = [
            0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22,
            0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA,
        ];
        let mut data = vec![0; 64];
        data[0] = 1;
        data[4] = 64;
        data.extend(packed);
        assert_eq!(decode(&data, 24, 1, 1).unwrap(), want);
        assert!(decode(&data, 25, 1, 1).is_err());
    }
}
