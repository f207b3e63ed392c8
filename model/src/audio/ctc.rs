//! Reading without a decoder: a connector trained by CTC (Graves et al. 2006) says at each of its steps which of the language
//! model's tokens is spoken, or none.
//!
//! Its vectors are compared with the language model's own embeddings, so what it says goes on as vectors near them: of each
//! token the mixture of all that it may have been.

use super::whisper::likeliest;
use super::{Padded, Transcript};
use crate::connector::{StackedConfig, StackedConnector, Words};
use crate::nn::{Linear, RandomSource, Source, Weights, unit_rows};
use crate::sampling::probability;
use crate::{Error, Result};
use candle_core::{D, DType, Device, Shape, Tensor};
use std::collections::HashMap;

/// Class of a step at which no token is spoken; the token `i` of the vocabulary is class `i + 1`.
pub const BLANK: u32 = 0;

/// Logarithm of what cosines are multiplied by before anything was learnt.
const INITIAL_SHARPNESS: f32 = 2.7;
const INITIAL_BLANK: f32 = 2.0;

/// What was read, and the vectors that stand for its tokens.
#[derive(Debug, Clone)]
pub struct Spelled {
    pub transcript: Transcript,
    /// `[tokens, hidden]`; `None` where nothing was read.
    pub vectors: Option<Tensor>,
}

#[derive(Debug, Clone)]
pub struct CtcReader {
    connector: StackedConnector,
    /// One output: the blank's logit.
    blank: Linear,
    /// `[1]`, a logarithm.
    sharpness: Tensor,
    /// The vocabulary, in the language model's ids.
    tokens: Vec<u32>,
    /// `[tokens, hidden]`, f32.
    embeddings: Tensor,
    /// Of the language model's activations.
    dtype: DType,
    /// Embeddings around their mean, of length 1, `[hidden, tokens]`.
    directions: Tensor,
    words: Words,
}

impl CtcReader {
    /// `width` is the encoder's. Names: those of [`StackedConnector`], `blank`, `sharpness`.
    ///
    /// # Errors
    /// For a vocabulary that is empty or that the language model does not have.
    pub fn new(
        config: &StackedConfig,
        width: usize,
        tokens: Vec<u32>,
        words: Words,
        w: &Weights,
    ) -> Result<Self> {
        if tokens.is_empty() {
            return Err(Error::Input("a CTC reader without a vocabulary".into()));
        }
        let hidden = words.hidden();
        let embeddings = words.embed(&tokens)?.detach();
        let dtype = embeddings.dtype();
        let embeddings = embeddings.to_dtype(DType::F32)?;
        let centred = embeddings.broadcast_sub(&embeddings.mean_keepdim(0)?)?;
        Ok(Self {
            connector: StackedConnector::new(config, width, hidden, w)?,
            blank: Linear::new(hidden, 1, &w.pp("blank"))?,
            sharpness: w.get(1, "sharpness")?,
            directions: unit_rows(&centred)?.t()?.contiguous()?,
            tokens,
            embeddings,
            dtype,
            words,
        })
    }

    /// Weights to begin training with.
    pub fn initial(
        config: &StackedConfig,
        width: usize,
        hidden: usize,
    ) -> Result<HashMap<String, Tensor>> {
        let mut tensors = StackedConnector::initial(config, width, hidden)?;
        let source = RandomSource { seed: 1 };
        let own = [
            (
                "blank.weight",
                source.tensor("blank", &Shape::from((1, hidden)))?,
            ),
            ("blank.bias", Tensor::new(&[INITIAL_BLANK], &Device::Cpu)?),
            (
                "sharpness",
                Tensor::new(&[INITIAL_SHARPNESS], &Device::Cpu)?,
            ),
        ];
        tensors.extend(own.map(|(name, tensor)| (name.to_string(), tensor)));
        Ok(tensors)
    }

    /// Encoder's output `[1, steps, width]` → logits `[⌈steps/stack⌉, 1 + tokens]`, the blank's first.
    pub fn logits(&self, encoded: &Padded) -> Result<Tensor> {
        let vectors = self.connector.forward(encoded)?;
        let blank = self.blank.forward(&vectors)?.to_dtype(DType::F32)?;
        let cosines = unit_rows(&vectors.to_dtype(DType::F32)?)?.matmul(&self.directions)?;
        let sharpness = self.sharpness.to_dtype(DType::F32)?.exp()?;
        Ok(Tensor::cat(
            &[blank, cosines.broadcast_mul(&sharpness)?],
            1,
        )?)
    }

