//! `vita.toml`: which parts a model folder has, in which files, and how they are joined.

use crate::audio::{DecoderConfig, WhisperConfig};
use crate::connector::{PooledConfig, StackedConfig, TranscriptConfig};
use crate::prompt::{StateNames, SystemTexts, Template};
use crate::vision::{DetectorConfig, NamesConfig};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "vita.toml";

/// A model that is not a VITA checkpoint but built in its manner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    pub name: String,
    /// Longest sequence, answer included.
    pub max_length: usize,
    pub language_model: LanguagePart,
    pub vision: Option<VisionPart>,
    pub audio: Option<AudioPart>,
    /// VITA's when absent.
    #[serde(default)]
    pub template: Template,
    /// VITA's when absent.
    pub system: Option<SystemTexts>,
    /// VITA's when absent.
    #[serde(default)]
    pub state_tokens: StateNames,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LanguagePart {
    /// A GGUF file, or a folder with `config.json` and safetensors.
    pub path: String,
    /// A `tokenizer.json`; else the one in the folder or in the GGUF file.
    pub tokenizer: Option<String>,
    /// Embeddings of tokens that were added behind the model's own, tensor `rows` `[tokens, hidden]`.
    pub added_rows: Option<File>,
    /// Low-rank updates of projections: tensors `lora.<layer>.<q|k|v|o|down>.<a|b>`.
    pub updates: Option<File>,
}

/// Tensors under a prefix in a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub file: String,
    #[serde(default)]
    pub prefix: String,
}

impl File {
    /// The name in the file of a tensor under the prefix.
    pub fn name(&self, tensor: &str) -> String {
        match self.prefix.as_str() {
            "" => tensor.to_string(),
            prefix => format!("{prefix}.{tensor}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "encoder",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum VisionPart {
    /// With the connector of small models.
    #[serde(rename = "efficientnet-lite0")]
    EfficientNetLite0 {
        weights: File,
        connector: PooledConfig,
        connector_weights: File,
        /// Names of the classifier's best classes, in front of the connector's vectors. The classifier is
        /// `_fc` among `weights`.
        names: Option<NamesConfig>,
        /// Finds people and things, and puts how many there are and where in front of the names.
        detector: Option<DetectorConfig>,
    },
    /// With VITA's connector.
    #[serde(rename = "internvit")]
    InternVit {
        /// Folder with `config.json` and `preprocessor_config.json`.
        config: String,
        weights: File,
        projector_depth: usize,
        connector_weights: File,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "encoder",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum AudioPart {
    Whisper {
        config: WhisperConfig,
        weights: File,
        /// Silence put behind an utterance.
        tail_silence_ms: u32,
        connector: AudioConnector,
        connector_weights: File,
        /// What reads, for the connector of kind `transcript`: this or `ctc`.
        decoder: Option<DecoderPart>,
        ctc: Option<CtcPart>,
    },
}

/// How an utterance becomes vectors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AudioConnector {
    /// Neighbouring steps of the encoder side by side, through an MLP.
    Stacked(StackedConfig),
    /// The words that were read beside a few pooled vectors.
    Transcript(TranscriptConfig),
}

/// Whisper's decoder, which reads what was heard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DecoderPart {
    pub config: DecoderConfig,
    pub weights: File,
    /// Whisper's own `tokenizer.json`.
    pub tokenizer: String,
    /// Tokens that are never written, beside the special ones.
    #[serde(default)]
    pub suppress: Vec<u32>,
    /// Tokens that no text begins with.
    #[serde(default)]
    pub suppress_first: Vec<u32>,
}

/// A connector that was trained by CTC to say the language model's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CtcPart {
    pub weights: File,
    pub connector: StackedConfig,
}

/// Longest silence that a manifest may ask for.
const MAX_TAIL_MS: u32 = 30_000;

impl Manifest {
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let bytes = crate::error::read_file(&path)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| Error::format(&path, e))?;
        Self::parse(&path, text)
    }

