//! Vectors of f32 by instruction set, chosen at run time.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "intrinsics; each is called only after its feature was detected"
)]

use std::time::Instant;

/// What the kernels run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instructions {
    /// 16 lanes.
    Avx512,
    /// 8 lanes.
    Avx2Fma,
    /// 4 lanes (64-bit Arm).
    Neon,
    /// Plain Rust.
    Portable,
    /// Plain Rust in as many lanes as AVX-512 has, to test what machines without it do not run.
    #[cfg(test)]
    SixteenLanes,
    /// Plain Rust in as many lanes as NEON has.
    #[cfg(test)]
    FourLanes,
}

impl Instructions {
    /// The best that this machine has.
    pub fn detect() -> Self {
        *Self::available()
            .first()
            .expect("portable code runs everywhere")
    }

    /// All that this machine has, best first.
    pub fn available() -> Vec<Self> {
        let mut list = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // What is compiled for AVX-512 has AVX2 and FMA in it too; a virtual machine may hide
            // one and show the other.
            let eight = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if eight && is_x86_feature_detected!("avx512f") {
                list.push(Self::Avx512);
            }
            if eight {
                list.push(Self::Avx2Fma);
            }
        }
        #[cfg(target_arch = "aarch64")]
        list.push(Self::Neon);
        list.push(Self::Portable);
        #[cfg(test)]
        list.extend([Self::SixteenLanes, Self::FourLanes]);
        list
    }

    /// As written in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2Fma => "AVX2+FMA",
            Self::Neon => "NEON",
            Self::Portable => "portable",
            #[cfg(test)]
            Self::SixteenLanes => "sixteen lanes",
            #[cfg(test)]
            Self::FourLanes => "four lanes",
        }
    }
}

/// A vector of f32.
pub trait Lanes: Copy {
    /// Number of lanes.
    const N: usize;
    /// All lanes the same.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// The instruction set is there; `N` floats can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// The instruction set is there; `N` floats can be written.
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// # Safety
    /// The instruction set is there.
    unsafe fn add(self, other: Self) -> Self;
    /// # Safety
    /// The instruction set is there.
    unsafe fn sub(self, other: Self) -> Self;
    /// The vector for eight values at a time, of at most eight lanes.
    type Eight: Lanes;
    /// `sums[p][w] += input[offset + p · step + l] · weights[offset's place][l][w]` for all offsets
    /// and all `l` below `L`: the inner loop of all products.
    ///
    /// # Safety
    /// The instruction set is there; the inputs and `L · W · N` weights for each
    /// offset can be read.
    #[inline(always)]
    unsafe fn accumulate<const P: usize, const W: usize, const L: usize>(
        sums: &mut [[Self; W]; P],
        input: *const f32,
        step: usize,
        offsets: &[usize],
        weights: *const f32,
    ) {
        // SAFETY: the caller's.
        unsafe { accumulate::<Self, P, W, L>(sums, input, step, offsets, weights) }
    }
    /// All lanes the one float that stands there.
    ///
    /// # Safety
    /// The instruction set is there; a float can be read.
    #[inline(always)]
    unsafe fn splat_from(from: *const f32) -> Self {
        // SAFETY: passed on from the caller.
        unsafe { Self::splat(from.read_unaligned()) }
    }
}

#[inline(always)]
unsafe fn accumulate<V: Lanes, const P: usize, const W: usize, const L: usize>(
    sums: &mut [[V; W]; P],
    input: *const f32,
    step: usize,
    offsets: &[usize],
    mut weights: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        for offset in offsets {
            let input = input.wrapping_add(*offset);
            for lane in 0..L {
                let mut loaded = [V::splat(0.0); W];
                for (n, vector) in loaded.iter_mut().enumerate() {
                    *vector = V::load(weights.wrapping_add(n * V::N));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let at = input.wrapping_add(p.wrapping_mul(step)).wrapping_add(lane);
                    let x = V::splat_from(at);
                    for (sum, weight) in sums.iter_mut().zip(loaded) {
                        *sum = sum.add_product(x, weight);
                    }
                }
                weights = weights.wrapping_add(W * V::N);
            }
        }
    }
}

/// Work that is compiled for every instruction set.
pub(super) trait Job {
    /// What it gives.
    type Out;
    /// The work; `#[inline(always)]`, and so is all that it calls.
    ///
    /// # Safety
    /// The instruction set of `V` is there.
    unsafe fn run<V: Lanes>(self) -> Self::Out;
}

