//! Whisper's audio encoder, without the padding to 30 s: the rows of its position table that the
//! utterance needs, and no more.

use super::Padded;
use crate::nn::{LayerNorm, Linear, Weights, attend};
use crate::{Error, Result};
use candle_core::Tensor;
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

#[derive(Debug, Clone)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(config: &WhisperConfig, w: &Weights) -> Result<Self> {
        let width = config.d_model;
        Ok(Self {
            q: Linear::new(width, width, &w.pp("q_proj"))?,
            k: Linear::no_bias(width, width, &w.pp("k_proj"))?,
            v: Linear::new(width, width, &w.pp("v_proj"))?,
            out: Linear::new(width, width, &w.pp("out_proj"))?,
            heads: config.encoder_attention_heads,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, steps, width) = xs.dims3()?;
        let head_dim = width / self.heads;
        let split = |xs: Tensor| -> Result<Tensor> {
            let xs = xs.reshape((batch, steps, self.heads, head_dim))?;
            Ok(xs.transpose(1, 2)?.contiguous()?)
        };
        let q = split(self.q.forward(xs)?)?;
        let k = split(self.k.forward(xs)?)?;
        let v = split(self.v.forward(xs)?)?;
        let ys = attend(&q, &k, &v, (head_dim as f64).powf(-0.5), None)?;
        self.out
            .forward(&ys.transpose(1, 2)?.reshape((batch, steps, width))?)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    self_attn_layer_norm: LayerNorm,
    self_attn: Attention,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn new(config: &WhisperConfig, w: &Weights) -> Result<Self> {
        let (width, inner) = (config.d_model, config.encoder_ffn_dim);
        let norm = |name: &str| LayerNorm::new(width, LAYER_NORM_EPS, &w.pp(name));
        Ok(Self {
            self_attn_layer_norm: norm("self_attn_layer_norm")?,
            self_attn: Attention::new(config, &w.pp("self_attn"))?,
            final_layer_norm: norm("final_layer_norm")?,
            fc1: Linear::new(width, inner, &w.pp("fc1"))?,
            fc2: Linear::new(inner, width, &w.pp("fc2"))?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let attn = self
            .self_attn
            .forward(&self.self_attn_layer_norm.forward(xs)?)?;
        let xs = (xs + attn)?;
        let inner = self.fc1.forward(&self.final_layer_norm.forward(&xs)?)?;
        Ok((&xs + self.fc2.forward(&inner.gelu_erf()?)?)?)
    }
}

#[derive(Debug, Clone)]
pub struct Whisper {
    conv1: (Tensor, Tensor),
    conv2: (Tensor, Tensor),
    /// `[positions, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
}

impl Whisper {
    /// `w` at the encoder: `conv1`, `conv2`, `embed_positions`, `layers`, `layer_norm`.
    pub fn new(config: &WhisperConfig, w: &Weights) -> Result<Self> {
        let width = config.d_model;
        let conv = |name: &str, inputs: usize| -> Result<(Tensor, Tensor)> {
            let w = w.pp(name);
            let bias = w.get(width, "bias")?.reshape((1, width, 1))?;
            Ok((w.get((width, inputs, 3), "weight")?, bias))
        };
        let positions = w.pp("embed_positions");
        Ok(Self {
            conv1: conv("conv1", config.num_mel_bins)?,
            conv2: conv("conv2", width)?,
            positions: positions.get((config.max_source_positions, width), "weight")?,
            layers: (0..config.encoder_layers)
                .map(|i| Layer::new(config, &w.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::new(width, LAYER_NORM_EPS, &w.pp("layer_norm"))?,
        })
    }

    /// Normalised log-mel frames `[frames, bins]` of one utterance → `[1, ⌈frames/2⌉, width]`.
    pub fn forward(&self, log_mel: &Tensor) -> Result<Padded> {
        let conv = |xs: &Tensor, (kernel, bias): &(Tensor, Tensor), stride| -> Result<Tensor> {
            Ok(xs
                .conv1d(kernel, 1, stride, 1, 1)?
                .broadcast_add(bias)?
                .gelu_erf()?)
        };
        let xs = log_mel.to_dtype(self.conv1.0.dtype())?;
        let xs = conv(&xs.t()?.unsqueeze(0)?.contiguous()?, &self.conv1, 1)?;
        let xs = conv(&xs, &self.conv2, 2)?.transpose(1, 2)?;
        let steps = xs.dim(1)?;
        let available = self.positions.dim(0)?;
        if steps > available {
            let frames = log_mel.dim(0)?;
            return Err(Error::Input(format!(
                "the audio has {frames} feature frames; at most {} can be encoded at once",
                2 * available
            )));
        }
        let mut xs = xs.broadcast_add(&self.positions.narrow(0, 0, steps)?)?;
        for layer in &self.layers {
            xs = layer.forward(&xs)?;
        }
        Ok(Padded {
            values: self.layer_norm.forward(&xs)?,
            lengths: vec![steps],
        })
    }
}
