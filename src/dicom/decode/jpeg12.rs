//! JPEG extended sequential, Huffman-coded, 12 bit (ITU-T T.81), which no crate of the tree decodes.
//!
//! Written after the standard's procedures; section numbers are T.81's.

use super::super::error::Error;

struct Component {
    id: u8,
    /// Sampling factors (horizontal, vertical).
    sampling: (usize, usize),
    quantization: usize,
    /// Blocks of the padded plane.
    blocks: (usize, usize),
    /// Samples of the padded plane.
    plane: Vec<u16>,
    dc: usize,
    ac: usize,
    prediction: i32,
}

/// Huffman table as of F.2.2.3.
#[derive(Clone)]
struct Huffman {
    min_code: [i32; 17],
    max_code: [i32; 17],
    first_value: [usize; 17],
    values: Vec<u8>,
}

#[derive(Default)]
struct Decoder {
    quantization: [Option<[i32; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart_interval: usize,
    columns: usize,
    rows: usize,
    components: Vec<Component>,
}

const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Samples of all components, pixel by pixel. The caller has checked the frame's size.
pub(super) fn decode(stream: &[u8]) -> Result<Vec<u16>, Error> {
    let mut decoder = Decoder::default();
    let mut pos = 0;
    let mut scans = 0;
    loop {
        // Next marker; stray bytes between segments are skipped as libjpeg does.
        while stream.get(pos).is_some_and(|&b| b != 0xFF) {
            pos += 1;
        }
        while stream.get(pos) == Some(&0xFF) {
            pos += 1;
        }
        let Some(&marker) = stream.get(pos) else {
            break;
        };
        pos += 1;
        match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => continue,
            0xD9 => break,
            _ => {}
        }
        let length = match stream.get(pos..pos + 2) {
            Some(b) => usize::from(u16::from_be_bytes([b[0], b[1]])),
            None => break,
        };
        let body = stream
            .get(pos + 2..pos + length.max(2))
            .ok_or_else(|| failed("a segment is cut off"))?;
        pos += length.max(2);
        match marker {
            0xDB => decoder.quantization_tables(body)?,
            0xC4 => decoder.huffman_tables(body)?,
            0xC0 | 0xC1 => decoder.frame_header(body)?,
            0xDD if body.len() >= 2 => {
                decoder.restart_interval = usize::from(u16::from_be_bytes([body[0], body[1]]));
            }
            0xDA => {
                pos += decoder.scan(body, &stream[pos..])?;
                scans += 1;
            }
            _ => {}
        }
    }
    if scans == 0 || decoder.components.iter().any(|c| c.plane.is_empty()) {
        return Err(failed("a component has no data"));
    }
    Ok(decoder.pixels())
}

impl Decoder {
    /// B.2.4.1.
    fn quantization_tables(&mut self, mut body: &[u8]) -> Result<(), Error> {
        while let Some((&head, rest)) = body.split_first() {
            let (wide, id) = (head >> 4 != 0, usize::from(head & 15));
            let size = if wide { 128 } else { 64 };
            if id > 3 || rest.len() < size {
                return Err(failed("a quantization table is damaged"));
            }
            let mut table = [0; 64];
            for (n, value) in table.iter_mut().enumerate() {
                *value = if wide {
                    i32::from(u16::from_be_bytes([rest[n * 2], rest[n * 2 + 1]]))
                } else {
                    i32::from(rest[n])
                };
            }
            self.quantization[id] = Some(table);
            body = &rest[size..];
        }
        Ok(())
    }

