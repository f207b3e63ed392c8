//! The encoder, without the padding to 30 s: the rows of its position table that the utterance
//! needs, and no more.

use super::attention::Attention;
use super::updates::{Matrix, named};
use super::{LAYER_NORM_EPS, WhisperConfig};
use crate::audio::Padded;
use crate::nn::{LayerNorm, Linear, Weights};
use crate::{Error, Result};
use candle_core::Tensor;
use vita_kernels::Activation;

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
            self_attn: Attention::new(width, config.encoder_attention_heads, &w.pp("self_attn"))?,
            final_layer_norm: norm("final_layer_norm")?,
            fc1: Linear::new(width, inner, &w.pp("fc1"))?,
            fc2: Linear::new(inner, width, &w.pp("fc2"))?,
        })
    }

    fn matrices(&mut self, at: &str) -> Vec<Matrix<'_>> {
        let mut all = self.self_attn.matrices(&format!("{at}.self_attn"));
        all.extend(named(at, [("fc1", &mut self.fc1), ("fc2", &mut self.fc2)]));
        all
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let normed = self.self_attn_layer_norm.forward(xs)?;
        let (k, v) = self.self_attn.keys_and_values(&normed)?;
        let xs = self.self_attn.forward(xs, &normed, &k, &v)?;
        let normed = self.final_layer_norm.forward(&xs)?;
        let inner = self.fc1.forward_with(&normed, Activation::Gelu)?;
        self.fc2.forward_onto(&xs, &inner, None)
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

    /// The matrices of its layers, which updates may stand beside.
    pub fn matrices(&mut self) -> Vec<Matrix<'_>> {
        let layers = self.layers.iter_mut().enumerate();
        let all = layers.flat_map(|(i, layer)| layer.matrices(&format!("encoder.layers.{i}")));
        all.collect()
    }

    /// Of its output.
    pub fn width(&self) -> usize {
        self.positions.dims().last().copied().unwrap_or(0)
    }

    /// Most feature frames that can be encoded at once.
    pub fn max_frames(&self) -> usize {
        2 * self.positions.dims().first().copied().unwrap_or(0)
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
