//! The recipe: one TOML with everything that a training run depends on.

use crate::align::AlignVisionStage;
use crate::data::DataConfig;
use crate::hear::AlignAudioStage;
use crate::hear::ctc::AlignCtcStage;
use crate::{Error, Item, Result, read_items};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vita_model::train::{AdamWConfig, LoraConfig};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Also the folder under `<cache>/training/` where data, features and results are.
    pub name: String,
    /// The model to begin with: a folder, or a name that means one in the cache.
    pub model: String,
    /// Files of items, JSON lines, meant from the recipe's folder in the cache.
    pub items: Vec<PathBuf>,
    #[serde(default)]
    pub seed: u64,
    /// System texts by the items' `system`; a conversation has none where there is none.
    #[serde(default)]
    pub system: BTreeMap<crate::System, String>,
    /// The stage `data`, which makes the items; without it they are there.
    pub data: Option<DataConfig>,
    /// The stage `align-vision`; without it the connector begins with what the model has.
    pub align_vision: Option<AlignVisionStage>,
    /// The stage `align-audio`; without it the ears stay as published.
    pub align_audio: Option<AlignAudioStage>,
    /// The stage `align-ctc`; only a model that reads without a decoder needs what it learns.
    pub align_ctc: Option<AlignCtcStage>,
    pub instruct: Option<InstructStage>,
}

/// Instruction tuning: state tokens, answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InstructStage {
    /// Beginnings of the names of tensors that learn, by their names in the model's files.
    #[serde(default)]
    pub learn: Vec<String>,
    pub low_rank: Option<LoraConfig>,
    pub updates: u64,
    /// An update is made when the sequences drawn for it have this many tokens.
    #[serde(default = "batch_tokens")]
    pub batch_tokens: usize,
    pub rate: Rate,
    #[serde(default)]
    pub adamw: AdamWConfig,
    /// Longest gradient over all that learns.
    #[serde(default = "clip")]
    pub clip: f64,
    #[serde(default)]
    pub mix: Mix,
    /// How much a state token counts beside a token of an answer.
    #[serde(default = "one")]
    pub state_weight: f32,
    #[serde(default)]
    pub recognition: RecognitionErrors,
    /// Recorded questions of whose words a smaller part was read right are not trained on: an answer to
    /// what could not be understood is a guess.
    #[serde(default)]
    pub understood: f64,
    #[serde(default = "save_secs")]
    pub save_secs: u64,
    /// Updates between two looks at the items of the split `valid`.
    #[serde(default = "validate_updates")]
    pub validate_updates: u64,
    #[serde(default = "validate_items")]
    pub validate_items: usize,
    /// So many items of the split `test` are measured beside them, for the curve: unseen voices and phrasings. They
    /// decide nothing.
    #[serde(default)]
    pub watch_items: usize,
}

/// Learning rate: warm-up, then half a cosine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rate {
    pub peak: f64,
    #[serde(default)]
    pub warm_up: u64,
    /// Where the cosine ends, as a part of the peak.
    #[serde(default)]
    pub floor: f64,
    /// Factors for tensors whose names begin so.
    #[serde(default)]
    pub factors: BTreeMap<String, f64>,
}

/// Parts of what is drawn. Every batch is mixed: kinds in batches of their own are not learnt.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mix {
    pub query: f64,
    pub noise: f64,
    pub text: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            query: 0.45,
            noise: 0.3,
            text: 0.25,
        }
    }
}

/// How often what is said is heard wrong, where it is simulated from words.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecognitionErrors {
    /// Probability that an utterance has any error at all.
    pub utterances: f64,
    /// In these, of a word: it is dropped.
    pub drop: f64,
    /// It is taken for one that sounds like it.
    pub substitute: f64,
    /// It, or a few words together, are taken for what the ears wrote for them in a recording: as often as
    /// they did there, times this.
    pub confuse: f64,
}

impl Default for RecognitionErrors {
    fn default() -> Self {
        Self {
            utterances: 0.4,
            drop: 0.06,
            substitute: 0.12,
            confuse: 0.0,
        }
    }
}

