//! Ears learn. The stage `align-audio`: ears that read learn to write what is said, with low-rank updates of all their
//! layers. The language model is not run. Transcription is the second half of the paper's audio alignment (spec 8.3); the
//! first half is in [`ctc`].

mod clip;
pub mod ctc;
mod variation;

use crate::alignment::{Alignment, Goal, learn};
use crate::words::word_errors;
use crate::{Error, Places, Recipe, Result, Stage, StageOptions};
use candle_core::Tensor;
use clip::{Clip, batch, clips};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use vita_model::audio::{
    AudioEncoder, Ears, Reader, Transcriber, Transcribing, Transcript, Whisper, WhisperDecoder,
};
use vita_model::build::{EARS_PREFIX, TRAINED_FILE};
use vita_model::nn::Variables;
use vita_model::train::{AdamW, AdamWConfig, CrossEntropy, EarsLora, LoraConfig, cross_entropy};
use vita_model::{LoadOptions, Vita};

/// Where the updates are, in the stage's folder: names as in a model's trained parts.
pub const TUNED_FILE: &str = "ears.safetensors";

/// Section `[align-audio]` of a recipe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlignAudioStage {
    pub updates: u64,
    /// Utterances of an update.
    pub batch: usize,
    pub peak: f64,
    pub weight_decay: f64,
    pub low_rank: LoraConfig,
    /// How much of the updates the ears get, 0 to 1. Weights between those published and those tuned keep what they
    /// could do (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022): people's voices, long sentences.
    pub share: f64,
    /// Share of the recordings that nothing is learnt from, so that the language model, which learns from all, meets
    /// some as strangers' voices will be read: with mistakes.
    pub unheard: f64,
    /// Updates between two readings of the split valid.
    pub validate_updates: u64,
    pub validate_items: usize,
}

impl Default for AlignAudioStage {
    fn default() -> Self {
        Self {
            updates: 2_000,
            batch: 8,
            peak: 1e-3,
            weight_decay: 0.0,
            low_rank: LoraConfig {
                rank: 16,
                alpha: 32.0,
                from_layer: 0,
            },
            share: 0.5,
            unheard: 0.0,
            validate_updates: 200,
            validate_items: 100,
        }
    }
}

/// How the split valid is read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measures {
    /// Wrong, lost and added words, of so many.
    pub errors: usize,
    pub words: usize,
    /// Utterances read without a mistake, of so many.
    pub whole: usize,
    pub utterances: usize,
}

impl Measures {
    /// Of what `read` makes of the features of clips.
    fn of(
        clips: &[Clip],
        ears: &Ears,
        read: impl Fn(&Tensor) -> Result<Transcript>,
    ) -> Result<Self> {
        let mut measures = Self::default();
        for clip in clips {
            let read = read(&clip.features(ears)?)?;
            let (errors, words) = word_errors(&clip.words, &read.text);
            measures.errors += errors;
            measures.words += words;
            measures.whole += usize::from(errors == 0);
            measures.utterances += 1;
        }
        Ok(measures)
    }
}

impl std::fmt::Display for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let percent = 100.0 * self.errors as f64 / self.words.max(1) as f64;
        let (errors, words) = (self.errors, self.words);
        let (whole, utterances) = (self.whole, self.utterances);
        write!(
            f,
            "words wrong {percent:.1} % ({errors}/{words}), {whole} of {utterances} utterances read whole"
        )
    }
}

pub struct Summary {
    pub updates: u64,
    pub measures: Measures,
    pub file: PathBuf,
}

/// Learns. What it ends with is in [`TUNED_FILE`].
pub fn run(recipe: &Recipe, places: &Places, options: &StageOptions) -> Result<Summary> {
    let missing = || Error::Input("the recipe has no section [align-audio]".into());
    let stage = recipe.align_audio.clone().ok_or_else(missing)?;
    let chosen = (stage.unheard, stage.validate_items);
    let (training, valid) = clips(recipe, places, chosen)?;
    let mut tuner = Tuner::load(recipe.seed, places, &stage, (training, valid))?;
    let goal = Goal {
        updates: stage.updates,
        peak: stage.peak,
        measured: stage.validate_updates,
    };
    let updates = learn(&mut tuner, (places, Stage::AlignAudio), &goal, options)?;
    let file = places.stage(Stage::AlignAudio).join(TUNED_FILE);
    vita_model::train::save(&file, &tuner.lora.tensors(stage.share)?, true)?;
    Ok(Summary {
        updates,
        measures: tuner.measure()?,
        file,
    })
}

