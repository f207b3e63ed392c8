//! The arithmetic that every part is made of, as small functions on candle's tensors.
//!
//! Each has one plain definition here. Operations whose fast forms have no gradient fall back to
//! differentiable ones when a gradient is being tracked, so that the same blocks can be trained.

mod attention;
mod grad;
mod linear;
mod norm;
mod probe;
mod weights;

pub use attention::{attend, attend_causal};
#[cfg(feature = "train")]
pub(crate) use grad::values;
pub use grad::{Frozen, attend_sequences, rotate};
pub use linear::{GatedLinear, Linear, LowRank};
pub use norm::{LayerNorm, RmsNorm, unit_rows};
pub use probe::Probe;
pub use weights::{RandomSource, Source, TensorMap, Variables, Watched, Weights};
