//! Whisper: its encoder, its decoder, and the reading of an utterance with both.
//!
//! Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022). Names of
//! weights are those of Hugging Face's `WhisperModel`.

mod attention;
mod decoder;
mod encoder;
mod transcriber;
mod updates;

pub use decoder::{DecoderConfig, DecoderState, WhisperDecoder};
pub use encoder::Whisper;
pub(crate) use transcriber::likeliest;
pub use transcriber::{Transcriber, Transcript};
pub(crate) use updates::merge as merge_updates;
pub use updates::{Matrix, PREFIX as UPDATES_PREFIX};

use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

const LAYER_NORM_EPS: f64 = 1e-5;

/// Sizes, in the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WhisperConfig {
    #[serde(default = "eighty")]
    pub num_mel_bins: usize,
    pub d_model: usize,
    pub encoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub encoder_layers: usize,
    #[serde(default = "thirty_seconds")]
    pub max_source_positions: usize,
}

fn eighty() -> usize {
    80
}
fn thirty_seconds() -> usize {
    1500
}

impl WhisperConfig {
    pub fn validate(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("num-mel-bins", self.num_mel_bins),
            ("d-model", self.d_model),
            ("encoder-attention-heads", self.encoder_attention_heads),
            ("encoder-ffn-dim", self.encoder_ffn_dim),
            ("max-source-positions", self.max_source_positions),
        ];
        crate::checkpoint::check_sizes(path, &sizes)?;
        match self.d_model.is_multiple_of(self.encoder_attention_heads) {
            true => Ok(()),
            false => {
                let expected = format!("a multiple of {} heads", self.encoder_attention_heads);
                Err(Error::config(path, "d-model", expected, self.d_model))
            }
        }
    }
}
