//! `train.yaml` of the audio encoder's folder: the keys that describe the released encoder (spec 1.2).

use crate::audio::WhaleConfig;
use crate::audio::adapter::{Activation, AdapterConfig, NormKind};
use crate::fbank;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct TrainYaml {
    input_dim: usize,
    #[serde(default = "yes")]
    is_json_cmvn: bool,
    encoder_conf: EncoderConf,
    model_conf: ModelConf,
    #[serde(default)]
    dataset_conf: DatasetConf,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DatasetConf {
    resample_conf: ResampleConf,
    fbank_conf: FbankConf,
}

#[derive(Deserialize)]
#[serde(default)]
struct ResampleConf {
    resample_rate: u32,
}

impl Default for ResampleConf {
    fn default() -> Self {
        let resample_rate = fbank::WhaleConfig::default().sample_rate_hz;
        Self { resample_rate }
    }
}

/// Milliseconds.
#[derive(Deserialize)]
#[serde(default)]
struct FbankConf {
    frame_length: f64,
    frame_shift: f64,
}

impl Default for FbankConf {
    fn default() -> Self {
        let config = fbank::WhaleConfig::default();
        Self {
            frame_length: config.frame_length_ms,
            frame_shift: config.frame_shift_ms,
        }
    }
}

#[derive(Deserialize)]
struct EncoderConf {
    overview_conf: OverviewConf,
    para_conf: ParaConf,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OverviewConf {
    encoder_layer_config: String,
}

#[derive(Deserialize)]
struct ParaConf {
    subsampling: Subsampling,
    transformer: Transformer,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Subsampling {
    #[serde(default = "four")]
    subsampling_rate: usize,
    subsampling_output_dim: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Transformer {
    transformer_attention_dim: usize,
    transformer_attention_heads: usize,
    transformer_linear_units: usize,
    transformer_num_blocks: usize,
    transformer_input_layer: Option<String>,
    transformer_pos_enc_class: Option<String>,
    transformer_normalize_before: Option<bool>,
    transformer_concat_after: Option<bool>,
    transformer_positionwise_layer_type: Option<String>,
}

#[derive(Deserialize)]
struct ModelConf {
    enc_out_dim: usize,
    llm_embed_dim: usize,
    kernel_size: usize,
    adpter_type: String,
    #[serde(default = "relu")]
    activation_func: String,
    #[serde(default = "batch")]
    norm: String,
}

fn yes() -> bool {
    true
}
fn four() -> usize {
    4
}
fn relu() -> String {
    "relu".into()
}
fn batch() -> String {
    "batch".into()
}

/// What the file says, for the parts that are built from it.
pub(super) struct AudioFiles {
    pub encoder: WhaleConfig,
    pub adapter: AdapterConfig,
    pub fbank: fbank::WhaleConfig,
    pub json_cmvn: bool,
}

pub(super) fn load(path: &Path) -> Result<AudioFiles> {
    let bytes = crate::error::read_file(path)?;
    let yaml: TrainYaml = serde_saphyr::from_slice(&bytes).map_err(|e| Error::format(path, e))?;
    let transformer = &yaml.encoder_conf.para_conf.transformer;
    let subsampling = &yaml.encoder_conf.para_conf.subsampling;
    check_variant(path, &yaml)?;
    let encoder = WhaleConfig {
        input_dim: yaml.input_dim,
        subsampling_size: subsampling.subsampling_output_dim,
        hidden_size: transformer.transformer_attention_dim,
        intermediate_size: transformer.transformer_linear_units,
        num_hidden_layers: transformer.transformer_num_blocks,
        num_attention_heads: transformer.transformer_attention_heads,
    };
    encoder.validate(path)?;
    let model = &yaml.model_conf;
    super::check_sizes(path, &[("kernel_size", model.kernel_size)])?;
    let adapter = AdapterConfig {
        inputs: model.enc_out_dim,
        outputs: model.llm_embed_dim,
        kernel_size: model.kernel_size,
        activation: match model.activation_func.as_str() {
            "gelu" => Activation::Gelu,
            _ => Activation::Relu,
        },
        norm: match model.norm.as_str() {
            "layer" => NormKind::Layer,
            "batch" => NormKind::Batch,
            other => {
                return Err(Error::config(
                    path,
                    "model_conf.norm",
                    "layer or batch",
                    other,
                ));
            }
        },
    };
    if adapter.inputs != encoder.hidden_size {
        let expected = encoder.hidden_size;
        return Err(Error::config(
            path,
            "model_conf.enc_out_dim",
            expected,
            adapter.inputs,
        ));
    }
    let dataset = &yaml.dataset_conf;
    Ok(AudioFiles {
        fbank: fbank::WhaleConfig {
            num_mel_bins: yaml.input_dim,
            frame_length_ms: dataset.fbank_conf.frame_length,
            frame_shift_ms: dataset.fbank_conf.frame_shift,
            sample_rate_hz: dataset.resample_conf.resample_rate,
            ..fbank::WhaleConfig::default()
        },
        encoder,
        adapter,
        json_cmvn: yaml.is_json_cmvn,
    })
}

/// Refuses other members of the encoder's family; absent keys mean what VITA-1.0 has.
fn check_variant(path: &Path, yaml: &TrainYaml) -> Result<()> {
    let transformer = &yaml.encoder_conf.para_conf.transformer;
    let overview = &yaml.encoder_conf.overview_conf;
    let rate = yaml
        .encoder_conf
        .para_conf
        .subsampling
        .subsampling_rate
        .to_string();
    let is = |value: &Option<String>, wanted: &str| value.as_deref().unwrap_or(wanted).to_string();
    let flag = |value: Option<bool>, wanted: bool| value.unwrap_or(wanted).to_string();
    let settings = [
        (
            "encoder-layer-config",
            "subsampling-transformer",
            overview.encoder_layer_config.clone(),
        ),
        ("subsampling-rate", "4", rate),
        (
            "transformer-input-layer",
            "linear",
            is(&transformer.transformer_input_layer, "linear"),
        ),
        (
            "transformer-pos-enc-class",
            "rel-enc",
            is(&transformer.transformer_pos_enc_class, "rel-enc"),
        ),
        (
            "transformer-normalize-before",
            "true",
            flag(transformer.transformer_normalize_before, true),
        ),
        (
            "transformer-concat-after",
            "false",
            flag(transformer.transformer_concat_after, false),
        ),
        (
            "transformer-positionwise-layer-type",
            "linear",
            is(&transformer.transformer_positionwise_layer_type, "linear"),
        ),
        (
            "adpter_type",
            "subsampling",
            yaml.model_conf.adpter_type.clone(),
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
