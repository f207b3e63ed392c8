//! From sound to vectors in the language model's space.

use super::{AudioAdapter, Padded, Transcriber, Whale, Whisper};
use crate::connector::{
    Heard, Part, StackedConnector, TranscriptConnector, Words, join_parts, pooled_input,
};
use crate::fbank::{Fbank, normalise_whisper};
use crate::nn::Probe;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// An audio encoder with its connector.
#[derive(Debug)]
pub enum AudioEncoder {
    Whale {
        encoder: Whale,
        adapter: AudioAdapter,
    },
    Whisper {
        encoder: Whisper,
        connector: StackedConnector,
    },
    /// The decoder's words go in beside the connector's vectors.
    Transcribing(Box<Transcribing>),
}

/// Ears that read what they hear.
#[derive(Debug)]
pub struct Transcribing {
    pub encoder: Whisper,
    pub transcriber: Transcriber,
    pub connector: TranscriptConnector,
    pub words: Words,
    /// Tokens before and behind an utterance.
    pub markers: [u32; 2],
}

/// An utterance in the language model's space.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// `[tokens, hidden]`.
    pub vectors: Tensor,
    /// What was read, for ears that read.
    pub transcript: Option<String>,
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
    /// Features `[frames, bins]` of samples in [−1, 1] at the encoder's rate, ready for [`Self::encode`].
    pub fn features(&self, samples: &[f32]) -> Result<Tensor> {
        let mut samples = samples.to_vec();
        samples.resize(samples.len() + self.tail_silence, 0.0);
        let values = self.fbank.compute(&samples);
        let mut values = values.map_err(|e| Error::Input(e.to_string()))?;
        if !matches!(self.encoder, AudioEncoder::Whale { .. }) {
            normalise_whisper(&mut values);
        }
        let bins = self.fbank.num_mel_bins();
        Ok(Tensor::from_vec(values, ((), bins), &Device::Cpu)?)
    }

    /// Features of one utterance → vectors, and words where it reads them.
    pub fn encode(&self, features: &Tensor) -> Result<Utterance> {
        let silent = |vectors| Utterance {
            vectors,
            transcript: None,
        };
        let on_device = features.to_device(&self.device)?;
        match &self.encoder {
            AudioEncoder::Whale { encoder, adapter } => {
                let frames = features.dim(0)?;
                let probe = &mut Probe::none();
                let encoded = encoder.forward(&on_device.unsqueeze(0)?, &[frames], probe)?;
                let Padded { values, lengths } = adapter.forward(&encoded, probe)?;
                let valid = lengths.first().copied().unwrap_or(0);
                Ok(silent(values.get(0)?.narrow(0, 0, valid)?))
            }
            AudioEncoder::Whisper { encoder, connector } => {
                Ok(silent(connector.forward(&encoder.forward(&on_device)?)?))
            }
            AudioEncoder::Transcribing(ears) => {
                let heard = ears.listen(&on_device, self.frames_per_second())?;
                ears.vectors(heard)
            }
        }
    }

    /// What the trained part of reading ears is given; it may be kept while that part learns.
    ///
    /// # Errors
    /// Where the ears do not read.
    pub fn listen(&self, features: &Tensor) -> Result<Heard> {
        match &self.encoder {
            AudioEncoder::Transcribing(ears) => {
                let features = features.to_device(&self.device)?;
                ears.listen(&features, self.frames_per_second())
            }
            _ => Err(Error::Input("this model's ears do not read words".into())),
        }
    }

    fn frames_per_second(&self) -> f64 {
        f64::from(self.fbank.sample_rate_hz()) / self.fbank.frame_shift() as f64
    }
}

impl Transcribing {
    /// Encodes and reads. What is longer than the encoder's table of positions (30 s) is read in pieces of that.
    fn listen(&self, features: &Tensor, frames_per_second: f64) -> Result<Heard> {
        let frames = features.dim(0)?;
        let longest = self.encoder.max_frames()?;
        let mut pieces = Vec::new();
        for from in (0..frames).step_by(longest.max(1)) {
            let piece = features.narrow(0, from, longest.min(frames - from))?;
            let encoded = self.encoder.forward(&piece)?;
            let seconds = piece.dim(0)? as f64 / frames_per_second;
            let transcript = self.transcriber.read(&encoded, seconds)?;
            pieces.push((encoded.values, transcript));
        }
        let (encoded, transcripts): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
        let transcript = super::Transcript::join(transcripts)?;
        let encoded = Padded {
            values: Tensor::cat(&encoded, 1)?,
            lengths: Vec::new(),
        };
        let seconds = frames as f64 / frames_per_second;
        Ok(Heard {
            pooled_input: pooled_input(&encoded, features, &transcript, seconds)?
                .to_device(features.device())?,
            transcript,
        })
    }

    fn vectors(&self, heard: Heard) -> Result<Utterance> {
        let parts = self.parts(&heard)?;
        Ok(Utterance {
            vectors: join_parts(&parts, |ids| self.words.embed(ids))?,
            transcript: Some(heard.transcript.text),
        })
    }

    /// The utterance in the order in which the language model is given it.
    pub fn parts(&self, heard: &Heard) -> Result<[Part; 4]> {
        let pooled = self.connector.forward(heard)?;
        let words = self.words.ids(&heard.transcript.text)?;
        Ok(TranscriptConnector::parts(pooled, words, self.markers))
    }
}
