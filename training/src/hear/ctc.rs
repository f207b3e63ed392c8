//! The stage `align-ctc`: a connector learns to say, beside the ears that stay as they are, which of the language model's tokens
//! is spoken when. The language model is not run: the connector's vectors are compared with its embeddings, the tied
//! vocabulary. It is the first half of the paper's audio alignment (spec 8.3).

use super::clip::{Clip, clips, drawn};
use super::{Measures, ears, varied};
use crate::alignment::{Alignment, Goal, chosen, learn};
use crate::sampler::generator;
use crate::{Error, Places, Recipe, Result, Stage, StageOptions};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use vita_model::audio::{BLANK, CtcReader, Ears, Padded};
use vita_model::build::{CTC_FILE, CTC_PREFIX, ctc_connector};
use vita_model::connector::Words;
use vita_model::nn::{TensorMap, Variables, Weights};
use vita_model::train::{AdamW, AdamWConfig, ctc_loss};
use vita_model::{LoadOptions, Vita};

/// Section `[align-ctc]` of a recipe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlignCtcStage {
    pub updates: u64,
    /// Utterances of an update.
    pub batch: usize,
    pub peak: f64,
    pub weight_decay: f64,
    /// Updates between two readings of the split valid.
    pub validate_updates: u64,
    pub validate_items: usize,
}

impl Default for AlignCtcStage {
    fn default() -> Self {
        Self {
            updates: 2_000,
            batch: 32,
            peak: 2e-3,
            weight_decay: 0.01,
            validate_updates: 200,
            validate_items: 100,
        }
    }
}

pub struct Summary {
    pub updates: u64,
    pub measures: Measures,
    /// Tokens that it can say.
    pub vocabulary: usize,
    pub file: PathBuf,
}

/// Learns. What it ends with is in [`CTC_FILE`], in the stage's folder.
pub fn run(recipe: &Recipe, places: &Places, options: &StageOptions) -> Result<Summary> {
    let missing = || Error::Input("the recipe has no section [align-ctc]".into());
    let stage = recipe.align_ctc.clone().ok_or_else(missing)?;
    let mut speller = Speller::load(recipe, places, &stage)?;
    let goal = Goal {
        updates: stage.updates,
        peak: stage.peak,
        measured: stage.validate_updates,
    };
    let updates = learn(&mut speller, (places, Stage::AlignCtc), &goal, options)?;
    let file = places.stage(Stage::AlignCtc).join(CTC_FILE);
    vita_model::train::save(&file, &speller.tensors()?, true)?;
    Ok(Summary {
        updates,
        measures: speller.measure()?,
        vocabulary: speller.vocabulary.len(),
        file,
    })
}

struct Speller {
    vita: Vita,
    reader: CtcReader,
    optimiser: AdamW,
    words: Words,
    /// In the order of the reader's classes.
    vocabulary: Vec<u32>,
    classes: HashMap<u32, u32>,
    training: Vec<Clip>,
    valid: Vec<Clip>,
    batch: usize,
    seed: u64,
}

impl Speller {
    fn load(recipe: &Recipe, places: &Places, stage: &AlignCtcStage) -> Result<Self> {
        let (training, valid) = clips(recipe, places, stage.validate_items)?;
        let vita = Vita::load(&places.model, &LoadOptions::default())?;
        let words = Words::new(vita.lm().clone(), vita.tokenizer().clone());
        let vocabulary = vocabulary(&training, &words)?;
        let classes = vocabulary.iter().zip(BLANK + 1..);
        let classes = classes.map(|(&token, class)| (token, class)).collect();
        let (config, width) = (ctc_connector(), ears(&vita)?.encoder.width());
        let initial = CtcReader::initial(&config, width, words.hidden())?;
        let named = initial
            .into_iter()
            .map(|(n, t)| (format!("{CTC_PREFIX}{n}"), t));
        let variables = Arc::new(Variables::new(|_| true));
        let source = variables.of(Arc::new(TensorMap(named.collect())));
        let w = Weights::f32(source).for_training();
        let w = w.pp(CTC_PREFIX.trim_end_matches('.'));
        let reader = CtcReader::new(&config, width, vocabulary.clone(), words.clone(), &w)?;
        let adamw = AdamWConfig {
            weight_decay: stage.weight_decay,
            ..AdamWConfig::default()
        };
        Ok(Self {
            vita,
            reader,
            optimiser: AdamW::new(adamw, variables.made()),
            words,
            vocabulary,
            classes,
            training,
            valid,
            batch: stage.batch,
            seed: recipe.seed,
        })
    }

    fn hears(&self) -> Result<&Ears> {
        Ok(self.vita.ears()?)
    }

    fn encoded(&self, features: &Tensor) -> Result<Padded> {
        Ok(ears(&self.vita)?.encoder.forward(features)?)
    }

    /// Loss of one recording and the tokens that are said in it; `None` where it is too short to say them.
    fn loss_of(&self, features: &Tensor, words: &str) -> Result<Option<(Tensor, usize)>> {
        let ids = CtcReader::written(&self.words, words)?;
        let labels: Option<Vec<u32>> = ids.iter().map(|id| self.classes.get(id).copied()).collect();
        let Some(labels) = labels else {
            return Ok(None);
        };
        let logits = self.reader.logits(&self.encoded(features)?)?;
        let repeated = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
        if labels.len() + repeated > logits.dim(0)? {
            return Ok(None);
        }
        let log = log_softmax(&logits, D::Minus1)?;
        let loss = ctc_loss(&log, &labels, BLANK)?;
        Ok(Some((loss, labels.len())))
    }

    fn measure(&self) -> Result<Measures> {
        let mut measures = Measures::default();
        for clip in &self.valid {
            let features = clip.features(self.hears()?)?;
            let read = self.reader.read(&self.encoded(&features)?)?.transcript;
            measures.add(&clip.words, &read.text);
        }
        Ok(measures)
    }

    fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let learnt = self.optimiser.variables().iter();
        let mut tensors: HashMap<String, Tensor> = learnt
            .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
            .collect();
        let tokens = Tensor::new(self.vocabulary.as_slice(), &Device::Cpu)?;
        tensors.insert(format!("{CTC_PREFIX}tokens"), tokens);
        Ok(tensors)
    }
}

impl Alignment for Speller {
    fn optimiser(&mut self) -> &mut AdamW {
        &mut self.optimiser
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        let chosen = chosen(self.training.len(), self.batch, (self.seed, 40), step);
        let mut rng = generator(self.seed, 41, step);
        let mut total = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        let mut tokens = 0;
        for i in chosen {
            let (features, words) = drawn(&self.training, i, self.hears()?, &mut rng)?;
            let features = varied(&features, &mut rng)?;
            if let Some((loss, said)) = self.loss_of(&features, &words)? {
                total = (total + loss)?;
                tokens += said;
            }
        }
        Ok((total / tokens.max(1) as f64)?)
    }

    fn valid(&self) -> Result<String> {
        Ok(self.measure()?.to_string())
    }
}

/// All tokens of what is said, ascending.
fn vocabulary(clips: &[Clip], words: &Words) -> Result<Vec<u32>> {
    let mut all = BTreeSet::new();
    for clip in clips {
        all.extend(CtcReader::written(words, &clip.words)?);
    }
    match all.is_empty() {
        true => Err(Error::Input(
            "nobody says anything in the recordings of the split train".into(),
        )),
        false => Ok(all.into_iter().collect()),
    }
}
