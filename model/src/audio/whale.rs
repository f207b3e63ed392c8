//! The Whale audio encoder of VITA-1.0 (spec 4.4): subsampling by four, then pre-norm transformer
//! blocks whose attention sees absolute positions (no relative shift).

use super::Padded;
use crate::nn::{LayerNorm, Linear, Probe, Weights, attend};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vita_kernels::Activation;
use vita_kernels::ops::{Conv, can_take};

/// Norm epsilon; neither config dialect of the release changes it.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Steps in the position table: 200 s of audio.
pub const MAX_POSITIONS: usize = 5000;

/// Longest audio, in steps of 40 ms, whose projected positions are kept.
const KEPT_STEPS: usize = 1024;

/// Fewest feature frames that leave a step after both convolutions.
pub const MIN_FRAMES: usize = 7;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhaleConfig {
    /// Mel bins.
    pub input_dim: usize,
    /// Channels of the subsampling convolutions and of their output.
    pub subsampling_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
}

impl WhaleConfig {
    pub fn validate(&self, path: &Path) -> Result<()> {
        let at_least_one = [
            ("input_dim", self.input_dim),
            ("subsampling dim", self.subsampling_size),
            ("attention dim", self.hidden_size),
            ("linear units", self.intermediate_size),
            ("attention heads", self.num_attention_heads),
        ];
        crate::checkpoint::check_sizes(path, &at_least_one)?;
        if self.input_dim < MIN_FRAMES {
            let expected = format!("at least {MIN_FRAMES}");
            return Err(Error::config(path, "input_dim", expected, self.input_dim));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads)
            || !self.hidden_size.is_multiple_of(2)
        {
            let expected = format!("an even number divided by {}", self.num_attention_heads);
            return Err(Error::config(
                path,
                "attention dim",
                expected,
                self.hidden_size,
            ));
        }
        Ok(())
    }
}

/// Length after one 3-wide convolution of stride 2 without padding.
fn convolved(length: usize) -> usize {
    length.saturating_sub(1) / 2
}

/// Steps after the first and the second convolution for a number of feature frames.
pub fn subsampled(frames: usize) -> (usize, usize) {
    let once = convolved(frames);
    (once, convolved(once))
}

/// Cepstral mean and variance normalisation: `(x − mean)·istd` per bin.
#[derive(Debug, Clone)]
pub struct GlobalCmvn {
    mean: Tensor,
    istd: Tensor,
}

impl GlobalCmvn {
    /// Both `[bins]`, f32.
    pub fn new(mean: Tensor, istd: Tensor) -> Self {
        Self { mean, istd }
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(xs.broadcast_sub(&self.mean)?.broadcast_mul(&self.istd)?)
    }
}

/// A 3×3 convolution of stride 2 with ReLU, channels last.
#[derive(Debug, Clone)]
struct Convolution {
    kernel: Kernel,
    bias: Tensor,
}

#[derive(Debug, Clone)]
enum Kernel {
    Tensor(Tensor),
    Packed(Arc<Conv>),
}

impl Convolution {
    const STRIDE: usize = 2;

    fn new(inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        // kernels are read in the type of the activations: candle has no mixed convolution
        let kernel = w.get((outputs, inputs, 3, 3), "weight")?;
        let kernel = match w.packs() && can_take(&kernel) {
            true => Kernel::Packed(Arc::new(Conv::new(&kernel, Self::STRIDE)?)),
            false => Kernel::Tensor(kernel),
        };
        let bias = w.get(outputs, "bias")?;
        Ok(Self { kernel, bias })
    }

    /// `[batch, frames, bins, inputs]` → `[batch, frames', bins', outputs]`.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.kernel {
            Kernel::Packed(conv) => Ok(conv.forward(xs, Some(&self.bias), Activation::Relu)?),
            Kernel::Tensor(kernel) => {
                let xs = xs.permute((0, 3, 1, 2))?.contiguous()?;
                let ys = xs.conv2d(kernel, 0, Self::STRIDE, 1, 1)?;
                Ok(ys
                    .permute((0, 2, 3, 1))?
                    .broadcast_add(&self.bias)?
                    .relu()?)
            }
        }
    }
}

/// Two strided convolutions over time and bins, then a projection.
#[derive(Debug, Clone)]
struct Subsampling {
    conv0: Convolution,
    conv2: Convolution,
    out: Linear,
}

