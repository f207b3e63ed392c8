//! Vectors of the CPU, chosen at run time.
//!
//! A value of [`Avx2`] or [`Avx512`] is a proof that the CPU has those instructions: only
//! [`Level::detect`] makes one. Kernels are written once, generic over [`Simd`], and run inside
//! [`Simd::enter`], where the compiler may use the instructions of that level. So all intrinsics of
//! the f32 kernels are in this file.
//!
//! Why intrinsics at all: the portable code of the same kernels compiles to SSE2, a quarter (AVX2)
//! or an eighth (AVX-512) of the arithmetic rate that the peers reach (`docs/performance.md`).

use half::{bf16, f16};
use std::sync::OnceLock;

/// Which instructions the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every CPU has: plain Rust.
    Portable,
    /// AVX2 with FMA and F16C, 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI, 16 lanes.
    Avx512,
}

impl Level {
    /// The highest level of this CPU, or the lower one that `VITA_CPU` names (`portable`, `avx2`,
    /// `avx512`).
    pub fn detect() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let wanted = std::env::var("VITA_CPU").unwrap_or_default();
            let cap = match wanted.as_str() {
                "portable" => Level::Portable,
                "avx2" => Level::Avx2,
                _ => Level::Avx512,
            };
            Self::supported()
                .into_iter()
                .rfind(|&level| level <= cap)
                .unwrap_or(Level::Portable)
        })
    }

    /// All levels that this CPU can run, the lowest first.
    pub fn supported() -> Vec<Self> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if Avx2::new().is_some() {
                levels.push(Level::Avx2);
            }
            if Avx512::new().is_some() {
                levels.push(Level::Avx512);
            }
        }
        levels
    }
}

/// Evaluates an expression with the vectors of a level, or the portable one in its place.
///
/// `at_level!(level, |s| vectors, portable)`. A level above portable comes from [`Level::detect`] or
/// [`Level::supported`], so the CPU has it.
macro_rules! at_level {
    ($level:expr, |$s:ident| $vectors:expr, $portable:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx512 => {
                let $s = $crate::simd::Avx512::new().expect("the CPU was found to have this level");
                $vectors
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx2 => {
                let $s = $crate::simd::Avx2::new().expect("the CPU was found to have this level");
                $vectors
            }
            _ => $portable,
        }
    };
}
pub(crate) use at_level;

/// The f32 operations of one level. `LANES` values in a vector.
pub trait Simd: Copy + Send + Sync + 'static {
    type F: Copy;
    const LANES: usize;
    /// Rows of the matrix tile that fits into the registers beside two vectors of columns.
    const TILE_ROWS: usize;

    /// Runs `f`, compiled for this level. `f` and what it calls must be `#[inline(always)]`.
    fn enter<R>(self, f: impl FnOnce() -> R) -> R;
    fn splat(self, x: f32) -> Self::F;
    /// The first `LANES` values of `x`.
    fn load(self, x: &[f32]) -> Self::F;
    fn store(self, to: &mut [f32], v: Self::F);
    /// All of `x` (at most `LANES` values), then zeros.
    fn load_part(self, x: &[f32]) -> Self::F;
    fn load_f16(self, x: &[f16]) -> Self::F;
    fn load_bf16(self, x: &[bf16]) -> Self::F;
    /// As many lanes as `to` holds.
    fn store_part(self, to: &mut [f32], v: Self::F);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest whole number.
    fn round(self, a: Self::F) -> Self::F;
    /// `x * 2^n` for a whole `n` in −126..=127.
    fn scale_by_power(self, x: Self::F, n: Self::F) -> Self::F;
    fn sum(self, a: Self::F) -> f32;
    fn largest(self, a: Self::F) -> f32;

    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    // SAFETY, for every block below: a token exists only if `new` found the features of its level,
    // and the loads and stores check the length of their slice first.
    use super::Simd;
    use half::{bf16, f16};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(());

    impl Avx2 {
        pub fn new() -> Option<Self> {
            (is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"))
            .then_some(Self(()))
        }
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(());

    impl Avx512 {
        pub fn new() -> Option<Self> {
            (Avx2::new().is_some()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni"))
            .then_some(Self(()))
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn enter_avx2<R>(f: impl FnOnce() -> R) -> R {
        f()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn enter_avx512<R>(f: impl FnOnce() -> R) -> R {
        f()
    }

    impl Simd for Avx2 {
        type F = __m256;
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        fn enter<R>(self, f: impl FnOnce() -> R) -> R {
            unsafe { enter_avx2(f) }
        }
        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> __m256 {
            assert!(x.len() >= 8);
            unsafe { _mm256_loadu_ps(x.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32], v: __m256) {
            assert!(to.len() >= 8);
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn load_part(self, x: &[f32]) -> __m256 {
            let mut all = [0.0; 8];
            all[..x.len()].copy_from_slice(x);
            self.load(&all)
        }
        #[inline(always)]
        fn load_f16(self, x: &[f16]) -> __m256 {
            assert!(x.len() >= 8);
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
        }
        #[inline(always)]
        fn load_bf16(self, x: &[bf16]) -> __m256 {
            assert!(x.len() >= 8);
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        fn store_part(self, to: &mut [f32], v: __m256) {
            let mut all = [0.0; 8];
            self.store(&mut all, v);
            let n = to.len();
            to.copy_from_slice(&all[..n]);
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale_by_power(self, x: __m256, n: __m256) -> __m256 {
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            let mut all = [0.0; 8];
            self.store(&mut all, a);
            (all[0] + all[4]) + (all[1] + all[5]) + ((all[2] + all[6]) + (all[3] + all[7]))
        }
        #[inline(always)]
        fn largest(self, a: __m256) -> f32 {
            let mut all = [0.0; 8];
            self.store(&mut all, a);
            all.into_iter().fold(f32::NEG_INFINITY, f32::max)
        }
    }

    impl Simd for Avx512 {
        type F = __m512;
        const LANES: usize = 16;
        const TILE_ROWS: usize = 14;

        #[inline(always)]
        fn enter<R>(self, f: impl FnOnce() -> R) -> R {
            unsafe { enter_avx512(f) }
        }
        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> __m512 {
            assert!(x.len() >= 16);
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32], v: __m512) {
            assert!(to.len() >= 16);
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn load_part(self, x: &[f32]) -> __m512 {
            assert!(x.len() <= 16);
            unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) }
        }
        #[inline(always)]
        fn load_f16(self, x: &[f16]) -> __m512 {
            assert!(x.len() >= 16);
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
        }
        #[inline(always)]
        fn load_bf16(self, x: &[bf16]) -> __m512 {
            assert!(x.len() >= 16);
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        fn store_part(self, to: &mut [f32], v: __m512) {
            assert!(to.len() <= 16);
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale_by_power(self, x: __m512, n: __m512) -> __m512 {
            unsafe { _mm512_scalef_ps(x, n) }
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        fn largest(self, a: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(a) }
        }
    }

    /// The lowest `n` lanes, `n` ≤ 16.
    #[inline(always)]
    fn mask(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }
}
