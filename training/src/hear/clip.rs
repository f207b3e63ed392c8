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

/// Bands and moments that are hidden in training, so that no recording is known by heart (Park et al., "SpecAugment", 2019).
const MASKED: f64 = 0.5;
const WIDEST_BAND: usize = 12;
const LONGEST_MOMENT: usize = 12;

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
        let silence = (TUNED_SILENCE_MS * SAMPLES_PER_MS) as usize;
        Ok(ears.features_before(&samples(&self.audio)?, silence)?)
    }
}

/// With a band and a moment or two set to the mean, half of the times.
pub fn masked(features: &Tensor, rng: &mut StdRng) -> Result<Tensor> {
    let (frames, bins) = features.dims2()?;
    let mut values = features.to_vec2::<f32>()?;
    let mean = features.mean_all()?.to_scalar::<f32>()?;
    for (length, longest, across) in [
        (bins, WIDEST_BAND, true),
        (frames, LONGEST_MOMENT, false),
        (frames, LONGEST_MOMENT, false),
    ] {
        if !rng.random_bool(MASKED) || length <= longest {
            continue;
        }
        let wide = rng.random_range(1..=longest);
        let from = rng.random_range(0..=length - wide);
        match across {
            true => values
                .iter_mut()
                .for_each(|frame| frame[from..from + wide].fill(mean)),
            false => values[from..from + wide]
                .iter_mut()
                .for_each(|frame| frame.fill(mean)),
        }
    }
    let values: Vec<f32> = values.into_iter().flatten().collect();
    Ok(Tensor::from_vec(values, (frames, bins), features.device())?)
}