impl Subsampling {
    fn new(config: &WhaleConfig, w: &Weights) -> Result<Self> {
        let hidden = config.subsampling_size;
        let (_, bins) = subsampled(config.input_dim);
        let w_conv = w.pp("core.conv");
        let w_out = w.pp("core.out.0");
        // the checkpoint flattens channels outside of bins, channels last has them inside
        let out = w_out.matrix((hidden, hidden * bins), "weight")?;
        let out = out.reshape((hidden, hidden, bins))?.transpose(1, 2)?;
        let out = out.contiguous()?.reshape((hidden, bins * hidden))?;
        Ok(Self {
            conv0: Convolution::new(1, hidden, &w_conv.pp("0"))?,
            conv2: Convolution::new(hidden, hidden, &w_conv.pp("2"))?,
            out: Linear::from_tensors(out, Some(w_out.get(hidden, "bias")?))?,
        })
    }

    /// `[batch, frames, bins]` → `[batch, steps, hidden]`.
    fn forward(&self, xs: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let xs = self.conv0.forward(&xs.unsqueeze(3)?)?;
        probe.see(format_args!("conv1_relu"), &xs.permute((0, 3, 1, 2))?);
        let xs = self.conv2.forward(&xs)?;
        probe.see(format_args!("conv2_relu"), &xs.permute((0, 3, 1, 2))?);
        let (batch, steps, bins, channels) = xs.dims4()?;
        self.out
            .forward(&xs.reshape((batch, steps, bins * channels))?)
    }
}

#[derive(Debug, Clone)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    pos: Linear,
    out: Linear,
    /// `[heads, head_dim]`: added to the query against content and against position.
    bias_u: Tensor,
    bias_v: Tensor,
    kept: Arc<Mutex<Option<Projected>>>,
}

impl Attention {
    fn new(config: &WhaleConfig, w: &Weights) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let linear = |name: &str| Linear::new(hidden, hidden, &w.pp(name));
        Ok(Self {
            q: linear("linear_q")?,
            k: linear("linear_k")?,
            v: linear("linear_v")?,
            pos: Linear::no_bias(hidden, hidden, &w.pp("linear_pos"))?,
            out: linear("linear_out")?,
            bias_u: w.get((heads, hidden / heads), "pos_bias_u")?,
            bias_v: w.get((heads, hidden / heads), "pos_bias_v")?,
            kept: Arc::default(),
        })
    }

    /// The heads' results side by side, before the last projection.
    ///
    /// Scores are `(q+u)·kᵀ + (q+v)·pᵀ`. With absolute positions that equals `q·(k+p)ᵀ` plus a bias
    /// per key, `u·k + v·p = u·(k+p) + (v−u)·p`, so that one product does for both.
    fn mix(&self, xs: &Tensor, positions: &Tensor, hidden_keys: &Tensor) -> Result<Tensor> {
        let (batch, steps, hidden) = xs.dims3()?;
        let (_, head_dim) = self.bias_u.dims2()?;
        let scale = (head_dim as f64).powf(-0.5);
        let projected = self.projected(positions)?;
        let p = projected.p.broadcast_as((batch, steps, hidden))?;
        let q = self.split(&self.q.forward(xs)?)?;
        let k = self.split(&self.k.forward_onto(&p, xs, None)?)?;
        let v = self.split(&self.v.forward(xs)?)?;
        let bias = weigh(&k, &self.bias_u)?.broadcast_add(&projected.bias)?;
        let bias = (bias * scale)?.broadcast_add(hidden_keys)?;
        let ys = attend(&q, &k, &v, scale, Some(&bias))?;
        Ok(ys.transpose(1, 2)?.reshape((batch, steps, hidden))?)
    }

    /// `[batch, steps, hidden]` → `[batch, heads, steps, head_dim]`.
    fn split(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, steps, _) = xs.dims3()?;
        let (heads, head_dim) = self.bias_u.dims2()?;
        let xs = xs.reshape((batch, steps, heads, head_dim))?;
        Ok(xs.transpose(1, 2)?)
    }

    /// What the positions alone give. They are the same in every call, so it is kept for the longest
    /// audio so far.
    fn projected(&self, positions: &Tensor) -> Result<Projected> {
        let steps = positions.dim(1)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(projected) = kept.as_ref().filter(|p| p.steps() >= steps) {
            return projected.first(steps);
        }
        let p = self.pos.forward(positions)?;
        let bias = weigh(&self.split(&p)?, &(&self.bias_v - &self.bias_u)?)?;
        let projected = Projected { p, bias };
        if steps <= KEPT_STEPS && !projected.p.track_op() && !projected.bias.track_op() {
            *kept = Some(projected.clone());
        }
        Ok(projected)
    }
}

