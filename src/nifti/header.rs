//! The 348 bytes of a NIfTI-1 header, and RAS ↔ LPS.
//!
//! # Source
//! `nifti1.h`, NIfTI Data Format Working Group, 2003 to 2012.

use crate::geometry::{DAffine3, DMat3, DVec3, VolumeGeometry};

/// Bytes of the header itself.
pub const HEADER_BYTES: usize = 348;
/// Where voxels begin in the single files that this program writes: after the header and an
/// empty extension flag.
pub const VOXEL_OFFSET: usize = 352;

/// How a voxel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Rgb24,
    Rgba32,
}

impl Datatype {
    /// From the header's `datatype`; `Err` names codes of the standard that are not read.
    pub fn from_code(code: i16) -> Result<Self, &'static str> {
        Ok(match code {
            2 => Self::U8,
            4 => Self::I16,
            8 => Self::I32,
            16 => Self::F32,
            64 => Self::F64,
            128 => Self::Rgb24,
            256 => Self::I8,
            512 => Self::U16,
            768 => Self::U32,
            1024 => Self::I64,
            1280 => Self::U64,
            2304 => Self::Rgba32,
            1 => return Err("a NIfTI image of single bits"),
            32 | 1792 | 2048 => return Err("a NIfTI image of complex numbers"),
            1536 => return Err("a NIfTI image of 128-bit floats"),
            _ => return Err("an unknown NIfTI datatype"),
        })
    }

    const fn code(self) -> i16 {
        match self {
            Self::U8 => 2,
            Self::I16 => 4,
            Self::I32 => 8,
            Self::F32 => 16,
            Self::F64 => 64,
            Self::Rgb24 => 128,
            Self::I8 => 256,
            Self::U16 => 512,
            Self::U32 => 768,
            Self::I64 => 1024,
            Self::U64 => 1280,
            Self::Rgba32 => 2304,
        }
    }

    /// Bytes of one voxel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::Rgb24 => 3,
            Self::I32 | Self::U32 | Self::F32 | Self::Rgba32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

/// The fields in use, as they stand in the file.
#[derive(Clone, Debug)]
pub struct Header {
    pub big_endian: bool,
    pub single_file: bool,
    pub dim: [i16; 8],
    pub datatype: i16,
    pub bitpix: i16,
    pub pixdim: [f32; 8],
    pub vox_offset: f32,
    pub scl_slope: f32,
    pub scl_inter: f32,
    pub xyzt_units: u8,
    pub qform_code: i16,
    pub sform_code: i16,
    /// b, c, d.
    pub quatern: [f32; 3],
    /// x, y, z.
    pub qoffset: [f32; 3],
    pub srow: [[f32; 4]; 3],
}

/// What a file is that is no NIfTI-1.
pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, &'static str> {
    let first = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let big_endian = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
        (348, _) => false,
        (_, 348) => true,
        (540, _) | (_, 540) => return Err("NIfTI-2"),
        _ => return Err("no NIfTI header"),
    };
    let single_file = match &bytes[344..348] {
        b"n+1\0" => true,
        b"ni1\0" => false,
        [0, 0, 0, 0] => return Err("ANALYZE 7.5, which does not say where left and right are"),
        _ => return Err("no NIfTI magic"),
    };
    let two = |at: usize| {
        let b = [bytes[at], bytes[at + 1]];
        if big_endian {
            i16::from_be_bytes(b)
        } else {
            i16::from_le_bytes(b)
        }
    };
    let float = |at: usize| {
        let b = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if big_endian {
            f32::from_be_bytes(b)
        } else {
            f32::from_le_bytes(b)
        }
    };
    Ok(Header {
        big_endian,
        single_file,
        dim: std::array::from_fn(|n| two(40 + 2 * n)),
        datatype: two(70),
        bitpix: two(72),
        pixdim: std::array::from_fn(|n| float(76 + 4 * n)),
        vox_offset: float(108),
        scl_slope: float(112),
        scl_inter: float(116),
        xyzt_units: bytes[123],
        qform_code: two(252),
        sform_code: two(254),
        quatern: std::array::from_fn(|n| float(256 + 4 * n)),
        qoffset: std::array::from_fn(|n| float(268 + 4 * n)),
        srow: std::array::from_fn(|row| {
            std::array::from_fn(|column| float(280 + 16 * row + 4 * column))
        }),
    })
}