struct Tuner {
    vita: Vita,
    lora: EarsLora,
    optimiser: AdamW,
    /// The ears with what learns.
    encoder: Whisper,
    decoder: WhisperDecoder,
    training: Vec<Clip>,
    valid: Vec<Clip>,
    batch: usize,
    share: f64,
    seed: u64,
}

impl Tuner {
    fn load(
        seed: u64,
        places: &Places,
        stage: &AlignAudioStage,
        (training, valid): (Vec<Clip>, Vec<Clip>),
    ) -> Result<Self> {
        tuned_already(places)?;
        // nothing of the model itself learns, but gradients pass it
        let options = LoadOptions {
            variables: Some(Arc::new(Variables::new(|_| false))),
            ..LoadOptions::default()
        };
        let vita = Vita::load(&places.model, &options)?;
        let (encoder, decoder) = (&ears(&vita)?.encoder, transcriber(&vita)?.decoder());
        let lora = EarsLora::new(stage.low_rank, encoder, decoder, seed)?;
        let (encoder, decoder) = lora.attach(encoder, decoder)?;
        let adamw = AdamWConfig {
            weight_decay: stage.weight_decay,
            ..AdamWConfig::default()
        };
        let optimiser = AdamW::new(adamw, lora.variables().clone());
        Ok(Self {
            vita,
            lora,
            optimiser,
            encoder,
            decoder,
            training,
            valid,
            batch: stage.batch,
            share: stage.share,
            seed,
        })
    }

    /// Reads clips as the model will, with the share of the updates that it gets.
    fn measure(&self) -> Result<Measures> {
        let (hears, transcriber) = (self.vita.ears()?, transcriber(&self.vita)?);
        let (encoder, decoder) = (&ears(&self.vita)?.encoder, transcriber.decoder());
        let (encoder, decoder) = self.lora.attach_frozen(encoder, decoder, self.share)?;
        Measures::of(&self.valid, hears, |features| {
            let seconds = features.dim(0)? as f64 / hears.frames_per_second();
            Ok(transcriber.read_with(&decoder, &encoder.forward(features)?, seconds)?)
        })
    }
}

impl Alignment for Tuner {
    fn optimiser(&mut self) -> &mut AdamW {
        &mut self.optimiser
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        let (hears, transcriber) = (self.vita.ears()?, transcriber(&self.vita)?);
        let (mut thoughts, mut targets) = (Vec::new(), Vec::new());
        for (features, words) in batch(&self.training, hears, self.batch, (self.seed, 30), step)? {
            let encoded = self.encoder.forward(&features)?;
            let ids = transcriber.written(&words)?;
            let given = transcriber.opening();
            let hidden = self
                .decoder
                .forward(&ids[..ids.len() - 1], &encoded.values)?;
            thoughts.push(hidden.narrow(0, given - 1, ids.len() - given)?);
            targets.extend_from_slice(&ids[given..]);
        }
        let logits = self.decoder.logits(&Tensor::cat(&thoughts, 0)?)?;
        Ok(cross_entropy(&logits, None, &CrossEntropy::mean(targets))?)
    }

    fn valid(&self) -> Result<String> {
        Ok(self.measure()?.to_string())
    }
}

/// Ears that read what they hear.
pub(crate) fn ears(vita: &Vita) -> Result<&Transcribing> {
    match &vita.ears()?.encoder {
        AudioEncoder::Transcribing(ears) => Ok(ears),
        _ => Err(Error::Input(
            "this model's ears do not read what they hear (audio.connector.kind = \"transcript\")"
                .into(),
        )),
    }
}

fn transcriber(vita: &Vita) -> Result<&Transcriber> {
    match &ears(vita)?.reader {
        Reader::Decoder(transcriber) => Ok(transcriber),
        Reader::Ctc(_) => Err(Error::Input(
            "these ears read without a decoder: the stage align-audio tunes those that have one"
                .into(),
        )),
    }
}

/// Updates are made beside the ears as published: what is tuned already would be lost.
fn tuned_already(places: &Places) -> Result<()> {
    let file = places.model.join(TRAINED_FILE);
    if !file.is_file() {
        return Ok(());
    }
    let infos = vita_model::checkpoint::Shards::from_file(&file)?.infos();
    match infos.iter().any(|info| info.name.starts_with(EARS_PREFIX)) {
        true => Err(Error::format(
            &file,
            "these ears were tuned already: build the model to begin with without that (vita model build --trained)",
        )),
        false => Ok(()),
    }
}