/// Projected positions of one layer.
#[derive(Debug, Clone)]
struct Projected {
    /// `[1, steps, hidden]`.
    p: Tensor,
    /// `(v−u)·p`, `[1, heads, 1, steps]`.
    bias: Tensor,
}

impl Projected {
    fn steps(&self) -> usize {
        self.p.dims()[1]
    }

    fn first(&self, steps: usize) -> Result<Self> {
        Ok(Self {
            p: self.p.narrow(1, 0, steps)?,
            bias: self.bias.narrow(3, 0, steps)?,
        })
    }
}

/// Keys `[batch, heads, steps, head_dim]` times one vector per head → `[batch, heads, 1, steps]`.
fn weigh(keys: &Tensor, by: &Tensor) -> Result<Tensor> {
    let weighted = keys.contiguous()?.broadcast_matmul(&by.unsqueeze(2)?)?;
    Ok(weighted.transpose(2, 3)?)
}

#[derive(Debug, Clone)]
struct Layer {
    norm1: LayerNorm,
    self_attn: Attention,
    norm2: LayerNorm,
    w_1: Linear,
    w_2: Linear,
}

impl Layer {
    fn new(config: &WhaleConfig, w: &Weights) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            norm1: LayerNorm::new(hidden, LAYER_NORM_EPS, &w.pp("norm1"))?,
            self_attn: Attention::new(config, &w.pp("self_attn"))?,
            norm2: LayerNorm::new(hidden, LAYER_NORM_EPS, &w.pp("norm2"))?,
            w_1: Linear::new(hidden, inner, &w.pp("feed_forward.w_1"))?,
            w_2: Linear::new(inner, hidden, &w.pp("feed_forward.w_2"))?,
        })
    }
}

#[derive(Debug, Clone)]
pub struct Whale {
    cmvn: GlobalCmvn,
    subsampling: Subsampling,
    embed: Linear,
    embed_norm: LayerNorm,
    layers: Vec<Layer>,
    after_norm: LayerNorm,
    hidden_size: usize,
}

impl Whale {
    /// `w` at `model.audio_encoder.encoder`; the CMVN is given apart, because its best values may
    /// come from a side file (spec 1.2).
    pub fn new(config: &WhaleConfig, cmvn: GlobalCmvn, w: &Weights) -> Result<Self> {
        let hidden = config.hidden_size;
        let w_transformer = w.pp("enc.1");
        Ok(Self {
            cmvn,
            subsampling: Subsampling::new(config, &w.pp("enc.0"))?,
            embed: Linear::new(
                config.subsampling_size,
                hidden,
                &w_transformer.pp("embed.0"),
            )?,
            embed_norm: LayerNorm::new(hidden, LAYER_NORM_EPS, &w_transformer.pp("embed.1"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, &w_transformer.pp("encoders").pp(i)))
                .collect::<Result<_>>()?,
            after_norm: LayerNorm::new(hidden, LAYER_NORM_EPS, &w_transformer.pp("after_norm"))?,
            hidden_size: hidden,
        })
    }

