//! Items with pictures: things, colours, sides, numbers, people, motion; and what has nothing to do with the picture
//! that is there.
//!
//! Every cut-out, photo and film is on one side of the split. Everything follows from the seed, and a picture or clip
//! that is there is not made again.

mod named;
mod scene;
mod shots;
mod sources;

pub use named::main_thing;
pub use shots::{Scene, Thing, with_article, without_article};

use super::clips;
use super::config::DataConfig;
use super::corpus::{Corpus, Looking, Row};
use super::neural::Neural;
use super::plan::{Clip, Planned, rng_for, short_hash};
use super::rule::Rule;
use super::speech::{self, Voice};
use super::{Error, ITEMS_FILE, Progress, Result, items, number, text};
use crate::{Item, Kind, Phrasing, Split, read_items};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rayon::prelude::*;
use serde::Deserialize;
use shots::{About, FURTHER, Shot, Studio};
use sources::{Catalogue, Noun, Places, Sources};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The items, and what is known of their pictures.
pub const PICTURES_FILE: &str = "pictures.jsonl";
pub const SCENES_FILE: &str = "scenes.jsonl";

/// Part `pictures` of a recipe's `[data]`: how many items.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PicturesConfig {
    /// All groups together.
    pub train: usize,
    pub valid: usize,
    /// Of each group.
    pub test: usize,
    /// Composed scenes beyond those, asked about without a recording.
    pub further: usize,
}

impl Default for PicturesConfig {
    fn default() -> Self {
        Self {
            train: 4_800,
            valid: 140,
            test: 140,
            further: 0,
        }
    }
}

/// Groups of the evaluation, the questions that are asked in each, and how many of a hundred are trained on.
const GROUPS: [(&str, &str, usize); 7] = [
    ("photo", "what", 20),
    ("colour", "colour", 13),
    ("side", "side", 13),
    ("count", "count", 8),
    ("person", "person", 9),
    ("people-count", "people", 12),
    ("moved", "moved", 13),
];

/// The group of items whose words have nothing to do with the picture; the rest of the hundred.
const BESIDE: &str = "shown";

/// What was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Items by split and group.
    pub items: BTreeMap<(String, String), usize>,
    pub pictures: usize,
    pub notes: Vec<String>,
}

/// What a picture's main thing is called, by eyes: see [`main_thing`].
pub type Namer<'a> = dyn Fn(&Path) -> Result<Option<String>> + 'a;

/// Makes `folder/pictures.jsonl`, `folder/scenes.jsonl`, and the pictures and clips that they name. `cache` is the
/// set-up's folder.
///
/// What is seen on a picture to learn from is what `named` says: the language model learns to say what its eyes see, not to know
/// better from some fifty photos. The test's pictures have the names that people gave them.
pub fn make(
    config: &DataConfig,
    (cache, folder): (&Path, &Path),
    named: &Namer,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary> {
    let corpus = Corpus::read(&config.corpus)?;
    let catalogue = Catalogue::read(&config.corpus.join("pictures.toml"))?;
    let sources = Sources::open(&catalogue, &Places { cache })?;
    let mut summary = Summary::default();
    if !sources.missing.is_empty() {
        let (count, first) = (sources.missing.len(), sources.missing[0].display());
        summary.notes.push(format!(
            "{count} files of pictures.toml are not installed, such as {first}: `scripts/setup training`"
        ));
    }
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures).map_err(Error::io(&pictures))?;
    let studio = Studio {
        sources: &sources,
        folder: pictures,
        seed: config.seed,
    };
    let mut shots = shoot(&studio, &config.pictures, config.threads, progress)?;
    name(&mut shots, named, progress)?;
    let mut scenes: Vec<Scene> = shots
        .iter()
        .flat_map(|(.., shot)| shot.scenes.clone())
        .collect();
    scenes.dedup_by(|a, b| a.picture == b.picture);
    summary.pictures = scenes.len();
    items::write_lines(&folder.join(SCENES_FILE), &scenes)?;

    let neural = Neural::start(&cache.join("training"));
    let asker = Asker::new(&corpus, &sources.nouns, config.seed);
    let voices: BTreeMap<Split, Vec<Voice>> = [Split::Train, Split::Valid, Split::Test]
        .into_iter()
        .map(|split| (split, speech::voices(split, &neural)))
        .collect();
    let planned = shots
        .iter()
        .filter_map(|(split, group, i, shot)| asker.ask(*split, group, *i, shot, &voices[split]));
    let clips = clips::make(planned.collect(), config, folder, &neural, progress)?;
    summary.notes.extend(clips.notes);
    if let Some(reason) = clips.first_failure {
        let failed = clips.failed;
        summary.notes.push(format!(
            "{failed} clips could not be made; the first: {reason}"
        ));
    }
    let mut all = clips.items;
    all.extend(beside(folder, &shots, config)?);
    items::write_lines(&folder.join(PICTURES_FILE), &all)?;
    summary.items = items::count(&all);
    Ok(summary)
}