    /// `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text).map_err(|e| {
            let line = e
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            Error::format(
                path,
                format!("line {line}: {}", e.message().replace('\n', ", ")),
            )
        })?;
        manifest.validate(path)?;
        Ok(manifest)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        super::check_max_length(path, "max-length", self.max_length)?;
        if let Some(vision) = &self.vision {
            vision.validate(path)?;
        }
        match &self.audio {
            Some(audio) => audio.validate(path),
            None => Ok(()),
        }
    }
}

impl VisionPart {
    fn validate(&self, path: &Path) -> Result<()> {
        let Self::EfficientNetLite0 {
            connector,
            names,
            detector,
            ..
        } = self
        else {
            return Ok(());
        };
        let sizes = [
            ("connector.grid", connector.grid),
            ("connector.hidden", connector.hidden),
        ];
        super::check_sizes(path, &sizes)?;
        if connector.grid > 16 {
            let found = connector.grid;
            return Err(Error::config(path, "connector.grid", "at most 16", found));
        }
        if connector.slots > 64 {
            let found = connector.slots;
            return Err(Error::config(path, "connector.slots", "at most 64", found));
        }
        if connector.details > 4096 || (connector.details > 0 && connector.slots < 2) {
            let expected = "at most 4096, and two slots or more with it";
            let found = connector.details;
            return Err(Error::config(path, "connector.details", expected, found));
        }
        if let Some(names) = names {
            names.validate(path)?;
        }
        detector.as_ref().map_or(Ok(()), |part| part.validate(path))
    }
}

impl AudioPart {
    fn validate(&self, path: &Path) -> Result<()> {
        let Self::Whisper {
            config,
            connector,
            tail_silence_ms,
            decoder,
            ctc,
            ..
        } = self;
        config.validate(path)?;
        connector.validate(path)?;
        if *tail_silence_ms > MAX_TAIL_MS {
            let expected = format!("at most {MAX_TAIL_MS}");
            return Err(Error::config(
                path,
                "tail-silence-ms",
                expected,
                tail_silence_ms,
            ));
        }
        if let Some(decoder) = decoder {
            decoder.config.validate(path, config.d_model)?;
        }
        if let Some(ctc) = ctc {
            ctc.connector.validate(path)?;
        }
        let readers = usize::from(decoder.is_some()) + usize::from(ctc.is_some());
        match connector {
            AudioConnector::Transcript(_) if readers != 1 => {
                let expected = "one of audio.decoder and audio.ctc, whose words the connector of kind transcript takes";
                Err(Error::config(path, "audio", expected, readers))
            }
            _ => Ok(()),
        }
    }
}

/// Most vectors of how an utterance sounded.
const MAX_POOLED: usize = 64;

impl StackedConfig {
    fn validate(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("connector.stack", self.stack),
            ("connector.hidden", self.hidden),
            ("connector.groups", self.groups),
        ];
        super::check_sizes(path, &sizes)?;
        let fits = self.hidden.is_multiple_of(self.groups);
        match fits && self.stack <= 64 {
            true => Ok(()),
            false => {
                let expected = "groups that divide hidden, and a stack of at most 64";
                Err(Error::config(
                    path,
                    "connector",
                    expected,
                    format!("{self:?}"),
                ))
            }
        }
    }
}

impl AudioConnector {
    fn validate(&self, path: &Path) -> Result<()> {
        match self {
            Self::Stacked(connector) => connector.validate(path),
            Self::Transcript(connector) => {
                let sizes = [
                    ("connector.pooled", connector.pooled),
                    ("connector.hidden", connector.hidden),
                ];
                super::check_sizes(path, &sizes)?;
                match connector.pooled <= MAX_POOLED {
                    true => Ok(()),
                    false => {
                        let found = connector.pooled;
                        Err(Error::config(path, "connector.pooled", "at most 64", found))
                    }
                }
            }
        }
    }
}

/// A path of the manifest: inside its folder.
pub(crate) fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    use std::path::Component;
    let relative = Path::new(name);
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    match plain && !name.is_empty() {
        true => Ok(folder.join(relative)),
        false => {
            let path = folder.join(FILE_NAME);
            Err(Error::config(
                path,
                "file",
                "a path inside the folder",
                format!("{name:?}"),
            ))
        }
    }
}