    /// Filterbank frames `[batch, frames, bins]`, not normalised, of which the first `lengths[i]` of
    /// row i are real → `[batch, steps, hidden]`. Rows of padding are computed, but no valid row sees them.
    pub fn forward(&self, fbank: &Tensor, lengths: &[usize], probe: &mut Probe) -> Result<Padded> {
        let (batch, frames, _) = fbank.dims3()?;
        check_lengths(batch, frames, lengths)?;
        let xs = self.cmvn.forward(fbank)?;
        probe.see(format_args!("cmvn"), &xs);
        let xs = xs.to_dtype(self.subsampling.conv0.bias.dtype())?;
        let xs = self.subsampling.forward(&xs, probe)?;
        probe.see(format_args!("subsampling_out"), &xs);
        let steps = xs.dim(1)?;
        if steps > MAX_POSITIONS {
            return Err(Error::Input(format!(
                "the audio has {frames} feature frames; at most {} can be encoded at once",
                4 * MAX_POSITIONS
            )));
        }
        let lengths: Vec<usize> = lengths.iter().map(|&n| subsampled(n).1).collect();
        probe.see(
            format_args!("subsampling_mask"),
            &valid_steps(&lengths, steps)?,
        );
        let hidden_keys = hidden_keys(&lengths, steps, &xs)?;

        let xs = self.embed_norm.forward(&self.embed.forward(&xs)?)?.relu()?;
        probe.see(format_args!("embed_out"), &xs);
        let mut xs = (xs * (self.hidden_size as f64).sqrt())?;
        probe.see(format_args!("embed_scaled"), &xs);
        let positions = sinusoids(steps, self.hidden_size)?;
        let positions = positions.to_dtype(xs.dtype())?.to_device(xs.device())?;
        probe.see(format_args!("pos_emb"), &positions);

        for (i, layer) in self.layers.iter().enumerate() {
            let attn = &layer.self_attn;
            let mixed = attn.mix(&layer.norm1.forward(&xs)?, &positions, &hidden_keys)?;
            if probe.sees() {
                probe.see(format_args!("layer{i}_attn"), &attn.out.forward(&mixed)?);
            }
            xs = attn.out.forward_onto(&xs, &mixed, None)?;
            let normed = layer.norm2.forward(&xs)?;
            let inner = layer.w_1.forward_with(&normed, Activation::Relu)?;
            xs = layer.w_2.forward_onto(&xs, &inner, None)?;
            probe.see(format_args!("layer{i}_out"), &xs);
        }
        let values = self.after_norm.forward(&xs)?;
        probe.see(format_args!("encoder_out"), &values);
        Ok(Padded { values, lengths })
    }
}

fn check_lengths(batch: usize, frames: usize, lengths: &[usize]) -> Result<()> {
    if lengths.len() != batch {
        let found = lengths.len();
        return Err(Error::Input(format!(
            "{batch} utterances with {found} lengths"
        )));
    }
    match lengths.iter().find(|&&n| n < MIN_FRAMES || n > frames) {
        Some(n) if *n > frames => Err(Error::Input(format!(
            "an utterance of {n} feature frames in a batch of {frames}"
        ))),
        Some(n) => Err(Error::Input(format!(
            "the audio has {n} feature frames; at least {MIN_FRAMES} (85 ms) are needed"
        ))),
        None => Ok(()),
    }
}

/// `[batch, 1, steps]`, 1 where a step is real.
fn valid_steps(lengths: &[usize], steps: usize) -> Result<Tensor> {
    let valid: Vec<u8> = lengths
        .iter()
        .flat_map(|&n| (0..steps).map(move |i| u8::from(i < n)))
        .collect();
    Ok(Tensor::from_vec(
        valid,
        (lengths.len(), 1, steps),
        &Device::Cpu,
    )?)
}

/// `[batch, 1, 1, steps]`: 0 for real steps, −∞ for padding, which hides it as a key.
fn hidden_keys(lengths: &[usize], steps: usize, like: &Tensor) -> Result<Tensor> {
    let bias: Vec<f32> = lengths
        .iter()
        .flat_map(|&n| (0..steps).map(move |i| if i < n { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let bias = Tensor::from_vec(bias, (lengths.len(), 1, 1, steps), like.device())?;
    Ok(bias.to_dtype(like.dtype())?)
}

/// Interleaved sine and cosine: `[1, steps, width]`, as PyTorch computes it in f32.
fn sinusoids(steps: usize, width: usize) -> Result<Tensor> {
    let log_step = -(10000f64.ln() / width as f64) as f32;
    let frequencies: Vec<f32> = (0..width / 2)
        .map(|k| ((2 * k) as f32 * log_step).exp())
        .collect();
    let table: Vec<f32> = (0..steps)
        .flat_map(|t| {
            frequencies.iter().flat_map(move |f| {
                let angle = t as f32 * f;
                [angle.sin(), angle.cos()]
            })
        })
        .collect();
    Ok(Tensor::from_vec(table, (1, steps, width), &Device::Cpu)?)
}
