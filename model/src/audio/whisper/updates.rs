//! Low-rank updates of the encoder's and the decoder's matrices.

use crate::checkpoint::Shards;
use crate::nn::{Linear, Source};
use crate::{Error, Result};
use candle_core::{DType, Shape, Tensor};
use std::collections::HashMap;

/// A matrix by its place among the weights, such as `encoder.layers.0.self_attn.q_proj`.
pub type Matrix<'a> = (String, &'a mut Linear);

pub(super) fn named<'a, const N: usize>(
    at: &str,
    matrices: [(&str, &'a mut Linear); N],
) -> Vec<Matrix<'a>> {
    let named = matrices.map(|(name, matrix)| (format!("{at}.{name}"), matrix));
    named.into()
}

/// What the names of updates begin with in files: `ears.<place>.a` `[rank, in]`, `.b` `[out, rank]`.
pub const PREFIX: &str = "ears.";

/// Puts the updates of a file into a model's tensors: each `<place>.weight` becomes `weight + b·a`, in its own type. Says
/// how many there were.
///
/// # Errors
/// [`Error::UnknownTensor`] for an update of what is not there, [`Error::TensorShape`] for one that does not fit.
pub(crate) fn merge(tensors: &mut HashMap<String, Tensor>, updates: &Shards) -> Result<usize> {
    let mut merged = 0;
    for info in updates.infos() {
        let place = info.name.strip_prefix(PREFIX);
        let Some(place) = place.and_then(|name| name.strip_suffix(".a")) else {
            continue;
        };
        let at = format!("{place}.weight");
        let weight = tensors.get(&at).ok_or_else(|| Error::UnknownTensor {
            file: info.file.display().to_string(),
            tensor: info.name.clone(),
            others: 0,
        })?;
        let (outputs, inputs) = weight.dims2()?;
        let rank = info.shape.first().copied().unwrap_or(0);
        let read = |matrix: &str, rows, columns| -> Result<Tensor> {
            let name = format!("{PREFIX}{place}.{matrix}");
            let tensor = updates.tensor(&name, &Shape::from((rows, columns)))?;
            Ok(tensor.to_dtype(DType::F32)?)
        };
        let update = read("b", outputs, rank)?.matmul(&read("a", rank, inputs)?)?;
        let sum = (weight.to_dtype(DType::F32)? + update)?;
        let sum = sum.to_dtype(weight.dtype())?;
        tensors.insert(at, sum);
        merged += 1;
    }
    Ok(merged)
}
