//! The Silero VAD v6 network for 16 kHz.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;

use super::{BLOCK_SAMPLES, VadError, dense::Dense, onnx};

/// Samples before a block that the network sees again.
const CONTEXT: usize = 64;
/// Samples that are mirrored at the end of a block.
const MIRRORED: usize = 64;
/// Of the short-time Fourier transform, in samples.
const WINDOW: usize = 256;
const HOP: usize = 128;
const FRAMES: usize = (CONTEXT + BLOCK_SAMPLES + MIRRORED - WINDOW) / HOP + 1;
const BINS: usize = WINDOW / 2 + 1;
/// Time steps that a kernel covers; one step of zeros stands at either end.
const KERNEL: usize = 3;
/// Channels after each convolution, and how many time steps are left.
const CHANNELS: [usize; 4] = [128, 64, 64, 128];
const STEPS: [usize; 4] = [FRAMES, FRAMES / 2, 1, 1];
const STRIDES: [usize; 4] = [1, 2, 2, 1];
const HIDDEN: usize = 128;

/// Samples beyond this are taken to be damage and are limited, so that no sum becomes infinite; speech stays within ±1.
const LIMIT: f32 = 32.0;

/// The weights, which do not change. What a stream remembers is a [`SileroState`], so one copy serves any number of
/// streams.
///
/// Per block: 64 samples of context and 512 of the block, 64 more mirrored at the right → 4 frames of a Fourier
/// transform by convolution (window 256, hop 128) → magnitudes of 129 bins → four convolutions of kernel 3 with ReLU
/// (strides 1, 2, 2, 1) → LSTM of 128 → ReLU → one weighted sum → sigmoid.
///
/// It is computed with products written for these sizes, not with candle's operations: those take as long
/// (docs/performance.md, "Voice activity"), but allocate at each step and may wake a pool of threads, and this runs on
/// streaming threads. The tests compare with the graph in candle's operations, and with onnxruntime.
pub struct SileroVad {
    fourier: Dense,
    convolutions: [Dense; 4],
    /// `[input, hidden]` to the four gates (input, forget, cell, output), each of 128.
    lstm: Dense,
    output: Dense,
}

/// What the network remembers of one stream: the last samples, and the LSTM's hidden and cell state.
#[derive(Clone, Debug, PartialEq)]
pub struct SileroState {
    context: [f32; CONTEXT],
    hidden: [f32; HIDDEN],
    cell: [f32; HIDDEN],
}

impl Default for SileroState {
    /// The beginning of a stream, or what comes after a gap.
    fn default() -> Self {
        Self {
            context: [0.0; CONTEXT],
            hidden: [0.0; HIDDEN],
            cell: [0.0; HIDDEN],
        }
    }
}

