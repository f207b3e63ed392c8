//! The training layout (spec 1.2).

use super::{Layout, ModelConfig, cmvn, part_folder, read_json, train_yaml};
use crate::connector::MlpProjector;
use crate::image::{FrameFit, ImageProcessor, TilingRule};
use crate::lm::LmConfig;
use crate::vision::InternVitConfig;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    lm: LmConfig,
    mm_vision_tower: String,
    mm_audio_encoder: String,
    #[serde(default = "mlp2x_gelu")]
    mm_projector_type: String,
    mm_hidden_size: Option<usize>,
    #[serde(default)]
    image_aspect_ratio: Option<String>,
    tokenizer_model_max_length: Option<usize>,
}

fn mlp2x_gelu() -> String {
    "mlp2x_gelu".into()
}

pub(super) fn load(folder: &Path, path: &Path) -> Result<ModelConfig> {
    let config: Config = read_json(path)?;
    if !config.mm_vision_tower.to_lowercase().contains("internvit") {
        let expected = "a folder with \"internvit\" in its name";
        return Err(Error::config(
            path,
            "mm_vision_tower",
            expected,
            config.mm_vision_tower,
        ));
    }
    let vision_folder = part_folder(path, folder, "mm_vision_tower", &config.mm_vision_tower)?;
    let vision = InternVitConfig::load(&vision_folder.join("config.json"))?;
    if let Some(found) = config
        .mm_hidden_size
        .filter(|&n| n != 4 * vision.hidden_size)
    {
        let expected = format!("4 × {}", vision.hidden_size);
        return Err(Error::config(path, "mm_hidden_size", expected, found));
    }
    let audio_folder = part_folder(path, folder, "mm_audio_encoder", &config.mm_audio_encoder)?;
    let audio = train_yaml::load(&audio_folder.join("train.yaml"))?;
    let cmvn_path = audio_folder.join("global_cmvn");
    let cmvn = match cmvn_path.is_file() {
        true => Some(cmvn::read_statistics(
            &cmvn_path,
            audio.json_cmvn,
            audio.encoder.input_dim,
        )?),
        false => None,
    };
    let kind = &config.mm_projector_type;
    let projector_depth = MlpProjector::depth_of(kind)
        .ok_or_else(|| Error::config(path, "mm_projector_type", "linear or mlp<N>x_gelu", kind))?;
    Ok(ModelConfig {
        layout: Layout::Training,
        vision,
        image_processor: ImageProcessor::load(&vision_folder.join("preprocessor_config.json"))?,
        tiling: TilingRule::default(),
        frame_fit: match config.image_aspect_ratio.as_deref() {
            Some("pad") => FrameFit::Pad,
            _ => FrameFit::Crop,
        },
        projector_depth,
        fbank: audio.fbank,
        audio: audio.encoder,
        adapter: audio.adapter,
        cmvn,
        max_length: config
            .tokenizer_model_max_length
            .unwrap_or(config.lm.max_position_embeddings),
        lm: config.lm,
    })
}
