//! The data of a training: the corpus is expanded into items, spoken by synthetic voices, put into rooms.
//!
//! Everything follows from the seed. A clip that is there is not made again, so an interrupted run goes
//! on where it stopped.

mod augment;
mod chat;
mod clips;
mod config;
mod corpus;
mod error;
mod items;
mod neural;
mod number;
pub mod pictures;
mod plan;
mod prose;
mod rule;
mod sound;
mod speakers;
mod speech;
mod template;
mod text;

pub use augment::Augment;
pub use chat::load as base_model;
pub use config::{Counts, DataConfig};
pub use corpus::Corpus;
pub use error::{Error, Result};
pub use items::ITEMS_FILE;
pub use rule::{Rule, normalise};
pub use sound::decode;
pub use speech::RATE_HZ;

use crate::{Item, Kind};
use neural::Neural;
use std::collections::BTreeMap;
use std::path::Path;

/// How far it is: what is being made, how many are done and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub what: &'static str,
    pub done: usize,
    pub total: usize,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Items by split and group.
    pub items: BTreeMap<(String, String), usize>,
    pub spoken_secs: f64,
    /// Clips that could not be made, with the first reason.
    pub failed: usize,
    pub first_failure: Option<String>,
    /// What was left out because something is not installed.
    pub notes: Vec<String>,
}

/// Makes `folder/items.jsonl` and the clips it names. `cache` is the set-up's folder. Relative paths
/// in the config must have been resolved against the recipe's folder ([`DataConfig::corpus`]).
pub fn make(
    config: &DataConfig,
    cache: &Path,
    folder: &Path,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary> {
    let corpus = Corpus::read(&config.corpus)?;
    let prose = prose::sentences(&corpus.prose)?;
    let neural = Neural::start(&cache.join("training"));
    let mut notes = neural.notes();
    let planned = plan::plan(&corpus, &prose, config, &|split| {
        speech::voices(split, &neural)
    });
    let clips = clips::make(planned, config, folder, &neural, progress)?;
    notes.extend(clips.notes);
    let mut items = clips.items;
    // Training may begin while the base model still answers.
    items::write_items(folder, &answered(&items))?;
    chat::answer(&mut items, &cache.join(&config.base), folder, progress)?;
    let items = answered(&items);
    items::write_items(folder, &items)?;
    Ok(Summary {
        items: items::count(&items),
        spoken_secs: clips.secs,
        failed: clips.failed,
        first_failure: clips.first_failure,
        notes,
    })
}

/// Without questions that nothing is known to answer.
fn answered(items: &[Item]) -> Vec<Item> {
    let whole = |item: &&Item| item.kind == Kind::Noise || item.answer.is_some();
    items.iter().filter(whole).cloned().collect()
}
