use super::Weights;
use crate::Result;
use candle_core::{D, DType, Tensor};
use candle_nn::ops;
use vita_kernels::ops as kernels;

/// Layer normalisation over the last dimension, computed in f32.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub fn new(size: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(Self {
            weight: w.get(size, "weight")?,
            bias: w.get(size, "bias")?,
            eps: eps as f32,
        })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        if xs.track_op() || self.weight.track_op() {
            return Ok(ops::layer_norm_slow(
                xs,
                &self.weight,
                &self.bias,
                self.eps,
            )?);
        }
        if kernels::can_take(xs) && kernels::can_take(&self.weight) {
            return Ok(kernels::layer_norm(xs, &self.weight, &self.bias, self.eps)?);
        }
        let xs = xs.contiguous()?;
        Ok(ops::layer_norm(&xs, &self.weight, &self.bias, self.eps)?)
    }
}

/// Root-mean-square normalisation over the last dimension, computed in f32.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub fn new(size: usize, eps: f64, w: &Weights) -> Result<Self> {
        Ok(Self {
            weight: w.get(size, "weight")?,
            eps: eps as f32,
        })
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        if self.weight.track_op() {
            return Ok(ops::rms_norm_slow(xs, &self.weight, self.eps)?);
        }
        if xs.track_op() {
            let fast = kernels::can_take(&self.weight) && xs.dtype() == DType::F32;
            return match fast {
                true => super::grad::rms_norm(xs, &self.weight, self.eps),
                false => Ok(ops::rms_norm_slow(xs, &self.weight, self.eps)?),
            };
        }
        if kernels::can_take(xs) && kernels::can_take(&self.weight) {
            return Ok(kernels::rms_norm(xs, &self.weight, self.eps)?);
        }
        let xs = xs.contiguous()?;
        Ok(ops::rms_norm(&xs, &self.weight, self.eps)?)
    }
}

/// Softmax over the last dimension, computed in f32.
pub(super) fn softmax(xs: &Tensor) -> Result<Tensor> {
    if xs.track_op() {
        return Ok(ops::softmax(xs, candle_core::D::Minus1)?);
    }
    let dtype = xs.dtype();
    let probabilities = ops::softmax_last_dim(&xs.to_dtype(DType::F32)?.contiguous()?)?;
    Ok(probabilities.to_dtype(dtype)?)
}

/// Rows of length 1, for cosines.
pub fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    let length = (rows.sqr()?.sum_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(rows.broadcast_div(&length)?)
}
