//! What pictures are made from: `pictures.toml` of the corpus, and the files that it names.

use super::super::sound::split_of;
use super::super::speech::output;
use super::super::{Error, Result};
use crate::Split;
use image::{RgbImage, RgbaImage};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest side of what is kept in memory, pixels.
const CUTOUT_SIDE: u32 = 160;
const PHOTO_SIDE: u32 = 448;

/// `pictures.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    things: BTreeMap<String, ThingText>,
    plurals: BTreeMap<String, String>,
    pub colours: BTreeMap<String, [u8; 3]>,
    #[serde(rename = "photo")]
    photos: Vec<PhotoText>,
    #[serde(default, rename = "film")]
    films: Vec<FilmText>,
    #[serde(default, rename = "crowd")]
    crowds: Vec<CrowdText>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThingText {
    #[serde(default)]
    emoji: Vec<String>,
    #[serde(default)]
    stamps: Vec<String>,
    /// What it may be called too.
    #[serde(default)]
    names: Vec<String>,
    /// Whether its colour can be asked for.
    #[serde(default = "yes")]
    colour: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhotoText {
    file: String,
    split: Split,
    main: String,
    #[serde(default)]
    names: Vec<String>,
    /// People to be seen; −1 where that can't be told.
    #[serde(default)]
    people: i32,
    #[serde(default)]
    ground: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilmText {
    file: String,
    split: Split,
    spans: Vec<Span>,
}

/// Seconds of a film with the same number of people.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    from: f64,
    to: f64,
    people: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrowdText {
    file: String,
    /// Of the picture that the boxes were measured in.
    width: f32,
    frames: Vec<CrowdFrame>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrowdFrame {
    split: Split,
    at: f64,
    /// Middle, top, bottom.
    people: Vec<[f32; 3]>,
    #[serde(default)]
    unclear: Vec<[f32; 3]>,
}

/// What a thing is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Noun {
    pub one: String,
    pub many: String,
    pub names: Vec<String>,
    pub colour: bool,
}

/// A thing without its background.
#[derive(Debug, Clone)]
pub struct Cutout {
    /// Place in [`Sources::nouns`].
    pub noun: usize,
    pub split: Split,
    pub picture: RgbaImage,
}

#[derive(Debug, Clone)]
pub struct Photo {
    pub file: String,
    pub split: Split,
    pub main: String,
    pub names: Vec<String>,
    pub people: Option<u32>,
    /// Others may be put on it.
    pub ground: bool,
    pub picture: RgbImage,
}

/// A frame in which everybody's place is known.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub file: String,
    pub split: Split,
    pub picture: RgbImage,
    /// Left, top, right, bottom, pixels.
    pub people: Vec<[f32; 4]>,
    pub unclear: Vec<[f32; 4]>,
}

#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub nouns: Vec<Noun>,
    pub things: Vec<Cutout>,
    pub photos: Vec<Photo>,
    /// Frames of films, as photos without a name.
    pub frames: Vec<Photo>,
    pub crowds: Vec<Crowd>,
    pub colours: Vec<(String, [u8; 3])>,
    /// Files that are not installed.
    pub missing: Vec<PathBuf>,
}

impl Catalogue {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        toml::from_str(&text).map_err(|e| Error::corpus(path, e.to_string()))
    }

    pub fn nouns(&self) -> Vec<Noun> {
        let noun = |(key, thing): (&String, &ThingText)| {
            let one = key.replace('-', " ");
            let many = self.plurals.get(key).cloned();
            Noun {
                many: many.unwrap_or_else(|| format!("{one}s")),
                names: thing.names.clone(),
                colour: thing.colour,
                one,
            }
        };
        self.things.iter().map(noun).collect()
    }
}

/// The folders that a catalogue's files are in.
pub struct Places<'a> {
    pub cache: &'a Path,
}

