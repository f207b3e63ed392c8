//! VITA-family models on candle. Knows nothing of GStreamer, tokio or NATS.
//!
//! Weights are immutable and shared; what belongs to one conversation (KV cache, position, sampler)
//! is a separate value. Blocks follow the checkpoint's own tensor names.

pub mod audio;
pub mod build;
pub mod checkpoint;
pub mod connector;
mod error;
pub mod fbank;
pub mod generate;
pub mod image;
pub mod lm;
mod merge;
pub mod nn;
pub mod prompt;
pub mod quantize;
pub mod resample;
pub mod sampling;
pub mod scheduler;
#[cfg(feature = "train")]
pub mod train;
pub mod vad;
pub mod video;
pub mod vision;
mod vita;
pub mod wav;

pub use error::{Error, ErrorKind, Result};
pub use merge::embed_prompt;
pub use vita::{GenerateOptions, LoadOptions, Progress, Vita, content_key};
