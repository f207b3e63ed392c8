//! LayerNorm and RMSNorm of rows.

use super::simd::{Level, Simd, at_level};
use super::threads::{Disjoint, share, threads};

/// Values that are worth a thread of their own.
const PART: usize = 1 << 15;

/// What a row is divided by.
#[derive(Clone, Copy)]
pub enum Norm<'a> {
    /// `(x − mean) / √(variance + eps) · weight + bias`
    Layer {
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
    },
    /// `x / √(mean of squares + eps) · weight`
    Rms { weight: &'a [f32], eps: f32 },
}

/// Normalises the rows of `x` (as wide as the weight) into `out`.
pub fn normalise(norm: &Norm, x: &[f32], out: &mut [f32]) {
    normalise_at(Level::detect(), norm, x, out);
}

pub(crate) fn normalise_at(level: Level, norm: &Norm, x: &[f32], out: &mut [f32]) {
    let width = match norm {
        Norm::Layer { weight, bias, .. } => {
            assert_eq!(weight.len(), bias.len(), "weight and bias");
            weight.len()
        }
        Norm::Rms { weight, .. } => weight.len(),
    };
    assert_eq!(x.len(), out.len(), "input and output");
    if x.is_empty() {
        return;
    }
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "x must be whole rows of {width}"
    );
    let rows = x.len() / width;
    let parts = (x.len() / PART).clamp(1, threads().min(rows));
    let out = Disjoint::new(out);
    share(parts, |part| {
        let range = part * rows / parts * width..(part + 1) * rows / parts * width;
        #[allow(unsafe_code)]
        // SAFETY: the parts are disjoint.
        let out = unsafe { out.part(range.start, range.len()) };
        let x = &x[range];
        at_level!(
            level,
            |s| vectors(s, norm, width, x, out),
            plain(norm, width, x, out)
        );
    });
}

/// The portable version.
fn plain(norm: &Norm, width: usize, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        match *norm {
            Norm::Layer { weight, bias, eps } => {
                let mean = x.iter().sum::<f32>() / width as f32;
                let variance =
                    x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
                let factor = 1.0 / (variance + eps).sqrt();
                for (i, out) in out.iter_mut().enumerate() {
                    *out = (x[i] - mean) * factor * weight[i] + bias[i];
                }
            }
            Norm::Rms { weight, eps } => {
                let factor =
                    1.0 / (x.iter().map(|v| v * v).sum::<f32>() / width as f32 + eps).sqrt();
                for (i, out) in out.iter_mut().enumerate() {
                    *out = x[i] * factor * weight[i];
                }
            }
        }
    }
}

fn vectors<S: Simd>(s: S, norm: &Norm, width: usize, x: &[f32], out: &mut [f32]) {
    s.enter(
        #[inline(always)]
        || {
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                row(s, norm, x, out);
            }
        },
    );
}

/// The sum of `(x − by)^power`, power 1 or 2, in two chains.
#[inline(always)]
fn moment<S: Simd>(s: S, x: &[f32], by: f32, squared: bool) -> f32 {
    let shift = s.splat(by);
    let mut sums = [s.zero(); 4];
    let mut chunks = x.chunks_exact(4 * S::LANES);
    for chunk in chunks.by_ref() {
        for (sum, v) in sums.iter_mut().zip(chunk.chunks_exact(S::LANES)) {
            let v = s.sub(s.load(v), shift);
            *sum = if squared {
                s.fma(v, v, *sum)
            } else {
                s.add(*sum, v)
            };
        }
    }
    let rest: f32 = chunks
        .remainder()
        .iter()
        .map(|v| if squared { (v - by) * (v - by) } else { v - by })
        .sum();
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) + rest
}

#[inline(always)]
fn row<S: Simd>(s: S, norm: &Norm, x: &[f32], out: &mut [f32]) {
    let count = x.len() as f32;
    let (weight, bias, mean, eps) = match *norm {
        Norm::Layer { weight, bias, eps } => {
            (weight, Some(bias), moment(s, x, 0.0, false) / count, eps)
        }
        Norm::Rms { weight, eps } => (weight, None, 0.0, eps),
    };
    let factor = 1.0 / (moment(s, x, mean, true) / count + eps).sqrt();
    let (shift, scale) = (s.splat(mean), s.splat(factor));
    let whole = x.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let v = s.mul(s.sub(s.load(&x[i..]), shift), scale);
        let w = s.load(&weight[i..]);
        let v = match bias {
            Some(bias) => s.fma(v, w, s.load(&bias[i..])),
            None => s.mul(v, w),
        };
        s.store(&mut out[i..], v);
    }
    for i in whole..x.len() {
        out[i] = (x[i] - mean) * factor * weight[i] + bias.map_or(0.0, |bias| bias[i]);
    }
}
