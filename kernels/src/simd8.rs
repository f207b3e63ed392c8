//! The 8-bit operations of each level: what the Q8_0 kernels need beside [`Simd`].

use super::simd::Simd;

/// Sixteen columns at a time, whatever the width of a vector.
pub trait Simd8: Simd {
    /// Sixteen sums.
    type I: Copy;
    /// Sixteen f32.
    type W: Copy;
    /// Rows of the tile that fits into the registers beside 32 columns.
    const Q8_ROWS: usize;

    /// Asks for the 1024 bytes of `w` from byte `at` on, as far as it has them.
    fn prefetch(self, w: &[u8], at: usize);
    /// What a sum of 32 products starts from, where `sum` is that of the 32 activations.
    fn start(self, sum: i32) -> Self::I;
    /// Adds 16 × 4 products: `w` holds four weights (plus 128) of each of 16 columns, `x` four activations.
    fn dot(self, acc: Self::I, w: &[u8], x: i32) -> Self::I;
    /// `acc + sums · d · x_d`, with `d` sixteen scales in f16.
    fn add_scaled(self, acc: Self::W, sums: Self::I, d: Self::W, x_d: f32) -> Self::W;
    fn scales(self, d: &[u16]) -> Self::W;
    fn wide_zero(self) -> Self::W;
    /// As `16 / LANES` vectors, the rest unused.
    fn vectors(self, w: Self::W) -> [Self::F; 2];
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    // SAFETY, for every block below: a token exists only if its constructor found the features of
    // its level, and the loads check the length of their slice first.
    use super::Simd8;
    use crate::simd::{Avx2, Avx512, Simd};
    use std::arch::x86_64::*;

    /// The lines of 1024 bytes. A prefetch of an address that is not there does nothing.
    #[inline(always)]
    fn prefetch(w: &[u8], at: usize) {
        for line in (at..at + 1024).step_by(64) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(w.as_ptr().wrapping_add(line).cast()) }
        }
    }

    impl Simd8 for Avx512 {
        type I = __m512i;
        type W = __m512;
        const Q8_ROWS: usize = 6;

        #[inline(always)]
        fn prefetch(self, w: &[u8], at: usize) {
            prefetch(w, at);
        }
        #[inline(always)]
        fn start(self, sum: i32) -> __m512i {
            // The weights have 128 too much, which is taken back here.
            unsafe { _mm512_set1_epi32(-128 * sum) }
        }
        #[inline(always)]
        fn dot(self, acc: __m512i, w: &[u8], x: i32) -> __m512i {
            assert!(w.len() >= 64);
            unsafe {
                _mm512_dpbusd_epi32(
                    acc,
                    _mm512_loadu_si512(w.as_ptr().cast()),
                    _mm512_set1_epi32(x),
                )
            }
        }
        #[inline(always)]
        fn add_scaled(self, acc: __m512, sums: __m512i, d: __m512, x_d: f32) -> __m512 {
            unsafe {
                _mm512_fmadd_ps(
                    _mm512_cvtepi32_ps(sums),
                    _mm512_mul_ps(d, _mm512_set1_ps(x_d)),
                    acc,
                )
            }
        }
        #[inline(always)]
        fn scales(self, d: &[u16]) -> __m512 {
            assert!(d.len() >= 16);
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(d.as_ptr().cast())) }
        }
        #[inline(always)]
        fn wide_zero(self) -> __m512 {
            self.zero()
        }
        #[inline(always)]
        fn vectors(self, w: __m512) -> [__m512; 2] {
            [w, w]
        }
    }

    impl Simd8 for Avx2 {
        type I = [__m256i; 2];
        type W = [__m256; 2];
        const Q8_ROWS: usize = 2;

        #[inline(always)]
        fn prefetch(self, w: &[u8], at: usize) {
            prefetch(w, at);
        }
        #[inline(always)]
        fn start(self, _sum: i32) -> [__m256i; 2] {
            unsafe { [_mm256_setzero_si256(); 2] }
        }
        #[inline(always)]
        fn dot(self, acc: [__m256i; 2], w: &[u8], x: i32) -> [__m256i; 2] {
            assert!(w.len() >= 64);
            unsafe {
                let x = _mm256_set1_epi32(x);
                let ones = _mm256_set1_epi16(1);
                let offset = _mm256_set1_epi8(-128);
                let mut acc = acc;
                for (half, acc) in acc.iter_mut().enumerate() {
                    let w = _mm256_xor_si256(
                        _mm256_loadu_si256(w[32 * half..].as_ptr().cast()),
                        offset,
                    );
                    // |w| · sign(x, w) fits: 2 · 128 · 127 is below 2¹⁵. (w + 128) · x would not.
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
                }
                acc
            }
        }
        #[inline(always)]
        fn add_scaled(
            self,
            acc: [__m256; 2],
            sums: [__m256i; 2],
            d: [__m256; 2],
            x_d: f32,
        ) -> [__m256; 2] {
            unsafe {
                let x_d = _mm256_set1_ps(x_d);
                [
                    _mm256_fmadd_ps(
                        _mm256_cvtepi32_ps(sums[0]),
                        _mm256_mul_ps(d[0], x_d),
                        acc[0],
                    ),
                    _mm256_fmadd_ps(
                        _mm256_cvtepi32_ps(sums[1]),
                        _mm256_mul_ps(d[1], x_d),
                        acc[1],
                    ),
                ]
            }
        }
        #[inline(always)]
        fn scales(self, d: &[u16]) -> [__m256; 2] {
            assert!(d.len() >= 16);
            unsafe {
                [
                    _mm256_cvtph_ps(_mm_loadu_si128(d.as_ptr().cast())),
                    _mm256_cvtph_ps(_mm_loadu_si128(d[8..].as_ptr().cast())),
                ]
            }
        }
        #[inline(always)]
        fn wide_zero(self) -> [__m256; 2] {
            [self.zero(); 2]
        }
        #[inline(always)]
        fn vectors(self, w: [__m256; 2]) -> [__m256; 2] {
            w
        }
    }
}
