use super::updates::{Matrix, named};
use crate::Result;
use crate::nn::{Linear, Weights, attend};
use candle_core::Tensor;

/// Attention of the encoder, and of the decoder to itself and to what was encoded.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    pub fn new(width: usize, heads: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            q: Linear::new(width, width, &w.pp("q_proj"))?,
            k: Linear::no_bias(width, width, &w.pp("k_proj"))?,
            v: Linear::new(width, width, &w.pp("v_proj"))?,
            out: Linear::new(width, width, &w.pp("out_proj"))?,
            heads,
        })
    }

    /// `[batch, steps, width]` → `[batch, heads, steps, width / heads]`.
    fn split(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, steps, width) = xs.dims3()?;
        let xs = xs.reshape((batch, steps, self.heads, width / self.heads))?;
        Ok(xs.transpose(1, 2)?.contiguous()?)
    }

    pub fn queries(&self, xs: &Tensor) -> Result<Tensor> {
        self.split(&self.q.forward(xs)?)
    }

    pub fn keys_and_values(&self, xs: &Tensor) -> Result<(Tensor, Tensor)> {
        let (k, v) = (self.k.forward(xs)?, self.v.forward(xs)?);
        Ok((self.split(&k)?, self.split(&v)?))
    }

    /// `residual + attention`, of `normed` `[batch, steps, width]` to all of `k` and `v`.
    pub fn forward(
        &self,
        residual: &Tensor,
        normed: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        let q = self.queries(normed)?;
        let ys = attend(&q, k, v, self.scale(&q)?, None)?;
        self.join(residual, &ys.transpose(1, 2)?)
    }

    /// `residual + out(ys)`, `ys` `[batch, steps, heads, width / heads]`.
    pub fn join(&self, residual: &Tensor, ys: &Tensor) -> Result<Tensor> {
        let ys = ys.reshape(residual.shape())?;
        self.out.forward_onto(residual, &ys, None)
    }

    pub fn matrices(&mut self, at: &str) -> Vec<Matrix<'_>> {
        named(
            at,
            [
                ("q_proj", &mut self.q),
                ("k_proj", &mut self.k),
                ("v_proj", &mut self.v),
                ("out_proj", &mut self.out),
            ],
        )
    }

    pub fn scale(&self, q: &Tensor) -> Result<f64> {
        Ok((q.dim(candle_core::D::Minus1)? as f64).powf(-0.5))
    }
}
