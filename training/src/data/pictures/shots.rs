//! Takes the pictures: what is on each is known before it is painted, so a picture that is there is not painted again.

use super::super::plan::{rng_for, short_hash};
use super::super::{Error, Result};
use super::scene::{self, Placed, Where};
use super::sources::{Crowd, Photo, Sources};
use crate::Split;
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A part of the films' and photos' pictures is shown as large as this, pixels.
const WHOLE_SIDE: u32 = 320;
const JPEG_QUALITY: u8 = 88;
/// A thing has moved when its middle has gone at least so far, parts of the picture's width.
const MOVE: f32 = 0.35;

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
}

impl Ground<'_> {
    fn cut(&self) -> RgbImage {
        let mut picture = scene::cut(self.picture, self.window);
        if self.mirrored {
            imageops::flip_horizontal_in_place(&mut picture);
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
            "photo" if camera.rng.random_bool(0.35) => camera.photo(i),
            "photo" => camera.one_thing(),
            "colour" => camera.colour(),
            "side" => camera.side(),
            "count" => camera.count(),
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
            let noun = cutout.noun.map(|n| &sources.nouns[n]);
            cutout.split == self.split
                && cutout.noun != not
                && noun.is_some_and(|noun| noun.colour || !coloured)
        };
        let all: Vec<usize> = (0..sources.things.len()).filter(fits).collect();
        all.choose(&mut self.rng).copied()
    }

    fn ground(&mut self) -> Option<Ground<'a>> {
        let sources = self.sources();
        // validation may stand on the same grounds as training: what it holds out are things
        let split = self.split_of_places();
        let fits = |p: &&Photo| p.ground && p.split == split;
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
            window: scene::window(&ground.picture, &mut self.rng),
            mirrored: self.rng.random_bool(0.5),
        })
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
        person: bool,
        colour: Option<usize>,
        how: (f32, Where),
        others: &[Placed],
    ) -> Option<Placed> {
        let cutouts = match person {
            true => &self.sources().people,
            false => &self.sources().things,
        };
        let area = scene::place(&cutouts[cutout], how, others, &mut self.rng)?;
        Some(Placed {
            cutout,
            person,
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
                name: match p.person {
                    true => "person".into(),
                    false => sources.things[p.cutout]
                        .noun
                        .map_or(String::new(), |n| sources.nouns[n].one.clone()),
                },
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
            people: Some(placed.iter().filter(|p| p.person).count() as u32),
        })
    }

    fn path(&self, frame: usize) -> PathBuf {
        self.studio.folder.join(format!("{}-{frame}.jpg", self.id))
    }

    fn named(&self, noun: usize) -> About {
        let noun = &self.sources().nouns[noun];
        let mut names = noun.names.clone();
        names.push(noun.one.clone());
        names.push(noun.many.clone());
        About::Main(with_article(&noun.one), names)
    }

    fn one_thing(&mut self) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let colour = self.maybe_colour(0.25);
        let height = self.rng.random_range(0.45..0.8);
        let Some(placed) = self.put(cutout, false, colour, (height, Where::Anywhere), &[]) else {
            return Ok(None);
        };
        let noun = self.sources().things[cutout].noun;
        let scenes = vec![self.scene(&ground, &[placed], 0)?];
        Ok(noun.map(|n| Shot {
            scenes,
            noun,
            about: self.named(n),
        }))
    }

    /// One thing, or two on two sides; the first is asked for.
    fn things(&mut self, coloured: bool, side: Where) -> Option<(Ground<'a>, Vec<Placed>)> {
        let ground = self.ground()?;
        let first = self.thing(coloured, None)?;
        let colour = if coloured {
            scene::colour(self.sources(), &mut self.rng)
        } else {
            self.maybe_colour(0.4)
        };
        let height = self.rng.random_range(0.35..0.65);
        let mut placed = vec![self.put(first, false, colour, (height, side), &[])?];
        if self.rng.random_bool(0.3) {
            let not = self.sources().things[first].noun;
            let second = self.thing(coloured, not)?;
            let other_side = match placed[0].middle() > 0.5 {
                true => Where::Left,
                false => Where::Right,
            };
            let mut colour = self.maybe_colour(if coloured { 1.0 } else { 0.4 });
            if colour == placed[0].colour {
                colour = colour.map(|c| (c + 1) % self.sources().colours.len());
            }
            let height = self.rng.random_range(0.35..0.6);
            placed.extend(self.put(second, false, colour, (height, other_side), &placed));
        }
        Some((ground, placed))
    }

    fn colour(&mut self) -> Result<Option<Shot>> {
        let Some((ground, placed)) = self.things(true, Where::Anywhere) else {
            return Ok(None);
        };
        let sources = self.sources();
        let Some(colour) = placed[0].colour else {
            return Ok(None);
        };
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: sources.things[placed[0].cutout].noun,
            about: About::Colour(sources.colours[colour].0.clone()),
        }))
    }

    fn side(&mut self) -> Result<Option<Shot>> {
        let right = self.rng.random_bool(0.5);
        let side = if right { Where::Right } else { Where::Left };
        let Some((ground, placed)) = self.things(false, side) else {
            return Ok(None);
        };
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: self.sources().things[placed[0].cutout].noun,
            about: About::Side(right),
        }))
    }

    /// One to five of a kind.
    fn count(&mut self) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let wanted = *[1, 2, 2, 3, 3, 4, 5].choose(&mut self.rng).unwrap_or(&2);
        let colour = self.maybe_colour(0.4);
        let height = self.rng.random_range(0.24..0.36);
        let mut placed = Vec::new();
        for _ in 0..wanted {
            placed.extend(self.put(cutout, false, colour, (height, Where::Anywhere), &placed));
        }
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: self.sources().things[cutout].noun,
            about: About::Count(placed.len() as u32),
        }))
    }

    /// Two frames of a thing, or three; half of the scenes have another that stands still.
    fn moved(&mut self, moves: bool) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let colour = self.maybe_colour(0.5);
        let height = self.rng.random_range(0.32..0.48);
        let mut still = Vec::new();
        if self.rng.random_bool(0.25) {
            let not = self.sources().things[cutout].noun;
            let other = self.thing(false, not);
            let height = self.rng.random_range(0.25..0.4);
            still.extend(
                other.and_then(|o| self.put(o, false, None, (height, Where::Anywhere), &[])),
            );
        }
        // what stands in the middle of a narrow picture has nowhere to go
        let sides = [Where::Left, Where::Right, Where::Anywhere];
        let side = *sides.choose(&mut self.rng).unwrap_or(&Where::Anywhere);
        let Some(first) = self.put(cutout, false, colour, (height, side), &still) else {
            return Ok(None);
        };
        let mut last = first.clone();
        if moves {
            let far = (0..60).find_map(|_| {
                let to = self.put(cutout, false, colour, (height, Where::Anywhere), &still)?;
                ((to.middle() - first.middle()).abs() >= MOVE).then_some(to)
            });
            let Some(to) = far else { return Ok(None) };
            last.area = to.area;
        }
        let frames = self.rng.random_range(2..=3);
        let mut scenes = Vec::new();
        for frame in 0..frames {
            let along = frame as f32 / (frames - 1) as f32;
            let mut now = first.clone();
            for (at, (from, to)) in now.area.iter_mut().zip(first.area.iter().zip(last.area)) {
                *at = from + along * (to - from);
            }
            let placed: Vec<Placed> = still.iter().cloned().chain([now]).collect();
            scenes.push(self.scene(&ground, &placed, frame)?);
        }
        Ok(Some(Shot {
            scenes,
            noun: self.sources().things[cutout].noun,
            about: About::Moved(moves),
        }))
    }

    /// A photo with a name; whole in the test, mostly a part of it in training.
    fn photo(&mut self, i: usize) -> Result<Option<Shot>> {
        let named = |p: &&Photo| p.split == self.split;
        let photos: Vec<&Photo> = self.sources().photos.iter().filter(named).collect();
        if photos.is_empty() {
            return Ok(None);
        }
        let photo = photos[i % photos.len()];
        let mut names = photo.names.clone();
        names.push(without_article(&photo.main).to_owned());
        let scenes = vec![self.taken(photo, photo.people)?];
        Ok(Some(Shot {
            scenes,
            noun: None,
            about: About::Main(photo.main.clone(), names),
        }))
    }

    /// So many people (3: more than two), on photos, in films and, to learn from, composed.
    fn people(&mut self, wanted: u32) -> Result<Option<Shot>> {
        let real = self.split == Split::Test || self.rng.random_bool(0.6);
        let scene = match (real, wanted) {
            (true, _) => self.real_people(wanted)?,
            (false, _) => self.composed_people(wanted)?,
        };
        Ok(scene.map(|scene| Shot {
            noun: None,
            about: About::People(scene.people.unwrap_or(0)),
            scenes: vec![scene],
        }))
    }

    fn real_people(&mut self, wanted: u32) -> Result<Option<Scene>> {
        let sources = self.sources();
        let same = |people: u32| people == wanted || wanted == 3 && people > 3;
        let split = self.split_of_places();
        let fits = |p: &&Photo| p.split == split && p.people.is_some_and(same);
        let photos: Vec<&Photo> = sources.photos.iter().filter(fits).collect();
        let frames: Vec<&Photo> = sources.frames.iter().filter(fits).collect();
        let crowds: Vec<&Crowd> = sources.crowds.iter().filter(|c| c.split == split).collect();
        let turn = self.rng.random_range(0..10);
        let crowd = crowds.choose(&mut self.rng);
        let one = match turn {
            0..4 => photos.choose(&mut self.rng),
            4..7 => frames.choose(&mut self.rng),
            _ => None,
        };
        match (one, crowd) {
            (Some(photo), _) => self.taken(photo, photo.people).map(Some),
            (None, Some(crowd)) => self.part_of(crowd, wanted),
            (None, None) => Ok(None),
        }
    }

    fn composed_people(&mut self, wanted: u32) -> Result<Option<Scene>> {
        let Some(ground) = self.ground() else {
            return Ok(None);
        };
        let count = match wanted {
            3 => self.rng.random_range(3..=4),
            few => few,
        };
        let mut placed: Vec<Placed> = Vec::new();
        let sources = self.sources();
        let fits = |i: &usize| sources.people[*i].split == self.split;
        let people: Vec<usize> = (0..sources.people.len()).filter(fits).collect();
        for _ in 0..count {
            let Some(&person) = people.choose(&mut self.rng) else {
                return Ok(None);
            };
            let height = self.rng.random_range(0.35..0.6) / (0.8 + 0.2 * count as f32);
            placed.extend(self.put(person, true, None, (height, Where::Anywhere), &placed));
        }
        for _ in 0..self.rng.random_range(0..=2) {
            let Some(thing) = self.thing(false, None) else {
                break;
            };
            let height = self.rng.random_range(0.2..0.4);
            let colour = self.maybe_colour(0.3);
            placed.extend(self.put(thing, false, colour, (height, Where::Anywhere), &placed));
        }
        let scene = self.scene(&ground, &placed, 0)?;
        let fits = scene
            .people
            .is_some_and(|n| n == wanted || wanted == 3 && n >= 3);
        Ok(fits.then_some(scene))
    }

    /// A photo or a frame: whole in the test, else nearly whole and sometimes mirrored.
    fn taken(&mut self, photo: &Photo, people: Option<u32>) -> Result<Scene> {
        let path = self.path(0);
        let whole = self.split == Split::Test;
        let (share, mirrored) = (self.rng.random_range(0.86..1.0), self.rng.random_bool(0.5));
        let (x, y) = (self.rng.random::<f32>(), self.rng.random::<f32>());
        if !path.is_file() {
            let (width, height) = photo.picture.dimensions();
            let longest = width.max(height).min(WHOLE_SIDE) as f32 / width.max(height) as f32;
            let size = |side: u32| ((side as f32 * longest) as u32).max(8);
            let mut picture = photo.picture.clone();
            if !whole {
                let (w, h) = (width as f32 * share, height as f32 * share);
                let (left, top) = ((width as f32 - w) * x, (height as f32 - h) * y);
                let [left, top, w, h] = [left, top, w, h].map(|v| v as u32);
                picture = imageops::crop_imm(&picture, left, top, w, h).to_image();
            }
            let filter = imageops::FilterType::Triangle;
            let mut picture = imageops::resize(&picture, size(width), size(height), filter);
            if !whole {
                if mirrored {
                    imageops::flip_horizontal_in_place(&mut picture);
                }
                scene::expose(&mut picture, &mut self.rng);
            }
            save(&path, &picture)?;
        }
        Ok(Scene {
            picture: path,
            split: self.split,
            source: Some(photo.file.clone()),
            things: Vec::new(),
            composed: false,
            main: Some(without_article(&photo.main).to_owned()).filter(|main| !main.is_empty()),
            people,
        })
    }

    /// A window with so many people, all of them whole.
    fn part_of(&mut self, crowd: &Crowd, wanted: u32) -> Result<Option<Scene>> {
        let (width, height) = crowd.picture.dimensions();
        let found = (0..400).find_map(|_| {
            let [left, top, right, bottom] = *crowd.people.choose(&mut self.rng)?;
            let tall = bottom - top;
            let h = (tall * self.rng.random_range(1.5..4.5)).min(height as f32);
            let w = (h * 4.0 / 3.0).min(width as f32);
            let (x, y) = (0.5 * (left + right), 0.5 * (top + bottom));
            let x = x + w * self.rng.random_range(-0.9..0.9) - 0.5 * w;
            let y = y + h * self.rng.random_range(-0.6..0.6) - 0.5 * h;
            let x = x.clamp(0.0, width as f32 - w);
            let y = y.clamp(0.0, height as f32 - h);
            // eyes may cut off the rim: the number must be right with it and without
            let rim = 0.06;
            let seen = [x + rim * w, y + rim * h, x + w - rim * w, y + h - rim * h];
            let people = counted(crowd, &seen)?;
            let same = counted(crowd, &[x, y, x + w, y + h]) == Some(people);
            let fits = people == wanted || wanted == 3 && people > 3;
            (fits && same).then_some(([x, y, w, h], people))
        });
        let Some((window, people)) = found else {
            return Ok(None);
        };
        let path = self.path(0);
        if !path.is_file() {
            let mut picture = scene::cut(&crowd.picture, window);
            if self.rng.random_bool(0.5) {
                imageops::flip_horizontal_in_place(&mut picture);
            }
            save(&path, &picture)?;
        }
        Ok(Some(Scene {
            picture: path,
            split: self.split,
            source: Some(crowd.file.clone()),
            things: Vec::new(),
            composed: false,
            main: None,
            people: Some(people),
        }))
    }
}

