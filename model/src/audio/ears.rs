//! From sound to vectors in the language model's space.

use super::{AudioAdapter, Padded, Whale, Whisper};
use crate::connector::StackedConnector;
use crate::fbank::{Fbank, normalise_whisper};
use crate::nn::Probe;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// An audio encoder with its connector.
#[derive(Debug, Clone)]
pub enum AudioEncoder {
    Whale {
        encoder: Whale,
        adapter: AudioAdapter,
    },
    Whisper {
        encoder: Whisper,
        connector: StackedConnector,
    },
}

/// The encoder, and the features that it listens to.
#[derive(Debug)]
pub struct Ears {
    pub encoder: AudioEncoder,
    pub fbank: Fbank,
    /// Silence put behind an utterance, in samples.
    pub tail_silence: usize,
    pub device: Device,
}

impl Ears {
    /// Features `[frames, bins]` of samples in [−1, 1] at the encoder's rate, ready for [`Self::tokens`].
    pub fn features(&self, samples: &[f32]) -> Result<Tensor> {
        let mut samples = samples.to_vec();
        samples.resize(samples.len() + self.tail_silence, 0.0);
        let values = self.fbank.compute(&samples);
        let mut values = values.map_err(|e| Error::Input(e.to_string()))?;
        if matches!(self.encoder, AudioEncoder::Whisper { .. }) {
            normalise_whisper(&mut values);
        }
        let bins = self.fbank.num_mel_bins();
        Ok(Tensor::from_vec(values, ((), bins), &Device::Cpu)?)
    }

    /// Features of one utterance → `[tokens, hidden]`.
    pub fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        let features = features.to_device(&self.device)?;
        match &self.encoder {
            AudioEncoder::Whale { encoder, adapter } => {
                let frames = features.dim(0)?;
                let probe = &mut Probe::none();
                let encoded = encoder.forward(&features.unsqueeze(0)?, &[frames], probe)?;
                let Padded { values, lengths } = adapter.forward(&encoded, probe)?;
                let valid = lengths.first().copied().unwrap_or(0);
                Ok(values.get(0)?.narrow(0, 0, valid)?)
            }
            AudioEncoder::Whisper { encoder, connector } => {
                connector.forward(&encoder.forward(&features)?)
            }
        }
    }
}
