//! Sounds and pictures before the parts that learn, as the stage `features` keeps them.

use crate::features::{Found, Index};
use crate::hear::ears;
use crate::{Error, Item, Kind, Places, Result};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vita_model::Vita;
use vita_model::connector::{Heard, Part};
use vita_model::vision::Seen;

/// A recording that is lent to other words is one of this many of the most alike length.
const ALIKE: usize = 24;

/// How long words take to say: about so many seconds, and so many a word.
const SECONDS_AT_LEAST: f64 = 0.5;
const SECONDS_PER_WORD: f64 = 0.33;

/// Something seen or heard.
#[derive(Debug, Clone)]
pub enum Medium {
    Sound(Arc<Heard>),
    Picture(Arc<Seen>),
}

impl Medium {
    fn parts(&self, vita: &Vita) -> Result<Vec<Part>> {
        Ok(match self {
            Self::Sound(heard) => ears(vita)?.parts(heard)?.into(),
            Self::Picture(seen) => vita.eyes()?.parts(seen)?.into(),
        })
    }

    /// Vectors that it becomes.
    pub fn len(&self, vita: &Vita) -> Result<usize> {
        let parts = self.parts(vita)?;
        let len = |part: &Part| match part {
            Part::Ids(ids) => Ok(ids.len()),
            Part::Vectors(vectors) => vectors.dim(0),
        };
        let lens = parts.iter().map(len);
        Ok(lens.sum::<candle_core::Result<usize>>()?)
    }

    /// The vectors, with the gradients of what learns.
    pub fn embeddings(&self, vita: &Vita) -> Result<Vec<Tensor>> {
        let mut vectors = Vec::new();
        for part in self.parts(vita)? {
            match part {
                Part::Ids(ids) if ids.is_empty() => {}
                Part::Ids(ids) => vectors.push(vita.lm().embed(&ids)?),
                Part::Vectors(part) => vectors.push(part),
            }
        }
        Ok(vectors)
    }
}

/// All features of a recipe's items.
pub struct Store {
    sounds: HashMap<PathBuf, Arc<Heard>>,
    pictures: HashMap<PathBuf, Arc<Seen>>,
    /// By kind, real recordings by their seconds.
    lenders: BTreeMap<Kind, Vec<(f64, Arc<Heard>)>>,
    hears: bool,
}

impl Store {
    pub fn open(vita: &Vita, places: &Places, items: &[Item]) -> Result<Self> {
        let mut store = Self {
            sounds: HashMap::new(),
            pictures: HashMap::new(),
            lenders: BTreeMap::new(),
            hears: ears(vita).is_ok(),
        };
        let mut seconds = HashMap::new();
        for found in Index::open(places)?.load()? {
            match found {
                Found::Sound(path, heard, of) => {
                    seconds.insert(path.clone(), of);
                    store.sounds.insert(path, Arc::new(heard));
                }
                Found::Picture(path, seen) => {
                    store.pictures.insert(path, Arc::new(seen));
                }
            }
        }
        for item in items
            .iter()
            .filter(|item| item.split == crate::Split::Train)
        {
            let heard = item.audio.as_ref().and_then(|path| store.sounds.get(path));
            // what says nothing cannot lend its sound to words
            let speaks = !item.words.trim().is_empty();
            if let (Some(path), Some(heard), true) = (&item.audio, heard, speaks) {
                let lender = (seconds[path], heard.clone());
                store.lenders.entry(item.kind).or_default().push(lender);
            }
        }
        for lenders in store.lenders.values_mut() {
            lenders.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Ok(store)
    }

    pub fn can_hear(&self, item: &Item) -> bool {
        match &item.audio {
            Some(path) => self.hears && self.sounds.contains_key(path),
            None => self.lenders.contains_key(&item.kind) && !item.words.trim().is_empty(),
        }
    }

    /// What the ears wrote of an item's recording.
    pub fn read(&self, item: &Item) -> Option<&str> {
        let heard = self.sounds.get(item.audio.as_ref()?)?;
        Some(&heard.transcript.text)
    }

    pub fn can_see(&self, item: &Item) -> bool {
        item.pictures
            .iter()
            .all(|path| self.pictures.contains_key(path))
    }

    pub fn sound(&self, path: &Path) -> Result<Medium> {
        let found = self.sounds.get(path).cloned();
        found.map(Medium::Sound).ok_or_else(|| no_features(path))
    }

    pub fn picture(&self, path: &Path) -> Result<Medium> {
        let found = self.pictures.get(path).cloned();
        found.map(Medium::Picture).ok_or_else(|| no_features(path))
    }

    /// Words that nobody spoke, with the sound of a recording of the same kind and about their length.
    pub fn simulated(&self, item: &Item, text: String, rng: &mut StdRng) -> Result<Medium> {
        let lenders = self
            .lenders
            .get(&item.kind)
            .filter(|lenders| !lenders.is_empty());
        let lenders = lenders.ok_or_else(|| {
            let id = &item.id;
            Error::Input(format!(
                "item {id:?} has no recording, and there is none of its kind to lend it a sound"
            ))
        })?;
        let words = text.split_whitespace().count() as f64;
        let wanted = SECONDS_AT_LEAST + SECONDS_PER_WORD * words;
        let nearest = lenders.partition_point(|(seconds, _)| *seconds < wanted);
        let from = nearest
            .saturating_sub(ALIKE / 2)
            .min(lenders.len().saturating_sub(ALIKE));
        let alike = &lenders[from..(from + ALIKE).min(lenders.len())];
        let mut heard = Heard::clone(&alike[rng.random_range(0..alike.len())].1);
        heard.transcript.text = text;
        heard.word_vectors = None;
        Ok(Medium::Sound(Arc::new(heard)))
    }
}

fn no_features(path: &Path) -> Error {
    Error::format(path, "has no features yet: run the stage features")
}

/// A picture's map in the type that connectors take.
pub(crate) fn widened(map: &Tensor) -> Result<Tensor> {
    Ok(map.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}
