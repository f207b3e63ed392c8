//! Norms and rotary positions: row by row.

use super::{CandleResult, lend, tensor, values};
use crate::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use vita_kernels::grad;
use vita_kernels::norm::{Norm, normalise};

/// RMSNorm with a weight that does not learn.
pub(in crate::nn) fn rms_norm(xs: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let weight = weight.clone();
    Ok(xs.contiguous()?.apply_op1(RmsNorm { weight, eps })?)
}

struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let mut out = vec![0.0; x.len()];
        let eps = self.eps;
        lend(&self.weight, |weight| {
            normalise(&Norm::Rms { weight, eps }, x, &mut out)
        })?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let mut out = vec![0.0; arg.elem_count()];
        lend(arg, |x| {
            lend(&self.weight, |weight| {
                lend(grad, |g| {
                    grad::rms_norm_backward(x, weight, self.eps, g, &mut out)
                })
            })
        })???;
        Ok(Some(tensor(out, arg.shape())?))
    }
}

/// Rotary positions: xs `[tokens, heads, dim]`, cos and sin `[tokens, dim/2]`.
pub fn rotate(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (cos, sin) = (cos.clone(), sin.clone());
    Ok(xs.contiguous()?.apply_op1(Rotation { cos, sin })?)
}

struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    fn run(&self, mut xs: Vec<f32>, dims: &[usize], backwards: bool) -> CandleResult<Vec<f32>> {
        let &[_, heads, dim] = dims else {
            bail!("expected tokens, heads, dim, found {dims:?}");
        };
        lend(&self.cos, |cos| {
            lend(&self.sin, |sin| {
                grad::rotate(&mut xs, heads, cos, sin, dim, backwards)
            })
        })??;
        Ok(xs)
    }
}

impl CustomOp1 for Rotation {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let xs = self.run(values(storage, layout)?.to_vec(), layout.dims(), false)?;
        Ok((CpuStorage::F32(xs), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let xs = self.run(lend(grad, <[f32]>::to_vec)?, arg.dims(), true)?;
        Ok(Some(tensor(xs, arg.shape())?))
    }
}
