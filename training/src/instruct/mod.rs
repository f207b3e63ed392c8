//! Instruction tuning: state tokens and answers, with low-rank updates of the language model, the
//! added rows and the connectors.

mod checkpoint;
mod measures;
mod step;

pub use checkpoint::{Checkpoint, Progress};
pub use measures::{Measures, Share, choose};
pub use step::Learner;

use crate::bar::bar;
use crate::curve;
use crate::media::Store;
use crate::record::{Line, Record};
use crate::sampler::{Sampler, generator};
use crate::{
    Error, Example, Examples, InstructStage, Item, Kind, Places, Recipe, Result, Split, Stage,
};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vita_model::build::{CTC_FILE, TRAINED_FILE};
use vita_model::train::Schedule;

/// Updates between two pictures of the curves.
const CURVE_UPDATES: u64 = 20;

/// How a run is to go.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Go on from the newest checkpoint; without it, a stage that was begun is an error.
    pub resume: bool,
    /// Stop after so many updates of this run although the recipe has more.
    pub updates: Option<u64>,
    /// Stop after about so long.
    pub stop_after: Option<Duration>,
    /// Show a progress bar.
    pub progress: bool,
}

/// What a run has done.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub updates: u64,
    pub items: u64,
    pub measures: Option<Measures>,
    pub folder: PathBuf,
}

fn stage_of(recipe: &Recipe) -> Result<&InstructStage> {
    let missing = || Error::Input("the recipe has no stage [instruct]".into());
    recipe.instruct.as_ref().ok_or_else(missing)
}

/// One run's parts.
pub struct Run {
    stage: InstructStage,
    seed: u64,
    folder: PathBuf,
    learner: Learner,
    examples: Examples,
    training: Vec<Item>,
    validation: Vec<Example>,
    watched: Vec<Example>,
    sampler: Sampler,
}

