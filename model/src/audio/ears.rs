//! From sound to vectors in the language model's space.

use super::{AudioAdapter, CtcReader, Padded, Spelled, Transcriber, Whale, Whisper};
use crate::connector::{
    Heard, Part, StackedConnector, TranscriptConnector, Words, join_parts, pooled_input,
};
use crate::fbank::{Fbank, normalise_whisper};
use crate::nn::Probe;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// The longest piece of an utterance that is read at once.
const LONGEST_PIECE_SECS: f64 = 15.0;

/// Frames over which a pause is looked for.
const PAUSE: usize = 30;

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
    /// The words that were read go in beside the connector's vectors.
    Transcribing(Box<Transcribing>),
}

/// Ears that read what they hear.
#[derive(Debug)]
pub struct Transcribing {
    pub encoder: Whisper,
    pub reader: Reader,
    pub connector: TranscriptConnector,
    pub words: Words,
    /// Tokens before and behind an utterance.
    pub markers: [u32; 2],
}

/// What reads the encoder's output.
#[derive(Debug)]
pub enum Reader {
    /// Token after token.
    Decoder(Box<Transcriber>),
    /// All at once.
    Ctc(Box<CtcReader>),
}

impl Reader {
    fn read(&self, encoded: &Padded, seconds: f64) -> Result<Spelled> {
        match self {
            Self::Decoder(transcriber) => Ok(Spelled {
                transcript: transcriber.read(encoded, seconds)?,
                vectors: None,
            }),
            Self::Ctc(reader) => reader.read(encoded),
        }
    }
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
        self.features_before(samples, self.tail_silence)
    }

    /// [`Self::features`] with so many samples of silence behind the utterance.
    pub fn features_before(&self, samples: &[f32], silence: usize) -> Result<Tensor> {
        let mut samples = samples.to_vec();
        samples.resize(samples.len() + silence, 0.0);
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

    /// Of the features.
    pub fn frames_per_second(&self) -> f64 {
        f64::from(self.fbank.sample_rate_hz()) / self.fbank.frame_shift() as f64
    }
}

impl Transcribing {
    /// Encodes and reads. A long utterance is read in pieces cut at pauses: without timestamps Whisper ends at a pause in the
    /// middle of one.
    fn listen(&self, features: &Tensor, frames_per_second: f64) -> Result<Heard> {
        let frames = features.dim(0)?;
        let longest = (LONGEST_PIECE_SECS * frames_per_second) as usize;
        let longest = longest.min(self.encoder.max_frames());
        let levels = features.to_dtype(DType::F32)?.mean(1)?.to_vec1::<f32>()?;
        let (mut encoded_pieces, mut transcripts, mut vectors) =
            (Vec::new(), Vec::new(), Vec::new());
        for range in cut_at_pauses(&levels, longest) {
            let piece = features.narrow(0, range.start, range.len())?;
            let encoded = self.encoder.forward(&piece)?;
            let seconds = piece.dim(0)? as f64 / frames_per_second;
            let spelled = self.reader.read(&encoded, seconds)?;
            encoded_pieces.push(encoded.values);
            transcripts.push(spelled.transcript);
            vectors.extend(spelled.vectors);
        }
        let transcript = super::Transcript::join(transcripts)?;
        let encoded = Padded {
            values: Tensor::cat(&encoded_pieces, 1)?,
            lengths: Vec::new(),
        };
        let seconds = frames as f64 / frames_per_second;
        Ok(Heard {
            pooled_input: pooled_input(&encoded, features, &transcript, seconds)?
                .to_device(features.device())?,
            transcript,
            word_vectors: match vectors.is_empty() {
                true => None,
                false => Some(Tensor::cat(&vectors, 0)?),
            },
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
        let words = match &heard.word_vectors {
            Some(vectors) => Part::Vectors(vectors.clone()),
            None => Part::Ids(self.words.ids(&heard.transcript.text)?),
        };
        Ok(TranscriptConnector::parts(pooled, words, self.markers))
    }
}

/// Ranges of at most `longest` frames, each but the last ending in the middle of the quietest moment of its second half.
fn cut_at_pauses(levels: &[f32], longest: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while levels.len() - from > longest.max(1) {
        let half = &levels[from + longest / 2..from + longest.max(1)];
        let sums = half.windows(PAUSE).map(|moment| moment.iter().sum::<f32>());
        let quietest = sums.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        let end = match quietest {
            Some((at, _)) => from + longest / 2 + at + PAUSE / 2,
            None => from + longest.max(1),
        };
        ranges.push(from..end);
        from = end;
    }
    ranges.push(from..levels.len());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_utterance_is_cut_where_it_is_quiet() {
        let mut levels = vec![1.0; 400];
        levels[140..180].fill(0.0);
        assert_eq!(cut_at_pauses(&levels, 200), [0..155, 155..270, 270..400]);
        for short in [200, 0] {
            let ranges = cut_at_pauses(&levels[..short], 200);
            assert_eq!((ranges.len(), &ranges[0]), (1, &(0..short)));
        }
        for (frames, longest) in [(500, 1), (500, 7), (100, 60), (61, 60)] {
            let ranges = cut_at_pauses(&vec![0.5; frames], longest);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(
                ranges
                    .iter()
                    .all(|range| (1..=longest).contains(&range.len()))
            );
            assert_eq!(ranges.last().unwrap().end, frames);
        }
    }
}
