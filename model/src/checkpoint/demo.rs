//! The demo layout (spec 1.3): the same tensors, another `config.json`.

use super::{Layout, ModelConfig, cmvn, read_json};
use crate::audio::WhaleConfig;
use crate::audio::adapter::{Activation, AdapterConfig, NormKind};
use crate::fbank;
use crate::image::{FrameFit, ImageProcessor, TilingRule};
use crate::lm::LmConfig;
use crate::vision::InternVitConfig;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The demo's code builds its visual connector with two layers always.
const PROJECTOR_DEPTH: usize = 2;

#[derive(Deserialize)]
struct Config {
    text_config: LmConfig,
    vision_config: InternVitConfig,
    audio_config: AudioConfig,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default = "gelu")]
    audio_projector_hidden_act: String,
    #[serde(default = "five")]
    audio_projector_kernel_size: usize,
    #[serde(default = "half")]
    downsample_ratio: f64,
    #[serde(default = "last")]
    vision_feature_layer: i64,
    #[serde(default = "one")]
    min_dynamic_patch: u32,
    #[serde(default = "twelve")]
    max_dynamic_patch: u32,
    #[serde(default = "yes")]
    use_thumbnail: bool,
    #[serde(default = "yes")]
    dynamic_image_size: bool,
    tokenizer_model_max_length: Option<usize>,
}

#[derive(Deserialize)]
struct AudioConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    input_dim: usize,
    #[serde(default = "relu")]
    hidden_act: String,
    #[serde(default = "yes")]
    normalize_before: bool,
    #[serde(default)]
    concat_after: bool,
    #[serde(default = "yes")]
    use_relative_pe: bool,
    #[serde(default)]
    qk_normalization: bool,
}

fn gelu() -> String {
    "gelu".into()
}
fn relu() -> String {
    "relu".into()
}
fn five() -> usize {
    5
}
fn half() -> f64 {
    0.5
}
fn last() -> i64 {
    -1
}
fn one() -> u32 {
    1
}
fn twelve() -> u32 {
    12
}
fn yes() -> bool {
    true
}

pub(super) fn load(folder: &Path, path: &Path) -> Result<ModelConfig> {
    let config: Config = read_json(path)?;
    check_variant(path, &config)?;
    let audio = WhaleConfig {
        input_dim: config.audio_config.input_dim,
        subsampling_size: config.audio_config.hidden_size,
        hidden_size: config.audio_config.hidden_size,
        intermediate_size: config.audio_config.intermediate_size,
        num_hidden_layers: config.audio_config.num_hidden_layers,
        num_attention_heads: config.audio_config.num_attention_heads,
    };
    super::check_sizes(
        path,
        &[(
            "audio_projector_kernel_size",
            config.audio_projector_kernel_size,
        )],
    )?;
    let extractor = folder
        .join("feature_extractor")
        .join("preprocessor_config.json");
    let cmvn = match extractor.is_file() {
        true => Some(cmvn::read_feature_extractor(&extractor, audio.input_dim)?),
        false => None,
    };
    let adapter = AdapterConfig {
        inputs: audio.hidden_size,
        outputs: config.text_config.hidden_size,
        kernel_size: config.audio_projector_kernel_size,
        activation: match config.audio_projector_hidden_act.as_str() {
            "relu" => Activation::Relu,
            _ => Activation::Gelu,
        },
        norm: NormKind::Layer,
    };
    let one_tile = TilingRule {
        min_tiles: 1,
        max_tiles: 1,
        thumbnail: false,
    };
    let tiling = TilingRule {
        min_tiles: config.min_dynamic_patch,
        max_tiles: config.max_dynamic_patch,
        thumbnail: config.use_thumbnail,
    };
    Ok(ModelConfig {
        layout: Layout::Demo,
        image_processor: ImageProcessor::load(&folder.join("preprocessor_config.json"))?,
        tiling: match config.dynamic_image_size {
            true => tiling,
            false => one_tile,
        },
        frame_fit: FrameFit::Squash,
        projector_depth: PROJECTOR_DEPTH,
        fbank: fbank::WhaleConfig {
            num_mel_bins: audio.input_dim,
            ..fbank::WhaleConfig::default()
        },
        audio,
        adapter,
        cmvn,
        max_length: config
            .tokenizer_model_max_length
            .unwrap_or(config.text_config.max_position_embeddings),
        vision: config.vision_config,
        lm: config.text_config,
    })
}

fn check_variant(path: &Path, config: &Config) -> Result<()> {
    let audio = &config.audio_config;
    let flag = |value: bool| value.to_string();
    let settings = [
        (
            "projector_hidden_act",
            "gelu",
            config.projector_hidden_act.clone(),
        ),
        (
            "downsample_ratio",
            "0.5",
            config.downsample_ratio.to_string(),
        ),
        (
            "vision_feature_layer",
            "-1",
            config.vision_feature_layer.to_string(),
        ),
        ("audio_config.hidden_act", "relu", audio.hidden_act.clone()),
        (
            "audio_config.normalize_before",
            "true",
            flag(audio.normalize_before),
        ),
        (
            "audio_config.concat_after",
            "false",
            flag(audio.concat_after),
        ),
        (
            "audio_config.use_relative_pe",
            "true",
            flag(audio.use_relative_pe),
        ),
        (
            "audio_config.qk_normalization",
            "false",
            flag(audio.qk_normalization),
        ),
    ];
    match settings
        .into_iter()
        .find(|(_, wanted, found)| wanted != found)
    {
        Some((key, wanted, found)) => Err(Error::config(path, key, wanted, found)),
        None => Ok(()),
    }
}
