//! Sequential JPEG with 12-bit samples (process 4, ITU-T T.81), gray: no maintained crate in
//! the tree decodes it. Written from the standard; every read is checked.

/// A decoded image.
#[derive(Debug)]
pub struct Image {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Row by row, 0 to 4095.
    pub samples: Vec<u16>,
}

/// Whether the frame header is extended sequential with 12 bits.
pub fn is_12_bit(data: &[u8]) -> bool {
    let mut at = 2;
    while let Some(head) = data.get(at..at + 5) {
        if head[0] != 0xFF {
            return false;
        }
        match head[1] {
            0xC1 | 0xC0 => return head[4] == 12,
            0xDA => return false,
            0xFF => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([head[2], head[3]])).max(2),
        }
    }
    false
}

/// Natural order of the zigzag sequence (T.81 figure 5).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

#[derive(Clone, Default)]
struct Huffman {
    /// By code length 1 to 16: first code, first index, count.
    lengths: [(u32, usize, u32); 17],
    values: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], values: &[u8]) -> Self {
        let mut lengths = [(0, 0, 0); 17];
        let (mut code, mut index) = (0_u32, 0);
        for length in 1..=16 {
            let count = u32::from(counts[length - 1]);
            lengths[length] = (code, index, count);
            code = (code + count) << 1;
            index += count as usize;
        }
        Self {
            lengths,
            values: values.to_vec(),
        }
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, String> {
        let mut code = 0;
        for length in 1..=16 {
            code = code << 1 | bits.take(1)?;
            let (first, index, count) = self.lengths[length];
            if code >= first && code - first < count {
                return self
                    .values
                    .get(index + (code - first) as usize)
                    .copied()
                    .ok_or_else(damaged);
            }
        }
        Err(damaged())
    }
}

fn damaged() -> String {
    "the 12-bit JPEG stream is damaged".to_owned()
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    buffer: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, n: u32) -> Result<u32, String> {
        while self.count < n {
            let byte = *self.data.get(self.at).ok_or_else(damaged)?;
            if byte == 0xFF {
                match self.data.get(self.at + 1) {
                    Some(0) => self.at += 2,
                    // A marker: the scan is over; zeros complete the last block.
                    _ => {
                        self.buffer <<= 8;
                        self.count += 8;
                        if self.count > 24 {
                            return Err(damaged());
                        }
                        continue;
                    }
                }
            } else {
                self.at += 1;
            }
            self.buffer = self.buffer << 8 | u32::from(byte);
            self.count += 8;
        }
        self.count -= n;
        Ok(self.buffer >> self.count & ((1 << n) - 1))
    }

    /// A signed value of `n` bits (T.81 F.2.2.1, EXTEND).
    fn signed(&mut self, n: u32) -> Result<i32, String> {
        if n == 0 {
            return Ok(0);
        }
        let value = self.take(n)? as i32;
        Ok(if value < 1 << (n - 1) {
            value - (1 << n) + 1
        } else {
            value
        })
    }

    /// Passes a restart marker.
    fn restart(&mut self) -> Result<(), String> {
        self.count = 0;
        self.buffer = 0;
        while self.data.get(self.at) == Some(&0xFF) && self.data.get(self.at + 1) == Some(&0xFF) {
            self.at += 1;
        }
        match self.data.get(self.at..self.at + 2) {
            Some([0xFF, 0xD0..=0xD7]) => {
                self.at += 2;
                Ok(())
            }
            _ => Err(damaged()),
        }
    }
}

