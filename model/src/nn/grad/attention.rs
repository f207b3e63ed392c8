//! Attention within the sequences of a batch.

use super::{CandleResult, lend, tensor, values};
use crate::Result;
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor, bail};
use std::sync::{Mutex, PoisonError};
use vita_kernels::grad::{self, Sequences};

/// Causal attention within sequences of the given lengths that lie one after the other: q
/// `[tokens, heads, dim]`, k and v `[tokens, kv_heads, dim]`. Result as q.
pub fn attend_sequences([q, k, v]: [&Tensor; 3], lengths: &[usize], scale: f64) -> Result<Tensor> {
    let op = Attention {
        lengths: lengths.to_vec(),
        scale: scale as f32,
        probabilities: Mutex::default(),
        tracked: q.track_op() || k.track_op() || v.track_op(),
    };
    Ok(q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)?)
}

struct Attention {
    lengths: Vec<usize>,
    scale: f32,
    probabilities: Mutex<Vec<f32>>,
    tracked: bool,
}

impl Attention {
    fn sequences(&self, q: &[usize], k: &[usize]) -> CandleResult<Sequences<'_>> {
        match (q, k) {
            (&[_, heads, dim], &[_, kv_heads, _]) => Ok(Sequences {
                lengths: &self.lengths,
                heads,
                kv_heads,
                dim,
                scale: self.scale,
            }),
            _ => bail!("attention of q {q:?} over k {k:?}"),
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention-of-sequences"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let what = self.sequences(q_layout.dims(), k_layout.dims())?;
        let mut probabilities = vec![0.0; what.probabilities()];
        let q = values(q, q_layout)?;
        let mut out = vec![0.0; q.len()];
        let kv = (values(k, k_layout)?, values(v, v_layout)?);
        grad::attention(&what, [q, kv.0, kv.1], &mut probabilities, &mut out);
        if self.tracked {
            *self
                .probabilities
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = probabilities;
        }
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let what = self.sequences(q.dims(), k.dims())?;
        let kept = self
            .probabilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut dq = vec![0.0; q.elem_count()];
        let (mut dk, mut dv) = (vec![0.0; k.elem_count()], vec![0.0; k.elem_count()]);
        lend(q, |q| {
            lend(k, |k| {
                lend(v, |v| {
                    lend(grad, |g| {
                        let to = [&mut dq[..], &mut dk[..], &mut dv[..]];
                        grad::attention_backward(&what, [q, k, v], &kept, g, to);
                    })
                })
            })
        })????;
        Ok((
            Some(tensor(dq, q.shape())?),
            Some(tensor(dk, k.shape())?),
            Some(tensor(dv, v.shape())?),
        ))
    }
}
