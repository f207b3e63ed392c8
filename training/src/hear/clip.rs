use crate::features::{SAMPLE_RATE_HZ, samples};
use crate::{Item, Result};
use candle_core::Tensor;
use rand::Rng;
use rand::rngs::StdRng;
use std::path::PathBuf;
use vita_model::audio::Ears;
use vita_model::build::TUNED_SILENCE_MS;

const SAMPLES_PER_MS: u64 = SAMPLE_RATE_HZ as u64 / 1_000;

/// Twelve seconds. What is longer is cut at pauses when it is read, and nobody knows which words go where.
const LONGEST_BYTES: u64 = 12 * 1_000 * SAMPLES_PER_MS * 2;

/// Between two sentences of one that goes on speaking.
const PAUSE_MS: [u64; 2] = [100, 700];

/// A recording and what is said in it: nothing in a sound that nobody makes.
pub struct Clip {
    pub audio: PathBuf,
    pub words: String,
}

impl Clip {
    /// Of an item with a recording that is not too long.
    pub fn of(item: &Item) -> Option<Self> {
        let audio = item.audio.clone()?;
        let bytes = std::fs::metadata(&audio).map_or(0, |data| data.len());
        let words = item.words.trim().to_owned();
        (bytes <= LONGEST_BYTES).then_some(Self { audio, words })
    }

    /// Features `[frames, bins]`, with the silence behind it that tuned ears are given.
    pub fn features(&self, ears: &Ears) -> Result<Tensor> {
        features(&samples(&self.audio)?, ears)
    }

    /// This and then another after a pause, as one that goes on speaking: of a part alone ears learn to stop at pauses.
    /// `None`: that would be too long, or one says nothing.
    pub fn joined(
        &self,
        other: &Self,
        ears: &Ears,
        rng: &mut StdRng,
    ) -> Result<Option<(Tensor, String)>> {
        let pause_ms = rng.random_range(PAUSE_MS[0]..PAUSE_MS[1]);
        if self.is_silent() || other.is_silent() {
            return Ok(None);
        }
        let mut both = samples(&self.audio)?;
        both.resize(both.len() + (pause_ms * SAMPLES_PER_MS) as usize, 0.0);
        both.extend(samples(&other.audio)?);
        if both.len() as u64 * 2 > LONGEST_BYTES {
            return Ok(None);
        }
        let words = format!("{} {}", self.words, other.words);
        Ok(Some((features(&both, ears)?, words)))
    }

    fn is_silent(&self) -> bool {
        self.words.is_empty()
    }
}

fn features(samples: &[f32], ears: &Ears) -> Result<Tensor> {
    let silence = (TUNED_SILENCE_MS * SAMPLES_PER_MS) as usize;
    Ok(ears.features_before(samples, silence)?)
}
