//! Audio encoders: acoustic features to vectors in the language model's space.

pub mod adapter;
mod ctc;
mod ears;
mod frames;
pub mod whale;
pub mod whisper;

pub use adapter::{AdapterConfig, AudioAdapter};
pub use ctc::{BLANK, CtcReader, Spelled};
pub use ears::{AudioEncoder, Ears, Reader, Transcribing, Utterance};
pub use whale::{Whale, WhaleConfig};
pub(crate) use whisper::merge_updates;
pub use whisper::{
    DecoderConfig, DecoderState, Transcriber, Transcript, UPDATES_PREFIX, Whisper, WhisperConfig,
    WhisperDecoder,
};

use candle_core::Tensor;

/// A padded batch of sequences and how much of each row is real.
#[derive(Debug, Clone)]
pub struct Padded {
    /// `[batch, longest, width]`.
    pub values: Tensor,
    /// Valid steps of each row.
    pub lengths: Vec<usize>,
}
