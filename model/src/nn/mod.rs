//! The arithmetic that every part is made of, as small functions on candle's tensors.
//!
//! Each has one plain definition here. Operations whose fast forms have no gradient fall back to
//! differentiable ones when a gradient is being tracked, so that the same blocks can be trained.

mod attention;
mod linear;
mod norm;
mod probe;
mod weights;

pub use attention::{attend, attend_causal};
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use probe::Probe;
pub use weights::{RandomSource, Source, TensorMap, Watched, Weights};

use crate::Result;
use candle_core::Tensor;

/// Gated linear unit of the language models' feed-forward: `silu(gate) * up`, element by element.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.silu()? * up)?)
}
