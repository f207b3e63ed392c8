//! The decoder: encoded sound and the tokens so far → logits of the next token.

use super::LAYER_NORM_EPS;
use super::attention::Attention;
use super::updates::{Matrix, named};
use crate::audio::Padded;
use crate::lm::{CacheShape, KvCache};
use crate::nn::{LayerNorm, Linear, Weights, attend_causal};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::path::Path;
use vita_kernels::Activation;

/// Sizes of the decoder, in the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DecoderConfig {
    pub vocab_size: usize,
    pub decoder_attention_heads: usize,
    pub decoder_ffn_dim: usize,
    pub decoder_layers: usize,
    #[serde(default = "longest_text")]
    pub max_target_positions: usize,
}

fn longest_text() -> usize {
    448
}

impl DecoderConfig {
    /// `width` is the encoder's `d-model`, which the decoder shares.
    pub fn validate(&self, path: &Path, width: usize) -> Result<()> {
        let sizes = [
            ("decoder.vocab-size", self.vocab_size),
            ("decoder-attention-heads", self.decoder_attention_heads),
            ("decoder-ffn-dim", self.decoder_ffn_dim),
            ("max-target-positions", self.max_target_positions),
        ];
        crate::checkpoint::check_sizes(path, &sizes)?;
        match width.is_multiple_of(self.decoder_attention_heads) {
            true => Ok(()),
            false => {
                let expected = format!("a divisor of d-model {width}");
                let found = self.decoder_attention_heads;
                Err(Error::config(
                    path,
                    "decoder-attention-heads",
                    expected,
                    found,
                ))
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Layer {
    self_attn_layer_norm: LayerNorm,
    self_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
    encoder_attn: Attention,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn new(width: usize, config: &DecoderConfig, w: &Weights) -> Result<Self> {
        let (heads, inner) = (config.decoder_attention_heads, config.decoder_ffn_dim);
        let norm = |name: &str| LayerNorm::new(width, LAYER_NORM_EPS, &w.pp(name));
        Ok(Self {
            self_attn_layer_norm: norm("self_attn_layer_norm")?,
            self_attn: Attention::new(width, heads, &w.pp("self_attn"))?,
            encoder_attn_layer_norm: norm("encoder_attn_layer_norm")?,
            encoder_attn: Attention::new(width, heads, &w.pp("encoder_attn"))?,
            final_layer_norm: norm("final_layer_norm")?,
            fc1: Linear::new(width, inner, &w.pp("fc1"))?,
            fc2: Linear::new(inner, width, &w.pp("fc2"))?,
        })
    }

    fn matrices(&mut self, at: &str) -> Vec<Matrix<'_>> {
        let mut all = self.self_attn.matrices(&format!("{at}.self_attn"));
        all.extend(self.encoder_attn.matrices(&format!("{at}.encoder_attn")));
        all.extend(named(at, [("fc1", &mut self.fc1), ("fc2", &mut self.fc2)]));
        all
    }

    /// `encoded` are the keys and values of the sound; `written` makes of those `[heads, new, dim]` of the new
    /// tokens the ones of the whole text.
    fn forward(
        &self,
        xs: &Tensor,
        encoded: &(Tensor, Tensor),
        written: impl FnOnce(Tensor, Tensor) -> Result<Vec<(Tensor, Tensor)>>,
    ) -> Result<Tensor> {
        let normed = self.self_attn_layer_norm.forward(xs)?;
        let q = self.self_attn.queries(&normed)?;
        let (k, v) = self.self_attn.keys_and_values(&normed)?;
        let pieces = written(k.squeeze(0)?, v.squeeze(0)?)?;
        let ys = attend_causal(&q.squeeze(0)?, &pieces, self.self_attn.scale(&q)?)?;
        let xs = self.self_attn.join(xs, &ys.transpose(0, 1)?)?;
        let normed = self.encoder_attn_layer_norm.forward(&xs)?;
        let (k, v) = encoded;
        let xs = self.encoder_attn.forward(&xs, &normed, k, v)?;
        let normed = self.final_layer_norm.forward(&xs)?;
        let inner = self.fc1.forward_with(&normed, Activation::Gelu)?;
        self.fc2.forward_onto(&xs, &inner, None)
    }
}

/// One utterance's place in the decoder.
#[derive(Debug)]
pub struct DecoderState {
    written: KvCache,
    /// Keys and values of the encoded sound, for each layer.
    encoded: Vec<(Tensor, Tensor)>,
}

#[derive(Debug, Clone)]
pub struct WhisperDecoder {
    /// `[vocabulary, width]`: embeddings, and the head.
    embed_tokens: Linear,
    /// `[positions, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
    heads: usize,
    device: Device,
}

impl WhisperDecoder {
    /// `w` at the decoder: `embed_tokens`, `embed_positions`, `layers`, `layer_norm`.
    pub fn new(width: usize, config: &DecoderConfig, w: &Weights) -> Result<Self> {
        let positions = w.pp("embed_positions");
        // half of a step's time is the head's, and that is reading it: it stays in its 16 bits
        let table = (config.vocab_size, width);
        let w_embed = w.pp("embed_tokens");
        let table = match w.device().is_cpu() {
            true => w_embed.stored(table, "weight")?,
            false => w_embed.matrix(table, "weight")?,
        };
        Ok(Self {
            embed_tokens: Linear::from_weight(table, w.packs())?,
            positions: positions.get((config.max_target_positions, width), "weight")?,
            layers: (0..config.decoder_layers)
                .map(|i| Layer::new(width, config, &w.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::new(width, LAYER_NORM_EPS, &w.pp("layer_norm"))?,
            heads: config.decoder_attention_heads,
            device: w.device().clone(),
        })
    }

    /// The longest text, in tokens.
    pub fn max_length(&self) -> Result<usize> {
        Ok(self.positions.dim(0)?)
    }

    /// Tokens that it knows.
    pub fn vocabulary(&self) -> usize {
        self.embed_tokens.outputs()
    }

    /// The matrices of its layers, which updates may stand beside.
    pub fn matrices(&mut self) -> Vec<Matrix<'_>> {
        let layers = self.layers.iter_mut().enumerate();
        let all = layers.flat_map(|(i, layer)| layer.matrices(&format!("decoder.layers.{i}")));
        all.collect()
    }

    /// Before the first token of one utterance, encoded `[1, steps, width]`.
    pub fn begin(&self, encoded: &Padded) -> Result<DecoderState> {
        let (batch, _, width) = encoded.values.dims3()?;
        if batch != 1 {
            return Err(Error::Input(format!(
                "{batch} utterances at once: the decoder reads one"
            )));
        }
        let shape = CacheShape {
            layers: self.layers.len(),
            kv_heads: self.heads,
            head_dim: width / self.heads,
            dtype: self.positions.dtype(),
        };
        let keys = |layer: &Layer| layer.encoder_attn.keys_and_values(&encoded.values);
        Ok(DecoderState {
            written: KvCache::new(shape, &self.device),
            encoded: self.layers.iter().map(keys).collect::<Result<_>>()?,
        })
    }

    /// Takes the next tokens of the text; logits `[tokens, vocabulary]`, f32.
    pub fn step(&self, ids: &[u32], state: &mut DecoderState) -> Result<Tensor> {
        let (from, len, available) = (state.written.len(), ids.len(), self.max_length()?);
        if len == 0 || from + len > available {
            let needed = from + len;
            return Err(Error::TooLong { needed, available });
        }
        state.written.reserve(len)?;
        let mut xs = self.embed(ids, from)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let written = |k, v| state.written.append(i, &k, &v);
            xs = layer.forward(&xs, &state.encoded[i], written)?;
        }
        state.written.advance(len);
        self.logits(&self.layer_norm.forward(&xs)?.squeeze(0)?)
    }

    /// A whole text at once, with gradients where something learns: what it thinks `[tokens, width]` behind each token, for
    /// [`Self::logits`]. `encoded` `[1, steps, width]`.
    pub fn forward(&self, ids: &[u32], encoded: &Tensor) -> Result<Tensor> {
        let (needed, available) = (ids.len(), self.max_length()?);
        if needed == 0 || needed > available {
            return Err(Error::TooLong { needed, available });
        }
        let mut xs = self.embed(ids, 0)?;
        for layer in &self.layers {
            let encoded = layer.encoder_attn.keys_and_values(encoded)?;
            xs = layer.forward(&xs, &encoded, |k, v| Ok(vec![(k, v)]))?;
        }
        Ok(self.layer_norm.forward(&xs)?.squeeze(0)?)
    }

    /// `[tokens, width]` → `[tokens, vocabulary]`, f32.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.embed_tokens.forward(hidden)?;
        Ok(logits.to_dtype(candle_core::DType::F32)?)
    }

    /// `[1, tokens, width]` of tokens that stand from a position on.
    fn embed(&self, ids: &[u32], from: usize) -> Result<Tensor> {
        let embeddings = self.embed_tokens.rows(ids)?.to_device(&self.device)?;
        let embeddings = embeddings.to_dtype(self.positions.dtype())?;
        Ok((embeddings + self.positions.narrow(0, from, ids.len())?)?.unsqueeze(0)?)
    }
}
