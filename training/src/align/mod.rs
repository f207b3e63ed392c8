//! The stage `align-vision`: the visual connector alone learns to say words.
//!
//! The language model is not run: each vector is compared with the model's own embeddings of the words that it might
//! say, and drawn towards the right ones. That costs a hundredth of learning the same through the language model,
//! which then only has to read.

mod marks;
mod target;

use crate::alignment::{Alignment, Goal, chosen, learn};
use crate::data::pictures::{Scene, read_scenes};
use crate::features::{Found, Index};
use crate::sampler::generator;
use crate::{Error, Places, Recipe, Result, Split, Stage, StageOptions};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use rand::Rng;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use target::{Role, SLOTS, Targets, Vocabulary};
use vita_model::build::visual_connector;
use vita_model::connector::{Detailed, PooledConnector};
use vita_model::nn::{TensorMap, Variables, Weights, unit_rows};
use vita_model::train::{AdamW, AdamWConfig};
use vita_model::vision::{DETAIL_FEATURES, Details, efficientnet};
use vita_model::{LoadOptions, Vita};

/// Where the aligned weights are, in the stage's folder: names as in a model's trained parts.
pub const ALIGNED_FILE: &str = "aligned.safetensors";
const PREFIX: &str = "vision.";

/// Cosines are multiplied by this before the softmax.
const SHARPNESS: f64 = 20.0;
/// How much the distance to the right words counts beside the choice among words.
const DISTANCE: f64 = 0.5;
/// How much each role counts: there are too few pictures of each thing to name what was never seen.
fn weight(role: Role) -> f64 {
    match role {
        Role::Thing => 0.3,
        Role::Cell => 0.5,
        Role::Colour | Role::Side | Role::Count | Role::People => 1.0,
    }
}

/// Channels of the feature map that are left out in training, so that no picture is known by heart.
const DROPPED: f64 = 0.2;
const MEASURE_UPDATES: u64 = 200;

/// Section `[align-vision]` of a recipe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlignVisionStage {
    pub updates: u64,
    /// Pictures of an update.
    pub batch: usize,
    pub peak: f64,
    pub weight_decay: f64,
}

impl Default for AlignVisionStage {
    fn default() -> Self {
        Self {
            updates: 2_000,
            batch: 32,
            peak: 1.5e-3,
            weight_decay: 0.02,
        }
    }
}

/// Right words by split and role, and what was asked.
pub type Measures = BTreeMap<(Split, Role), (usize, usize)>;

pub struct Summary {
    pub updates: u64,
    pub measures: Measures,
    pub file: PathBuf,
}

/// A picture's maps and what is known of it.
struct Seen {
    /// `[rows, columns, channels]`, f16.
    map: Tensor,
    /// f16.
    details: Details,
    scene: Scene,
}

/// What the connector is given of some pictures, f32.
struct Inputs {
    /// `[n, rows, columns, channels]`.
    maps: Tensor,
    details: Details,
}

/// The words that vectors are compared with.
struct Words {
    vocabulary: Vocabulary,
    /// By role, `[words, hidden]`, around their mean.
    centred: BTreeMap<Role, Tensor>,
    /// `[1, hidden]`, of all words.
    mean: Tensor,
    /// Mean squared distance of a word from the mean.
    variance: f64,
}

impl Words {
    /// A word of several tokens is the mean of their embeddings.
    fn new(vita: &Vita, vocabulary: Vocabulary) -> Result<Self> {
        let mut own = BTreeMap::new();
        for (&role, words) in &vocabulary.words {
            let vectors = words.iter().map(|word| -> Result<Tensor> {
                let ids = vita.tokenizer().encode_text(&format!(" {word}"))?;
                Ok(vita
                    .lm()
                    .embed(&ids)?
                    .to_dtype(DType::F32)?
                    .mean_keepdim(0)?)
            });
            own.insert(role, Tensor::cat(&vectors.collect::<Result<Vec<_>>>()?, 0)?);
        }
        let all = Tensor::cat(&own.values().collect::<Vec<_>>(), 0)?;
        let mean = all.mean_keepdim(0)?;
        let squares = all.broadcast_sub(&mean)?.sqr()?.sum(1)?.mean_all()?;
        let centred = own
            .iter()
            .map(|(&role, vectors)| Ok((role, vectors.broadcast_sub(&mean)?)));
        Ok(Self {
            centred: centred.collect::<Result<_>>()?,
            vocabulary,
            mean,
            variance: f64::from(squares.to_scalar::<f32>()?),
        })
    }