impl Places<'_> {
    fn file(&self, name: &str) -> PathBuf {
        let (place, rest) = name.split_once('/').unwrap_or(("", name));
        match place {
            "opencv" => Path::new("/usr/share/doc/opencv-doc/examples").join(rest),
            "opencv-html" => Path::new("/usr/share/doc/opencv-doc/opencv4/html").join(rest),
            "mate" => Path::new("/usr/share/backgrounds/mate").join(rest),
            "wallpapers" => Path::new("/usr/share/backgrounds").join(rest),
            "stamps" => Path::new("/usr/share/tuxpaint/stamps").join(format!("{rest}.png")),
            "skimage" => self.cache.join("training/skimage").join(rest),
            "training-media" => self.cache.join("training/media").join(rest),
            _ => self.cache.join(name),
        }
    }

    /// Both drawings of each emoji by its short name: flat, solid.
    fn emoji(&self) -> Result<BTreeMap<String, [PathBuf; 2]>> {
        #[derive(Deserialize)]
        struct Emoji {
            short_name: String,
            image: String,
        }
        let folder = self.cache.join("training/emoji");
        let path = folder.join("emoji.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return Ok(BTreeMap::new());
        };
        let all: Vec<Emoji> =
            serde_json::from_str(&text).map_err(|e| Error::corpus(&path, e.to_string()))?;
        let solid = self.cache.join("training/fluent/assets");
        let drawings = all.into_iter().map(|emoji| {
            let flat = folder.join("img/google/64").join(&emoji.image);
            let code = emoji.image.trim_end_matches(".png");
            let plain = solid.join(format!("{}.webp", code.replace("-fe0f", "")));
            let solid = Some(solid.join(format!("{code}.webp"))).filter(|path| path.is_file());
            (emoji.short_name, [flat, solid.unwrap_or(plain)])
        });
        Ok(drawings.collect())
    }
}

enum Job<'a> {
    Cutout(usize, PathBuf),
    Photo(&'a PhotoText),
    Frame(&'a FilmText, f64, u32),
    Crowd(&'a CrowdText, &'a CrowdFrame),
}

enum Made {
    Thing(Cutout),
    Photo(Photo),
    Frame(Photo),
    Crowd(Crowd),
    Missing(PathBuf),
}

impl Sources {
    /// Reads all that is installed; the rest is in `missing`.
    pub fn open(catalogue: &Catalogue, places: &Places) -> Result<Self> {
        let emoji = places.emoji()?;
        let mut jobs = Vec::new();
        for (i, thing) in catalogue.things.values().enumerate() {
            let drawings = thing.emoji.iter().filter_map(|name| emoji.get(name));
            let stamps = thing
                .stamps
                .iter()
                .map(|name| places.file(&format!("stamps/{name}")));
            let files = drawings.flatten().cloned().chain(stamps);
            jobs.extend(files.map(|file| Job::Cutout(i, file)));
        }
        jobs.extend(catalogue.photos.iter().map(Job::Photo));
        for film in &catalogue.films {
            jobs.extend(moments(film).map(|(at, people)| Job::Frame(film, at, people)));
        }
        for crowd in &catalogue.crowds {
            jobs.extend(crowd.frames.iter().map(|frame| Job::Crowd(crowd, frame)));
        }
        let made: Vec<Made> = jobs
            .par_iter()
            .map(|job| job.make(places))
            .collect::<Result<_>>()?;
        let mut sources = Self {
            nouns: catalogue.nouns(),
            colours: catalogue.colours.clone().into_iter().collect(),
            ..Self::default()
        };
        for made in made {
            match made {
                Made::Thing(cutout) => sources.things.push(cutout),
                Made::Photo(photo) => sources.photos.push(photo),
                Made::Frame(photo) => sources.frames.push(photo),
                Made::Crowd(crowd) => sources.crowds.push(crowd),
                Made::Missing(path) => sources.missing.push(path),
            }
        }
        Ok(sources)
    }
}

/// Three frames of each second of a film, and the people in them.
fn moments(film: &FilmText) -> impl Iterator<Item = (f64, u32)> + '_ {
    film.spans.iter().flat_map(|span| {
        let frames = ((span.to - span.from) * 3.0).floor() as usize;
        (0..=frames).map(|i| (span.from + i as f64 / 3.0, span.people))
    })
}