/// Runs the version for `instructions`, which come from [`Instructions::available`].
pub(super) fn dispatch<J: Job>(instructions: Instructions, job: J) -> J::Out {
    // SAFETY: `instructions` are there.
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { run_avx512(job) },
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2Fma => unsafe { run_avx2(job) },
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => unsafe { job.run::<std::arch::aarch64::float32x4_t>() },
        #[cfg(test)]
        Instructions::SixteenLanes => unsafe { job.run::<[f32; 16]>() },
        #[cfg(test)]
        Instructions::FourLanes => unsafe { job.run::<[f32; 4]>() },
        _ => unsafe { job.run::<[f32; 8]>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn run_avx512<J: Job>(job: J) -> J::Out {
    // SAFETY: the features are on.
    unsafe { job.run::<std::arch::x86_64::__m512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<J: Job>(job: J) -> J::Out {
    // SAFETY: the features are on.
    unsafe { job.run::<std::arch::x86_64::__m256>() }
}

/// Plain Rust; other lengths than eight stand in for other instruction sets in tests.
macro_rules! portable {
    ($n:literal, $eight:ty) => {
        impl Lanes for [f32; $n] {
            const N: usize = $n;
            type Eight = $eight;
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                [x; $n]
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller gives as many readable floats.
                unsafe { from.cast::<Self>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller gives as many writable floats.
                unsafe { to.cast::<Self>().write_unaligned(self) }
            }
            #[inline(always)]
            unsafe fn add_product(self, a: Self, b: Self) -> Self {
                std::array::from_fn(|n| self[n] + a[n] * b[n])
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                std::array::from_fn(|n| self[n] + other[n])
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                std::array::from_fn(|n| self[n] - other[n])
            }
        }
    };
}
portable!(8, Self);
#[cfg(test)]
portable!(4, Self);
#[cfg(test)]
portable!(16, [f32; 8]);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_load_ss, _mm256_add_ps, _mm256_broadcastss_ps, _mm256_castsi256_ps,
        _mm256_fmadd_ps, _mm256_lddqu_si256, _mm256_set1_ps, _mm256_sub_ps, _mm512_add_ps,
        _mm512_broadcastss_ps, _mm512_fmadd_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps,
        _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::Lanes;

    impl Lanes for __m256 {
        const N: usize = 8;
        type Eight = Self;
        #[inline(always)]
        unsafe fn accumulate<const P: usize, const W: usize, const L: usize>(
            sums: &mut [[Self; W]; P],
            input: *const f32,
            step: usize,
            offsets: &[usize],
            weights: *const f32,
        ) {
            // SAFETY: the caller's.
            unsafe {
                match (P, W) {
                    (6, 2) => six_by_two::<P, W, L>(sums, input, step, offsets, weights),
                    (4, 3) => four_by_three::<P, W, L>(sums, input, step, offsets, weights),
                    (12, 1) => twelve_by_one::<P, W, L>(sums, input, step, offsets, weights),
                    _ => super::accumulate::<Self, P, W, L>(sums, input, step, offsets, weights),
                }
            }
        }
        #[inline(always)]
        unsafe fn splat_from(from: *const f32) -> Self {
            // Neither of these checks the pointer where debug assertions are on.
            // SAFETY: the caller has AVX2 and FMA and a readable float.
            unsafe { _mm256_broadcastss_ps(_mm_load_ss(from)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller has AVX2 and FMA.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // `_mm256_loadu_ps` copies through the stack where debug assertions are on; this does not.
            // SAFETY: as above; 8 floats are readable.
            unsafe { _mm256_castsi256_ps(_mm256_lddqu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; 8 floats are writable.
            unsafe { store(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
    }

    /// `_mm256_storeu_ps` goes through the stack and checks its pointers where debug assertions are
    /// on, at several times the cost.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store(to: *mut f32, vector: __m256) {
        // SAFETY: the caller gives 8 writable floats.
        unsafe {
            std::arch::asm!(
                "vmovups [{to}], {vector}",
                to = in(reg) to,
                vector = in(ymm_reg) vector,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Compilers keep one of the twelve sums in memory here, which halves the speed: hence assembly.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn six_by_two<const P: usize, const W: usize, const L: usize>(
        sums: &mut [[__m256; W]; P],
        input: *const f32,
        step: usize,
        offsets: &[usize],
        mut weights: *const f32,
    ) {
        debug_assert!(P == 6 && W == 2 && (L == 8 || L == 1));
        macro_rules! lanes {
            ($input:ident, $list:literal) => {
                std::arch::asm!(
                    concat!(".irp l, ", $list),
                    "vmovups {w0}, [{weights} + 4 * (8 * (2 * \\l + 0))]",
                    "vmovups {w1}, [{weights} + 4 * (8 * (2 * \\l + 1))]",
                    "vbroadcastss {x}, dword ptr [{a} + 4 * \\l]",
                    "vfmadd231ps {s0_0}, {x}, {w0}",
                    "vfmadd231ps {s0_1}, {x}, {w1}",
                    "vbroadcastss {x}, dword ptr [{a} + {s} + 4 * \\l]",
                    "vfmadd231ps {s1_0}, {x}, {w0}",
                    "vfmadd231ps {s1_1}, {x}, {w1}",
                    "vbroadcastss {x}, dword ptr [{a} + 2 * {s} + 4 * \\l]",
                    "vfmadd231ps {s2_0}, {x}, {w0}",
                    "vfmadd231ps {s2_1}, {x}, {w1}",
                    "vbroadcastss {x}, dword ptr [{a} + {s3} + 4 * \\l]",
                    "vfmadd231ps {s3_0}, {x}, {w0}",
                    "vfmadd231ps {s3_1}, {x}, {w1}",
                    "vbroadcastss {x}, dword ptr [{a} + 4 * {s} + 4 * \\l]",
                    "vfmadd231ps {s4_0}, {x}, {w0}",
                    "vfmadd231ps {s4_1}, {x}, {w1}",
                    "vbroadcastss {x}, dword ptr [{a} + {s5} + 4 * \\l]",
                    "vfmadd231ps {s5_0}, {x}, {w0}",
                    "vfmadd231ps {s5_1}, {x}, {w1}",
                    ".endr",
                    a = in(reg) $input,
                    s = in(reg) step.wrapping_mul(4),
                    s3 = in(reg) step.wrapping_mul(12),
                    s5 = in(reg) step.wrapping_mul(20),
                    weights = in(reg) weights,
                    x = out(ymm_reg) _,
                    w0 = out(ymm_reg) _,
                    w1 = out(ymm_reg) _,
                    s0_0 = inout(ymm_reg) sums[0][0],
                    s0_1 = inout(ymm_reg) sums[0][1],
                    s1_0 = inout(ymm_reg) sums[1][0],
                    s1_1 = inout(ymm_reg) sums[1][1],
                    s2_0 = inout(ymm_reg) sums[2][0],
                    s2_1 = inout(ymm_reg) sums[2][1],
                    s3_0 = inout(ymm_reg) sums[3][0],
                    s3_1 = inout(ymm_reg) sums[3][1],
                    s4_0 = inout(ymm_reg) sums[4][0],
                    s4_1 = inout(ymm_reg) sums[4][1],
                    s5_0 = inout(ymm_reg) sums[5][0],
                    s5_1 = inout(ymm_reg) sums[5][1],
                    options(pure, readonly, nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the caller has AVX2 and FMA; what is read is readable.
        unsafe {
            for offset in offsets {
                let input = input.wrapping_add(*offset);
                if L == 8 {
                    lanes!(input, "0, 1, 2, 3, 4, 5, 6, 7");
                } else {
                    lanes!(input, "0");
                }
                weights = weights.wrapping_add(L * W * 8);
            }
        }
    }

    /// As [`six_by_two`]; all sixteen registers are in use.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn four_by_three<const P: usize, const W: usize, const L: usize>(
        sums: &mut [[__m256; W]; P],
        input: *const f32,
        step: usize,
        offsets: &[usize],
        mut weights: *const f32,
    ) {
        debug_assert!(P == 4 && W == 3 && (L == 8 || L == 1));
        macro_rules! lanes {
            ($input:ident, $list:literal) => {
                std::arch::asm!(
                    concat!(".irp l, ", $list),
                    "vmovups {w0}, [{weights} + 4 * (8 * (3 * \\l + 0))]",
                    "vmovups {w1}, [{weights} + 4 * (8 * (3 * \\l + 1))]",
                    "vmovups {w2}, [{weights} + 4 * (8 * (3 * \\l + 2))]",
                    "vbroadcastss {x}, dword ptr [{a} + 4 * \\l]",
                    "vfmadd231ps {s0_0}, {x}, {w0}",
                    "vfmadd231ps {s0_1}, {x}, {w1}",
                    "vfmadd231ps {s0_2}, {x}, {w2}",
                    "vbroadcastss {x}, dword ptr [{a} + {s} + 4 * \\l]",
                    "vfmadd231ps {s1_0}, {x}, {w0}",
                    "vfmadd231ps {s1_1}, {x}, {w1}",
                    "vfmadd231ps {s1_2}, {x}, {w2}",
                    "vbroadcastss {x}, dword ptr [{a} + 2 * {s} + 4 * \\l]",
                    "vfmadd231ps {s2_0}, {x}, {w0}",
                    "vfmadd231ps {s2_1}, {x}, {w1}",
                    "vfmadd231ps {s2_2}, {x}, {w2}",
                    "vbroadcastss {x}, dword ptr [{a} + {s3} + 4 * \\l]",
                    "vfmadd231ps {s3_0}, {x}, {w0}",
                    "vfmadd231ps {s3_1}, {x}, {w1}",
                    "vfmadd231ps {s3_2}, {x}, {w2}",
                    ".endr",
                    a = in(reg) $input,
                    s = in(reg) step.wrapping_mul(4),
                    s3 = in(reg) step.wrapping_mul(12),
                    weights = in(reg) weights,
                    x = out(ymm_reg) _,
                    w0 = out(ymm_reg) _,
                    w1 = out(ymm_reg) _,
                    w2 = out(ymm_reg) _,
                    s0_0 = inout(ymm_reg) sums[0][0],
                    s0_1 = inout(ymm_reg) sums[0][1],
                    s0_2 = inout(ymm_reg) sums[0][2],
                    s1_0 = inout(ymm_reg) sums[1][0],
                    s1_1 = inout(ymm_reg) sums[1][1],
                    s1_2 = inout(ymm_reg) sums[1][2],
                    s2_0 = inout(ymm_reg) sums[2][0],
                    s2_1 = inout(ymm_reg) sums[2][1],
                    s2_2 = inout(ymm_reg) sums[2][2],
                    s3_0 = inout(ymm_reg) sums[3][0],
                    s3_1 = inout(ymm_reg) sums[3][1],
                    s3_2 = inout(ymm_reg) sums[3][2],
                    options(pure, readonly, nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the caller has AVX2 and FMA; what is read is readable.
        unsafe {
            for offset in offsets {
                let input = input.wrapping_add(*offset);
                if L == 8 {
                    lanes!(input, "0, 1, 2, 3, 4, 5, 6, 7");
                } else {
                    lanes!(input, "0");
                }
                weights = weights.wrapping_add(L * W * 8);
            }
        }
    }

    /// As [`six_by_two`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn twelve_by_one<const P: usize, const W: usize, const L: usize>(
        sums: &mut [[__m256; W]; P],
        input: *const f32,
        step: usize,
        offsets: &[usize],
        mut weights: *const f32,
    ) {
        debug_assert!(P == 12 && W == 1 && (L == 8 || L == 1));
        macro_rules! lanes {
            ($input:ident, $list:literal) => {
                std::arch::asm!(
                    concat!(".irp l, ", $list),
                    "vmovups {w0}, [{weights} + 4 * (8 * (1 * \\l + 0))]",
                    "vbroadcastss {x}, dword ptr [{a} + 4 * \\l]",
                    "vfmadd231ps {s0_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{a} + {s} + 4 * \\l]",
                    "vfmadd231ps {s1_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{a} + 2 * {s} + 4 * \\l]",
                    "vfmadd231ps {s2_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{a} + {s3} + 4 * \\l]",
                    "vfmadd231ps {s3_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{a} + 4 * {s} + 4 * \\l]",
                    "vfmadd231ps {s4_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{a} + {s5} + 4 * \\l]",
                    "vfmadd231ps {s5_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + 4 * \\l]",
                    "vfmadd231ps {s6_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + {s} + 4 * \\l]",
                    "vfmadd231ps {s7_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + 2 * {s} + 4 * \\l]",
                    "vfmadd231ps {s8_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + {s3} + 4 * \\l]",
                    "vfmadd231ps {s9_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + 4 * {s} + 4 * \\l]",
                    "vfmadd231ps {s10_0}, {x}, {w0}",
                    "vbroadcastss {x}, dword ptr [{b} + {s5} + 4 * \\l]",
                    "vfmadd231ps {s11_0}, {x}, {w0}",
                    ".endr",
                    a = in(reg) $input,
                    b = in(reg) $input.wrapping_add(step.wrapping_mul(6)),
                    s = in(reg) step.wrapping_mul(4),
                    s3 = in(reg) step.wrapping_mul(12),
                    s5 = in(reg) step.wrapping_mul(20),
                    weights = in(reg) weights,
                    x = out(ymm_reg) _,
                    w0 = out(ymm_reg) _,
                    s0_0 = inout(ymm_reg) sums[0][0],
                    s1_0 = inout(ymm_reg) sums[1][0],
                    s2_0 = inout(ymm_reg) sums[2][0],
                    s3_0 = inout(ymm_reg) sums[3][0],
                    s4_0 = inout(ymm_reg) sums[4][0],
                    s5_0 = inout(ymm_reg) sums[5][0],
                    s6_0 = inout(ymm_reg) sums[6][0],
                    s7_0 = inout(ymm_reg) sums[7][0],
                    s8_0 = inout(ymm_reg) sums[8][0],
                    s9_0 = inout(ymm_reg) sums[9][0],
                    s10_0 = inout(ymm_reg) sums[10][0],
                    s11_0 = inout(ymm_reg) sums[11][0],
                    options(pure, readonly, nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the caller has AVX2 and FMA; what is read is readable.
        unsafe {
            for offset in offsets {
                let input = input.wrapping_add(*offset);
                if L == 8 {
                    lanes!(input, "0, 1, 2, 3, 4, 5, 6, 7");
                } else {
                    lanes!(input, "0");
                }
                weights = weights.wrapping_add(L * W * 8);
            }
        }
    }

    impl Lanes for __m512 {
        const N: usize = 16;
        type Eight = __m256;
        #[inline(always)]
        unsafe fn splat_from(from: *const f32) -> Self {
            // SAFETY: the caller has AVX-512F and a readable float.
            unsafe { _mm512_broadcastss_ps(_mm_load_ss(from)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller has AVX-512F.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above; 16 floats are readable. With a full mask for the reason above.
            unsafe { _mm512_maskz_loadu_ps(u16::MAX, from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; 16 floats are writable.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32, vsubq_f32,
    };

    use super::Lanes;

    impl Lanes for float32x4_t {
        const N: usize = 4;
        type Eight = Self;
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: NEON belongs to every 64-bit Arm.
            unsafe { vaddq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vsubq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: NEON belongs to every 64-bit Arm.
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above; 4 floats are readable.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; 4 floats are writable.
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { vfmaq_f32(self, a, b) }
        }
    }
}

/// Measured f32 FMA peak of one thread in GFLOP/s: what kernels are compared with.
pub fn fma_peak_gflops(instructions: Instructions) -> f64 {
    #[inline(always)]
    unsafe fn spin<V: Lanes>(rounds: usize) -> f32 {
        // SAFETY: the caller has detected the instruction set.
        unsafe {
            let mut sums = [V::splat(0.5); 12];
            let (a, b) = (V::splat(0.999_9), V::splat(1e-6));
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = sum.add_product(a, b);
                }
            }
            let mut out = [0.0_f32; 16];
            let mut total = 0.0;
            for sum in sums {
                sum.store(out.as_mut_ptr());
                total += out[0];
            }
            total
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(rounds: usize) -> f32 {
        // SAFETY: the features are on.
        unsafe { spin::<std::arch::x86_64::__m256>(rounds) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(rounds: usize) -> f32 {
        // SAFETY: the feature is on.
        unsafe { spin::<std::arch::x86_64::__m512>(rounds) }
    }
    let rounds = 2_000_000;
    let mut best = f64::INFINITY;
    let mut lanes = 8;
    // Many short tries: other programs disturb some of them.
    for _ in 0..20 {
        let start = Instant::now();
        let value = match instructions {
            // SAFETY: callers pass what `available` lists.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe {
                lanes = 16;
                avx512(rounds)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2Fma => unsafe { avx2(rounds) },
            // SAFETY: NEON belongs to every 64-bit Arm.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe {
                lanes = 4;
                spin::<std::arch::aarch64::float32x4_t>(rounds)
            },
            // SAFETY: plain Rust.
            _ => unsafe { spin::<[f32; 8]>(rounds) },
        };
        std::hint::black_box(value);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (rounds * 12 * lanes * 2) as f64 / best / 1e9
}
