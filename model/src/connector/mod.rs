//! From a tower's features to the language model's embeddings.

mod detailed;
mod pooled;
mod slots;
mod stacked;
mod transcript;
mod visual;
mod words;

pub use detailed::{Detailed, MARKS};
pub use pooled::{PooledConfig, PooledConnector};
pub use stacked::{StackedConfig, StackedConnector};
pub use transcript::{Heard, SCALARS, TranscriptConfig, TranscriptConnector, pooled_input};
pub use visual::{MlpProjector, shuffle_pixels, visual_tokens};
pub use words::{Part, Words, join_parts};

use crate::Result;
use crate::nn::{RandomSource, Source};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::HashMap;

/// What a connector's tensor is before it has learnt anything.
#[derive(Clone, Copy)]
enum Start {
    Zeros,
    Ones,
    Random,
}

/// Tensors by name, the same each time.
fn initial(tensors: &[(&str, &[usize], Start)]) -> Result<HashMap<String, Tensor>> {
    let tensors = tensors.iter().map(|&(name, shape, start)| {
        let tensor = match start {
            Start::Zeros => Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
            Start::Ones => Tensor::ones(shape, DType::F32, &Device::Cpu)?,
            Start::Random => RandomSource { seed: 1 }.tensor(name, &Shape::from(shape))?,
        };
        Ok((name.to_string(), tensor))
    });
    tensors.collect()
}
