//! From pictures to vectors in the language model's space.

use super::efficientnet::{self, EfficientNetLite0};
use super::{ClassNames, Details, Detection, Detector, Finds, InternVit, Prepared, Recognised};
use crate::connector::{MlpProjector, Part, PooledConnector, Words, join_parts, visual_tokens};
use crate::image::{FrameFit, ImageProcessor, Tiling, TilingRule};
use crate::nn::Probe;
use crate::{Error, Result};
use ::image::RgbImage;
use candle_core::{DType, Device, Tensor};

/// A vision encoder with its connector.
#[derive(Debug, Clone)]
pub enum VisionEncoder {
    InternVit {
        tower: InternVit,
        projector: MlpProjector,
    },
    EfficientNet {
        network: Box<EfficientNetLite0>,
        connector: PooledConnector,
        /// Puts names in front of the connector's vectors.
        names: Option<ClassNames>,
        /// Puts what it finds in front of the names.
        detector: Option<Box<Detector>>,
        /// For names and finds.
        words: Words,
    },
}

/// A picture in the language model's space.
#[derive(Debug, Clone)]
pub struct Picture {
    /// `[tokens, hidden]`.
    pub vectors: Tensor,
    /// What was found and recognised, for eyes that name.
    pub names: Option<String>,
}

/// A picture before the trained part: it can be kept, whatever the connector learns.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `[rows, columns, channels]`.
    pub map: Tensor,
    /// What connectors with details are given beside it.
    pub details: Option<Details>,
    /// The likeliest classes, best first; none without a classifier.
    pub recognised: Vec<Recognised>,
    /// What was found, the most probable first; nothing without a detector.
    pub found: Vec<Detection>,
    /// The words for both.
    pub names: Option<String>,
}

/// The encoder, and how pictures are prepared for it.
#[derive(Debug, Clone)]
pub struct Eyes {
    pub encoder: VisionEncoder,
    pub processor: ImageProcessor,
    pub tiling: TilingRule,
    pub frame_fit: FrameFit,
    pub dtype: DType,
    pub device: Device,
}

