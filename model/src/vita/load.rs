//! From a folder to a model.

use super::Vita;
use crate::audio::{
    AudioAdapter, AudioEncoder, CtcReader, Ears, Reader, Transcriber, Transcribing, Whale, Whisper,
    WhisperConfig, WhisperDecoder,
};
use crate::checkpoint::manifest::{
    self, AudioConnector, AudioPart, CtcPart, DecoderPart, File, Manifest, VisionPart,
};
use crate::checkpoint::{Gguf, ModelConfig, Shards, WeightFiles, load_cmvn, open_weights};
use crate::connector::{
    MlpProjector, PooledConnector, StackedConnector, TranscriptConnector, Words,
};
use crate::fbank::Fbank;
use crate::image::{FrameFit, ImageProcessor, TilingRule};
use crate::lm::{LanguageModel, LmConfig, Updates};
use crate::nn::{Source, Variables, Watched, Weights};
use crate::prompt::{Template, Tokenizer};
use crate::vision::{
    ClassNames, Detector, EfficientNetLite0, Eyes, InternVit, InternVitConfig, VisionEncoder,
    efficientnet,
};
use crate::{Error, Result};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tensors that carry this prefix and are unknown belong to later models of the family.
const TOLERATED_PREFIX: &str = "model.audio_encoder.";

/// A buffer that old checkpoints carry and that every reader computes itself.
const TOLERATED_SUFFIX: &str = "rotary_emb.inv_freq";

/// Is told the bytes of weights read so far.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Where to load to, and in which types.
#[derive(Clone)]
pub struct LoadOptions {
    pub device: Device,
    /// Type in which matrices are kept.
    pub stored: DType,
    pub progress: Option<Progress>,
    /// For training: the tensors that learn, by their names in the files. Gradients then pass all parts.
    pub variables: Option<Arc<Variables>>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            stored: DType::F32,
            progress: None,
            variables: None,
        }
    }
}

impl LoadOptions {
    /// On a CPU everything but the stored matrices is f32: nothing is gained by computing in 16 bits.
    pub fn compute(&self) -> DType {
        match self.device.is_cpu() {
            true => DType::F32,
            false => self.stored,
        }
    }

    fn weights(&self, source: Arc<dyn Source>) -> Weights {
        let source: Arc<dyn Source> = match &self.progress {
            Some(progress) => Arc::new(Watched::new(source, progress.clone())),
            None => source,
        };
        let weights = |source| {
            let device = self.device.clone();
            Weights::new(source, self.stored, self.compute(), device)
        };
        match &self.variables {
            Some(variables) => weights(variables.of(source)).for_training(),
            None => weights(source),
        }
    }
}

/// A folder with a manifest is what the manifest says; any other is a VITA checkpoint.
pub(super) fn load(folder: &Path, options: &LoadOptions) -> Result<Vita> {
    match folder.join(manifest::FILE_NAME).is_file() {
        true => load_manifest(folder, options),
        false => load_checkpoint(folder, options),
    }
}

fn load_checkpoint(folder: &Path, options: &LoadOptions) -> Result<Vita> {
    let config = ModelConfig::load(folder)?;
    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
    let files = open_weights(folder)?;
    check_vocabulary(config.lm.vocab_size, &tokenizer)?;
    let w = options.weights(files.clone());
    let eyes = checkpoint_eyes(&config, &w)?;
    let ears = checkpoint_ears(&config, &w)?;
    let lm = LanguageModel::new(&config.lm, tokenizer.size(), config.max_length, &w)?;
    let template = Template::default();
    let vita = Vita {
        states: tokenizer.state_tokens()?,
        stop_ids: template.stop_ids(&tokenizer)?,
        max_length: config.max_length,
        lm: Arc::new(lm),
        eyes: Some(eyes),
        ears: Some(ears),
        tokenizer: Arc::new(tokenizer),
        template,
        system: None,
    };
    check_unused(&*files)?;
    Ok(vita)
}