    /// B.2.4.2 and C.2.
    fn huffman_tables(&mut self, mut body: &[u8]) -> Result<(), Error> {
        while body.len() >= 17 {
            let (class, id) = (body[0] >> 4, usize::from(body[0] & 15));
            let counts = &body[1..17];
            let total: usize = counts.iter().map(|&c| usize::from(c)).sum();
            if class > 1 || id > 3 || total > 256 || body.len() < 17 + total {
                return Err(failed("a Huffman table is damaged"));
            }
            let mut table = Huffman {
                min_code: [0; 17],
                max_code: [-1; 17],
                first_value: [0; 17],
                values: body[17..17 + total].to_vec(),
            };
            let (mut code, mut value) = (0_i32, 0);
            for length in 1..=16 {
                let count = i32::from(counts[length - 1]);
                table.first_value[length] = value;
                table.min_code[length] = code;
                if count > 0 {
                    table.max_code[length] = code + count - 1;
                }
                code = (code + count) << 1;
                value += count as usize;
            }
            let tables = if class == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            tables[id] = Some(table);
            body = &body[17 + total..];
        }
        Ok(())
    }

    /// B.2.2.
    fn frame_header(&mut self, body: &[u8]) -> Result<(), Error> {
        if !self.components.is_empty() {
            return Err(failed("two frame headers"));
        }
        if body.len() < 6 || body[0] != 12 {
            return Err(failed("not a 12-bit frame"));
        }
        self.rows = usize::from(u16::from_be_bytes([body[1], body[2]]));
        self.columns = usize::from(u16::from_be_bytes([body[3], body[4]]));
        let count = usize::from(body[5]);
        if self.rows == 0
            || self.columns == 0
            || !matches!(count, 1 | 3)
            || body.len() < 6 + 3 * count
        {
            return Err(failed("the frame header is damaged"));
        }
        for b in body[6..6 + 3 * count].chunks_exact(3) {
            let sampling = (usize::from(b[1] >> 4), usize::from(b[1] & 15));
            if !(1..=4).contains(&sampling.0) || !(1..=4).contains(&sampling.1) || b[2] > 3 {
                return Err(failed("the frame header is damaged"));
            }
            self.components.push(Component {
                id: b[0],
                sampling,
                quantization: usize::from(b[2]),
                blocks: (0, 0),
                plane: Vec::new(),
                dc: 0,
                ac: 0,
                prediction: 0,
            });
        }
        let (h, v) = self.largest_sampling();
        let mcus = (self.columns.div_ceil(8 * h), self.rows.div_ceil(8 * v));
        for c in &mut self.components {
            c.blocks = (mcus.0 * c.sampling.0, mcus.1 * c.sampling.1);
        }
        Ok(())
    }

    fn largest_sampling(&self) -> (usize, usize) {
        let h = self.components.iter().map(|c| c.sampling.0).max();
        let v = self.components.iter().map(|c| c.sampling.1).max();
        (h.unwrap_or(1), v.unwrap_or(1))
    }

    /// B.2.3 and E.2: one scan; returns the bytes of entropy-coded data.
    fn scan(&mut self, body: &[u8], data: &[u8]) -> Result<usize, Error> {
        let count = usize::from(*body.first().unwrap_or(&0));
        if count == 0 || body.len() < 4 + 2 * count {
            return Err(failed("a scan header is damaged"));
        }
        let mut order = Vec::new();
        for b in body[1..=2 * count].chunks_exact(2) {
            let n = self
                .components
                .iter()
                .position(|c| c.id == b[0])
                .ok_or_else(|| failed("a scan names an unknown component"))?;
            let (dc, ac) = (usize::from(b[1] >> 4), usize::from(b[1] & 15));
            if dc > 3 || ac > 3 || order.contains(&n) {
                return Err(failed("a scan header is damaged"));
            }
            let c = &mut self.components[n];
            (c.dc, c.ac) = (dc, ac);
            c.plane = vec![0; c.blocks.0 * c.blocks.1 * 64];
            order.push(n);
        }
        let (h, v) = self.largest_sampling();
        // A.2: a scan of one component runs over its own blocks, others over MCUs.
        let alone = order.len() == 1;
        let units = if alone {
            let c = &self.components[order[0]];
            (
                (self.columns * c.sampling.0).div_ceil(h).div_ceil(8),
                (self.rows * c.sampling.1).div_ceil(v).div_ceil(8),
            )
        } else {
            (self.columns.div_ceil(8 * h), self.rows.div_ceil(8 * v))
        };
        let mut bits = Bits::new(data);
        for c in &mut self.components {
            c.prediction = 0;
        }
        for unit in 0..units.0 * units.1 {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                bits.restart()?;
                for c in &mut self.components {
                    c.prediction = 0;
                }
            }
            let (ux, uy) = (unit % units.0, unit / units.0);
            for &n in &order {
                let (across, down) = if alone {
                    (1, 1)
                } else {
                    self.components[n].sampling
                };
                for by in 0..down {
                    for bx in 0..across {
                        self.block(n, ux * across + bx, uy * down + by, &mut bits)?;
                    }
                }
            }
        }
        Ok(bits.pos)
    }

