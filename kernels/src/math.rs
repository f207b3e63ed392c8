//! exp, erf and what is made of them, for one vector.

use super::simd::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// `2^x`, relative error below 3e-7, held to 2⁻¹²⁶ ..= 2¹²⁷; NaN stays NaN. Polynomial of degree 6 on ±½, fitted by least
/// squares of the relative error at Chebyshev nodes.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let clamped = s.max(s.splat(-126.0), s.min(s.splat(127.0), x));
    let whole = s.round(clamped);
    let r = s.sub(clamped, whole);
    let mut p = s.splat(EXP2[6]);
    for c in EXP2[..6].iter().rev() {
        p = s.fma(p, r, s.splat(*c));
    }
    s.scale_by_power(p, whole)
}

const EXP2: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_46,
    0.055_503_29,
    0.009_618_52,
    0.001_339_986,
    0.000_153_375_78,
];

/// `e^x`.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    exp2(s, s.mul(x, s.splat(LOG2_E)))
}

/// The error function; absolute error below 5e-7 (tested against libm). `x·P(x²)/Q(x²)` on ±3.8,
/// beyond which f32 rounds to ±1; fitted by reweighted least squares (maximum error 1.1e-8 in f64).
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-3.8), s.min(s.splat(3.8), x));
    let t = s.mul(x, x);
    let mut p = s.splat(ERF_P[5]);
    for c in ERF_P[..5].iter().rev() {
        p = s.fma(p, t, s.splat(*c));
    }
    let mut q = s.splat(ERF_Q[5]);
    for c in ERF_Q[..5].iter().rev() {
        q = s.fma(q, t, s.splat(*c));
    }
    s.div(s.mul(x, p), q)
}

const ERF_P: [f32; 6] = [
    std::f32::consts::FRAC_2_SQRT_PI,
    0.188_115_57,
    0.052_547_254,
    0.003_693_585_5,
    0.000_287_998_6,
    2.132_134_3e-6,
];
const ERF_Q: [f32; 6] = [
    1.0,
    0.500_045_36,
    0.113_254_64,
    0.014_822_871,
    0.001_153_738,
    3.909_783_5e-5,
];

/// `x·Φ(x)`, the exact (erf) form.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let half = s.mul(x, s.splat(0.5));
    s.fma(
        half,
        erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))),
        half,
    )
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.zero(), x))))
}