fn checkpoint_eyes(config: &ModelConfig, w: &Weights) -> Result<Eyes> {
    let tower = w.pp("model.vision_tower.vision_tower");
    let (inputs, outputs) = (4 * config.vision.hidden_size, config.lm.hidden_size);
    let depth = config.projector_depth;
    Ok(Eyes {
        encoder: VisionEncoder::InternVit {
            tower: InternVit::new(&config.vision, &tower)?,
            projector: MlpProjector::new(depth, inputs, outputs, &w.pp("model.mm_projector"))?,
        },
        processor: config.image_processor.clone(),
        tiling: config.tiling,
        frame_fit: config.frame_fit,
        dtype: w.compute_dtype(),
        device: w.device().clone(),
    })
}

fn checkpoint_ears(config: &ModelConfig, w: &Weights) -> Result<Ears> {
    let cmvn = load_cmvn(config, w)?;
    let w_audio = w.pp("model.audio_encoder");
    Ok(Ears {
        encoder: AudioEncoder::Whale {
            encoder: Whale::new(&config.audio, cmvn, &w_audio.pp("encoder"))?,
            adapter: AudioAdapter::new(&config.adapter, &w_audio.pp("adpter"))?,
        },
        fbank: Fbank::whale(&config.fbank).map_err(|e| Error::Input(e.to_string()))?,
        tail_silence: 0,
        device: w.device().clone(),
    })
}

fn load_manifest(folder: &Path, options: &LoadOptions) -> Result<Vita> {
    let manifest = Manifest::load(folder)?;
    let (lm, tokenizer) = load_language(folder, &manifest, options)?;
    let (lm, tokenizer) = (Arc::new(lm), Arc::new(tokenizer));
    let words = Words::new(lm.clone(), tokenizer.clone());
    let vision = manifest.vision.as_ref();
    let audio = manifest.audio.as_ref();
    Ok(Vita {
        eyes: vision
            .map(|part| manifest_eyes(folder, part, &words, options))
            .transpose()?,
        ears: audio
            .map(|part| manifest_ears(folder, part, &words, options))
            .transpose()?,
        states: tokenizer.state_tokens_named(&manifest.state_tokens)?,
        stop_ids: manifest.template.stop_ids(&tokenizer)?,
        max_length: lm.max_length(),
        lm,
        tokenizer,
        template: manifest.template,
        system: manifest.system,
    })
}

fn load_language(
    folder: &Path,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<(LanguageModel, Tokenizer)> {
    let part = &manifest.language_model;
    let path = manifest::inside(folder, &part.path)?;
    let (config, w, own_tokenizer) = open_language(&path, options)?;
    let tokenizer = match (&part.tokenizer, own_tokenizer) {
        (Some(file), _) => Tokenizer::load(&manifest::inside(folder, file)?)?,
        (None, own) => own()?,
    };
    let added = match &part.added_rows {
        Some(file) => Some(added_rows(folder, file, config.hidden_size, options)?),
        None => None,
    };
    let rows = config.vocab_size + added.as_ref().map_or(0, |rows| rows.dims()[0]);
    check_vocabulary(rows, &tokenizer)?;
    let own = tokenizer.size().min(config.vocab_size);
    let mut lm = LanguageModel::new(&config, own, manifest.max_length, &w)?;
    if let Some(rows) = added {
        lm.append_tokens(&rows)?;
    }
    if let Some(file) = &part.updates {
        let path = manifest::inside(folder, &file.file)?;
        lm = Updates::load(&path, &file.prefix)?.attach(&lm)?;
    }
    Ok((lm, tokenizer))
}

type OwnTokenizer<'a> = Box<dyn FnOnce() -> Result<Tokenizer> + 'a>;

fn open_language<'a>(
    path: &'a Path,
    options: &LoadOptions,
) -> Result<(LmConfig, Weights, OwnTokenizer<'a>)> {
    if path.is_dir() {
        let config = LmConfig::load(&path.join("config.json"))?;
        let w = options.weights(Arc::new(Shards::open(path)?));
        return Ok((
            config,
            w,
            Box::new(|| Tokenizer::load(&path.join("tokenizer.json"))),
        ));
    }
    let gguf = Arc::new(Gguf::open(path)?);
    let config = gguf.lm_config().clone();
    let w = options.weights(gguf.clone());
    Ok((config, w, Box::new(move || gguf.tokenizer())))
}