/// People in a window; `None` where one is neither inside nor outside, or nobody can tell.
pub fn counted(crowd: &Crowd, window: &[f32; 4]) -> Option<u32> {
    let inside = |[left, top, right, bottom]: &[f32; 4]| {
        let w = (right.min(window[2]) - left.max(window[0])).max(0.0);
        let h = (bottom.min(window[3]) - top.max(window[1])).max(0.0);
        w * h / ((right - left) * (bottom - top))
    };
    let mut people = 0;
    for person in &crowd.people {
        match inside(person) {
            share if share < 0.05 => {}
            share if share > 0.85 => people += 1,
            _ => return None,
        }
    }
    let clear = crowd.unclear.iter().all(|area| inside(area) == 0.0);
    clear.then_some(people)
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
    fn people_are_counted_only_where_all_are_whole() {
        let crowd = Crowd {
            file: "film".into(),
            split: Split::Train,
            picture: RgbImage::new(100, 100),
            people: vec![[10.0, 10.0, 20.0, 30.0], [60.0, 10.0, 70.0, 30.0]],
            unclear: vec![[40.0, 80.0, 50.0, 99.0]],
        };
        assert_eq!(counted(&crowd, &[0.0, 0.0, 100.0, 50.0]), Some(2));
        assert_eq!(counted(&crowd, &[0.0, 0.0, 50.0, 50.0]), Some(1));
        assert_eq!(counted(&crowd, &[25.0, 0.0, 55.0, 50.0]), Some(0));
        assert_eq!(counted(&crowd, &[0.0, 0.0, 65.0, 50.0]), None);
        assert_eq!(counted(&crowd, &[30.0, 0.0, 55.0, 100.0]), None);
    }

    #[test]
    fn articles() {
        assert_eq!(with_article("apple"), "an apple");
        assert_eq!(with_article("cup"), "a cup");
        assert_eq!(without_article("the night sky"), "night sky");
        assert_eq!(without_article("anchors"), "anchors");
    }
}