    /// F.2.2: one block, dequantized, transformed and stored.
    fn block(&mut self, n: usize, x: usize, y: usize, bits: &mut Bits<'_>) -> Result<(), Error> {
        let component = &mut self.components[n];
        let missing = || failed("a table is missing");
        let dc = self.dc[component.dc].as_ref().ok_or_else(missing)?;
        let ac = self.ac[component.ac].as_ref().ok_or_else(missing)?;
        let quantization = self.quantization[component.quantization]
            .as_ref()
            .ok_or_else(missing)?;
        let mut coefficients = [0.0_f32; 64];
        let size = bits.code(dc)?;
        component.prediction = component
            .prediction
            .wrapping_add(bits.signed(u32::from(size))?);
        coefficients[0] = component.prediction.wrapping_mul(quantization[0]) as f32;
        let mut k = 1;
        while k < 64 {
            let code = bits.code(ac)?;
            let (run, size) = (usize::from(code >> 4), u32::from(code & 15));
            if size == 0 {
                if run != 15 {
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            if k > 63 {
                return Err(failed("a block has too many coefficients"));
            }
            let value = bits.signed(size)?.wrapping_mul(quantization[k]);
            coefficients[ZIGZAG[k]] = value as f32;
            k += 1;
        }
        let block = inverse_dct(&coefficients);
        let stride = component.blocks.0 * 8;
        for (row, values) in block.chunks_exact(8).enumerate() {
            let at = (y * 8 + row) * stride + x * 8;
            for (out, &value) in component.plane[at..at + 8].iter_mut().zip(values) {
                // A.3.1: the level shift of 12-bit samples.
                *out = (value + 2048.0).round().clamp(0.0, 4095.0) as u16;
            }
        }
        Ok(())
    }

    fn pixels(&self) -> Vec<u16> {
        let (h, v) = self.largest_sampling();
        let mut out = Vec::with_capacity(self.columns * self.rows * self.components.len());
        for y in 0..self.rows {
            for x in 0..self.columns {
                for c in &self.components {
                    let (cx, cy) = (x * c.sampling.0 / h, y * c.sampling.1 / v);
                    out.push(c.plane[cy * c.blocks.0 * 8 + cx]);
                }
            }
        }
        out
    }
}

/// A.3.3, separated into rows and columns.
fn inverse_dct(coefficients: &[f32; 64]) -> [f32; 64] {
    use std::sync::LazyLock;
    static BASIS: LazyLock<[[f32; 8]; 8]> = LazyLock::new(|| {
        std::array::from_fn(|x| {
            std::array::from_fn(|u| {
                let scale = if u == 0 { (0.125_f64).sqrt() } else { 0.5 };
                let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0;
                (scale * angle.cos()) as f32
            })
        })
    });
    let mut rows = [0.0; 64];
    for v in 0..8 {
        for x in 0..8 {
            rows[v * 8 + x] = (0..8).map(|u| BASIS[x][u] * coefficients[v * 8 + u]).sum();
        }
    }
    let mut out = [0.0; 64];
    for y in 0..8 {
        for x in 0..8 {
            out[y * 8 + x] = (0..8).map(|v| BASIS[y][v] * rows[v * 8 + x]).sum();
        }
    }
    out
}

/// Bits of entropy-coded data, stuffed zero bytes taken out (F.2.2.5).
struct Bits<'a> {
    data: &'a [u8],
    pos: usize,
    buffer: u32,
    count: u32,
}

impl<'a> Bits<'a> {
    const fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            pos: 0,
            buffer: 0,
            count: 0,
        }
    }

    fn bit(&mut self) -> Result<u32, Error> {
        if self.count == 0 {
            let byte = *self.data.get(self.pos).ok_or_else(cut_off)?;
            if byte == 0xFF {
                if self.data.get(self.pos + 1) != Some(&0) {
                    return Err(cut_off());
                }
                self.pos += 1;
            }
            self.pos += 1;
            self.buffer = u32::from(byte);
            self.count = 8;
        }
        self.count -= 1;
        Ok(self.buffer >> self.count & 1)
    }

    /// F.2.2.3.
    fn code(&mut self, table: &Huffman) -> Result<u8, Error> {
        let mut code = 0_i32;
        for length in 1..=16 {
            code = code << 1 | self.bit()? as i32;
            if code <= table.max_code[length] && code >= table.min_code[length] {
                let n = table.first_value[length] + (code - table.min_code[length]) as usize;
                return table
                    .values
                    .get(n)
                    .copied()
                    .ok_or_else(|| failed("a code without value"));
            }
        }
        Err(failed("a code that no table holds"))
    }

    /// F.2.2.1: `size` bits, extended with sign.
    fn signed(&mut self, size: u32) -> Result<i32, Error> {
        if size == 0 {
            return Ok(0);
        }
        if size > 16 {
            return Err(failed("a coefficient of more than 16 bits"));
        }
        let mut value = 0_i32;
        for _ in 0..size {
            value = value << 1 | self.bit()? as i32;
        }
        Ok(if value < 1 << (size - 1) {
            value - (1 << size) + 1
        } else {
            value
        })
    }

    /// E.2.4: to the byte after a restart marker.
    fn restart(&mut self) -> Result<(), Error> {
        self.count = 0;
        match self.data.get(self.pos..self.pos + 2) {
            Some([0xFF, 0xD0..=0xD7]) => {
                self.pos += 2;
                Ok(())
            }
            _ => Err(failed("a restart marker is missing")),
        }
    }
}