/// Decodes a gray image.
///
/// # Errors
/// What is wrong, in words.
pub fn decode(data: &[u8]) -> Result<Image, String> {
    let mut quantization = vec![[0_u16; 64]; 4];
    let mut dc = vec![Huffman::default(); 4];
    let mut ac = vec![Huffman::default(); 4];
    let mut frame: Option<(usize, usize, usize)> = None;
    let mut interval = 0_usize;
    let mut at = 2;
    loop {
        let head = data.get(at..at + 4).ok_or_else(damaged)?;
        if head[0] != 0xFF {
            return Err(damaged());
        }
        if head[1] == 0xFF {
            at += 1;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body = data
            .get(at + 4..at + 2 + length.max(2))
            .ok_or_else(damaged)?;
        match head[1] {
            0xDB => tables(body, &mut quantization)?,
            0xC4 => {
                let mut rest = body;
                while let Some((&class, more)) = rest.split_first() {
                    let counts = more.get(..16).ok_or_else(damaged)?;
                    let total: usize = counts.iter().map(|&c| usize::from(c)).sum();
                    let values = more.get(16..16 + total).ok_or_else(damaged)?;
                    let slot = usize::from(class & 3);
                    let table = Huffman::new(counts, values);
                    if class >> 4 == 0 {
                        dc[slot] = table
                    } else {
                        ac[slot] = table
                    }
                    rest = &more[16 + total..];
                }
            }
            0xC0 | 0xC1 => {
                let &[precision, r1, r0, c1, c0, components, _, _, table, ..] = body else {
                    return Err(damaged());
                };
                if precision != 12 || components != 1 {
                    return Err(format!(
                        "12-bit JPEG with {components} components is not supported"
                    ));
                }
                let rows = usize::from(u16::from_be_bytes([r1, r0]));
                let columns = usize::from(u16::from_be_bytes([c1, c0]));
                if rows == 0 || columns == 0 {
                    return Err(damaged());
                }
                frame = Some((rows, columns, usize::from(table & 3)));
            }
            0xDD => {
                let b = body.get(..2).ok_or_else(damaged)?;
                interval = usize::from(u16::from_be_bytes([b[0], b[1]]));
            }
            0xDA => {
                let (rows, columns, table) = frame.ok_or_else(damaged)?;
                let &[1, _, selectors, ..] = body else {
                    return Err(damaged());
                };
                let scan = Scan {
                    quantization: &quantization[table],
                    dc: &dc[usize::from(selectors >> 4 & 3)],
                    ac: &ac[usize::from(selectors & 3)],
                    interval,
                };
                let bits = Bits {
                    data: &data[at + 2 + length..],
                    at: 0,
                    buffer: 0,
                    count: 0,
                };
                return scan.decode(bits, rows, columns);
            }
            0xC2..=0xCF => {
                return Err("a progressive or arithmetic 12-bit JPEG is not supported".to_owned());
            }
            _ => {}
        }
        at += 2 + length.max(2);
    }
}

fn tables(mut body: &[u8], quantization: &mut [[u16; 64]]) -> Result<(), String> {
    while let Some((&head, rest)) = body.split_first() {
        let wide = head >> 4 != 0;
        let size = if wide { 128 } else { 64 };
        let values = rest.get(..size).ok_or_else(damaged)?;
        let table = &mut quantization[usize::from(head & 3)];
        for n in 0..64 {
            table[ZIGZAG[n]] = if wide {
                u16::from_be_bytes([values[2 * n], values[2 * n + 1]])
            } else {
                u16::from(values[n])
            };
        }
        body = &rest[size..];
    }
    Ok(())
}

struct Scan<'a> {
    quantization: &'a [u16; 64],
    dc: &'a Huffman,
    ac: &'a Huffman,
    interval: usize,
}

impl Scan<'_> {
    fn decode(&self, mut bits: Bits<'_>, rows: usize, columns: usize) -> Result<Image, String> {
        let (across, down) = (columns.div_ceil(8), rows.div_ceil(8));
        // A block takes at least two bits: less data cannot fill the image.
        if across * down > bits.data.len().saturating_mul(4) {
            return Err("the 12-bit JPEG stream is too short for its size".to_owned());
        }
        let mut samples = vec![0_u16; rows * columns];
        let mut previous = 0_i32;
        let cosines = cosines();
        for block in 0..across * down {
            if self.interval > 0 && block > 0 && block % self.interval == 0 {
                bits.restart()?;
                previous = 0;
            }
            let mut coefficients = [0.0_f32; 64];
            let size = u32::from(self.dc.decode(&mut bits)?);
            if size > 15 {
                return Err(damaged());
            }
            previous = previous.wrapping_add(bits.signed(size)?);
            coefficients[0] = previous as f32 * f32::from(self.quantization[0]);
            let mut n = 1;
            while n < 64 {
                let code = self.ac.decode(&mut bits)?;
                let (run, size) = (usize::from(code >> 4), u32::from(code & 15));
                if size == 0 {
                    if run != 15 {
                        break;
                    }
                    n += 16;
                    continue;
                }
                n += run;
                let &position = ZIGZAG.get(n).ok_or_else(damaged)?;
                let value = bits.signed(size)? as f32;
                coefficients[position] = value * f32::from(self.quantization[position]);
                n += 1;
            }
            let pixels = inverse_dct(&coefficients, &cosines);
            let (bx, by) = (block % across * 8, block / across * 8);
            for y in 0..8.min(rows - by) {
                for x in 0..8.min(columns - bx) {
                    let value = (pixels[y * 8 + x] + 2048.0).round().clamp(0.0, 4095.0);
                    samples[(by + y) * columns + bx + x] = value as u16;
                }
            }
        }
        Ok(Image {
            columns,
            rows,
            samples,
        })
    }
}

fn cosines() -> [[f32; 8]; 8] {
    std::array::from_fn(|x| {
        std::array::from_fn(|u| {
            let scale = if u == 0 { (1.0_f64 / 8.0).sqrt() } else { 0.5 };
            let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0;
            (scale * angle.cos()) as f32
        })
    })
}

/// Inverse DCT (T.81 A.3.3), rows then columns.
fn inverse_dct(coefficients: &[f32; 64], cosines: &[[f32; 8]; 8]) -> [f32; 64] {
    let mut rows = [0.0_f32; 64];
    for v in 0..8 {
        for x in 0..8 {
            rows[v * 8 + x] = (0..8)
                .map(|u| coefficients[v * 8 + u] * cosines[x][u])
                .sum();
        }
    }
    let mut out = [0.0_f32; 64];
    for y in 0..8 {
        for x in 0..8 {
            out[y * 8 + x] = (0..8).map(|v| rows[v * 8 + x] * cosines[y][v]).sum();
        }
    }
    out
}
