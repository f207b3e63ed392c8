//! From pictures to vectors in the language model's space.

use super::{EfficientNetLite0, InternVit};
use crate::connector::{MlpProjector, PooledConnector, visual_tokens};
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
    },
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

    /// `[n, 3, height, width]` → `[n, tokens, hidden]`.
    pub fn tokens(&self, pixels: &Tensor) -> Result<Tensor> {
        let pixels = pixels.to_dtype(self.dtype)?.to_device(&self.device)?;
        match &self.encoder {
            VisionEncoder::InternVit { tower, projector } => {
                let features = tower.forward(&pixels, &mut Probe::none())?;
                projector.forward(&visual_tokens(&features)?)
            }
            VisionEncoder::EfficientNet { network, connector } => {
                connector.forward(&network.forward(&pixels)?)
            }
        }
    }
}
