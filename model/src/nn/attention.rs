use super::norm::softmax;
use crate::{Error, Result};
use candle_core::{D, Tensor};
use vita_kernels::ops as kernels;

/// Full attention: `softmax(scale·q·kᵀ + key_bias)·v`.
///
/// q `[batch, heads, queries, dim]`, k and v `[batch, heads, keys, dim]`, `key_bias`
/// `[batch, heads or 1, 1, keys]` added to the scaled scores (−∞ hides a key). Result as q.
pub fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    if [Some(q), Some(k), Some(v), key_bias]
        .into_iter()
        .flatten()
        .all(kernels::can_take)
    {
        return Ok(kernels::attention(q, k, v, scale, false, key_bias)?.transpose(1, 2)?);
    }
    let q = (q * scale)?.contiguous()?;
    let scores = q.matmul(&k.transpose(D::Minus2, D::Minus1)?.contiguous()?)?;
    let scores = match key_bias {
        Some(bias) => scores.broadcast_add(bias)?,
        None => scores,
    };
    Ok(softmax(&scores)?.matmul(&v.contiguous()?)?)
}

/// Causal attention of new queries over everything up to and including themselves, for one sequence.
///
/// q `[heads, new, dim]`. Keys and values come in pieces `[kv_heads, len, dim]`, oldest first; the last
/// `new` of them belong to the queries. `heads` is a multiple of `kv_heads`: neighbouring query heads
/// share a key head. Result `[heads, new, dim]`.
pub fn attend_causal(q: &Tensor, pieces: &[(Tensor, Tensor)], scale: f64) -> Result<Tensor> {
    let (heads, new, dim) = q.dims3()?;
    let Some((first, _)) = pieces.first() else {
        return Err(Error::Input("attention over no keys".into()));
    };
    let tensors = || pieces.iter().flat_map(|(k, v)| [k, v]).chain([q]);
    if tensors().all(kernels::can_take) {
        return Ok(kernels::attention_causal(q, pieces, scale)?.transpose(0, 1)?);
    }
    let kv_heads = first.dim(0)?;
    let grouped = (q * scale)?.reshape((kv_heads, heads / kv_heads * new, dim))?;
    let scores = pieces
        .iter()
        .map(|(k, _)| grouped.matmul(&k.transpose(1, 2)?))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let scores = match scores.as_slice() {
        [one] => one.clone(),
        many => Tensor::cat(many, 2)?,
    };
    let keys = scores.dim(2)?;
    let scores = if new == 1 {
        scores
    } else {
        let mask = causal_mask(new, keys, &scores)?;
        scores
            .reshape((heads, new, keys))?
            .broadcast_add(&mask)?
            .reshape((kv_heads, heads / kv_heads * new, keys))?
    };
    let probabilities = softmax(&scores)?;
    let mut from = 0;
    let mut sum: Option<Tensor> = None;
    for (_, v) in pieces {
        let len = v.dim(1)?;
        let part = match pieces.len() {
            1 => probabilities.matmul(v)?,
            _ => probabilities
                .narrow(2, from, len)?
                .contiguous()?
                .matmul(v)?,
        };
        from += len;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let sum = sum.ok_or_else(|| Error::Input("attention over no keys".into()))?;
    Ok(sum.reshape((heads, new, dim))?)
}

/// `[1, new, keys]`: 0 where query `i` may see key `j`, that is `j ≤ keys − new + i`, else −∞.
fn causal_mask(new: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let past = keys - new;
    let mask: Vec<f32> = (0..new)
        .flat_map(|i| {
            (0..keys).map(move |j| {
                if j <= past + i {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        })
        .collect();
    Ok(Tensor::from_vec(mask, (1, new, keys), like.device())?.to_dtype(like.dtype())?)
}
