use super::variation::varied;
use crate::alignment::chosen;
use crate::features::{SAMPLE_RATE_HZ, samples};
use crate::sampler::generator;
use crate::{Error, Item, Places, Recipe, Result, Split};
use candle_core::Tensor;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::HashSet;
use std::path::PathBuf;
use vita_model::audio::Ears;
use vita_model::build::TUNED_SILENCE_MS;

const SAMPLES_PER_MS: u64 = SAMPLE_RATE_HZ as u64 / 1_000;

/// Twelve seconds. What is longer is cut at pauses when it is read, and nobody knows which words go where.
const LONGEST_BYTES: u64 = 12 * 1_000 * SAMPLES_PER_MS * 2;

/// Between two sentences of one that goes on speaking.
const PAUSE_MS: [u64; 2] = [100, 700];

/// Share of the draws that are two recordings with a pause between them.
const JOINED: f64 = 0.2;

/// Share of the draws with something behind the speech, and of those with people rather than a hiss.
const NOISY: f64 = 0.4;
const BABBLED: f64 = 0.5;
const MOST_PEOPLE: usize = 4;

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

/// Recordings of the splits train and valid, each once. Of the first all but the share `unheard`, of the second at most
/// `validate_items`.
pub fn clips(
    recipe: &Recipe,
    places: &Places,
    (unheard, validate_items): (f64, usize),
) -> Result<(Vec<Clip>, Vec<Clip>)> {
    let mut items = recipe.items(places)?;
    let mut known = HashSet::new();
    items.retain(|item| {
        item.audio
            .as_ref()
            .is_some_and(|path| known.insert(path.clone()))
    });
    let of = |split| {
        let items = items.iter().filter(move |item| item.split == split);
        items.filter_map(Clip::of)
    };
    let mut training: Vec<Clip> = of(Split::Train).collect();
    let mut rng = generator(recipe.seed, 33, 0);
    training.retain(|_| !rng.random_bool(unheard.clamp(0.0, 1.0)));
    if training.is_empty() {
        let reason =
            "no item of the split train has a recording to learn from: run the stage data first";
        return Err(Error::Input(reason.into()));
    }
    let mut valid: Vec<Clip> = of(Split::Valid)
        .filter(|clip| !clip.words.is_empty())
        .collect();
    valid.shuffle(&mut generator(recipe.seed, 32, 0));
    valid.truncate(validate_items);
    Ok((training, valid))
}

/// Features, varied, and words of the recordings of the update behind `step` others.
/// Which they are follows from `seed` and `what`, how they vary from `seed` and the number behind it.
pub fn batch(
    clips: &[Clip],
    ears: &Ears,
    size: usize,
    (seed, what): (u64, u64),
    step: u64,
) -> Result<Vec<(Tensor, String)>> {
    let mut rng = generator(seed, what + 1, step);
    let chosen = chosen(clips.len(), size, (seed, what), step);
    let drawn = chosen.into_iter().map(|i| {
        let (features, words) = drawn(clips, i, ears, &mut rng)?;
        let others = others(clips, ears, &mut rng)?;
        Ok((varied(&features, others.as_deref(), &mut rng)?, words))
    });
    drawn.collect()
}

/// Features of what is said behind a recording: of nobody for a hiss, `None` in a quiet room.
fn others(clips: &[Clip], ears: &Ears, rng: &mut StdRng) -> Result<Option<Vec<Tensor>>> {
    if !rng.random_bool(NOISY) {
        return Ok(None);
    }
    let people = match rng.random_bool(BABBLED) {
        true => rng.random_range(2..=MOST_PEOPLE),
        false => 0,
    };
    let mut some = || clips[rng.random_range(0..clips.len())].features(ears);
    (0..people).map(|_| some()).collect::<Result<_>>().map(Some)
}

/// Features and words of a recording, or of it and another one behind it.
fn drawn(clips: &[Clip], i: usize, ears: &Ears, rng: &mut StdRng) -> Result<(Tensor, String)> {
    let (clip, all) = (&clips[i], clips.len());
    if all > 1 && rng.random_bool(JOINED) {
        // any but itself
        let other = &clips[(i + rng.random_range(1..all)) % all];
        if let Some(both) = clip.joined(other, ears, rng)? {
            return Ok(both);
        }
    }
    Ok((clip.features(ears)?, clip.words.clone()))
}

fn features(samples: &[f32], ears: &Ears) -> Result<Tensor> {
    let silence = (TUNED_SILENCE_MS * SAMPLES_PER_MS) as usize;
    Ok(ears.features_before(samples, silence)?)
}
