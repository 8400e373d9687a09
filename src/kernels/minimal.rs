//! Minimal filtering along one axis: the small matrices of Winograd's method.
//!
//! F(2, 3) gives two outputs of a three-tap filter from four inputs with four multiplications
//! instead of six; nested over axes, 3×3×3 takes 64 instead of 216 for eight outputs.
//!
//! # Source
//! Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2016).
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(unsafe_code, reason = "vector operations need their instruction set")]

use super::simd::Lanes;

/// Inputs of a tile for outputs of a tile along an axis: 1 for 1 (no filter there), 4 for 2.
pub(super) const fn inputs_of(outputs: usize) -> usize {
    if outputs == 1 { 1 } else { outputs + 2 }
}

/// The filter's side, `G · g`, in f64.
pub(super) fn filter(g: [f64; 3]) -> [f64; 4] {
    [
        g[0],
        0.5 * (g[0] + g[1] + g[2]),
        0.5 * (g[0] - g[1] + g[2]),
        g[2],
    ]
}

/// The input's side, `Bᵀ · d`.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub(super) unsafe fn input<V: Lanes, const A: usize>(d: [V; A]) -> [V; A] {
    // SAFETY: passed on.
    unsafe {
        let mut t = d;
        if A == 4 {
            t[0] = d[0].sub(d[2]);
            t[1] = d[1].add(d[2]);
            t[2] = d[2].sub(d[1]);
            t[3] = d[1].sub(d[3]);
        }
        t
    }
}

/// The output's side, `Aᵀ · m`; the first `outputs` elements count.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub(super) unsafe fn output<V: Lanes, const A: usize>(m: [V; A]) -> [V; A] {
    // SAFETY: passed on.
    unsafe {
        let mut t = m;
        if A == 4 {
            t[0] = m[0].add(m[1]).add(m[2]);
            t[1] = m[1].sub(m[2]).sub(m[3]);
        }
        t
    }
}
