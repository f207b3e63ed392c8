//! Takes the pictures: what is on each is known before it is painted, so a picture that is there is not painted again.

mod composed;
mod crowd;
mod real;

use super::super::plan::{rng_for, short_hash};
use super::super::{Error, Result};
use super::scene::{self, Placed, Where};
use super::sources::{Photo, Sources};
use crate::{Split, System};
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const JPEG_QUALITY: u8 = 88;

/// Composed scenes beyond those of the groups, for training alone; nobody speaks about them.
pub const FURTHER: &str = "further";

/// What is known of a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    pub picture: PathBuf,
    pub split: Split,
    /// The photo, or the film and its second, that it was taken from.
    #[serde(default)]
    pub source: Option<String>,
    /// From left to right.
    #[serde(default)]
    pub things: Vec<Thing>,
    /// Whether `things` are all that stands on the ground.
    #[serde(default)]
    pub composed: bool,
    /// What a photo shows.
    #[serde(default)]
    pub main: Option<String>,
    /// Where that is known.
    #[serde(default)]
    pub people: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    pub name: String,
    #[serde(default)]
    pub colour: Option<String>,
    /// Left, top, right, bottom, parts of the picture.
    pub area: [f32; 4],
}

/// One picture, or a clip of several, and what may be asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shot {
    pub scenes: Vec<Scene>,
    /// In [`Sources::nouns`]: the thing that is asked for.
    pub noun: Option<usize>,
    pub about: About,
}

impl Shot {
    /// The group of the evaluation that asks such a question.
    pub fn group(&self) -> &'static str {
        match self.about {
            About::Main(..) => "photo",
            About::Colour(_) => "colour",
            About::Side(_) => "side",
            About::Count(_) => "count",
            About::People(_) => "people-count",
            About::Moved(_) => "moved",
        }
    }

    pub fn pictures(&self) -> Vec<PathBuf> {
        let pictures = self.scenes.iter().map(|scene| scene.picture.clone());
        pictures.collect()
    }

    pub fn system(&self) -> System {
        match self.scenes.len() {
            1 => System::Image,
            _ => System::Video,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum About {
    /// What an assistant would say that it sees, and what also counts.
    Main(String, Vec<String>),
    Colour(String),
    /// Whether it is on the right.
    Side(bool),
    Count(u32),
    People(u32),
    Moved(bool),
}

/// Makes pictures in a folder.
pub struct Studio<'a> {
    pub sources: &'a Sources,
    pub folder: PathBuf,
    pub seed: u64,
}

/// A part of a photo that things are put on; cut out when it is needed.
struct Ground<'a> {
    picture: &'a RgbImage,
    window: [f32; 4],
    mirrored: bool,
    /// Of red, green and blue.
    gains: [f32; 3],
    /// Whether nobody is on it.
    empty: bool,
    /// A part of another photo that covers a side of it, and how.
    other: Option<(&'a RgbImage, [f32; 4], scene::Cover)>,
}

impl Ground<'_> {
    fn cut(&self) -> RgbImage {
        let mut picture = scene::cut(self.picture, self.window);
        if self.mirrored {
            imageops::flip_horizontal_in_place(&mut picture);
        }
        if let Some((other, window, cover)) = &self.other {
            cover.put(&scene::cut(other, *window), &mut picture);
        }
        for pixel in picture.pixels_mut() {
            for (value, gain) in pixel.0.iter_mut().zip(self.gains) {
                *value = (f32::from(*value) * gain).min(255.0) as u8;
            }
        }
        picture
    }
}

struct Camera<'a> {
    studio: &'a Studio<'a>,
    split: Split,
    id: String,
    rng: StdRng,
}

