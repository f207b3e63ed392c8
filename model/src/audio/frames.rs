//! Utterances cut out of a stream of filterbank frames.

use super::{AudioEncoder, Ears};
use crate::fbank::{Frontend, normalise_whisper};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Ten minutes, for ears that read an utterance in pieces and have no limit of their own: it bounds memory.
const PIECEWISE_FRAMES: usize = 60_000;

/// Whale's table of positions: 200 s.
const WHALE_FRAMES: usize = 4 * super::whale::MAX_POSITIONS;

impl Ears {
    /// Features `[frames, bins]` of an utterance whose raw frames (row-major) were computed while it was spoken, ready
    /// for [`crate::Vita::hear_frames`]: frames of silence behind it, and Whisper's normalisation. They differ from
    /// [`Ears::features`] of the same samples at the utterance's edges only, where a stream knows what came before
    /// and after.
    ///
    /// # Errors
    /// Where `frames` is no whole number of frames, or none.
    pub fn features_of_frames(&self, mut frames: Vec<f32>) -> Result<Tensor> {
        let bins = self.fbank.num_mel_bins();
        if frames.is_empty() || !frames.len().is_multiple_of(bins) {
            return Err(Error::Input(format!(
                "{} filterbank values: expected frames of {bins}",
                frames.len()
            )));
        }
        let silence = self.fbank.silence();
        for _ in 0..self.tail_frames() {
            frames.extend_from_slice(&silence);
        }
        if self.fbank.frontend() == Frontend::Whisper {
            normalise_whisper(&mut frames);
        }
        Ok(Tensor::from_vec(frames, ((), bins), &Device::Cpu)?)
    }

    /// Most frames of an utterance, so that what stands behind it has room too.
    pub fn max_frames(&self) -> usize {
        let limit = match &self.encoder {
            AudioEncoder::Whale { .. } => WHALE_FRAMES,
            AudioEncoder::Whisper { encoder, .. } => encoder.max_frames(),
            AudioEncoder::Transcribing(_) => PIECEWISE_FRAMES,
        };
        limit - self.tail_frames().min(limit)
    }

    fn tail_frames(&self) -> usize {
        self.tail_silence / self.fbank.frame_shift()
    }
}
