//! What happens to a value of a matrix product before it is written.

use super::math;
use super::simd::Simd;
use super::threads::Disjoint;

/// What happens to a value before it is written. In this order: bias, activation, scale, residual.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added, one a column.
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    /// Multiplied, one a column (layer scale).
    pub scale: Option<&'a [f32]>,
    /// Added to what stands in the output instead of replacing it (residual).
    pub accumulate: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    #[default]
    None,
    /// The exact form, with erf.
    Gelu,
    Relu,
    /// Clamped to [0, 6].
    Relu6,
    Silu,
}

impl Activation {
    /// The portable version.
    pub(super) fn of(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Gelu => {
                0.5 * x
                    * (1.0 + candle_core::cpu::erf::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
            }
            Self::Relu => x.max(0.0),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

impl Epilogue<'_> {
    pub(super) fn check(&self, n: usize, gated: bool) {
        for (name, values) in [("bias", self.bias), ("scale", self.scale)] {
            assert!(
                values.is_none_or(|values| values.len() == n),
                "{name} must have {n} values"
            );
        }
        assert!(!gated || self.bias.is_none(), "gated weights have no bias");
    }

    /// The portable version: the value to write where `before` stands, in a column.
    pub(super) fn of(&self, x: f32, before: f32, column: usize) -> f32 {
        let biased = x + self.bias.map_or(0.0, |bias| bias[column]);
        let scaled = self.activation.of(biased) * self.scale.map_or(1.0, |scale| scale[column]);
        if self.accumulate {
            before + scaled
        } else {
            scaled
        }
    }

    /// Writes one vector at (row, column) of an output `n` wide; what lies beyond `n` is dropped.
    ///
    /// The caller's tasks must have disjoint rows or columns.
    #[inline(always)]
    pub(super) fn write<S: Simd>(
        &self,
        s: S,
        out: &Disjoint<f32>,
        (row, column): (usize, usize),
        n: usize,
        v: S::F,
    ) {
        if column >= n {
            return;
        }
        let width = S::LANES.min(n - column);
        #[allow(unsafe_code)]
        // SAFETY: the tasks have disjoint rows or columns, and a task writes one part at a time.
        let out = unsafe { out.part(row * n + column, width) };
        let mut v = v;
        if let Some(bias) = self.bias {
            v = s.add(v, load(s, &bias[column..column + width]));
        }
        v = match self.activation {
            Activation::None => v,
            Activation::Gelu => math::gelu(s, v),
            Activation::Relu => s.max(s.zero(), v),
            Activation::Relu6 => s.min(s.splat(6.0), s.max(s.zero(), v)),
            Activation::Silu => math::silu(s, v),
        };
        if let Some(scale) = self.scale {
            v = s.mul(v, load(s, &scale[column..column + width]));
        }
        if self.accumulate {
            v = s.add(v, load(s, out));
        }
        if width == S::LANES {
            s.store(out, v)
        } else {
            s.store_part(out, v)
        }
    }
}

/// A vector, or the zero-padded rest of a row.
#[inline(always)]
fn load<S: Simd>(s: S, values: &[f32]) -> S::F {
    if values.len() >= S::LANES {
        s.load(values)
    } else {
        s.load_part(values)
    }
}