impl Run {
    /// Loads the model and the data, and takes up the newest checkpoint if there is one.
    pub fn open(recipe: &Recipe, places: &Places) -> Result<Self> {
        let stage = stage_of(recipe)?.clone();
        let folder = places.stage(Stage::Instruct);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut learner = Learner::load(&places.model, &stage, recipe.seed)?;
        let items = recipe.items(places)?;
        let vita = learner.vita().clone();
        let store = Store::open(&vita, places, &items)?;
        let examples = Examples::new(vita, recipe, store, &items);
        let makeable = |split| {
            let wanted = items.iter().filter(move |item| item.split == split);
            wanted
                .filter(|item| examples.can_make(item))
                .cloned()
                .collect::<Vec<_>>()
        };
        let mut training = makeable(Split::Train);
        training.retain(|item| {
            item.kind != Kind::Query || examples.understood(item) >= stage.understood
        });
        if training.is_empty() {
            return Err(Error::Input(format!(
                "none of the {} items can be trained on: none is of the split train, or their sounds and pictures have no features yet (run the stage features first)",
                items.len()
            )));
        }
        let measured = |split, count| {
            let chosen = choose(&makeable(split), count, recipe.seed);
            let made = chosen.iter().enumerate().map(|(i, item)| {
                let rng = &mut generator(recipe.seed, 5, i as u64);
                examples.make(item, rng)
            });
            made.collect::<Result<Vec<_>>>()
        };
        let validation = measured(Split::Valid, stage.validate_items)?;
        let watched = measured(Split::Test, stage.watch_items)?;
        let mut sampler = Sampler::new(&training, stage.mix, recipe.seed);
        if let Some(checkpoint) = Checkpoint::newest(&folder)? {
            sampler.draws = checkpoint.progress.draws;
            learner.restore(&checkpoint)?;
        }
        Ok(Self {
            seed: recipe.seed,
            stage,
            folder,
            learner,
            examples,
            training,
            validation,
            watched,
            sampler,
        })
    }

    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// The next update's sequences.
    fn batch(&mut self) -> Result<Vec<Example>> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while tokens < self.stage.batch_tokens {
            let (item, number) = self
                .sampler
                .draw()
                .ok_or_else(|| Error::Input("nothing to train on in this mix".into()))?;
            let rng = &mut generator(self.seed, 6, number);
            let example = self.examples.make(&self.training[item], rng)?;
            tokens += example.len;
            batch.push(example);
        }
        Ok(batch)
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.stage.rate.peak,
            warm_up: self.stage.rate.warm_up,
            updates: self.stage.updates,
            floor: self.stage.rate.floor,
        }
    }

    /// One update: what the log says of it.
    pub fn update(&mut self) -> Result<Line> {
        let began = Instant::now();
        let batch = self.batch()?;
        let step = self.learner.step();
        let rate = self.schedule().rate(step);
        let (loss, gradient) = self.learner.update(&batch, rate)?;
        if !loss.is_finite() {
            return Err(Error::Input(format!(
                "the loss of update {step} is {loss}: lower rate.peak"
            )));
        }
        Ok(Line::Update {
            step: step + 1,
            loss,
            rate,
            gradient,
            items: batch.len(),
            tokens: batch.iter().map(|example| example.len).sum(),
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// How the model does on the items of the split `valid`.
    pub fn measure(&self) -> Result<Measures> {
        measures::measure(&self.learner, &self.validation)
    }

    /// How it does on those of the split `test`, which decide nothing; `None` where none are watched.
    pub fn watch(&self) -> Result<Option<Measures>> {
        if self.watched.is_empty() {
            return Ok(None);
        }
        measures::measure(&self.learner, &self.watched).map(Some)
    }

    pub fn save(&self) -> Result<()> {
        let progress = Progress {
            step: self.learner.step(),
            draws: self.sampler.draws,
        };
        Checkpoint::save(&self.folder, progress, &self.learner.state()?)
    }
}

/// Trains until the recipe's updates are done.
pub fn run(recipe: &Recipe, places: &Places, options: &Options) -> Result<Summary> {
    let stage = stage_of(recipe)?.clone();
    let folder = places.stage(Stage::Instruct);
    if !options.resume && Checkpoint::newest(&folder)?.is_some() {
        return Err(Error::Input(format!(
            "{} holds a run already: --resume goes on with it; to begin anew, remove the folder",
            folder.display()
        )));
    }
    let mut run = Run::open(recipe, places)?;
    let begun = run.learner.step();
    let (mut record, mut lines) = Record::open(&folder.join("log.jsonl"), begun)?;
    let mut note = |lines: &mut Vec<Line>, line: Line| {
        let written = record.write(&line);
        lines.push(line);
        written
    };
    if begun > 0 {
        note(&mut lines, Line::Resumed { step: begun })?;
    }
    let last = options
        .updates
        .map_or(stage.updates, |n| stage.updates.min(begun + n));
    let began = Instant::now();
    let bar = bar(options.progress, "updates", begun, last);
    let mut saved = Instant::now();
    let mut measures = None;
    while run.learner.step() < last {
        let line = run.update()?;
        let step = run.learner.step();
        if let Line::Update { loss, .. } = &line {
            bar.set_message(format!("loss {loss:.3}"));
        }
        bar.set_position(step);
        note(&mut lines, line)?;
        let late = options
            .stop_after
            .is_some_and(|limit| began.elapsed() >= limit);
        let ends = step == last || late;
        if ends || step.is_multiple_of(stage.validate_updates) {
            let found = run.measure()?;
            bar.println(found.to_string());
            note(&mut lines, Line::Valid(found.clone()))?;
            if let Some(watched) = run.watch()? {
                note(&mut lines, Line::Watched(watched))?;
            }
            measures = Some(found);
        }
        if ends || step.is_multiple_of(CURVE_UPDATES) {
            curve::draw(&folder.join("curve.svg"), &lines)?;
        }
        if ends || saved.elapsed() >= Duration::from_secs(stage.save_secs) {
            run.save()?;
            saved = Instant::now();
        }
        if ends {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(Summary {
        updates: run.learner.step(),
        items: run.sampler.draws.all,
        measures,
        folder,
    })
}

/// Writes what the newest checkpoint has learnt, beside what the model had from earlier stages, as it is put into
/// a model's folder; gives its updates.
pub fn export(recipe: &Recipe, places: &Places, file: &Path) -> Result<u64> {
    let folder = places.stage(Stage::Instruct);
    let checkpoint = Checkpoint::newest(&folder)?;
    let checkpoint = checkpoint.ok_or_else(|| {
        let folder = folder.display();
        Error::Input(format!("{folder} has no checkpoint yet"))
    })?;
    let mut learner = Learner::load(&places.model, stage_of(recipe)?, recipe.seed)?;
    learner.restore(&checkpoint)?;
    let mut tensors = learner.tensors()?;
    // what a stage before this one has learnt, and this one left alone
    let files = [TRAINED_FILE, CTC_FILE].map(|name| places.model.join(name));
    for begun_with in files.iter().filter(|file| file.is_file()) {
        for (name, tensor) in candle_core::safetensors::load(begun_with, &Device::Cpu)? {
            tensors.entry(name).or_insert(tensor);
        }
    }
    vita_model::train::save(file, &tensors, true)?;
    Ok(checkpoint.progress.step)
}
