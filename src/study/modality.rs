//! Which modalities are one kind of image.

/// Whether images of two modalities are of one kind: projection radiographs are CR, DX or RG
/// (PS3.3 C.7.3.1.1.1) by the machine alone.
pub fn same_kind(a: &str, b: &str) -> bool {
    let radiograph = |m: &str| ["CR", "DX", "RG"].contains(&m);
    a == b || (radiograph(a) && radiograph(b))
}