type Taken = (Split, &'static str, usize, Shot);

/// All pictures, group by group.
fn shoot(
    studio: &Studio,
    config: &PicturesConfig,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<Taken>> {
    let mut wanted = Vec::new();
    for (group, _, share) in GROUPS {
        for (split, count) in [
            (Split::Test, config.test),
            (Split::Valid, config.valid * share / 100),
            (Split::Train, config.train * share / 100),
        ] {
            wanted.extend((0..count).map(|i| (split, group, i)));
        }
    }
    wanted.extend((0..config.further).map(|i| (Split::Train, FURTHER, i)));
    let (done, total) = (AtomicUsize::new(0), wanted.len());
    let one = |(split, group, i): (Split, &'static str, usize)| {
        let shot = studio.shoot(split, group, i)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        progress(Progress {
            what: "pictures",
            done,
            total,
        });
        Ok(shot.map(|shot| (split, group, i, shot)))
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|e| Error::tool("threads", e.to_string()))?;
    let shots: Vec<Option<Taken>> =
        pool.install(|| wanted.into_par_iter().map(one).collect::<Result<_>>())?;
    Ok(shots.into_iter().flatten().collect())
}

/// Has eyes say what is on the pictures to learn from; what they can't name is left out.
fn name(shots: &mut Vec<Taken>, named: &Namer, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
    let asked = |(split, _, _, shot): &Taken| {
        *split != Split::Test && matches!(shot.about, About::Main(..))
    };
    let total = shots.iter().filter(|taken| asked(taken)).count();
    let mut done = 0;
    let mut unnamed = Vec::new();
    for (at, taken) in shots.iter_mut().enumerate() {
        let Some(scene) = taken.3.scenes.first().filter(|_| asked(taken)) else {
            continue;
        };
        match named(&scene.picture)? {
            Some(thing) => {
                let names = vec![without_article(&thing).to_owned()];
                taken.3.about = About::Main(thing, names);
            }
            None => unnamed.push(at),
        }
        done += 1;
        progress(Progress {
            what: "names",
            done,
            total,
        });
    }
    for at in unnamed.into_iter().rev() {
        shots.remove(at);
    }
    Ok(())
}

/// Puts questions to pictures.
struct Asker<'a> {
    looking: BTreeMap<&'a str, &'a Looking>,
    nouns: &'a [Noun],
    seed: u64,
}

impl<'a> Asker<'a> {
    fn new(corpus: &'a Corpus, nouns: &'a [Noun], seed: u64) -> Self {
        let looking = corpus.looking.iter().map(|l| (l.name.as_str(), l));
        Self {
            looking: looking.collect(),
            nouns,
            seed,
        }
    }

    /// Half of the items are typed. Of the others the test's are all spoken, a third of training's, but nothing of
    /// [`FURTHER`]; the rest is known only as what ears might have written.
    fn ask(
        &self,
        split: Split,
        group: &str,
        i: usize,
        shot: &Shot,
        voices: &[Voice],
    ) -> Option<Planned> {
        let further = group == FURTHER;
        let asked = if further { shot.group() } else { group };
        let name = GROUPS.iter().find(|(name, ..)| *name == asked)?.1;
        let looking = self.looking.get(name)?;
        let id = format!("picture item|{split:?}|{group}|{i}");
        let mut rng = rng_for(self.seed, &id);
        let phrasing = match split == Split::Test && rng.random_bool(0.5) {
            true => Phrasing::Unseen,
            false => Phrasing::Seen,
        };
        let more: &[_] = if split == Split::Train {
            &looking.more
        } else {
            &[]
        };
        let templates: Vec<_> = match phrasing {
            Phrasing::Seen => looking.seen.iter().chain(more).collect(),
            Phrasing::Unseen => looking.unseen.iter().collect(),
        };
        let (row, right) = self.known(shot, name);
        let words = templates.choose(&mut rng)?.draw(&row, &mut rng, |_| None);
        let typed = rng.random_bool(0.5);
        let spoken = !typed && !further && (split != Split::Train || rng.random_bool(0.35));
        let (words, voice, clip) = match (typed, spoken) {
            (true, _) => (text::typed(&words, &mut rng), "typed".into(), None),
            (false, true) => {
                let voice = speech::choose(voices, &mut rng).clone();
                let name = voice.name.clone();
                (text::sentence(&words), name, Some(Clip::Speech(voice)))
            }
            (false, false) => {
                let words = text::recognised(&words, &mut rng);
                (words, "simulated".into(), None)
            }
        };
        let item = Item {
            // other words are another clip
            id: short_hash(&format!("{id}|{words}")),
            split,
            kind: if typed { Kind::Text } else { Kind::Query },
            audio: None,
            words,
            pictures: shot.pictures(),
            system: shot.system(),
            answer: Some(super::corpus::capitalised(&looking.answer.with(&row))),
            intent: Some(name.to_owned()),
            voice: Some(voice),
            phrasing: Some(phrasing),
            group: Some(asked.to_owned()),
            right: Some(right),
        };
        Some(Planned { item, clip })
    }

    /// What fills the slots, and when an answer is right.
    fn known(&self, shot: &Shot, question: &str) -> (Row, Rule) {
        let mut row = Row::new();
        let mut fill = |slot: &str, value: &str| row.insert(slot.to_owned(), value.to_owned());
        if let Some(noun) = shot.noun.map(|n| &self.nouns[n]) {
            fill("noun", &noun.one);
            fill("nouns", &noun.many);
        }
        let says = |right: &str, wrong: &str| Rule {
            words: vec![right.to_owned()],
            wrong: Some(wrong.to_owned())
                .filter(|w| !w.is_empty())
                .into_iter()
                .collect(),
            number: None,
        };
        let right = match &shot.about {
            About::Main(main, names) => {
                fill("thing", main);
                says(&names.join("|"), "")
            }
            About::Colour(colour) => {
                fill("colour", colour);
                says(&colour.replace("gray", "gray|grey"), "")
            }
            About::Side(right) => {
                let sides = if *right {
                    ["right", "left"]
                } else {
                    ["left", "right"]
                };
                fill("side", sides[0]);
                says(sides[0], sides[1])
            }
            About::Count(count) => {
                fill("count", &number::words(*count));
                Rule {
                    number: Some(*count),
                    ..Rule::default()
                }
            }
            About::People(people) if question == "person" => {
                let (right, wrong) = if *people > 0 {
                    ("yes", "no")
                } else {
                    ("no", "yes")
                };
                fill("yesno", right);
                says(right, wrong)
            }
            About::People(people) => {
                let (answer, right, wrong) = match people {
                    0 => ("nobody", "nobody|none|zero|no", ""),
                    1 => ("one person", "one|a person", "nobody|none|two|three|more"),
                    2 => ("two people", "two", "nobody|none|one|three|more"),
                    _ => (
                        "more than two people",
                        "more|many|several|three|four|five|six",
                        "",
                    ),
                };
                fill("count", answer);
                says(right, wrong)
            }
            About::Moved(moved) => {
                let (answer, right, wrong) = match moved {
                    true => ("yes, it moved", "yes", "no"),
                    false => ("no, it did not move", "no", "yes"),
                };
                fill("moved", answer);
                says(right, wrong)
            }
        };
        (row, right)
    }
}

/// Items of the other data with a picture that they don't mean: questions, side talk, sounds, typed questions. What
/// depends on there being no picture stays out.
fn beside(folder: &Path, shots: &[Taken], config: &DataConfig) -> Result<Vec<Item>> {
    let path = folder.join(ITEMS_FILE);
    let known = match path.is_file() {
        true => read_items(&path).map_err(|e| Error::corpus(&path, e.to_string()))?,
        false => Vec::new(),
    };
    let percent = 100 - GROUPS.iter().map(|(.., share)| share).sum::<usize>();
    let mut out = Vec::new();
    for (split, count) in [
        (Split::Test, config.pictures.test),
        (Split::Valid, config.pictures.valid * percent / 100),
        (Split::Train, config.pictures.train * percent / 100),
    ] {
        let mut rng = rng_for(config.seed, &format!("beside {split:?}"));
        let seen = shots
            .iter()
            .filter(|(of, group, ..)| *of == split && *group != FURTHER);
        let seen: Vec<&Shot> = seen.map(|(.., shot)| shot).collect();
        for (kind, share) in [(Kind::Noise, 0.5), (Kind::Query, 0.3), (Kind::Text, 0.2)] {
            let fits = |item: &&Item| {
                let blind = ["no-picture", "can-you-see"];
                item.split == split
                    && item.kind == kind
                    && (kind == Kind::Text || item.audio.is_some())
                    && !blind.contains(&item.intent.as_deref().unwrap_or_default())
            };
            let mut fitting: Vec<&Item> = known.iter().filter(fits).collect();
            fitting.shuffle(&mut rng);
            fitting.truncate((share * count as f64) as usize);
            out.extend(
                fitting
                    .into_iter()
                    .filter_map(|item| shown(item, &seen, &mut rng)),
            );
        }
    }
    Ok(out)
}

fn shown(item: &Item, shots: &[&Shot], rng: &mut StdRng) -> Option<Item> {
    let shot = shots.choose(rng)?;
    Some(Item {
        id: format!("{}-shown", item.id),
        pictures: shot.pictures(),
        system: shot.system(),
        group: Some(BESIDE.to_owned()),
        ..item.clone()
    })
}

/// What is known of a recipe's pictures.
pub fn read_scenes(folder: &Path) -> Result<Vec<Scene>> {
    let path: PathBuf = folder.join(SCENES_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(i, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::corpus(&path, format!("line {}: {e}", i + 1)))
        })
        .collect()
}

#[cfg(test)]
mod tests;