    /// `[rows, words]`: how near rows are to the words of a role.
    fn logits(&self, rows: &Tensor, role: Role) -> Result<Tensor> {
        let rows = unit_rows(&rows.broadcast_sub(&self.mean)?)?;
        Ok((rows.matmul(&unit_rows(&self.centred[&role])?.t()?)? * SHARPNESS)?)
    }
}

/// Learns. What it ends with is in [`ALIGNED_FILE`].
pub fn run(recipe: &Recipe, places: &Places, options: &StageOptions) -> Result<Summary> {
    let Some(stage) = recipe.align_vision.clone() else {
        return Err(Error::Input(
            "the recipe has no section [align-vision]".into(),
        ));
    };
    let seen = pictures(places)?;
    let scenes: Vec<Scene> = seen.iter().map(|seen| seen.scene.clone()).collect();
    let vita = Vita::load(&places.model, &LoadOptions::default())?;
    let words = Words::new(&vita, Vocabulary::of(&scenes))?;
    let hidden = vita.lm().config().hidden_size;
    drop(vita);
    let mut aligner = Aligner::new(&stage, recipe.seed, words, hidden)?;
    let training: Vec<&Seen> = seen
        .iter()
        .filter(|s| s.scene.split == Split::Train)
        .collect();
    if training.is_empty() {
        return Err(Error::Input(
            "no picture of the split train has features: run the stages pictures and features first".into(),
        ));
    }
    let goal = Goal {
        updates: stage.updates,
        peak: stage.peak,
        measured: MEASURE_UPDATES,
    };
    let mut learning = Learning {
        aligner: &mut aligner,
        training: &training,
        seen: &seen,
        batch: stage.batch,
    };
    let updates = learn(&mut learning, (places, Stage::AlignVision), &goal, options)?;
    let file = places.stage(Stage::AlignVision).join(ALIGNED_FILE);
    vita_model::train::save(&file, &aligner.tensors(), true)?;
    let mut measures = aligner.measure(&seen, Split::Valid)?;
    measures.extend(aligner.measure(&seen, Split::Test)?);
    Ok(Summary {
        updates,
        measures,
        file,
    })
}

/// Pictures that have features and of which something is known.
fn pictures(places: &Places) -> Result<Vec<Seen>> {
    let scenes = read_scenes(&places.folder).map_err(|e| Error::Input(e.to_string()))?;
    let mut maps = HashMap::new();
    for found in Index::open(places)?.load()? {
        if let Found::Picture(path, seen) = found {
            let details = seen.details.ok_or_else(|| {
                let reason = "has features without details: was its model built with others?";
                Error::format(&path, reason)
            })?;
            let half = |tensor: &Tensor| tensor.to_dtype(DType::F16);
            let details = Details {
                fine: half(&details.fine)?,
                people: half(&details.people)?,
            };
            maps.insert(path, (half(&seen.map)?, details));
        }
    }
    let seen = scenes.into_iter().filter_map(|scene| {
        let (map, details) = maps.get(&scene.picture)?.clone();
        Some(Seen {
            map,
            details,
            scene,
        })
    });
    Ok(seen.collect())
}

/// By role: rows of a batch's vectors, and the words that each is to say with their shares.
type Asked = BTreeMap<Role, (Vec<u32>, Vec<Vec<(usize, f32)>>)>;

struct Aligner {
    connector: Detailed,
    optimiser: AdamW,
    initial: HashMap<String, Tensor>,
    words: Words,
    grid: usize,
    seed: u64,
}

/// The connector, and the pictures that it learns from and is measured with.
struct Learning<'a> {
    aligner: &'a mut Aligner,
    training: &'a [&'a Seen],
    seen: &'a [Seen],
    batch: usize,
}