/// What a file of this program says about its voxels.
pub struct Description<'a> {
    pub datatype: Datatype,
    /// NIFTI_INTENT code.
    pub intent_code: i16,
    /// At most 15 ASCII characters.
    pub intent_name: &'a str,
    /// At most 79 ASCII characters.
    pub descrip: &'a str,
    /// Whether positions mean the scanner's frame; otherwise only spacing is written.
    pub in_patient: bool,
}

/// Header and empty extension flag of a little-endian single file.
pub fn encode(geometry: &VolumeGeometry, about: &Description) -> Option<[u8; VOXEL_OFFSET]> {
    let mut out = [0_u8; VOXEL_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    let floats = |values: &[f64]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|&v| (v as f32).to_le_bytes())
            .collect()
    };
    put(0, &348_i32.to_le_bytes());
    put(38, b"r");
    let [i, j, k] = geometry.dims();
    for (n, d) in [3, i, j, k, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * n, &i16::try_from(d).ok()?.to_le_bytes());
    }
    put(68, &about.intent_code.to_le_bytes());
    put(70, &about.datatype.code().to_le_bytes());
    put(72, &(about.datatype.bytes() as i16 * 8).to_le_bytes());
    let affine = ras_from_ijk(geometry);
    let q = qform_of(affine);
    let [si, sj, sk] = geometry.spacing_mm();
    let qfac = q.as_ref().map_or(1.0, |q| q.qfac);
    put(76, &floats(&[qfac, si, sj, sk, 0.0, 0.0, 0.0, 0.0]));
    put(108, &(VOXEL_OFFSET as f32).to_le_bytes());
    put(112, &floats(&[1.0, 0.0]));
    put(123, &[2]); // mm
    put(148, &ascii(about.descrip, 79));
    if about.in_patient {
        if let Some(q) = q {
            put(252, &1_i16.to_le_bytes());
            put(256, &floats(&q.quatern));
        }
        put(254, &1_i16.to_le_bytes());
        put(268, &floats(&affine.translation.to_array()));
        let rows = affine.matrix3.transpose();
        for (n, row) in [rows.x_axis, rows.y_axis, rows.z_axis].iter().enumerate() {
            put(
                280 + 16 * n,
                &floats(&[row.x, row.y, row.z, affine.translation[n]]),
            );
        }
    }
    put(328, &ascii(about.intent_name, 15));
    put(344, b"n+1\0");
    Some(out)
}

fn ascii(text: &str, longest: usize) -> Vec<u8> {
    text.chars()
        .take(longest)
        .map(|c| {
            if c.is_ascii() && !c.is_ascii_control() {
                c as u8
            } else {
                b'?'
            }
        })
        .collect()
}

/// Where an affine came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Sform,
    Qform,
    Pixdim,
}

