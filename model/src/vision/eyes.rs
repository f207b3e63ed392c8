//! From pictures to vectors in the language model's space.

use super::{ClassNames, EfficientNetLite0, InternVit, Recognised};
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
        network: EfficientNetLite0,
        connector: PooledConnector,
        /// Puts names in front of the connector's vectors.
        names: Option<(ClassNames, Words)>,
    },
}

/// A picture in the language model's space.
#[derive(Debug, Clone)]
pub struct Picture {
    /// `[tokens, hidden]`.
    pub vectors: Tensor,
    /// Names of what was recognised, for eyes that name.
    pub names: Option<String>,
}

/// A picture before the trained part: it can be kept, whatever the connector learns.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `[rows, columns, channels]`.
    pub map: Tensor,
    /// The likeliest classes, best first; none without a classifier.
    pub recognised: Vec<Recognised>,
    /// The words for them.
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
    /// A still picture as `[tiles, 3, side, side]`.
    pub fn picture(&self, picture: &RgbImage) -> Result<Tensor> {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::Input("the picture is empty".into()));
        }
        let tiling = Tiling::choose(width, height, self.processor.crop, self.tiling);
        self.processor.batch(&tiling.cut(picture))
    }

    /// Video frames as `[frames, 3, side, side]`.
    pub fn frames(&self, frames: &[RgbImage]) -> Result<Tensor> {
        let pixels = frames
            .iter()
            .map(|f| self.processor.frame(f, self.frame_fit));
        Ok(Tensor::stack(&pixels.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Prepared pixels `[n, 3, height, width]` → n pictures.
    pub fn encode(&self, pixels: &Tensor) -> Result<Vec<Picture>> {
        let VisionEncoder::InternVit { tower, projector } = &self.encoder else {
            let seen = self.look(pixels)?;
            return seen.iter().map(|seen| self.picture_of(seen)).collect();
        };
        let features = tower.forward(&self.placed(pixels)?, &mut Probe::none())?;
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
    pub fn look(&self, pixels: &Tensor) -> Result<Vec<Seen>> {
        let VisionEncoder::EfficientNet { network, names, .. } = &self.encoder else {
            return Err(Error::Input("this model's eyes have no feature map".into()));
        };
        let maps = network.forward(&self.placed(pixels)?)?;
        let recognised = match names {
            Some((names, _)) => names.recognise(&maps)?,
            None => vec![Vec::new(); maps.dim(0)?],
        };
        let seen = recognised.into_iter().enumerate().map(|(i, recognised)| {
            Ok(Seen {
                map: maps.get(i)?,
                names: names.as_ref().map(|(names, _)| names.words(&recognised)),
                recognised,
            })
        });
        seen.collect()
    }

    /// A picture in the order in which the language model is given it: names, then the connector's vectors.
    pub fn parts(&self, seen: &Seen) -> Result<[Part; 2]> {
        let VisionEncoder::EfficientNet {
            connector, names, ..
        } = &self.encoder
        else {
            return Err(Error::Input("this model's eyes have no feature map".into()));
        };
        let vectors = connector.forward(&seen.map.unsqueeze(0)?)?.get(0)?;
        let ids = match (names, &seen.names) {
            (Some((_, words)), Some(text)) => words.ids(text)?,
            _ => Vec::new(),
        };
        Ok([Part::Ids(ids), Part::Vectors(vectors)])
    }

    fn picture_of(&self, seen: &Seen) -> Result<Picture> {
        let embed = |ids: &[u32]| match &self.encoder {
            VisionEncoder::EfficientNet {
                names: Some((_, words)),
                ..
            } => words.embed(ids),
            _ => Err(Error::Input("this model's eyes have no words".into())),
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
