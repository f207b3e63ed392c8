//! Finds things of a few classes in a picture, people above all, and says how many there are and where.

mod anchors;
pub(crate) mod network;
mod words;

pub use self::anchors::Area;
pub use self::network::{Raw, SsdMobileNetV2};

use self::anchors::Anchor;
use crate::checkpoint::manifest::File;
use crate::image::{FrameFit, ImageProcessor};
use crate::nn::Weights;
use crate::{Error, Result};
use ::image::RgbImage;
use candle_core::{DType, Tensor};
use serde::Deserialize;
use std::path::Path;

/// The part `vision.detector` of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DetectorConfig {
    pub weights: File,
    /// Names of the classes, one a line, in the network's order, without that of nothing. One is `person`.
    pub labels: String,
    /// A person that is at least so probable is counted.
    #[serde(default = "person")]
    pub person_percent: u32,
    /// The same for people who take less than 1.5 % of the picture: what is small is mistaken more easily.
    #[serde(default = "small_person")]
    pub small_person_percent: u32,
    /// Another thing that is at least so probable is named.
    #[serde(default = "thing")]
    pub thing_percent: u32,
    /// People, or other things, that overlap by more, over what either covers, are one.
    #[serde(default = "overlap")]
    pub overlap_percent: u32,
    /// Most things named beside the people.
    #[serde(default = "things")]
    pub things: usize,
}

/// From which probability on people are counted and things are named: chosen by looking at what is found in street
/// scenes and photos (docs/models.md).
pub const PERSON_PERCENT: u32 = 35;
pub const SMALL_PERSON_PERCENT: u32 = 42;
pub const THING_PERCENT: u32 = 45;

fn person() -> u32 {
    PERSON_PERCENT
}
fn small_person() -> u32 {
    SMALL_PERSON_PERCENT
}
fn thing() -> u32 {
    THING_PERCENT
}
fn overlap() -> u32 {
    50
}
fn things() -> usize {
    3
}

impl DetectorConfig {
    pub fn validate(&self, path: &Path) -> Result<()> {
        let percents = [
            ("detector.person-percent", self.person_percent),
            ("detector.small-person-percent", self.small_person_percent),
            ("detector.thing-percent", self.thing_percent),
            ("detector.overlap-percent", self.overlap_percent),
        ];
        match percents
            .iter()
            .find(|(_, value)| !(1..=100).contains(value))
        {
            Some((key, value)) => Err(Error::config(path, *key, "1 to 100", value)),
            None => Ok(()),
        }
    }
}

/// Label of people.
const PERSON: &str = "person";

/// Share of the picture below which a person is small.
const SMALL: f32 = 0.015;

/// Share of the smaller of two finds of a class that lies in the larger when both are of one thing.
const INSIDE: f32 = 0.7;

/// From which probability on something may be a person.
const FAINT: f32 = 0.08;

/// What a picture shows, the most probable first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finds {
    /// What is probable enough to be told.
    pub found: Vec<Detection>,
    /// People, and all that may be some.
    pub faint: Vec<Detection>,
}

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Its line among the labels, from 0.
    pub label: usize,
    /// Between 0 and 1.
    pub probability: f32,
    pub area: Area,
}

/// A network that finds things, and the words for them.
#[derive(Debug, Clone)]
pub struct Detector {
    network: SsdMobileNetV2,
    anchors: Vec<Anchor>,
    labels: Vec<String>,
    person: usize,
    processor: ImageProcessor,
    config: DetectorConfig,
}

impl Detector {
    /// `text` is the content of `path`: a label a line.
    pub fn new(config: &DetectorConfig, (path, text): (&Path, &str), w: &Weights) -> Result<Self> {
        let labels: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
        if labels.iter().any(String::is_empty) {
            return Err(Error::format(path, "expected a label on every line"));
        }
        let person = labels.iter().position(|label| label == PERSON);
        let person = person.ok_or_else(|| {
            Error::format(path, format!("expected a label {PERSON:?}, found none"))
        })?;
        let side = network::PICTURE_SIDE as u32;
        Ok(Self {
            network: SsdMobileNetV2::new(1 + labels.len(), w)?,
            anchors: anchors::anchors(),
            person,
            processor: ImageProcessor::new(side, network::MEAN, network::STD),
            config: config.clone(),
            labels,
        })
    }

    /// A picture of any size to `[3, 300, 300]`: all of it, without regard for its shape.
    pub fn pixels(&self, picture: &RgbImage) -> Result<Tensor> {
        self.processor.frame(picture, FrameFit::Squash)
    }

    /// What the network says, for comparison with others.
    pub fn raw(&self, pixels: &Tensor) -> Result<Raw> {
        self.network.forward(pixels)
    }

    /// Pixels `[n, 3, 300, 300]` → what each picture shows.
    pub fn detect(&self, pixels: &Tensor) -> Result<Vec<Finds>> {
        let raw = self.raw(pixels)?;
        let boxes = raw.boxes.to_dtype(DType::F32)?.to_vec3::<f32>()?;
        let classes = raw.classes.to_dtype(DType::F32)?.to_vec3::<f32>()?;
        let pictures = boxes.iter().zip(&classes);
        Ok(pictures.map(|(b, c)| self.finds(b, c)).collect())
    }