fn batch_tokens() -> usize {
    320
}
fn clip() -> f64 {
    1.0
}
fn one() -> f32 {
    1.0
}
fn save_secs() -> u64 {
    120
}
fn validate_updates() -> u64 {
    200
}
fn validate_items() -> usize {
    200
}

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Data,
    Pictures,
    AlignAudio,
    AlignCtc,
    Features,
    AlignVision,
    Instruct,
}

impl Stage {
    pub const ALL: [Self; 7] = [
        Self::Data,
        Self::Pictures,
        Self::AlignAudio,
        Self::AlignCtc,
        Self::Features,
        Self::AlignVision,
        Self::Instruct,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Pictures => "pictures",
            Self::AlignAudio => "align-audio",
            Self::AlignCtc => "align-ctc",
            Self::Features => "features",
            Self::AlignVision => "align-vision",
            Self::Instruct => "instruct",
        }
    }
}

impl Recipe {
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut recipe: Self = toml::from_str(&text).map_err(|e| {
            let line = e
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let message = e.message().replace('\n', ", ");
            Error::format(path, format!("line {line}: {message}"))
        })?;
        recipe.validate(path)?;
        if let Some(data) = &mut recipe.data {
            data.corpus = path.parent().unwrap_or(Path::new(".")).join(&data.corpus);
        }
        Ok(recipe)
    }

    /// The items of all its files.
    pub fn items(&self, places: &Places) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for file in &self.items {
            items.extend(read_items(&places.folder.join(file))?);
        }
        Ok(items)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let plain = !self.name.is_empty()
            && self
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !self.name.starts_with('.');
        let stage = self.instruct.as_ref();
        let wrong = [
            (!plain, "name: expected letters, digits, '-', '_' and '.'"),
            (self.items.is_empty(), "items: expected at least one file"),
            (
                stage.is_some_and(|s| s.updates == 0 || s.batch_tokens == 0),
                "instruct: expected updates and batch-tokens above 0",
            ),
            (
                self.align_audio.as_ref().is_some_and(|s| {
                    s.updates == 0 || s.batch == 0 || !(0.0..=1.0).contains(&s.share)
                }),
                "align-audio: expected updates and batch above 0, and a share from 0 to 1",
            ),
            (
                self.align_ctc
                    .as_ref()
                    .is_some_and(|s| s.updates == 0 || s.batch == 0),
                "align-ctc: expected updates and batch above 0",
            ),
            (
                self.align_vision
                    .as_ref()
                    .is_some_and(|s| s.updates == 0 || s.batch == 0),
                "align-vision: expected updates and batch above 0",
            ),
            (
                stage.is_some_and(|s| s.learn.is_empty() && s.low_rank.is_none()),
                "instruct: nothing learns; expected low-rank or learn",
            ),
            (
                stage.is_some_and(|s| {
                    let parts = [s.mix.query, s.mix.noise, s.mix.text];
                    parts.iter().any(|p| !(0.0..=1e6).contains(p))
                        || parts.iter().sum::<f64>() <= 0.0
                }),
                "instruct.mix: expected parts of at least 0, not all 0",
            ),
            (
                stage.is_some_and(|s| !(s.rate.peak > 0.0 && s.rate.peak < 1.0) || s.clip <= 0.0),
                "instruct: expected a rate between 0 and 1 and a clip above 0",
            ),
        ];
        match wrong.iter().find(|(is, _)| *is) {
            Some((_, reason)) => Err(Error::format(path, reason)),
            None => Ok(()),
        }
    }
}

/// How far a stage is to go that is taken up where it was.
#[derive(Debug, Clone, Default)]
pub struct StageOptions {
    /// Stop after about so long; a later run goes on.
    pub stop_after: Option<Duration>,
    /// Show a progress bar.
    pub progress: bool,
}

impl StageOptions {
    pub(crate) fn is_over(&self, began: Instant) -> bool {
        self.stop_after
            .is_some_and(|limit| began.elapsed() >= limit)
    }
}

/// Where a recipe's files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// What the set-up fetched.
    pub cache: PathBuf,
    /// `<cache>/training/<recipe>`.
    pub folder: PathBuf,
    /// The model's folder.
    pub model: PathBuf,
}

impl Places {
    pub fn stage(&self, stage: Stage) -> PathBuf {
        self.folder.join(stage.name())
    }
}