impl Job<'_> {
    fn make(&self, places: &Places) -> Result<Made> {
        let path = match self {
            Self::Cutout(_, path) => path.clone(),
            Self::Photo(photo) => places.file(&photo.file),
            Self::Frame(film, ..) => places.file(&film.file),
            Self::Crowd(crowd, _) => places.file(&crowd.file),
        };
        if !path.is_file() {
            return Ok(Made::Missing(path));
        }
        Ok(match self {
            Self::Cutout(noun, _) => {
                let picture = trimmed(&decode(&path, 0.0, CUTOUT_SIDE)?);
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
                let name = format!("{}/{name}", folder.to_string_lossy());
                Made::Thing(Cutout {
                    noun: *noun,
                    split: split_of(&name),
                    picture,
                })
            }
            Self::Photo(photo) => Made::Photo(Photo {
                file: photo.file.clone(),
                split: photo.split,
                main: photo.main.clone(),
                names: photo.names.clone(),
                people: u32::try_from(photo.people).ok(),
                ground: photo.ground,
                picture: opaque(&decode(&path, 0.0, PHOTO_SIDE)?),
            }),
            Self::Frame(film, at, people) => Made::Frame(Photo {
                file: format!("{}:{at:.2}", film.file),
                split: film.split,
                main: String::new(),
                names: Vec::new(),
                people: Some(*people),
                ground: *people == 0,
                picture: opaque(&decode(&path, *at, PHOTO_SIDE)?),
            }),
            Self::Crowd(crowd, frame) => {
                let picture = opaque(&decode(&path, frame.at, 2 * PHOTO_SIDE)?);
                let scale = picture.width() as f32 / crowd.width;
                // a walking person is about 0.4 as wide as tall
                let area = |[middle, top, bottom]: &[f32; 3]| {
                    let half = 0.2 * (bottom - top);
                    [middle - half, *top, middle + half, *bottom].map(|x| x * scale)
                };
                Made::Crowd(Crowd {
                    file: format!("{}:{:.2}", crowd.file, frame.at),
                    split: frame.split,
                    people: frame.people.iter().map(area).collect(),
                    unclear: frame.unclear.iter().map(area).collect(),
                    picture,
                })
            }
        })
    }
}

/// The frame `at` a second of any picture or film, no side longer than `longest`.
fn decode(path: &Path, at: f64, longest: u32) -> Result<RgbaImage> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error"]);
    if at > 0.0 {
        command.args(["-ss", &at.to_string()]);
    }
    command.arg("-i").arg(path);
    let scale = format!(
        "scale='min(iw,{longest})':'min(ih,{longest})':force_original_aspect_ratio=decrease"
    );
    command.args(["-frames:v", "1", "-vf", &scale, "-pix_fmt", "rgba"]);
    let png = output(command.args(["-c:v", "png", "-f", "image2pipe", "-"]))?;
    let picture = image::load_from_memory(&png).map_err(|source| Error::Picture {
        path: path.to_owned(),
        source,
    })?;
    Ok(picture.to_rgba8())
}

fn opaque(picture: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [r, g, b, a] = picture.get_pixel(x, y).0;
        let over = |c: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a))) / 255) as u8;
        image::Rgb([over(r), over(g), over(b)])
    })
}

/// Without the empty margin.
fn trimmed(picture: &RgbaImage) -> RgbaImage {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, _) in picture.enumerate_pixels().filter(|(.., p)| p.0[3] > 24) {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
    }
    if right == 0 {
        return picture.clone();
    }
    image::imageops::crop_imm(picture, left, top, right - left, bottom - top).to_image()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_file_is_on_two_sides() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/pictures.toml");
        let catalogue = Catalogue::read(&corpus).unwrap();
        let photos = catalogue.photos.iter().map(|p| (&p.file, p.split));
        let films = catalogue.films.iter().map(|f| (&f.file, f.split));
        let crowds = catalogue.crowds.iter();
        let crowds = crowds.flat_map(|c| c.frames.iter().map(move |frame| (&c.file, frame.split)));
        let all: Vec<_> = photos.chain(films).chain(crowds).collect();
        let of = |test: bool| -> BTreeSet<&String> {
            let side = all
                .iter()
                .filter(|(_, split)| (*split == Split::Test) == test);
            side.map(|(file, _)| *file).collect()
        };
        let both: Vec<_> = of(true).intersection(&of(false)).cloned().collect();
        assert!(both.is_empty() && !of(true).is_empty(), "{both:?}");
    }
}