fn cut_off() -> Error {
    failed("the image data is cut off")
}

fn failed(reason: &str) -> Error {
    Error::Codec {
        codec: "12-bit JPEG",
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_dct_gives_back_what_the_definition_transforms() {
        // T.81 A.3.3, forward, written out.
        let pixel = |x: usize, y: usize| (x * 37 + y * y * 11) as f64 % 400.0 - 150.0;
        let mut coefficients = [0.0_f32; 64];
        for v in 0..8 {
            for u in 0..8 {
                let c = |n: usize| if n == 0 { 0.5_f64.sqrt() } else { 1.0 };
                let mut sum = 0.0;
                for y in 0..8 {
                    for x in 0..8 {
                        let a = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0;
                        let b = (2 * y + 1) as f64 * v as f64 * std::f64::consts::PI / 16.0;
                        sum += pixel(x, y) * a.cos() * b.cos();
                    }
                }
                coefficients[v * 8 + u] = (0.25 * c(u) * c(v) * sum) as f32;
            }
        }
        let back = inverse_dct(&coefficients);
        for y in 0..8 {
            for x in 0..8 {
                // f32 sums of 64 terms below 1000.
                assert!((f64::from(back[y * 8 + x]) - pixel(x, y)).abs() < 1e-3);
            }
        }
    }
}
