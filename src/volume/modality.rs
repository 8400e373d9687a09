//! Stored value → modality value (PS3.3 C.11.1).

/// The Modality LUT.
#[derive(Clone, Debug, PartialEq)]
pub enum ModalityLut {
    /// `slope · stored + intercept`.
    Rescale {
        /// Rescale Slope.
        slope: f32,
        /// Rescale Intercept.
        intercept: f32,
    },
    /// A slope and intercept for each slice (PET), in the order of k.
    PerSlice(Vec<(f32, f32)>),
    /// Modality LUT Sequence: first mapped stored value, then values. Ends extend.
    Table {
        /// Stored value that maps to the first entry.
        first: i32,
        /// Entries.
        values: Vec<f32>,
    },
}

impl ModalityLut {
    /// Stored values are the modality values.
    pub const IDENTITY: Self = Self::Rescale {
        slope: 1.0,
        intercept: 0.0,
    };

    /// Modality value of a stored value in slice `k`.
    pub fn apply(&self, stored: f32, k: usize) -> f32 {
        match self {
            Self::Rescale { slope, intercept } => stored.mul_add(*slope, *intercept),
            Self::PerSlice(slices) => {
                let (slope, intercept) = slices.get(k).copied().unwrap_or((1.0, 0.0));
                stored.mul_add(slope, intercept)
            }
            Self::Table { first, values } => {
                let last = values.len().saturating_sub(1) as i64;
                let index = (stored as i64)
                    .saturating_sub(i64::from(*first))
                    .clamp(0, last.max(0)) as usize;
                values.get(index).copied().unwrap_or(stored)
            }
        }
    }
}

/// What a modality value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Hounsfield units.
    Hounsfield,
    /// Activity concentration, Bq/mL.
    ActivityConcentration,
    /// Rescale Type or Units from the file, e.g. `OD`, `CNTS`.
    Named(String),
    /// A signal without unit (MR, radiographs).
    Arbitrary,
    /// Color: no modality value.
    Color,
}

impl Quantity {
    /// Unit as written after a number; empty when there is none.
    pub fn unit(&self) -> &str {
        match self {
            Self::Hounsfield => "HU",
            Self::ActivityConcentration => "Bq/mL",
            Self::Named(name) => name,
            Self::Arbitrary | Self::Color => "",
        }
    }

    /// Name in `info --json` and exports.
    pub fn name(&self) -> &str {
        match self {
            Self::Hounsfield => "HU",
            Self::ActivityConcentration => "BQML",
            Self::Named(name) => name,
            Self::Arbitrary => "arbitrary",
            Self::Color => "color",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_extend_at_both_ends() {
        let lut = ModalityLut::Table {
            first: -2,
            values: vec![10.0, 20.0, 40.0],
        };
        let got: Vec<f32> = [-9.0, -2.0, -1.0, 0.0, 99.0]
            .map(|s| lut.apply(s, 0))
            .to_vec();
        assert_eq!(got, [10.0, 10.0, 20.0, 40.0, 40.0]);
        // Infinite stored values are beyond the ends too.
        assert_eq!(lut.apply(f32::INFINITY, 0), 40.0);
        assert_eq!(lut.apply(f32::NEG_INFINITY, 0), 10.0);
    }

    #[test]
    fn an_empty_table_changes_nothing() {
        let lut = ModalityLut::Table {
            first: 0,
            values: vec![],
        };
        assert_eq!(lut.apply(7.0, 0), 7.0);
    }
}
