//! From encoder steps to the language model's vectors, 12.5 per second (spec 4.5).

use super::Padded;
use crate::Result;
use crate::nn::{LayerNorm, Linear, Probe, Weights};
use candle_core::Tensor;

/// Epsilon of the adapter's norms.
const NORM_EPS: f64 = 1e-3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Gelu,
    Relu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    Layer,
    Batch,
}

/// The "subsampling" type of adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterConfig {
    /// Width of the encoder.
    pub inputs: usize,
    /// Width of the language model.
    pub outputs: usize,
    pub kernel_size: usize,
    pub activation: Activation,
    pub norm: NormKind,
}

impl AdapterConfig {
    /// The reference puts a second convolution, batch norms and ReLU wherever the language model is
    /// more than four times as wide as the encoder, whatever the other settings say.
    fn two_convolutions(&self) -> bool {
        4 * self.inputs < self.outputs
    }
}

/// Normalisation over channels of `[batch, channels, time]`.
#[derive(Debug, Clone)]
enum Norm {
    Layer(LayerNorm),
    /// Batch norm at inference, as one factor and one term per channel.
    Batch {
        factor: Tensor,
        term: Tensor,
    },
}

impl Norm {
    fn new(kind: NormKind, size: usize, w: &Weights) -> Result<Self> {
        if kind == NormKind::Layer {
            return Ok(Self::Layer(LayerNorm::new(size, NORM_EPS, w)?));
        }
        let deviation = (w.get(size, "running_var")? + NORM_EPS)?.sqrt()?;
        let factor = (w.get(size, "weight")? / deviation)?;
        let term = (w.get(size, "bias")? - (w.get(size, "running_mean")? * &factor)?)?;
        Ok(Self::Batch { factor, term })
    }

    /// Channels last, `[batch, time, channels]`.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(xs),
            Self::Batch { factor, term } => Ok(xs.broadcast_mul(factor)?.broadcast_add(term)?),
        }
    }
}

#[derive(Debug, Clone)]
struct Conv {
    kernel: Tensor,
    bias: Tensor,
    norm: Norm,
    activation: Activation,
}

impl Conv {
    fn new(
        (inputs, outputs): (usize, usize),
        config: &AdapterConfig,
        (norm, activation): (NormKind, Activation),
        names: (&str, &str),
        w: &Weights,
    ) -> Result<Self> {
        let w_conv = w.pp(names.0);
        Ok(Self {
            kernel: w_conv.get((outputs, inputs, config.kernel_size), "weight")?,
            bias: w_conv.get(outputs, "bias")?.reshape((1, outputs, 1))?,
            norm: Norm::new(norm, outputs, &w.pp(names.1))?,
            activation,
        })
    }

    /// `[batch, channels, time]`, padded already, to the same layout.
    fn forward(&self, xs: &Tensor, stride: usize, probe: &mut Probe) -> Result<Tensor> {
        let xs = xs
            .conv1d(&self.kernel, 0, stride, 1, 1)?
            .broadcast_add(&self.bias)?;
        probe.see(format_args!("adapter_conv"), &xs);
        let xs = self.norm.forward(&xs.transpose(1, 2)?.contiguous()?)?;
        probe.see(format_args!("adapter_norm"), &xs);
        let xs = match self.activation {
            Activation::Gelu => xs.gelu_erf()?,
            Activation::Relu => xs.relu()?,
        };
        let xs = xs.transpose(1, 2)?.contiguous()?;
        probe.see(format_args!("adapter_act"), &xs);
        Ok(xs)
    }
}

#[derive(Debug, Clone)]
pub struct AudioAdapter {
    conv1: Option<Conv>,
    conv2: Conv,
    project: Linear,
    kernel_size: usize,
}

impl AudioAdapter {
    /// `w` at `model.audio_encoder.adpter`.
    pub fn new(config: &AdapterConfig, w: &Weights) -> Result<Self> {
        let width = config.inputs;
        let (conv1, conv2, inner) = match config.two_convolutions() {
            true => {
                let kinds = (NormKind::Batch, Activation::Relu);
                let conv1 = Conv::new((width, 2 * width), config, kinds, ("conv1d1", "bn1"), w)?;
                let sizes = (2 * width, 4 * width);
                let conv2 = Conv::new(sizes, config, kinds, ("conv1d2", "bn2"), w)?;
                (Some(conv1), conv2, 4 * width)
            }
            false => {
                let kinds = (config.norm, config.activation);
                let conv2 = Conv::new((width, 2 * width), config, kinds, ("conv1d2", "bn2"), w)?;
                (None, conv2, 2 * width)
            }
        };
        Ok(Self {
            conv1,
            conv2,
            project: Linear::new(inner, config.outputs, &w.pp("project"))?,
            kernel_size: config.kernel_size,
        })
    }

    /// `[batch, steps, inputs]` → `[batch, ⌈steps/2⌉, outputs]`.
    pub fn forward(&self, encoded: &Padded, probe: &mut Probe) -> Result<Padded> {
        let mut xs = without_padding(encoded)?.transpose(1, 2)?;
        let reach = self.kernel_size - 1;
        if let Some(conv1) = &self.conv1 {
            let padded = xs.pad_with_zeros(2, reach, 0)?;
            xs = conv1.forward(&padded, 1, &mut Probe::none())?;
        }
        let padded = xs.pad_with_zeros(2, 0, reach)?.contiguous()?;
        let xs = self.conv2.forward(&padded, 2, probe)?;
        let values = self.project.forward(&xs.transpose(1, 2)?.contiguous()?)?;
        probe.see(format_args!("audio_tokens"), &values);
        let lengths = encoded.lengths.iter().map(|n| n.div_ceil(2)).collect();
        Ok(Padded { values, lengths })
    }
}

/// Steps of padding set to zero.
fn without_padding(encoded: &Padded) -> Result<Tensor> {
    let xs = &encoded.values;
    let (batch, steps, _) = xs.dims3()?;
    if encoded.lengths.iter().all(|&n| n == steps) {
        return Ok(xs.clone());
    }
    let keep: Vec<u8> = encoded
        .lengths
        .iter()
        .flat_map(|&n| (0..steps).map(move |i| u8::from(i < n)))
        .collect();
    let keep = Tensor::from_vec(keep, (batch, steps, 1), xs.device())?.broadcast_as(xs.shape())?;
    Ok(keep.where_cond(xs, &xs.zeros_like()?)?)
}
