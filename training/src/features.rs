//! The stage `features`: every sound and picture once through the encoders that do not learn.
//!
//! Shards of safetensors, and an index of one line of JSON a file. A line is written after its shard
//! is on the disk, so a run that was cut off costs at most one shard's work.

use crate::bar::bar;
use crate::data::pictures::{SCENES_FILE, read_scenes};
use crate::instruct::choose;
use crate::media::widened;
use crate::sampler::generator;
use crate::{Error, Item, Places, Recipe, Result, Split, Stage, StageOptions};
use candle_core::{DType, Device, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};
use vita_model::Vita;
use vita_model::audio::Transcript;
use vita_model::connector::Heard;
use vita_model::vision::{Details, Seen};

/// Files of one shard.
const SHARD: usize = 128;
/// Of the recordings.
pub(crate) const SAMPLE_RATE_HZ: u32 = 16_000;

/// One kept file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// From the recipe's folder.
    path: PathBuf,
    /// Size and time of change: another file of the same name is looked at again.
    bytes: u64,
    modified: u64,
    /// Of the encoders, see [`fingerprint`].
    #[serde(default)]
    encoders: String,
    shard: String,
    tensor: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum What {
    Sound {
        seconds: f64,
        text: String,
        average_log_probability: f64,
        lowest_log_probability: f64,
        no_speech_probability: f64,
        complete: bool,
    },
    Picture {
        names: Option<String>,
    },
}

/// Features of one file.
pub(crate) enum Found {
    /// With the seconds that it lasts.
    Sound(PathBuf, Heard, f64),
    Picture(PathBuf, Seen),
}

/// Names of a picture's details in its shard, behind that of its map.
const FINE: &str = ".fine";
const PEOPLE: &str = ".people";

/// Name of what stands for a sound's words, where ears give more than text, behind that of its pooled vectors.
const WORDS: &str = ".words";

/// Tensors of one file, by what stands behind its name in the shard.
type Tensors = Vec<(&'static str, Tensor)>;

/// The index on disk.
pub(crate) struct Index {
    root: PathBuf,
    folder: PathBuf,
    /// Of these encoders only.
    entries: HashMap<PathBuf, Entry>,
    encoders: Encoders,
    shards: usize,
}

/// What the encoders are, one for each medium: other eyes leave the features of sounds as they are.
struct Encoders {
    sounds: String,
    pictures: String,
}

impl Encoders {
    fn of(model: &Path) -> Result<Self> {
        Ok(Self {
            sounds: fingerprint(model, "audio")?,
            pictures: fingerprint(model, "vision")?,
        })
    }

    fn for_medium(&self, what: &What) -> &str {
        match what {
            What::Sound { .. } => &self.sounds,
            What::Picture { .. } => &self.pictures,
        }
    }
}

/// A part of the manifest (or a checkpoint's config) without what learns, and its files. Other encoders have other
/// features.
fn fingerprint(model: &Path, part: &str) -> Result<String> {
    let manifest = model.join("vita.toml");
    let mut hash = Sha256::new();
    if !manifest.is_file() {
        let config = model.join("config.json");
        hash.update(std::fs::read(&config).map_err(Error::io(&config))?);
        return Ok(short(hash));
    }
    let text = std::fs::read_to_string(&manifest).map_err(Error::io(&manifest))?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| Error::format(&manifest, e))?;
    let Some(toml::Value::Table(mut part)) = table.get(part).cloned() else {
        return Ok(short(hash));
    };
    let connector = part.get("connector").and_then(toml::Value::as_table);
    let details = connector.and_then(|connector| connector.get("details"));
    if details
        .and_then(toml::Value::as_integer)
        .is_some_and(|width| width > 0)
    {
        hash.update("details");
    }
    part.retain(|key, _| !key.starts_with("connector"));
    hash.update(part.to_string());
    let inner = ["detector", "ctc"]
        .iter()
        .filter_map(|name| part.get(*name)?.get("weights"));
    for weights in part.get("weights").into_iter().chain(inner) {
        if let Some(file) = weights.get("file").and_then(toml::Value::as_str) {
            let file = model.join(file);
            let mut opened = std::fs::File::open(&file).map_err(Error::io(&file))?;
            std::io::copy(&mut opened, &mut hash).map_err(Error::io(&file))?;
        }
    }
    Ok(short(hash))
}