    /// Ids of a text as this reader is taught to write it: each word with the space in front of it.
    pub fn written(words: &Words, text: &str) -> Result<Vec<u32>> {
        match text.is_empty() {
            true => Ok(Vec::new()),
            false => words.ids(&format!(" {text}")),
        }
    }

    /// Its vocabulary, in the language model's ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Classes of a text, for training; `None` where the vocabulary lacks a token of it.
    pub fn labels(&self, text: &str) -> Result<Option<Vec<u32>>> {
        let ids = Self::written(&self.words, text)?;
        let class = |id| self.tokens.iter().position(|token| token == id);
        let classes = ids.iter().map(|id| Some(BLANK + 1 + class(id)? as u32));
        Ok(classes.collect())
    }

    /// The likeliest way through the steps of `[1, steps, width]`.
    pub fn read(&self, encoded: &Padded) -> Result<Spelled> {
        let logits = self.logits(encoded)?.to_device(&Device::Cpu)?;
        let peaks = peaks(&logits.to_vec2::<f32>()?)?;
        let ids: Vec<u32> = peaks
            .said
            .iter()
            .map(|said| self.tokens[said.token])
            .collect();
        let found = peaks.said.iter().map(|said| said.log_probability);
        let lowest = found.clone().fold(0.0, f64::min);
        let average = match ids.len() {
            0 => peaks.silence.max(f64::MIN_POSITIVE).ln(),
            count => found.sum::<f64>() / count as f64,
        };
        let transcript = Transcript {
            text: self.words.text(&ids)?,
            average_log_probability: average,
            lowest_log_probability: lowest,
            no_speech_probability: peaks.silence,
            complete: true,
            ids,
        };
        let vectors = match peaks.said.is_empty() {
            true => None,
            false => Some(self.vectors(&logits, &peaks.said)?),
        };
        Ok(Spelled {
            transcript,
            vectors,
        })
    }

    /// Of each token the embeddings of all that its step may say, by their probabilities.
    fn vectors(&self, logits: &Tensor, said: &[Said]) -> Result<Tensor> {
        let steps: Vec<u32> = said.iter().map(|said| said.step as u32).collect();
        let rows = logits.index_select(&Tensor::new(steps, logits.device())?, 0)?;
        let of_tokens = rows.narrow(1, 1, self.tokens.len())?.contiguous()?;
        let shares = candle_nn::ops::softmax(&of_tokens, D::Minus1)?;
        let shares = shares.to_device(self.embeddings.device())?;
        Ok(shares.matmul(&self.embeddings)?.to_dtype(self.dtype)?)
    }
}

/// A token and the step that is surest of it.
struct Said {
    token: usize,
    step: usize,
    log_probability: f64,
}

struct Peaks {
    said: Vec<Said>,
    /// Probability that nobody speaks: the blank's where it is least.
    silence: f64,
}

/// The best class of each step; a run of one token is that token once.
fn peaks(logits: &[Vec<f32>]) -> Result<Peaks> {
    let (mut said, mut silence) = (Vec::<Said>::new(), 1f64);
    let mut before = BLANK;
    for (step, row) in logits.iter().enumerate() {
        let (class, log_probability) = likeliest(row)?;
        silence = silence.min(probability(row, BLANK));
        match said.last_mut() {
            _ if class == BLANK => {}
            Some(last) if class == before => {
                if log_probability > last.log_probability {
                    (last.step, last.log_probability) = (step, log_probability);
                }
            }
            _ => said.push(Said {
                token: class as usize - 1,
                step,
                log_probability,
            }),
        }
        before = class;
    }
    Ok(Peaks { said, silence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_token_and_a_blank_parts_two() {
        let step = |best: usize, sure: f32| {
            let mut row = vec![((1.0 - sure) / 3.0).ln(); 4];
            row[best] = sure.ln();
            row
        };
        let log = [
            step(0, 0.9),
            step(2, 0.6),
            step(2, 0.8),
            step(3, 0.7),
            step(0, 0.9),
            step(3, 0.5),
        ];
        let found = peaks(&log).unwrap();
        let said: Vec<_> = found.said.iter().map(|s| (s.token, s.step)).collect();
        assert_eq!(said, [(1, 2), (2, 3), (2, 5)]);
        assert!((found.said[0].log_probability - 0.8f64.ln()).abs() < 1e-6);
        assert!((found.silence - 0.2 / 3.0).abs() < 1e-6);
        assert!(peaks(&[vec![f32::NAN; 4]]).is_err());
        let silent = peaks(&[step(0, 0.75), step(0, 0.9)]).unwrap();
        assert!(silent.said.is_empty() && (silent.silence - 0.75).abs() < 1e-6);
    }
}
