//! Connector for ears that read: the words that were read, as the language model's embeddings or as vectors near them,
//! beside a few vectors of how they sounded.
//!
//! An utterance becomes `[begin marker, pooled vectors, words, end marker]`. The pooled vectors are what is trained:
//! they tell speech from noise, a question from talk, and how far the words can be trusted.

use super::{Part, Start};
use crate::Result;
use crate::audio::{Padded, Transcript};
use crate::nn::{LayerNorm, Linear, Weights};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;

const NORM_EPS: f64 = 1e-5;

/// Numbers about the utterance beside the encoder's: see [`pooled_input`].
pub const SCALARS: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TranscriptConfig {
    /// Vectors of how it sounded.
    pub pooled: usize,
    /// Width between the two linear layers.
    pub hidden: usize,
    /// Tokens that stand before and behind the utterance.
    #[serde(default = "default_markers")]
    pub markers: [String; 2],
}

fn default_markers() -> [String; 2] {
    ["<audio>".into(), "</audio>".into()]
}

/// An utterance before the trained part: it can be kept, whatever the connector learns.
#[derive(Debug, Clone)]
pub struct Heard {
    pub transcript: Transcript,
    /// What stands for the words, `[tokens, hidden]`; `None`: the language model's embeddings of the text.
    pub word_vectors: Option<Tensor>,
    /// `[2·width + SCALARS]`, see [`pooled_input`].
    pub pooled_input: Tensor,
}

/// Mean and maximum over time of what was encoded, LayerNorm each, the scalars as they are → Linear → GELU →
/// Linear.
#[derive(Debug, Clone)]
pub struct TranscriptConnector {
    mean_norm: LayerNorm,
    max_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    width: usize,
    pooled: usize,
}

impl TranscriptConnector {
    /// `width` is the encoder's. Names: `mean_norm`, `max_norm`, `fc1`, `fc2`.
    pub fn new(
        config: &TranscriptConfig,
        width: usize,
        outputs: usize,
        w: &Weights,
    ) -> Result<Self> {
        let (inputs, hidden) = (2 * width + SCALARS, config.hidden);
        Ok(Self {
            mean_norm: LayerNorm::new(width, NORM_EPS, &w.pp("mean_norm"))?,
            max_norm: LayerNorm::new(width, NORM_EPS, &w.pp("max_norm"))?,
            fc1: Linear::new(inputs, hidden, &w.pp("fc1"))?,
            fc2: Linear::new(hidden, config.pooled * outputs, &w.pp("fc2"))?,
            width,
            pooled: config.pooled,
        })
    }

    /// Weights to begin training with: its vectors are zeros, so that the words come through undisturbed.
    pub fn initial(
        config: &TranscriptConfig,
        width: usize,
        outputs: usize,
    ) -> Result<HashMap<String, Tensor>> {
        let (inputs, hidden, last) = (2 * width + SCALARS, config.hidden, config.pooled * outputs);
        super::initial(&[
            ("mean_norm.weight", &[width], Start::Ones),
            ("mean_norm.bias", &[width], Start::Zeros),
            ("max_norm.weight", &[width], Start::Ones),
            ("max_norm.bias", &[width], Start::Zeros),
            ("fc1.weight", &[hidden, inputs], Start::Random),
            ("fc1.bias", &[hidden], Start::Zeros),
            ("fc2.weight", &[last, hidden], Start::Zeros),
            ("fc2.bias", &[last], Start::Zeros),
        ])
    }

    /// The vectors `[pooled, outputs]` of one utterance.
    pub fn forward(&self, heard: &Heard) -> Result<Tensor> {
        Ok(self
            .forward_batch(&heard.pooled_input.unsqueeze(0)?)?
            .get(0)?)
    }

    /// Pooled inputs `[n, 2·width + SCALARS]` → `[n, pooled, outputs]`.
    pub fn forward_batch(&self, inputs: &Tensor) -> Result<Tensor> {
        let part = |from, len| -> Result<Tensor> { Ok(inputs.narrow(1, from, len)?.contiguous()?) };
        let mean = self.mean_norm.forward(&part(0, self.width)?)?;
        let max = self.max_norm.forward(&part(self.width, self.width)?)?;
        let xs = Tensor::cat(&[mean, max, part(2 * self.width, SCALARS)?], 1)?;
        let xs = self.fc2.forward(&self.fc1.forward(&xs)?.gelu_erf()?)?;
        Ok(xs.reshape((inputs.dim(0)?, self.pooled, ()))?)
    }