fn added_rows(
    folder: &Path,
    file: &File,
    hidden: usize,
    options: &LoadOptions,
) -> Result<candle_core::Tensor> {
    let path = manifest::inside(folder, &file.file)?;
    let shards = Shards::from_file(&path)?;
    let name = file.name("rows");
    let count = shards.read(&name)?.dims().first().copied().unwrap_or(0);
    let w = options.weights(Arc::new(shards));
    w.get((count, hidden), &name)
}

fn part_weights(folder: &Path, file: &File, options: &LoadOptions) -> Result<Weights> {
    let path = manifest::inside(folder, &file.file)?;
    let w = options.weights(Arc::new(Shards::from_file(&path)?));
    Ok(match file.prefix.as_str() {
        "" => w,
        prefix => w.pp(prefix),
    })
}

/// A text of the folder, and where it is.
fn part_text(folder: &Path, name: &str) -> Result<(PathBuf, String)> {
    let path = manifest::inside(folder, name)?;
    let text = String::from_utf8_lossy(&crate::error::read_file(&path)?).into_owned();
    Ok((path, text))
}

fn manifest_eyes(
    folder: &Path,
    part: &VisionPart,
    words: &Words,
    options: &LoadOptions,
) -> Result<Eyes> {
    let hidden = words.hidden();
    let one_tile = TilingRule {
        max_tiles: 1,
        ..TilingRule::default()
    };
    let (encoder, processor, tiling, frame_fit) = match part {
        VisionPart::EfficientNetLite0 {
            weights,
            connector,
            connector_weights,
            names,
            detector,
        } => {
            let w = part_weights(folder, weights, options)?;
            let w_connector = part_weights(folder, connector_weights, options)?;
            let inputs = efficientnet::FEATURES;
            let names = names.as_ref().map(|names| -> Result<_> {
                let (path, text) = part_text(folder, &names.file)?;
                ClassNames::new(names, (&path, &text), inputs, &w.pp("_fc"))
            });
            let detector = detector.as_ref().map(|detector| -> Result<_> {
                let (path, text) = part_text(folder, &detector.labels)?;
                let w = part_weights(folder, &detector.weights, options)?;
                Ok(Box::new(Detector::new(detector, (&path, &text), &w)?))
            });
            let encoder = VisionEncoder::EfficientNet {
                network: Box::new(EfficientNetLite0::new(&w)?),
                connector: PooledConnector::new(connector, inputs, hidden, &w_connector)?,
                names: names.transpose()?,
                detector: detector.transpose()?,
                words: words.clone(),
            };
            let (mean, std) = (efficientnet::MEAN, efficientnet::STD);
            let processor = ImageProcessor::new(efficientnet::PICTURE_SIDE as u32, mean, std)
                .with_margin(efficientnet::RESIZED_SIDE as u32);
            // cropping would hide the sides of a wide picture, where questions may point
            (encoder, processor, one_tile, FrameFit::Squash)
        }
        VisionPart::InternVit {
            config,
            weights,
            projector_depth,
            connector_weights,
        } => {
            let config_folder = manifest::inside(folder, config)?;
            let config = InternVitConfig::load(&config_folder.join("config.json"))?;
            let processor = ImageProcessor::load(&config_folder.join("preprocessor_config.json"))?;
            let w = part_weights(folder, weights, options)?;
            let w_connector = part_weights(folder, connector_weights, options)?;
            let inputs = 4 * config.hidden_size;
            let depth = *projector_depth;
            let encoder = VisionEncoder::InternVit {
                tower: InternVit::new(&config, &w)?,
                projector: MlpProjector::new(depth, inputs, hidden, &w_connector)?,
            };
            (encoder, processor, TilingRule::default(), FrameFit::Crop)
        }
    };
    Ok(Eyes {
        encoder,
        processor,
        tiling,
        frame_fit,
        dtype: options.compute(),
        device: options.device.clone(),
    })
}

