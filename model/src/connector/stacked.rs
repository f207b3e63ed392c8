//! Connector for small audio encoders: neighbouring steps side by side, then an MLP with a look around.

use super::Start;
use crate::Result;
use crate::audio::Padded;
use crate::nn::{LayerNorm, Linear, Weights};
use candle_core::Tensor;
use serde::Deserialize;
use std::collections::HashMap;

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

    /// Weights to begin training with.
    pub fn initial(
        config: &StackedConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<HashMap<String, Tensor>> {
        let (stacked, hidden) = (config.stack * inputs, config.hidden);
        let kernel = [hidden, hidden / config.groups, KERNEL];
        super::initial(&[
            ("norm.weight", &[stacked], Start::Ones),
            ("norm.bias", &[stacked], Start::Zeros),
            ("fc1.weight", &[hidden, stacked], Start::Random),
            ("fc1.bias", &[hidden], Start::Zeros),
            ("conv.weight", &kernel, Start::Random),
            ("conv.bias", &[hidden], Start::Zeros),
            ("fc2.weight", &[outputs, hidden], Start::Random),
            ("fc2.bias", &[outputs], Start::Zeros),
        ])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::TensorMap;
    use candle_core::{Device, Var};
    use std::sync::Arc;

    const CONFIG: StackedConfig = StackedConfig {
        stack: 2,
        hidden: 6,
        groups: 3,
    };

    fn connector(tensors: &HashMap<String, Tensor>) -> StackedConnector {
        let w = Weights::f32(Arc::new(TensorMap(tensors.clone()))).for_training();
        StackedConnector::new(&CONFIG, 4, 5, &w).unwrap()
    }

    #[test]
    fn its_gradient_is_the_difference_quotient() {
        let initial = StackedConnector::initial(&CONFIG, 4, 5).unwrap();
        let vars: HashMap<String, Var> = initial
            .iter()
            .map(|(name, tensor)| (name.clone(), Var::from_tensor(tensor).unwrap()))
            .collect();
        let of_vars = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone()));
        let encoded = Padded {
            // the last stack is half empty
            values: Tensor::randn(0f32, 1.0, (1, 7, 4), &Device::Cpu).unwrap(),
            lengths: vec![7],
        };
        let loss = |connector: &StackedConnector| {
            let out = connector.forward(&encoded).unwrap();
            assert_eq!(out.dims(), [4, 5]);
            out.sqr().unwrap().sum_all().unwrap()
        };
        let gradients = loss(&connector(&of_vars.collect())).backward().unwrap();
        for name in [
            "fc1.weight",
            "conv.weight",
            "conv.bias",
            "fc2.weight",
            "norm.bias",
        ] {
            let gradient = gradients
                .get(vars[name].as_tensor())
                .unwrap()
                .flatten_all()
                .unwrap();
            let gradient = gradient.to_vec1::<f32>().unwrap();
            let values = initial[name]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let scale = gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
            for i in (0..values.len()).step_by(values.len().div_ceil(7)) {
                let at = |change: f32| {
                    let mut values = values.clone();
                    values[i] += change;
                    let mut tensors = initial.clone();
                    let changed = Tensor::from_vec(values, initial[name].dims(), &Device::Cpu);
                    tensors.insert(name.into(), changed.unwrap());
                    loss(&connector(&tensors)).to_scalar::<f32>().unwrap()
                };
                let quotient = (at(1e-2) - at(-1e-2)) / 2e-2;
                let found = gradient[i];
                assert!(
                    (quotient - found).abs() < 0.02 * scale,
                    "{name}: {quotient}, {found}"
                );
            }
        }
    }
}