impl Header {
    /// The affine in LPS mm, where it came from, and doubts as (code, message).
    pub fn lps_from_ijk(
        &self,
        dims: [usize; 3],
    ) -> (DAffine3, Method, Vec<(&'static str, String)>) {
        let mut doubts = Vec::new();
        let scale = match self.xyzt_units & 7 {
            1 => 1000.0,
            3 => 0.001,
            _ => 1.0,
        };
        let usable = |affine: DAffine3| {
            let affine = DAffine3::from_scale(DVec3::splat(scale)) * affine;
            VolumeGeometry::new(dims, affine).is_ok().then_some(affine)
        };
        let sform = (self.sform_code > 0).then(|| usable(self.sform()));
        let qform = (self.qform_code > 0).then(|| self.qform().and_then(usable));
        if sform == Some(None) {
            doubts.push((
                "nifti-sform-invalid",
                "the sform of the file cannot be used".to_owned(),
            ));
        }
        if qform == Some(None) {
            doubts.push((
                "nifti-qform-invalid",
                "the qform of the file cannot be used".to_owned(),
            ));
        }
        let (sform, qform) = (sform.flatten(), qform.flatten());
        if let (Some(s), Some(q)) = (sform, qform) {
            let gap = largest_gap_mm(dims, s, q);
            // Both are stored as f32: 0.1 mm is far above rounding and far below an error that matters.
            if gap > 0.1 {
                doubts.push((
                    "nifti-sform-qform-differ",
                    format!("sform and qform differ by up to {gap:.1} mm: the sform is used"),
                ));
            }
        }
        let (ras, method) = match (sform, qform) {
            (Some(s), _) => (s, Method::Sform),
            (None, Some(q)) => (q, Method::Qform),
            (None, None) => {
                doubts.push((
                    "nifti-no-orientation",
                    "the file does not say how the patient lies: left and right may be swapped"
                        .to_owned(),
                ));
                let spacing = [1, 2, 3].map(|n| f64::from(self.pixdim[n]).abs());
                let fine = spacing.iter().all(|s| s.is_finite() && *s > 1e-9);
                if !fine {
                    doubts.push((
                        "no-pixel-spacing",
                        "no pixel spacing: lengths are in pixels, not mm".to_owned(),
                    ));
                }
                let spacing = if fine {
                    DVec3::from(spacing) * scale
                } else {
                    DVec3::ONE
                };
                (DAffine3::from_scale(spacing), Method::Pixdim)
            }
        };
        (lps_from_ras() * ras, method, doubts)
    }

    fn sform(&self) -> DAffine3 {
        let row = |n: usize| DVec3::from([0, 1, 2].map(|c| f64::from(self.srow[n][c])));
        let rows = DMat3::from_cols(row(0), row(1), row(2));
        let t = DVec3::from([0, 1, 2].map(|n| f64::from(self.srow[n][3])));
        DAffine3::from_mat3_translation(rows.transpose(), t)
    }

    fn qform(&self) -> Option<DAffine3> {
        let [mut b, mut c, mut d] = self.quatern.map(f64::from);
        let square = b * b + c * c + d * d;
        // Above 1 by more than rounding: no rotation.
        if square.is_nan() || square > 1.001 {
            return None;
        }
        let mut a = (1.0 - square).max(0.0).sqrt();
        if square > 1.0 - 1e-7 {
            let length = square.sqrt();
            (a, b, c, d) = (0.0, b / length, c / length, d / length);
        }
        let rotation = DMat3::from_cols_array_2d(&[
            [
                a * a + b * b - c * c - d * d,
                2.0 * (b * c + a * d),
                2.0 * (b * d - a * c),
            ],
            [
                2.0 * (b * c - a * d),
                a * a + c * c - b * b - d * d,
                2.0 * (c * d + a * b),
            ],
            [
                2.0 * (b * d + a * c),
                2.0 * (c * d - a * b),
                a * a + d * d - c * c - b * b,
            ],
        ]);
        let qfac = if self.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        let [si, sj, sk] = [1, 2, 3].map(|n| f64::from(self.pixdim[n]).abs());
        let scale = DMat3::from_diagonal(DVec3::new(si, sj, sk * qfac));
        Some(DAffine3::from_mat3_translation(
            rotation * scale,
            DVec3::from(self.qoffset.map(f64::from)),
        ))
    }
}

fn largest_gap_mm(dims: [usize; 3], a: DAffine3, b: DAffine3) -> f64 {
    (0..8)
        .map(|n| {
            let pick = |axis: usize| {
                if n >> axis & 1 == 1 {
                    dims[axis] as f64 - 1.0
                } else {
                    0.0
                }
            };
            let corner = DVec3::new(pick(0), pick(1), pick(2));
            a.transform_point3(corner)
                .distance(b.transform_point3(corner))
        })
        .fold(0.0, f64::max)
}

// CLINICAL(laterality): NIfTI's x runs to the patient's right-to-left as RAS+, DICOM's as LPS+.
fn lps_from_ras() -> DAffine3 {
    DAffine3::from_scale(DVec3::new(-1.0, -1.0, 1.0))
}

fn ras_from_ijk(geometry: &VolumeGeometry) -> DAffine3 {
    lps_from_ras().inverse() * geometry.lps_from_ijk()
}

struct Qform {
    quatern: [f64; 3],
    qfac: f64,
}

/// The rotation of an affine as NIfTI stores it; `None` when the axes are not at right angles.
fn qform_of(affine: DAffine3) -> Option<Qform> {
    let m = affine.matrix3;
    let [x, y, mut z] = [m.x_axis, m.y_axis, m.z_axis].map(DVec3::normalize);
    // f32 of the quaternion is good to about 1e-7; 1e-5 over 500 mm is 0.005 mm.
    if x.dot(y).abs() > 1e-5 || y.dot(z).abs() > 1e-5 || z.dot(x).abs() > 1e-5 {
        return None;
    }
    let qfac = if x.cross(y).dot(z) < 0.0 { -1.0 } else { 1.0 };
    z *= qfac;
    let r = DMat3::from_cols(x, y, z);
    let q = glam::DQuat::from_mat3(&r).normalize();
    let sign = if q.w < 0.0 { -1.0 } else { 1.0 };
    Some(Qform {
        quatern: [q.x * sign, q.y * sign, q.z * sign],
        qfac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(geometry: &VolumeGeometry) -> Header {
        let about = Description {
            datatype: Datatype::U8,
            intent_code: 0,
            intent_name: "",
            descrip: "",
            in_patient: true,
        };
        let bytes = encode(geometry, &about).unwrap();
        parse(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap()
    }

    #[test]
    fn clinical_laterality_an_lps_grid_has_negative_x_and_y_in_nifti() {
        let g = VolumeGeometry::from_axes(
            [4, 5, 6],
            DVec3::new(10.0, 20.0, 30.0),
            [DVec3::X, DVec3::Y, DVec3::Z],
            [1.0, 2.0, 3.0],
        )
        .unwrap();
        let h = header(&g);
        assert_eq!(
            h.srow,
            [
                [-1.0, 0.0, 0.0, -10.0],
                [0.0, -2.0, 0.0, -20.0],
                [0.0, 0.0, 3.0, 30.0]
            ]
        );
    }

    #[test]
    fn clinical_laterality_qform_and_sform_agree_for_both_handednesses() {
        for flip in [1.0, -1.0] {
            let r = DMat3::from_euler(glam::EulerRot::XYZ, 0.4, -1.1, 2.8);
            let g = VolumeGeometry::from_axes(
                [40, 50, 60],
                DVec3::new(-90.0, 12.0, 700.0),
                [r.x_axis, r.y_axis, r.z_axis * flip],
                [0.7, 0.8, 2.5],
            )
            .unwrap();
            let mut h = header(&g);
            assert_eq!((h.qform_code, h.sform_code), (1, 1));
            let (s, method, doubts) = h.lps_from_ijk(g.dims());
            assert_eq!((method, doubts.len()), (Method::Sform, 0));
            h.sform_code = 0;
            let (q, method, doubts) = h.lps_from_ijk(g.dims());
            assert_eq!((method, doubts.len()), (Method::Qform, 0));
            // f32 fields: 700 mm is stored to 6e-5 mm.
            assert!(largest_gap_mm(g.dims(), s, g.lps_from_ijk()) < 2e-4);
            assert!(largest_gap_mm(g.dims(), q, g.lps_from_ijk()) < 2e-4);
        }
    }

    #[test]
    fn a_sheared_grid_gets_no_qform() {
        let g = VolumeGeometry::from_axes(
            [4, 4, 4],
            DVec3::ZERO,
            [DVec3::X, DVec3::Y, DVec3::new(0.0, 0.3, 1.0).normalize()],
            [1.0; 3],
        )
        .unwrap();
        let h = header(&g);
        assert_eq!((h.qform_code, h.sform_code), (0, 1));
    }

    #[test]
    fn units_other_than_mm_are_scaled() {
        let g = VolumeGeometry::new([2, 2, 2], DAffine3::from_scale(DVec3::splat(2.0))).unwrap();
        let mut h = header(&g);
        for (unit, expected) in [(1, 2000.0), (2, 2.0), (3, 0.002), (0, 2.0), (2 | 8, 2.0)] {
            h.xyzt_units = unit;
            let affine = h.lps_from_ijk([2, 2, 2]).0;
            assert!((affine.matrix3.x_axis.length() - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn an_unusable_sform_falls_back_to_the_qform_and_says_so() {
        let g = VolumeGeometry::new([2, 2, 2], DAffine3::IDENTITY).unwrap();
        let mut h = header(&g);
        h.srow[1][1] = f32::NAN;
        let (_, method, doubts) = h.lps_from_ijk([2, 2, 2]);
        assert_eq!(
            (method, doubts[0].0),
            (Method::Qform, "nifti-sform-invalid")
        );
        h.quatern = [3.0, 0.0, 0.0];
        let (_, method, doubts) = h.lps_from_ijk([2, 2, 2]);
        assert_eq!(method, Method::Pixdim);
        assert_eq!(doubts.last().unwrap().0, "nifti-no-orientation");
    }
}
