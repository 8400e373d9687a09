//! Voxels of a segmentation object's frames, in each of the forms that they are stored in.

use std::sync::Arc;

/// All frames, one after the other.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// BINARY: single bits from an offset on, the first in the lowest bit, frames without padding.
    Bits { bytes: Arc<Vec<u8>>, start: usize },
    /// FRACTIONAL; from this value on a voxel counts.
    Fractions { bytes: Vec<u8>, from: u8 },
    /// LABELMAP.
    Labels(Vec<u16>),
}

impl Pixels {
    /// Calls with the index in the frame and the segment number of every voxel that is set.
    pub fn visit(
        &self,
        frame: usize,
        voxels: usize,
        segment: u16,
        mut set: impl FnMut(usize, u16),
    ) {
        let first = frame * voxels;
        match self {
            Self::Bits { bytes, start } => {
                let bytes = &bytes[*start..];
                let mut n = 0;
                while n < voxels {
                    let bit = first + n;
                    let byte = bytes[bit / 8];
                    if byte == 0 && bit.is_multiple_of(8) {
                        // Most of a frame is empty; what is skipped may pass its end.
                        let eight = bytes.get(bit / 8..bit / 8 + 8);
                        n += if eight == Some(&[0; 8]) { 64 } else { 8 };
                        continue;
                    }
                    if byte >> (bit % 8) & 1 == 1 {
                        set(n, segment);
                    }
                    n += 1;
                }
            }
            Self::Fractions { bytes, from } => {
                for (n, value) in bytes[first..first + voxels].iter().enumerate() {
                    if value >= from {
                        set(n, segment);
                    }
                }
            }
            Self::Labels(labels) => {
                for (n, &label) in labels[first..first + voxels].iter().enumerate() {
                    if label != 0 {
                        set(n, label);
                    }
                }
            }
        }
    }
}