impl SileroVad {
    /// Reads weights of the names and shapes of the ONNX file from safetensors.
    ///
    /// # Errors
    /// Where a tensor is missing or has another shape.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, VadError> {
        Self::new(VarBuilder::from_slice_safetensors(
            bytes,
            DType::F32,
            &Device::Cpu,
        )?)
    }

    /// Reads weights from `silero_vad_16k_op15.onnx` of the authors' package.
    ///
    /// # Errors
    /// As [`onnx::initialisers`]; and where a tensor is missing or has another shape.
    pub fn from_onnx(bytes: &[u8]) -> Result<Self, VadError> {
        let tensors = onnx::initialisers(bytes)?.into_iter().collect();
        Self::new(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }

    fn new(weights: VarBuilder<'_>) -> Result<Self, VadError> {
        let model = weights.pp("model");
        let basis = values(&model, "stft.forward_basis_buffer", &[2 * BINS, 1, WINDOW])?;
        let fourier = Dense::new(
            2 * BINS,
            WINDOW,
            |bin, at| basis[bin * WINDOW + at],
            |_| 0.0,
        );

        let convolution = |index: usize| -> Result<Dense, VadError> {
            let (inputs, outputs) = (
                if index == 0 {
                    BINS
                } else {
                    CHANNELS[index - 1]
                },
                CHANNELS[index],
            );
            let layer = model.pp(format!("encoder.{index}.reparam_conv"));
            let weight = values(&layer, "weight", &[outputs, inputs, KERNEL])?;
            let bias = values(&layer, "bias", &[outputs])?;
            // A row of input is three time steps one after another, each with all its channels.
            let at = |output: usize, input: usize| {
                weight[(output * inputs + input % inputs) * KERNEL + input / inputs]
            };
            Ok(Dense::new(outputs, KERNEL * inputs, at, |output| {
                bias[output]
            }))
        };

        let rnn = model.pp("decoder.rnn");
        let of_input = values(&rnn, "weight_ih", &[4 * HIDDEN, HIDDEN])?;
        let of_hidden = values(&rnn, "weight_hh", &[4 * HIDDEN, HIDDEN])?;
        let bias_input = values(&rnn, "bias_ih", &[4 * HIDDEN])?;
        let bias_hidden = values(&rnn, "bias_hh", &[4 * HIDDEN])?;
        let lstm = Dense::new(
            4 * HIDDEN,
            2 * HIDDEN,
            |gate, at| {
                if at < HIDDEN {
                    of_input[gate * HIDDEN + at]
                } else {
                    of_hidden[gate * HIDDEN + at - HIDDEN]
                }
            },
            |gate| bias_input[gate] + bias_hidden[gate],
        );

        let decoder = model.pp("decoder.decoder.2");
        let weight = values(&decoder, "weight", &[1, HIDDEN, 1])?;
        let bias = values(&decoder, "bias", &[1])?;
        Ok(Self {
            fourier,
            convolutions: [
                convolution(0)?,
                convolution(1)?,
                convolution(2)?,
                convolution(3)?,
            ],
            lstm,
            output: Dense::new(1, HIDDEN, |_, at| weight[at], |_| bias[0]),
        })
    }

    /// The probability (0 to 1) that the next block of a stream holds speech. `samples`: 16 kHz, ±1; what is not finite
    /// counts as 0.
    pub fn step(&self, state: &mut SileroState, samples: &[f32; BLOCK_SAMPLES]) -> f32 {
        let mut window = [0.0; CONTEXT + BLOCK_SAMPLES + MIRRORED];
        window[..CONTEXT].copy_from_slice(&state.context);
        for (into, &sample) in window[CONTEXT..].iter_mut().zip(samples) {
            *into = if sample.is_finite() {
                sample.clamp(-LIMIT, LIMIT)
            } else {
                0.0
            };
        }
        let end = CONTEXT + BLOCK_SAMPLES;
        state.context.copy_from_slice(&window[end - CONTEXT..end]);
        for at in 0..MIRRORED {
            window[end + at] = window[end - 2 - at];
        }

        let mut spectrum = [0.0; FRAMES * 2 * BINS];
        self.fourier.apply(&window, HOP, FRAMES, &mut spectrum);
        let mut magnitudes = [0.0; (FRAMES + 2) * BINS];
        for (frame, into) in spectrum
            .chunks_exact(2 * BINS)
            .zip(magnitudes[BINS..].chunks_exact_mut(BINS))
        {
            let (real, imaginary) = frame.split_at(BINS);
            for ((into, re), im) in into.iter_mut().zip(real).zip(imaginary) {
                *into = (re * re + im * im).sqrt();
            }
        }

        let mut first = [0.0; (STEPS[0] + 2) * CHANNELS[0]];
        let mut second = [0.0; (STEPS[1] + 2) * CHANNELS[1]];
        let mut third = [0.0; (STEPS[2] + 2) * CHANNELS[2]];
        self.convolve(0, &magnitudes, BINS, &mut first[CHANNELS[0]..]);
        self.convolve(1, &first, CHANNELS[0], &mut second[CHANNELS[1]..]);
        self.convolve(2, &second, CHANNELS[1], &mut third[CHANNELS[2]..]);
        let mut lstm_input = [0.0; 2 * HIDDEN];
        let (encoded, hidden) = lstm_input.split_at_mut(HIDDEN);
        self.convolve(3, &third, CHANNELS[2], encoded);
        hidden.copy_from_slice(&state.hidden);

        let mut gates = [0.0; 4 * HIDDEN];
        self.lstm.apply(&lstm_input, 0, 1, &mut gates);
        for at in 0..HIDDEN {
            let [input, forget, cell, output] = [0, 1, 2, 3].map(|gate| gates[gate * HIDDEN + at]);
            state.cell[at] = sigmoid(forget) * state.cell[at] + sigmoid(input) * cell.tanh();
            state.hidden[at] = sigmoid(output) * state.cell[at].tanh();
        }
        let mut logit = [0.0];
        self.output
            .apply(&state.hidden.map(|value| value.max(0.0)), 0, 1, &mut logit);
        sigmoid(logit[0])
    }

    /// Convolution and ReLU. `input` is `[steps + 2, channels]` with zeros in its first and last step.
    fn convolve(&self, index: usize, input: &[f32], channels: usize, output: &mut [f32]) {
        let output = &mut output[..STEPS[index] * CHANNELS[index]];
        self.convolutions[index].apply(input, STRIDES[index] * channels, STEPS[index], output);
        for value in output {
            *value = value.max(0.0);
        }
    }
}

fn values(weights: &VarBuilder<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, VadError> {
    Ok(weights.get(shape, name)?.flatten_all()?.to_vec1()?)
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}