impl Eyes {
    /// A still picture, as its tiles.
    pub fn picture(&self, picture: &RgbImage) -> Result<Prepared> {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::Input("the picture is empty".into()));
        }
        let tiling = Tiling::choose(width, height, self.processor.crop, self.tiling);
        let tiles = tiling.cut(picture);
        Ok(Prepared {
            pixels: self.processor.batch(&tiles)?,
            // eyes with a detector have one tile, which may lack the sides: the detector is shown all
            for_detector: self.for_detector(std::slice::from_ref(picture))?,
        })
    }

    /// Video frames.
    pub fn frames(&self, frames: &[RgbImage]) -> Result<Prepared> {
        let pixels = frames
            .iter()
            .map(|f| self.processor.frame(f, self.frame_fit));
        Ok(Prepared {
            pixels: Tensor::stack(&pixels.collect::<Result<Vec<_>>>()?, 0)?,
            for_detector: self.for_detector(frames)?,
        })
    }

    fn for_detector(&self, pictures: &[RgbImage]) -> Result<Option<Tensor>> {
        let Some(detector) = self.detector() else {
            return Ok(None);
        };
        let pixels = pictures.iter().map(|picture| detector.pixels(picture));
        Ok(Some(Tensor::stack(
            &pixels.collect::<Result<Vec<_>>>()?,
            0,
        )?))
    }

    /// What finds things in pictures, where these eyes have it.
    pub fn detector(&self) -> Option<&Detector> {
        match &self.encoder {
            VisionEncoder::EfficientNet { detector, .. } => detector.as_deref(),
            VisionEncoder::InternVit { .. } => None,
        }
    }

    /// n prepared pictures → n pictures.
    pub fn encode(&self, prepared: &Prepared) -> Result<Vec<Picture>> {
        let VisionEncoder::InternVit { tower, projector } = &self.encoder else {
            let seen = self.look(prepared)?;
            return seen.iter().map(|seen| self.picture_of(seen)).collect();
        };
        let pixels = self.placed(&prepared.pixels)?;
        let features = tower.forward(&pixels, &mut Probe::none())?;
        let tokens = projector.forward(&visual_tokens(&features)?)?;
        let picture = |i| {
            Ok(Picture {
                vectors: tokens.get(i)?,
                names: None,
            })
        };
        (0..tokens.dim(0)?).map(picture).collect()
    }

    /// What the trained part of eyes with a feature map is given; it may be kept while that part learns.
    ///
    /// # Errors
    /// Where the eyes have no such part.
    pub fn look(&self, prepared: &Prepared) -> Result<Vec<Seen>> {
        let VisionEncoder::EfficientNet {
            network,
            connector,
            names,
            detector,
            ..
        } = &self.encoder
        else {
            return Err(Error::Input("this model's eyes have no feature map".into()));
        };
        let (maps, fine) = network.maps(&self.placed(&prepared.pixels)?)?;
        let count = maps.dim(0)?;
        let recognised = match names {
            Some(names) => names.recognise(&maps)?,
            None => vec![Vec::new(); count],
        };
        let found = match (detector, &prepared.for_detector) {
            (Some(detector), Some(pixels)) => detector.detect(&self.placed(pixels)?)?,
            (None, _) => vec![Finds::default(); count],
            (Some(_), None) => {
                let reason = "the pictures were prepared for eyes without a detector";
                return Err(Error::Input(reason.into()));
            }
        };
        let finds = found.into_iter().map(|finds| (finds.found, finds.faint));
        let (found, faint): (Vec<_>, Vec<_>) = finds.unzip();
        let details = match connector.is_detailed() {
            true => {
                let pixels = efficientnet::unnormalised(&prepared.pixels)?;
                Some(Details::of(&fine, &pixels, &faint)?)
            }
            false => None,
        };
        let pictures = recognised.into_iter().zip(found).enumerate();
        let seen = pictures.map(|(i, (recognised, found))| {
            let finds = detector.as_ref().map(|detector| detector.words(&found));
            let names = names.as_ref().map(|names| names.words(&recognised));
            Ok(Seen {
                map: maps.get(i)?,
                details: details.as_ref().map(|all| all.get(i)).transpose()?,
                names: both(finds, names),
                recognised,
                found,
            })
        });
        seen.collect()
    }

    /// A picture in the order in which the language model is given it: words, then the connector's vectors.
    pub fn parts(&self, seen: &Seen) -> Result<[Part; 2]> {
        let VisionEncoder::EfficientNet {
            connector, words, ..
        } = &self.encoder
        else {
            return Err(Error::Input("this model's eyes have no feature map".into()));
        };
        let details = seen.details.as_ref();
        let details = details.map(|one| Details::stack(&[one])).transpose()?;
        let map = seen.map.unsqueeze(0)?;
        let vectors = connector.forward(&map, details.as_ref())?.get(0)?;
        let ids = seen.names.as_ref().map(|text| words.ids(text));
        let ids = ids.transpose()?.unwrap_or_default();
        Ok([Part::Ids(ids), Part::Vectors(vectors)])
    }

    fn picture_of(&self, seen: &Seen) -> Result<Picture> {
        let embed = |ids: &[u32]| match &self.encoder {
            VisionEncoder::EfficientNet { words, .. } => words.embed(ids),
            VisionEncoder::InternVit { .. } => {
                Err(Error::Input("this model's eyes have no words".into()))
            }
        };
        Ok(Picture {
            vectors: join_parts(&self.parts(seen)?, embed)?,
            names: seen.names.clone(),
        })
    }

    fn placed(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(pixels.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

/// What was found, then what was recognised: "1 person left; cup middle. espresso, cup?".
fn both(finds: Option<String>, names: Option<String>) -> Option<String> {
    match (finds, names) {
        (Some(finds), Some(names)) if !names.is_empty() => Some(format!("{finds}. {names}")),
        (Some(finds), _) => Some(finds),
        (None, names) => names,
    }
}
