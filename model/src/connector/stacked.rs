//! Connector for small audio encoders: neighbouring steps side by side, then an MLP with a look around.

use crate::Result;
use crate::audio::Padded;
use crate::nn::{LayerNorm, Linear, Weights};
use candle_core::Tensor;
use serde::Deserialize;

const NORM_EPS: f64 = 1e-5;

/// Steps that the convolution looks at.
const KERNEL: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StackedConfig {
    /// Encoder steps that become one vector.
    pub stack: usize,
    /// Width between the two linear layers.
    pub hidden: usize,
    /// Groups of the convolution.
    pub groups: usize,
}

/// LayerNorm → Linear → GELU → grouped convolution, added to its input → Linear.
#[derive(Debug, Clone)]
pub struct StackedConnector {
    norm: LayerNorm,
    fc1: Linear,
    conv: (Tensor, Tensor),
    fc2: Linear,
    config: StackedConfig,
}

impl StackedConnector {
    /// Names: `norm`, `fc1`, `conv`, `fc2`.
    pub fn new(config: &StackedConfig, inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        let (stacked, hidden) = (config.stack * inputs, config.hidden);
        let w_conv = w.pp("conv");
        let kernel = w_conv.get((hidden, hidden / config.groups, KERNEL), "weight")?;
        Ok(Self {
            norm: LayerNorm::new(stacked, NORM_EPS, &w.pp("norm"))?,
            fc1: Linear::new(stacked, hidden, &w.pp("fc1"))?,
            conv: (kernel, w_conv.get(hidden, "bias")?.reshape((1, hidden, 1))?),
            fc2: Linear::new(hidden, outputs, &w.pp("fc2"))?,
            config: config.clone(),
        })
    }

    /// `[1, steps, inputs]` → `[⌈steps/stack⌉, outputs]`; the last stack is filled up with zeros.
    pub fn forward(&self, encoded: &Padded) -> Result<Tensor> {
        let (_, steps, width) = encoded.values.dims3()?;
        let stack = self.config.stack;
        let count = steps.div_ceil(stack);
        let xs = encoded.values.pad_with_zeros(1, 0, count * stack - steps)?;
        let xs = xs.reshape((1, count, stack * width))?;
        let xs = self.fc1.forward(&self.norm.forward(&xs)?)?.gelu_erf()?;
        let (kernel, bias) = &self.conv;
        let around = xs
            .transpose(1, 2)?
            .contiguous()?
            .conv1d(kernel, KERNEL / 2, 1, 1, self.config.groups)?
            .broadcast_add(bias)?;
        let xs = (xs + around.transpose(1, 2)?)?;
        Ok(self.fc2.forward(&xs)?.squeeze(0)?)
    }
}