impl Alignment for Learning<'_> {
    fn optimiser(&mut self) -> &mut AdamW {
        &mut self.aligner.optimiser
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        self.aligner.loss_of(self.training, self.batch, step)
    }

    fn valid(&self) -> Result<String> {
        Ok(shown(&self.aligner.measure(self.seen, Split::Valid)?))
    }
}

impl Aligner {
    fn new(stage: &AlignVisionStage, seed: u64, words: Words, hidden: usize) -> Result<Self> {
        let config = visual_connector();
        let initial = PooledConnector::initial(&config, efficientnet::FEATURES, hidden)?;
        let named = initial
            .into_iter()
            .map(|(n, t)| (format!("{PREFIX}{n}"), t));
        // what learns nothing in front of the first matrices spares a third of the work
        let fixed = ["vision.details.norm.", "vision.details.fine-norm."];
        let learns = move |name: &str| !fixed.iter().any(|fixed| name.starts_with(fixed));
        let variables = Arc::new(Variables::new(learns));
        let initial: HashMap<String, Tensor> = named.collect();
        let source = variables.of(Arc::new(TensorMap(initial.clone())));
        let w = Weights::f32(source)
            .for_training()
            .pp(PREFIX.trim_end_matches('.'))
            .pp("details");
        let connector = Detailed::new(&config, efficientnet::FEATURES, hidden, &w)?;
        let adamw = AdamWConfig {
            weight_decay: stage.weight_decay,
            ..AdamWConfig::default()
        };
        Ok(Self {
            connector,
            optimiser: AdamW::new(adamw, variables.made()),
            initial,
            words,
            grid: config.grid,
            seed,
        })
    }

    /// Of the update behind `step` others.
    fn loss_of(&self, training: &[&Seen], batch: usize, step: u64) -> Result<Tensor> {
        let chosen = chosen(training.len(), batch, (self.seed, 20), step);
        let mut rng = generator(self.seed, 21, step);
        let mirrored: Vec<bool> = chosen.iter().map(|_| rng.random_bool(0.5)).collect();
        let pictures: Vec<&Seen> = chosen.iter().map(|&i| training[i]).collect();
        let mut inputs = Inputs::of(&pictures, &mirrored)?;
        // channels of the networks are left out, colours never
        let mut left_out = |channels: usize, of: usize| {
            let kept = (0..channels).map(|channel| match rng.random_bool(DROPPED) {
                _ if channel >= of => 1f32,
                true => 0.0,
                false => (1.0 / (1.0 - DROPPED)) as f32,
            });
            Tensor::from_iter(kept, &Device::Cpu)
        };
        let (all, fine) = (inputs.maps.dim(3)?, inputs.details.fine.dim(3)?);
        inputs.maps = inputs.maps.broadcast_mul(&left_out(all, all)?)?;
        let kept = left_out(fine, DETAIL_FEATURES)?;
        inputs.details.fine = inputs.details.fine.broadcast_mul(&kept)?;
        self.loss(&inputs, &pictures, &mirrored)
    }

    /// The rows of a batch's vectors by role, and their targets.
    fn asked(&self, pictures: &[&Seen], mirrored: &[bool]) -> Asked {
        let cells = self.grid * self.grid;
        let mut asked = Asked::new();
        for (i, (seen, &mirrored)) in pictures.iter().zip(mirrored).enumerate() {
            let targets = Targets::of(&seen.scene, self.grid, mirrored, &self.words.vocabulary);
            let first = i * targets.vectors.len();
            for (k, words) in targets.vectors.into_iter().enumerate() {
                if words.is_empty() {
                    continue;
                }
                let role = if k < cells {
                    Role::Cell
                } else {
                    SLOTS[k - cells]
                };
                let (rows, all) = asked.entry(role).or_default();
                rows.push((first + k) as u32);
                all.push(words);
            }
        }
        asked
    }

