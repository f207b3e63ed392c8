//! The stage `align-ctc`: a connector learns to say, beside the ears that stay as they are, which of the language model's tokens
//! is spoken when. The language model is not run: the connector's vectors are compared with its embeddings, the tied
//! vocabulary. It is the first half of the paper's audio alignment (spec 8.3).

use super::clip::{Clip, batch, clips};
use super::{Measures, ears};
use crate::alignment::{Alignment, Goal, learn};
use crate::{Error, Places, Recipe, Result, Stage, StageOptions};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use vita_model::audio::{BLANK, CtcReader, Padded};
use vita_model::build::{CTC_FILE, CTC_PREFIX, ctc_connector};
use vita_model::connector::Words;
use vita_model::nn::{TensorMap, Variables, Weights};
use vita_model::train::{AdamW, AdamWConfig, ctc_loss, ctc_steps};
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
        vocabulary: speller.reader.tokens().len(),
        file,
    })
}

struct Speller {
    vita: Vita,
    reader: CtcReader,
    optimiser: AdamW,
    training: Vec<Clip>,
    valid: Vec<Clip>,
    batch: usize,
    seed: u64,
}

impl Speller {
    fn load(recipe: &Recipe, places: &Places, stage: &AlignCtcStage) -> Result<Self> {
        let (training, valid) = clips(recipe, places, (0.0, stage.validate_items))?;
        let vita = Vita::load(&places.model, &LoadOptions::default())?;
        let words = Words::new(vita.lm().clone(), vita.tokenizer().clone());
        let vocabulary = vocabulary(&training, &words)?;
        let (config, width) = (ctc_connector(), ears(&vita)?.encoder.width());
        let initial = CtcReader::initial(&config, width, words.hidden())?;
        let named = initial
            .into_iter()
            .map(|(n, t)| (format!("{CTC_PREFIX}{n}"), t));
        let variables = Arc::new(Variables::new(|_| true));
        let source = variables.of(Arc::new(TensorMap(named.collect())));
        let w = Weights::f32(source).for_training();
        let w = w.pp(CTC_PREFIX.trim_end_matches('.'));
        let reader = CtcReader::new(&config, width, vocabulary, words, &w)?;
        let adamw = AdamWConfig {
            weight_decay: stage.weight_decay,
            ..AdamWConfig::default()
        };
        Ok(Self {
            vita,
            reader,
            optimiser: AdamW::new(adamw, variables.made()),
            training,
            valid,
            batch: stage.batch,
            seed: recipe.seed,
        })
    }

    fn encoded(&self, features: &Tensor) -> Result<Padded> {
        Ok(ears(&self.vita)?.encoder.forward(features)?)
    }

    /// Loss of one recording and the tokens that are said in it; `None` where it is too short to say them.
    fn loss_of(&self, features: &Tensor, words: &str) -> Result<Option<(Tensor, usize)>> {
        let Some(labels) = self.reader.labels(words)? else {
            return Ok(None);
        };
        let logits = self.reader.logits(&self.encoded(features)?)?;
        if ctc_steps(&labels) > logits.dim(0)? {
            return Ok(None);
        }
        let log = log_softmax(&logits, D::Minus1)?;
        let loss = ctc_loss(&log, &labels, BLANK)?;
        Ok(Some((loss, labels.len())))
    }

    fn measure(&self) -> Result<Measures> {
        Measures::of(&self.valid, self.vita.ears()?, |features| {
            Ok(self.reader.read(&self.encoded(features)?)?.transcript)
        })
    }

    fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let learnt = self.optimiser.variables().iter();
        let mut tensors: HashMap<String, Tensor> = learnt
            .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
            .collect();
        let tokens = Tensor::new(self.reader.tokens(), &Device::Cpu)?;
        tensors.insert(format!("{CTC_PREFIX}tokens"), tokens);
        Ok(tensors)
    }
}

impl Alignment for Speller {
    fn optimiser(&mut self) -> &mut AdamW {
        &mut self.optimiser
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        let mut total = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        let mut tokens = 0;
        let hears = self.vita.ears()?;
        for (features, words) in batch(&self.training, hears, self.batch, (self.seed, 40), step)? {
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