impl Studio<'_> {
    /// The `i`-th picture of a group. `None` where the split lacks what it takes.
    pub fn shoot(&self, split: Split, group: &str, i: usize) -> Result<Option<Shot>> {
        let id = short_hash(&format!("picture|{split:?}|{group}|{i}"));
        let mut camera = Camera {
            rng: rng_for(self.seed, &id),
            studio: self,
            split,
            id,
        };
        match group {
            "photo" if split == Split::Test => camera.photo(i),
            "photo" if camera.rng.random_bool(0.6) => camera.part_of_photo(),
            "photo" => camera.one_thing(),
            "colour" => camera.colour(),
            "side" => camera.side(),
            "count" => camera.count(),
            FURTHER => match i % 3 {
                0 => camera.colour(),
                1 => camera.side(),
                _ => camera.count(),
            },
            "person" => {
                let people = [0, 1, 0, 2, 0, 3][i % 6];
                camera.people(people)
            }
            "people-count" => camera.people(i as u32 % 4),
            // some things have no room to move
            _ => {
                for _ in 0..8 {
                    if let Some(shot) = camera.moved(i.is_multiple_of(2))? {
                        return Ok(Some(shot));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl<'a> Camera<'a> {
    fn sources(&self) -> &'a Sources {
        self.studio.sources
    }

    /// A thing of this side of the split; `coloured`: one whose colour can be asked for.
    fn thing(&mut self, coloured: bool, not: Option<usize>) -> Option<usize> {
        let sources = self.sources();
        let fits = |i: &usize| {
            let cutout = &sources.things[*i];
            cutout.split == self.split
                && Some(cutout.noun) != not
                && (sources.nouns[cutout.noun].colour || !coloured)
        };
        let all: Vec<usize> = (0..sources.things.len()).filter(fits).collect();
        all.choose(&mut self.rng).copied()
    }

    fn ground(&mut self) -> Option<Ground<'a>> {
        let sources = self.sources();
        // validation may stand on the same grounds as training: what it holds out are things
        let split = self.split_of_places();
        // those with things of their own are to learn from: what was put there is to be told from what was not
        let learnt = self.split != Split::Test;
        let fits = |p: &&Photo| p.split == split && (p.ground || learnt);
        let photos: Vec<&Photo> = sources.photos.iter().filter(fits).collect();
        let frames: Vec<&Photo> = sources.frames.iter().filter(fits).collect();
        // the frames of a film are all alike
        let rare = self.rng.random_bool(0.1);
        let ground = match rare && !frames.is_empty() {
            true => frames.choose(&mut self.rng)?,
            false => photos.choose(&mut self.rng)?,
        };
        Some(Ground {
            picture: &ground.picture,
            window: scene::window(&ground.picture, 0.55, &mut self.rng),
            mirrored: self.rng.random_bool(0.5),
            gains: [1.0; 3],
            empty: ground.people == Some(0),
            other: None,
        })
        .map(|ground| {
            if learnt {
                self.varied(ground, &photos)
            } else {
                ground
            }
        })
    }

    /// Few grounds in many colours, with parts of one another, so that none of them tells what stands on it. The test's are
    /// as they are.
    fn varied(&self, mut ground: Ground<'a>, photos: &[&'a Photo]) -> Ground<'a> {
        let mut rng = rng_for(self.studio.seed, &format!("{}|ground", self.id));
        let light = rng.random_range(0.6..1.25f32);
        ground.gains = [(); 3].map(|()| light * rng.random_range(0.75..1.25f32));
        if let Some(other) = photos.choose(&mut rng).filter(|_| rng.random_bool(0.5)) {
            let window = scene::window(&other.picture, 0.25, &mut rng);
            ground.empty &= other.people == Some(0);
            ground.other = Some((&other.picture, window, scene::Cover::random(&mut rng)));
        }
        ground
    }

    fn split_of_places(&self) -> Split {
        match self.split {
            Split::Test => Split::Test,
            _ => Split::Train,
        }
    }

    fn put(
        &mut self,
        cutout: usize,
        colour: Option<usize>,
        how: (f32, Where),
        others: &[Placed],
    ) -> Option<Placed> {
        let thing = &self.sources().things[cutout];
        let area = scene::place(thing, how, others, &mut self.rng)?;
        Some(Placed {
            cutout,
            colour,
            area,
            mirrored: self.rng.random_bool(0.5),
        })
    }

    fn maybe_colour(&mut self, probability: f64) -> Option<usize> {
        match self.rng.random_bool(probability) {
            true => scene::colour(self.sources(), &mut self.rng),
            false => None,
        }
    }

    /// Paints, and says what is there.
    fn scene(&mut self, ground: &Ground, placed: &[Placed], frame: usize) -> Result<Scene> {
        let sources = self.sources();
        let path = self.path(frame);
        // drawn in any case: the next picture of a clip must not depend on whether this one was there
        let mut rng = rng_for(self.studio.seed, &format!("{}|{frame}|light", self.id));
        if !path.is_file() {
            let mut picture = ground.cut();
            for thing in placed {
                scene::paint(&mut picture, thing, sources);
            }
            scene::expose(&mut picture, &mut rng);
            save(&path, &picture)?;
        }
        let mut things: Vec<Thing> = placed
            .iter()
            .map(|p| Thing {
                name: sources.nouns[sources.things[p.cutout].noun].one.clone(),
                colour: p.colour.map(|c| sources.colours[c].0.clone()),
                area: p.area,
            })
            .collect();
        things.sort_by(|a, b| (a.area[0] + a.area[2]).total_cmp(&(b.area[0] + b.area[2])));
        Ok(Scene {
            picture: path,
            split: self.split,
            source: None,
            things,
            composed: true,
            main: None,
            people: ground.empty.then_some(0),
        })
    }

    fn path(&self, frame: usize) -> PathBuf {
        self.studio.folder.join(format!("{}-{frame}.jpg", self.id))
    }

    /// So many people (3: more than two), on photos and in films.
    fn people(&mut self, wanted: u32) -> Result<Option<Shot>> {
        Ok(self.real_people(wanted)?.map(|scene| Shot {
            noun: None,
            about: About::People(scene.people.unwrap_or(0)),
            scenes: vec![scene],
        }))
    }
}

/// Whether there are as many people as were wanted; 3: more than two.
fn as_wanted(people: u32, wanted: u32) -> bool {
    people == wanted || wanted == 3 && people > 3
}

/// Written beside its place and renamed: a picture that is there is whole.
fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    picture
        .write_with_encoder(encoder)
        .map_err(|source| Error::Picture {
            path: path.to_owned(),
            source,
        })?;
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(Error::io(path))
}

const ARTICLES: [&str; 3] = ["a ", "an ", "the "];

pub fn without_article(name: &str) -> &str {
    let article = ARTICLES
        .iter()
        .find_map(|article| name.strip_prefix(article));
    article.unwrap_or(name)
}

/// "an apple".
pub fn with_article(name: &str) -> String {
    match name.chars().next() {
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles() {
        assert_eq!(with_article("apple"), "an apple");
        assert_eq!(with_article("cup"), "a cup");
        assert_eq!(without_article("the night sky"), "night sky");
        assert_eq!(without_article("anchors"), "anchors");
    }
}