    /// Over all roles: the mean cross-entropy of the right words, and the mean distance to them; and that of the marks.
    fn loss(&self, inputs: &Inputs, pictures: &[&Seen], mirrored: &[bool]) -> Result<Tensor> {
        let (vectors, marks) = self.connector.forward(&inputs.maps, &inputs.details)?;
        let vectors = vectors.flatten(0, 1)?;
        let (_, rows, columns, _) = inputs.details.fine.dims4()?;
        let scenes = pictures.iter().map(|seen| &seen.scene).zip(mirrored);
        let mut loss = marks::loss(&marks, scenes, (rows, columns))?;
        for (role, (rows, targets)) in self.asked(pictures, mirrored) {
            let count = rows.len();
            let rows = vectors.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
            let words = &self.words.centred[&role];
            let width = words.dim(0)?;
            let mut shares = vec![0f32; count * width];
            for (row, words) in targets.iter().enumerate() {
                for (word, share) in words {
                    shares[row * width + word] = *share;
                }
            }
            let shares = Tensor::from_vec(shares, (count, width), &Device::Cpu)?;
            let log = log_softmax(&self.words.logits(&rows, role)?, D::Minus1)?;
            let choice = ((shares.clone() * log)?.sum_all()? * (-1.0 / count as f64))?;
            let wanted = shares.matmul(words)?.broadcast_add(&self.words.mean)?;
            let squares = (rows - wanted)?.sqr()?.sum_all()?;
            let distance = (squares * (DISTANCE / self.words.variance / count as f64))?;
            loss = (loss + ((choice + distance)? * weight(role))?)?;
        }
        Ok(loss)
    }

    /// Of a split: how often the nearest word is a right one.
    fn measure(&self, seen: &[Seen], split: Split) -> Result<Measures> {
        let of_split: Vec<&Seen> = seen.iter().filter(|s| s.scene.split == split).collect();
        let mut measures = Measures::new();
        for pictures in of_split.chunks(64) {
            let straight = vec![false; pictures.len()];
            let inputs = Inputs::of(pictures, &straight)?;
            let (vectors, _) = self.connector.forward(&inputs.maps, &inputs.details)?;
            let vectors = vectors.flatten(0, 1)?.detach();
            for (role, (rows, targets)) in self.asked(pictures, &straight) {
                let rows = vectors.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
                let best = self
                    .words
                    .logits(&rows, role)?
                    .argmax(1)?
                    .to_vec1::<u32>()?;
                let (right, all) = measures.entry((split, role)).or_default();
                for (best, words) in best.iter().zip(targets) {
                    *right += usize::from(words.iter().any(|(word, _)| *word == *best as usize));
                    *all += 1;
                }
            }
        }
        Ok(measures)
    }

    fn tensors(&self) -> HashMap<String, Tensor> {
        let mut tensors = self.initial.clone();
        let learnt = self.optimiser.variables().iter();
        tensors.extend(learnt.map(|(name, var)| (name.clone(), var.as_detached_tensor())));
        tensors
    }
}

impl Inputs {
    fn of(pictures: &[&Seen], mirrored: &[bool]) -> Result<Self> {
        let straight = |map: &Tensor, mirrored: bool| {
            let map = map.to_dtype(DType::F32)?;
            match mirrored {
                true => map.flip(&[1]),
                false => Ok(map),
            }
        };
        let (mut maps, mut details) = (Vec::new(), Vec::new());
        for (seen, &mirrored) in pictures.iter().zip(mirrored) {
            maps.push(straight(&seen.map, mirrored)?);
            details.push(Details {
                fine: straight(&seen.details.fine, mirrored)?,
                people: seen.details.people.to_dtype(DType::F32)?,
            });
        }
        Ok(Self {
            maps: Tensor::stack(&maps, 0)?,
            details: Details::stack(&details.iter().collect::<Vec<_>>())?,
        })
    }
}

/// One line for people.
pub fn shown(measures: &Measures) -> String {
    let shares = measures.iter().map(|((split, role), (right, all))| {
        let percent = 100.0 * *right as f64 / (*all).max(1) as f64;
        format!("{split:?} {role:?} {percent:.1} % of {all}").to_lowercase()
    });
    shares.collect::<Vec<_>>().join(", ")
}