fn manifest_ears(
    folder: &Path,
    part: &AudioPart,
    words: &Words,
    options: &LoadOptions,
) -> Result<Ears> {
    let AudioPart::Whisper {
        config,
        weights,
        tail_silence_ms,
        connector,
        connector_weights,
        decoder,
        ctc,
    } = part;
    let encoder = Whisper::new(config, &part_weights(folder, weights, options)?)?;
    let w_connector = part_weights(folder, connector_weights, options)?;
    let (width, hidden) = (config.d_model, words.hidden());
    let fbank = Fbank::whisper();
    let encoder = match connector {
        AudioConnector::Stacked(connector) => AudioEncoder::Whisper {
            encoder,
            connector: StackedConnector::new(connector, width, hidden, &w_connector)?,
        },
        AudioConnector::Transcript(connector) => {
            let [begin, end] = &connector.markers;
            let reader = match (decoder, ctc) {
                (Some(part), _) => {
                    Reader::Decoder(Box::new(transcriber(folder, config, part, options)?))
                }
                (None, Some(part)) => {
                    Reader::Ctc(Box::new(ctc_reader(folder, width, part, words, options)?))
                }
                (None, None) => {
                    let path = folder.join(manifest::FILE_NAME);
                    return Err(Error::config(path, "audio.decoder", "a decoder", "none"));
                }
            };
            AudioEncoder::Transcribing(Box::new(Transcribing {
                encoder,
                reader,
                connector: TranscriptConnector::new(connector, width, hidden, &w_connector)?,
                markers: [words.marker(begin)?, words.marker(end)?],
                words: words.clone(),
            }))
        }
    };
    Ok(Ears {
        encoder,
        tail_silence: (*tail_silence_ms as usize) * fbank.sample_rate_hz() as usize / 1000,
        fbank,
        device: options.device.clone(),
    })
}

fn transcriber(
    folder: &Path,
    config: &WhisperConfig,
    part: &DecoderPart,
    options: &LoadOptions,
) -> Result<Transcriber> {
    let w = part_weights(folder, &part.weights, options)?;
    let decoder = WhisperDecoder::new(config.d_model, &part.config, &w)?;
    let tokenizer = Tokenizer::load(&manifest::inside(folder, &part.tokenizer)?)?;
    Transcriber::new(decoder, tokenizer, &part.suppress, &part.suppress_first)
}

fn ctc_reader(
    folder: &Path,
    width: usize,
    part: &CtcPart,
    words: &Words,
    options: &LoadOptions,
) -> Result<CtcReader> {
    let path = manifest::inside(folder, &part.weights.file)?;
    let tokens = Shards::from_file(&path)?.read(&part.weights.name("tokens"))?;
    let tokens = tokens.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?;
    let w = part_weights(folder, &part.weights, options)?;
    CtcReader::new(&part.connector, width, tokens, words.clone(), &w)
}

fn check_vocabulary(rows: usize, tokenizer: &Tokenizer) -> Result<()> {
    let size = tokenizer.size();
    match size > rows {
        true => Err(Error::Tokenizer {
            path: tokenizer.path().to_path_buf(),
            reason: format!("expected at most {rows} tokens (vocab_size), found {size}"),
        }),
        false => Ok(()),
    }
}

fn check_unused(files: &dyn WeightFiles) -> Result<()> {
    let (tolerated, unknown): (Vec<_>, Vec<_>) = files
        .unused()
        .into_iter()
        .filter(|name| !name.ends_with(TOLERATED_SUFFIX))
        .partition(|name| name.starts_with(TOLERATED_PREFIX));
    for name in tolerated {
        tracing::warn!(
            tensor = name,
            "unknown tensor of the audio encoder is ignored"
        );
    }
    match unknown.first() {
        Some(first) => Err(Error::UnknownTensor {
            file: files.file_of(first).display().to_string(),
            tensor: first.clone(),
            others: unknown.len() - 1,
        }),
        None => Ok(()),
    }
}
