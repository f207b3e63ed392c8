//! What a checkpoint folder says of itself, whichever dialect it is written in.

use super::{demo, training};
use crate::audio::{AdapterConfig, WhaleConfig};
use crate::fbank;
use crate::image::{FrameFit, ImageProcessor, TilingRule};
use crate::lm::LmConfig;
use crate::vision::InternVitConfig;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The two dialects of `config.json` (spec 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The training repository's, with a folder for each tower.
    Training,
    /// The deployment files', with nested sub-configs.
    Demo,
}

/// A VITA checkpoint's settings, all sizes from its own files.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub layout: Layout,
    pub lm: LmConfig,
    pub vision: InternVitConfig,
    pub image_processor: ImageProcessor,
    pub tiling: TilingRule,
    pub frame_fit: FrameFit,
    /// Layers of the visual connector.
    pub projector_depth: usize,
    /// Features that the encoder listens to; without dither, so that a run can be repeated.
    pub fbank: fbank::WhaleConfig,
    pub audio: WhaleConfig,
    pub adapter: AdapterConfig,
    /// From the side file; the checkpoint has the same values as tensors, perhaps rounded.
    pub cmvn: Option<fbank::Cmvn>,
    /// Longest merged sequence. Longer ones are an error (the reference cuts the question off).
    pub max_length: usize,
}

#[derive(Deserialize)]
struct Kind {
    model_type: String,
}

impl ModelConfig {
    /// Reads `config.json` and the files it leads to.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let Kind { model_type } = super::read_json(&path)?;
        let config = match model_type.as_str() {
            "vita-mixtral" => training::load(folder, &path)?,
            "mixtral_multimodal" => demo::load(folder, &path)?,
            other => {
                let expected = "vita-mixtral or mixtral_multimodal";
                return Err(Error::config(&path, "model_type", expected, other));
            }
        };
        config.validate(&path)?;
        Ok(config)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        self.lm.validate(path)?;
        self.vision.validate(path)?;
        self.audio.validate(path)?;
        super::check_max_length(path, "tokenizer_model_max_length", self.max_length)?;
        let crop = self.image_processor.crop as usize;
        if !crop.is_multiple_of(self.vision.patch_size)
            || !(crop / self.vision.patch_size).is_multiple_of(2)
        {
            let expected = format!("an even number of {}-pixel patches", self.vision.patch_size);
            return Err(Error::config(path, "crop_size", expected, crop));
        }
        if self.adapter.outputs != self.lm.hidden_size {
            let expected = self.lm.hidden_size;
            return Err(Error::config(
                path,
                "llm_embed_dim",
                expected,
                self.adapter.outputs,
            ));
        }
        Ok(())
    }
}