    /// The utterance in the order in which the language model is given it.
    pub fn parts(pooled: Tensor, words: Part, markers: [u32; 2]) -> [Part; 4] {
        let [begin, end] = markers;
        [
            Part::Ids(vec![begin]),
            Part::Vectors(pooled),
            words,
            Part::Ids(vec![end]),
        ]
    }
}

/// What the trained part is told: mean and maximum over time of the encoder's output `[1, steps, width]`, and
/// [`SCALARS`] numbers, each within about ±2:
///
/// 0 mean log-probability of the tokens; 1 the lowest, divided by 4; 2 probability that nobody speaks; 3 its
/// logarithm (base 10, at least −6), divided by 3; 4 tokens per second, divided by 5; 5 ln(1 + seconds), divided by 2;
/// 6 mean and 7 maximum of the normalised log-mel `[frames, bins]`, which follow loudness; 8 standard deviation over
/// time of a frame's mean, doubled, which is small in steady noise; 9 whether the text was complete (1) or cut (0).
pub fn pooled_input(
    encoded: &Padded,
    log_mel: &Tensor,
    transcript: &Transcript,
    seconds: f64,
) -> Result<Tensor> {
    let encoded = encoded.values.get(0)?.to_device(&Device::Cpu)?;
    let encoded = encoded.to_dtype(DType::F32)?;
    let log_mel = log_mel.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let levels = log_mel.mean(1)?.to_vec1::<f32>()?;
    let level = levels.iter().sum::<f32>() / levels.len() as f32;
    let variance = levels.iter().map(|l| (l - level).powi(2)).sum::<f32>() / levels.len() as f32;
    let loudest = log_mel.max_all()?.to_scalar::<f32>()?;
    let silence = transcript.no_speech_probability;
    let rate = transcript.ids.len() as f64 / seconds.max(0.1);
    let scalars: [f32; SCALARS] = [
        transcript.average_log_probability as f32,
        transcript.lowest_log_probability as f32 / 4.0,
        silence as f32,
        silence.max(1e-6).log10() as f32 / 3.0,
        rate as f32 / 5.0,
        seconds.ln_1p() as f32 / 2.0,
        level,
        loudest,
        2.0 * variance.sqrt(),
        f32::from(u8::from(transcript.complete)),
    ];
    let scalars = Tensor::new(&scalars, &Device::Cpu)?;
    Ok(Tensor::cat(
        &[encoded.mean(0)?, encoded.max(0)?, scalars],
        0,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::TensorMap;
    use candle_core::Var;
    use std::sync::Arc;

    fn config() -> TranscriptConfig {
        toml::from_str("pooled = 3\nhidden = 8").unwrap()
    }

    #[test]
    fn it_begins_with_zeros_and_can_learn_from_what_was_kept() {
        let (width, outputs) = (6, 5);
        let initial = TranscriptConnector::initial(&config(), width, outputs).unwrap();
        let vars: HashMap<_, _> = initial
            .into_iter()
            .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
            .collect();
        let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone()));
        let source = Arc::new(TensorMap(tensors.collect()));
        let w = Weights::f32(source).for_training();
        let connector = TranscriptConnector::new(&config(), width, outputs, &w).unwrap();
        let inputs = Tensor::randn(0f32, 1.0, (4, 2 * width + SCALARS), &Device::Cpu).unwrap();
        let vectors = connector.forward_batch(&inputs).unwrap();
        assert_eq!(vectors.dims(), [4, 3, outputs]);
        assert_eq!(
            vectors
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
            0.0
        );

        let gradients = (vectors - 1.0).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = gradients.backward().unwrap();
        let last = gradients.get(&vars["fc2.weight"]).unwrap().abs().unwrap();
        assert!(last.max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
    }

    #[test]
    fn what_it_is_told_is_bounded() {
        let encoded = Padded {
            values: Tensor::randn(0f32, 1.0, (1, 50, 4), &Device::Cpu).unwrap(),
            lengths: vec![50],
        };
        let log_mel = Tensor::zeros((100, 80), DType::F32, &Device::Cpu).unwrap();
        let transcript = Transcript {
            text: "yes".into(),
            ids: vec![8; 3],
            average_log_probability: -0.5,
            lowest_log_probability: -8.0,
            no_speech_probability: 0.0,
            complete: true,
        };
        let input = pooled_input(&encoded, &log_mel, &transcript, 1.0).unwrap();
        assert_eq!(input.dims(), [8 + SCALARS]);
        let scalars = input
            .narrow(0, 8, SCALARS)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let expected = [
            -0.5,
            -2.0,
            0.0,
            -2.0,
            0.6,
            2f32.ln() / 2.0,
            0.0,
            0.0,
            0.0,
            1.0,
        ];
        for (found, expected) in scalars.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{scalars:?}");
        }
    }
}
