//! The network in candle's own operations: what the tests compare with, and what the benchmark runs beside it.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::sigmoid;

const WEIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/silero-vad/silero_vad_16k.safetensors"
);

/// The graph of the ONNX file, one candle operation for each of its nodes.
pub struct Graph {
    weights: HashMap<String, Tensor>,
    context: Tensor,
    hidden: Tensor,
    cell: Tensor,
}

impl Graph {
    pub fn new() -> Self {
        let zeros = |length| Tensor::zeros((1, length), DType::F32, &Device::Cpu).unwrap();
        Self {
            weights: candle_core::safetensors::load(WEIGHTS, &Device::Cpu).unwrap(),
            context: zeros(64),
            hidden: zeros(128),
            cell: zeros(128),
        }
    }

    pub fn step(&mut self, samples: &[f32]) -> candle_core::Result<f32> {
        let weight = |name: &str| &self.weights[&format!("model.{name}")];
        let block = Tensor::from_slice(samples, (1, samples.len()), &Device::Cpu)?;
        let window = Tensor::cat(&[&self.context, &block], 1)?;
        self.context = window.narrow(1, 512, 64)?;
        let mirrored: Vec<u32> = (0..64).map(|at| 574 - at).collect();
        let mirrored = window.index_select(&Tensor::new(mirrored, &Device::Cpu)?, 1)?;
        let window = Tensor::cat(&[&window, &mirrored], 1)?.unsqueeze(1)?;

        let spectrum = window.conv1d(weight("stft.forward_basis_buffer"), 0, 128, 1, 1)?;
        let (real, imaginary) = (spectrum.narrow(1, 0, 129)?, spectrum.narrow(1, 129, 129)?);
        let mut x = (real.sqr()? + imaginary.sqr()?)?.sqrt()?;
        for (layer, stride) in [1, 2, 2, 1].into_iter().enumerate() {
            let bias = weight(&format!("encoder.{layer}.reparam_conv.bias")).reshape((1, (), 1))?;
            let kernel = weight(&format!("encoder.{layer}.reparam_conv.weight"));
            x = x
                .conv1d(kernel, 1, stride, 1, 1)?
                .broadcast_add(&bias)?
                .relu()?;
        }

        let of_input = x
            .squeeze(D::Minus1)?
            .matmul(&weight("decoder.rnn.weight_ih").t()?)?;
        let of_hidden = self.hidden.matmul(&weight("decoder.rnn.weight_hh").t()?)?;
        let gates = (of_input.broadcast_add(weight("decoder.rnn.bias_ih"))?
            + of_hidden.broadcast_add(weight("decoder.rnn.bias_hh"))?)?
        .chunk(4, 1)?;
        self.cell =
            ((sigmoid(&gates[1])? * &self.cell)? + (sigmoid(&gates[0])? * gates[2].tanh()?)?)?;
        self.hidden = (sigmoid(&gates[3])? * self.cell.tanh()?)?;
        let output = self.hidden.relu()?.unsqueeze(D::Minus1)?.conv1d(
            weight("decoder.decoder.2.weight"),
            0,
            1,
            1,
            1,
        )?;
        let output = (output.flatten_all()? + weight("decoder.decoder.2.bias"))?;
        sigmoid(&output)?.get(0)?.to_scalar()
    }
}