fn short(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Size and time of change.
fn stamp(path: &Path) -> Result<(u64, u64)> {
    let data = std::fs::metadata(path).map_err(Error::io(path))?;
    let modified = data.modified().map_err(Error::io(path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((data.len(), since.as_nanos() as u64))
}

impl Index {
    pub fn open(places: &Places) -> Result<Self> {
        let folder = places.stage(Stage::Features);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join("index.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        // the last line may have been cut off
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let encoders = Encoders::of(&places.model)?;
        let entries: HashMap<_, _> = entries
            .filter(|entry: &Entry| entry.encoders == encoders.for_medium(&entry.what))
            .map(|entry| (places.folder.join(&entry.path), entry))
            .collect();
        let mut shards = 0;
        while folder.join(shard_name(shards)).exists() {
            shards += 1;
        }
        Ok(Self {
            root: places.folder.clone(),
            folder,
            entries,
            encoders,
            shards,
        })
    }

    /// Whether the features of this very file are there.
    fn has(&self, path: &Path) -> Result<bool> {
        let Some(entry) = self.entries.get(path) else {
            return Ok(false);
        };
        Ok(stamp(path)? == (entry.bytes, entry.modified))
    }

    /// All features.
    pub fn load(&self) -> Result<Vec<Found>> {
        let mut shards: HashMap<&str, HashMap<String, Tensor>> = HashMap::new();
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            let file = self.folder.join(&entry.shard);
            if !shards.contains_key(entry.shard.as_str()) {
                let tensors = candle_core::safetensors::load(&file, &Device::Cpu)?;
                shards.insert(&entry.shard, tensors);
            }
            let missing = || Error::format(&file, format!("expected a tensor {:?}", entry.tensor));
            let shard = &shards[entry.shard.as_str()];
            let tensor = shard.get(&entry.tensor).ok_or_else(missing)?;
            let of = |suffix| shard.get(&format!("{}{suffix}", entry.tensor));
            let details = match (of(FINE), of(PEOPLE)) {
                (Some(fine), Some(people)) => Some(Details {
                    fine: widened(fine)?,
                    people: widened(people)?,
                }),
                _ => None,
            };
            let words = of(WORDS).map(widened).transpose()?;
            found.push(entry.found(path, tensor, (details, words))?);
        }
        Ok(found)
    }

    /// Writes a shard, then the lines that point to it.
    fn write(&mut self, batch: &mut Vec<(Entry, Tensors)>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let name = shard_name(self.shards);
        let mut tensors = HashMap::new();
        let mut lines = String::new();
        let mut entries = Vec::new();
        for (i, (mut entry, of_file)) in batch.drain(..).enumerate() {
            entry.shard.clone_from(&name);
            entry.tensor = format!("{i}");
            let line = serde_json::to_string(&entry).map_err(|e| Error::format(&entry.path, e))?;
            lines.push_str(&line);
            lines.push('\n');
            tensors.extend(
                of_file
                    .into_iter()
                    .map(|(suffix, tensor)| (format!("{i}{suffix}"), tensor)),
            );
            entries.push((self.root.join(&entry.path), entry));
        }
        let path = self.folder.join(&name);
        vita_model::train::save(&path, &tensors, false)?;
        let index = self.folder.join("index.jsonl");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&index)
            .map_err(Error::io(&index))?;
        file.write_all(lines.as_bytes())
            .map_err(Error::io(&index))?;
        self.entries.extend(entries);
        self.shards += 1;
        Ok(())
    }
}

fn shard_name(i: usize) -> String {
    format!("{i:05}.safetensors")
}

impl Entry {
    fn found(
        &self,
        path: &Path,
        tensor: &Tensor,
        (details, word_vectors): (Option<Details>, Option<Tensor>),
    ) -> Result<Found> {
        let path = path.to_path_buf();
        Ok(match &self.what {
            What::Sound {
                seconds,
                text,
                average_log_probability,
                lowest_log_probability,
                no_speech_probability,
                complete,
            } => {
                let transcript = Transcript {
                    text: text.clone(),
                    ids: Vec::new(),
                    average_log_probability: *average_log_probability,
                    lowest_log_probability: *lowest_log_probability,
                    no_speech_probability: *no_speech_probability,
                    complete: *complete,
                };
                let pooled_input = tensor.clone();
                let heard = Heard {
                    transcript,
                    word_vectors,
                    pooled_input,
                };
                Found::Sound(path, heard, *seconds)
            }
            What::Picture { names } => {
                let seen = Seen {
                    map: widened(tensor)?,
                    details,
                    recognised: Vec::new(),
                    found: Vec::new(),
                    names: names.clone(),
                };
                Found::Picture(path, seen)
            }
        })
    }
}

/// What the stage has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Files with features, before and now.
    pub before: usize,
    pub now: usize,
    /// Files without.
    pub missing: usize,
}

enum Medium<'a> {
    Sound(&'a Path),
    Picture(&'a Path),
}

impl Medium<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Sound(path) | Self::Picture(path) => path,
        }
    }
}

/// Files of the items that are trained on, validated with or watched, each once, in an order in which
/// any beginning serves: what is measured with first, then all kinds mixed.
fn files<'a>(
    items: &'a [Item],
    watched: &'a [Item],
    further: &'a [PathBuf],
    seed: u64,
) -> Vec<Medium<'a>> {
    let of_split = |split, number| {
        let of_split = items.iter().filter(|item| item.split == split);
        let mut of_split: Vec<_> = of_split.collect();
        of_split.shuffle(&mut generator(seed, 7, number));
        of_split
    };
    let (valid, train) = (of_split(Split::Valid, 1), of_split(Split::Train, 0));
    let mut files = Vec::new();
    for item in watched.iter().chain(valid).chain(train) {
        files.extend(item.pictures.iter().map(|path| Medium::Picture(path)));
        files.extend(item.audio.iter().map(|path| Medium::Sound(path)));
    }
    files.extend(further.iter().map(|path| Medium::Picture(path)));
    let mut known = HashSet::new();
    files.retain(|file| known.insert(file.path().to_path_buf()));
    files
}