    /// Whether it is one.
    pub fn is_person(&self, found: &Detection) -> bool {
        found.label == self.person
    }

    fn finds(&self, boxes: &[Vec<f32>], classes: &[Vec<f32>]) -> Finds {
        let config = &self.config;
        let least = config.person_percent.min(config.small_person_percent);
        let least = FAINT.min(least.min(config.thing_percent) as f32 / 100.0);
        let (mut found, mut faint) = (Vec::new(), Vec::new());
        for ((anchor, code), logits) in self.anchors.iter().zip(boxes).zip(classes) {
            let [y, x, height, width] = code[..] else {
                continue;
            };
            // the first class is that of nothing
            for (label, logit) in logits.iter().skip(1).enumerate() {
                let probability = 1.0 / (1.0 + (-logit).exp());
                if probability < least {
                    continue;
                }
                let one = Detection {
                    label,
                    probability,
                    area: anchor.decode([y, x, height, width]),
                };
                if 100.0 * probability >= self.least_percent(&one) as f32 {
                    found.push(one);
                }
                if self.is_person(&one) {
                    faint.push(one);
                }
            }
        }
        Finds {
            found: self.without_doubles(found),
            faint: self.without_doubles(faint),
        }
    }

    fn least_percent(&self, found: &Detection) -> u32 {
        match self.is_person(found) {
            true if found.area.size() < SMALL => self.config.small_person_percent,
            true => self.config.person_percent,
            false => self.config.thing_percent,
        }
    }

    /// Of finds that overlap, the most probable: one thing has one name, and a person holds or rides a thing.
    fn without_doubles(&self, mut found: Vec<Detection>) -> Vec<Detection> {
        let most = self.config.overlap_percent as f32 / 100.0;
        found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        let mut kept: Vec<Detection> = Vec::new();
        for one in found {
            let double = |other: &Detection| {
                let (a, b) = (&other.area, &one.area);
                let inside = a.common(b) > INSIDE * a.size().min(b.size());
                let overlaps = self.is_person(other) == self.is_person(&one) && a.overlap(b) > most;
                overlaps || (other.label == one.label && inside)
            };
            if !kept.iter().any(double) {
                kept.push(one);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::RandomSource;
    use candle_core::{Device, IndexOp};
    use std::sync::Arc;

    fn config(more: &str) -> DetectorConfig {
        let text = format!("weights = {{ file = \"d.safetensors\" }}\nlabels = \"l.txt\"\n{more}");
        toml::from_str(&text).unwrap()
    }

    pub(super) fn detector() -> Detector {
        let w = Weights::f32(Arc::new(RandomSource { seed: 4 }));
        let labels = (Path::new("l.txt"), "cup\nperson\nlaptop");
        Detector::new(&config(""), labels, &w).unwrap()
    }

    #[test]
    fn each_picture_of_a_batch_is_seen_by_itself() {
        let detector = detector();
        let pixels = Tensor::randn(0f32, 1.0, (2, 3, 300, 300), &Device::Cpu).unwrap();
        let both = detector.raw(&pixels).unwrap();
        assert_eq!(both.boxes.dims(), [2, 1917, 4]);
        assert_eq!(both.classes.dims(), [2, 1917, 4]);
        let second = detector.raw(&pixels.i(1..2).unwrap()).unwrap();
        let difference = (both.classes.i(1..2).unwrap() - second.classes).unwrap();
        let difference = difference.abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-3);
    }

    #[test]
    fn of_doubles_the_most_probable_is_kept() {
        let detector = detector();
        let find = |label, probability, left| Detection {
            label,
            probability,
            area: Area {
                left,
                top: 0.1,
                right: left + 0.4,
                bottom: 0.9,
            },
        };
        let found = vec![
            find(1, 0.5, 0.11),
            find(1, 0.9, 0.1),
            find(0, 0.6, 0.1),
            find(2, 0.5, 0.1),
            find(1, 0.7, 0.5),
        ];
        let kept = detector.without_doubles(found);
        let kept: Vec<_> = kept.iter().map(|d| (d.label, d.probability)).collect();
        assert_eq!(kept, [(1, 0.9), (1, 0.7), (0, 0.6)]);
    }

    #[test]
    fn labels_without_people_are_refused() {
        let w = Weights::f32(Arc::new(RandomSource { seed: 4 }));
        for text in ["", "cup\nlaptop", "person\n\ncup"] {
            let error = Detector::new(&config(""), (Path::new("l.txt"), text), &w);
            assert!(error.unwrap_err().to_string().contains("l.txt"));
        }
        let path = Path::new("vita.toml");
        for wrong in [
            "person-percent = 0",
            "thing-percent = 101",
            "overlap-percent = 0",
        ] {
            let error = config(wrong).validate(path).unwrap_err().to_string();
            assert!(
                error.contains("vita.toml") && error.contains("percent"),
                "{error}"
            );
        }
        assert!(config("").validate(path).is_ok());
    }
}