/// Pictures to learn from that no item needs, for the stage `align-vision`.
fn further(recipe: &Recipe, places: &Places) -> Result<Vec<PathBuf>> {
    let known = places.folder.join(SCENES_FILE).is_file();
    if recipe.align_vision.is_none() || !known {
        return Ok(Vec::new());
    }
    let scenes = read_scenes(&places.folder).map_err(|e| Error::Input(e.to_string()))?;
    let learnt = scenes.into_iter().filter(|s| s.split != Split::Test);
    Ok(learnt.map(|scene| scene.picture).collect())
}

pub fn run(recipe: &Recipe, places: &Places, options: &StageOptions) -> Result<Summary> {
    let items = recipe.items(places)?;
    let watched = recipe
        .instruct
        .as_ref()
        .map_or(0, |stage| stage.watch_items);
    let test = items.iter().filter(|item| item.split == Split::Test);
    let watched = choose(&test.cloned().collect::<Vec<_>>(), watched, recipe.seed);
    let mut index = Index::open(places)?;
    let mut wanted = Vec::new();
    let further = further(recipe, places)?;
    for file in files(&items, &watched, &further, recipe.seed) {
        if !index.has(file.path())? {
            wanted.push(file);
        }
    }
    let before = index.entries.len();
    let mut missing = wanted.len();
    let began = Instant::now();
    if !wanted.is_empty() {
        let vita = Vita::load(&places.model, &Default::default())?;
        let bar = bar(options.progress, "files", 0, wanted.len() as u64);
        let mut batch = Vec::new();
        for file in wanted {
            if options.is_over(began) {
                break;
            }
            batch.push(encode(&vita, &file, &index)?);
            missing -= 1;
            bar.inc(1);
            if batch.len() == SHARD {
                index.write(&mut batch)?;
            }
        }
        index.write(&mut batch)?;
        bar.finish_and_clear();
    }
    let now = index.entries.len();
    Ok(Summary {
        before,
        now,
        missing,
    })
}

fn encode(vita: &Vita, file: &Medium, index: &Index) -> Result<(Entry, Tensors)> {
    let path = file.path();
    let (bytes, modified) = stamp(path)?;
    let (what, tensors) = match file {
        Medium::Sound(path) => sound(vita, path)?,
        Medium::Picture(path) => picture(vita, path)?,
    };
    let entry = Entry {
        path: path.strip_prefix(&index.root).unwrap_or(path).to_path_buf(),
        bytes,
        modified,
        encoders: index.encoders.for_medium(&what).to_owned(),
        shard: String::new(),
        tensor: String::new(),
        what,
    };
    Ok((entry, tensors))
}

/// Of a recording, at the rate of all of them.
pub(crate) fn samples(path: &Path) -> Result<Vec<f32>> {
    let wav = vita_model::wav::read(path).map_err(|e| Error::format(path, e))?;
    if wav.sample_rate_hz != SAMPLE_RATE_HZ {
        let found = wav.sample_rate_hz;
        return Err(Error::format(
            path,
            format!("expected {SAMPLE_RATE_HZ} samples a second, found {found}"),
        ));
    }
    Ok(wav.samples)
}

fn sound(vita: &Vita, path: &Path) -> Result<(What, Tensors)> {
    let samples = samples(path)?;
    let ears = vita.ears()?;
    let heard = ears.listen(&ears.features(&samples)?)?;
    let transcript = heard.transcript;
    let what = What::Sound {
        seconds: samples.len() as f64 / f64::from(SAMPLE_RATE_HZ),
        text: transcript.text,
        average_log_probability: transcript.average_log_probability,
        lowest_log_probability: transcript.lowest_log_probability,
        no_speech_probability: transcript.no_speech_probability,
        complete: transcript.complete,
    };
    let mut tensors = vec![("", heard.pooled_input.to_device(&Device::Cpu)?)];
    if let Some(vectors) = &heard.word_vectors {
        tensors.push((WORDS, half(vectors)?));
    }
    Ok((what, tensors))
}

/// As shards keep what is large.
fn half(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F16)?;
    Ok(tensor.contiguous()?)
}

fn picture(vita: &Vita, path: &Path) -> Result<(What, Tensors)> {
    let picture = image::open(path).map_err(|e| Error::format(path, e))?;
    let eyes = vita.eyes()?;
    let seen = eyes.look(&eyes.frames(&[picture.to_rgb8()])?)?;
    let seen = seen.into_iter().next();
    let seen = seen.ok_or_else(|| Error::format(path, "gave nothing to see"))?;
    let names = seen.names;
    let mut tensors = vec![("", half(&seen.map)?)];
    if let Some(details) = seen.details {
        tensors.extend([
            (FINE, half(&details.fine)?),
            (PEOPLE, half(&details.people)?),
        ]);
    }
    Ok((What::Picture { names }, tensors))
}
