//! Makes the folder of vita-nano from its bases, as they come from package registries, and what was trained.
//!
//! The low-rank updates are not merged: rounded into the language model's 8-bit blocks they would lose what is smaller than
//! a block's step, and they were trained beside exactly these blocks. They stay tensors of their own, which the
//! model computes beside its matrices.

mod detector;
mod join;
mod language;
mod whisper;

pub use join::join;

pub use crate::audio::UPDATES_PREFIX as EARS_PREFIX;
use crate::audio::merge_updates;
use crate::checkpoint::{Gguf, Shards, TensorInfo, TorchFile};
use crate::connector::{PooledConfig, PooledConnector, TranscriptConfig, TranscriptConnector};
use crate::nn::Source;
use crate::vision::detector::{PERSON_PERCENT, SMALL_PERSON_PERCENT, THING_PERCENT};
use crate::vision::efficientnet;
use crate::{Error, Result};
use candle_core::{DType, Shape, Tensor};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Tokens behind the language model's own, in the order of their rows: states, then markers of an utterance.
pub const ADDED_TOKENS: [&str; 5] = ["<1>", "<2>", "<3>", "<audio>", "</audio>"];

/// File of everything that was trained.
pub const TRAINED_FILE: &str = "trained.safetensors";

const LANGUAGE_FILE: &str = "lm.gguf";
const TOKENIZER_FILE: &str = "tokenizer.json";
const EARS_FILE: &str = "ears.safetensors";
const EARS_TOKENIZER_FILE: &str = "ears-tokenizer.json";
const EYES_FILE: &str = "eyes.safetensors";
const CLASSES_FILE: &str = "classes.txt";
const DETECTOR_FILE: &str = "detector.safetensors";
const OBJECTS_FILE: &str = "objects.txt";

/// Sizes of the connectors that are trained for vita-nano.
pub fn audio_connector() -> TranscriptConfig {
    TranscriptConfig {
        pooled: 4,
        hidden: 384,
        markers: [ADDED_TOKENS[3].into(), ADDED_TOKENS[4].into()],
    }
}

pub fn visual_connector() -> PooledConfig {
    PooledConfig {
        grid: 3,
        hidden: 768,
        slots: 8,
        details: 256,
    }
}

/// The visual connector of what was trained: before there were details it lacked them.
fn visual_connector_of(trained: &Shards) -> PooledConfig {
    let config = visual_connector();
    let plain = |name: &str| trained.contains(&format!("vision.{name}.weight"));
    match plain("fc1") && !plain("details.fc1") {
        true => PooledConfig {
            details: 0,
            ..config
        },
        false => config,
    }
}

/// What vita-nano is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bases {
    /// SmolLM2-135M-Instruct, GGUF.
    pub language: PathBuf,
    /// Whisper tiny.en: `model.bin` of CTranslate2, `config.json`, `tokenizer.json`.
    pub ears: PathBuf,
    /// EfficientNet-Lite0, a state dictionary of torch.
    pub eyes: PathBuf,
    /// SSD-MobileNetV2 for pictures of 300², a model of TensorFlow Lite.
    pub detector: PathBuf,
}

/// Names of what the eyes know, a line each, in the order of their networks.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Of the classifier.
    pub classes: &'a str,
    /// Of the detector.
    pub objects: &'a str,
}

impl Bases {
    /// Where the set-up puts them.
    pub fn in_models(models: &Path) -> Self {
        Self {
            language: models.join("SmolLM2-135M-Instruct.Q4_1.gguf"),
            ears: models.join("whisper-tiny.en"),
            eyes: models.join("efficientnet-lite0.pth"),
            detector: models.join("ssd-mobilenetv2-oidv4.tflite"),
        }
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        let ears = ["model.bin", "config.json", "tokenizer.json"].map(|name| self.ears.join(name));
        let others = [&self.language, &self.eyes, &self.detector];
        others.into_iter().cloned().chain(ears).collect()
    }

    /// Files that are not there.
    pub fn missing(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|file| !file.is_file());
        files
    }
}

/// What is being made, and how far it has come, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub part: &'static str,
    pub fraction: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Parts that have not been trained yet and begin as [`ADDED_TOKENS`] and the connectors begin.
    pub untrained: Vec<&'static str>,
}

/// Generation settings of a Whisper for CTranslate2.
#[derive(Deserialize)]
struct Generation {
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

/// Silence behind an utterance from which Whisper as published tells the end best.
const PUBLISHED_SILENCE_MS: u64 = 2_500;

/// The same for tuned ears: what they are tuned with.
pub const TUNED_SILENCE_MS: u64 = 500;

/// Of the English Whispers.
const END_OF_TEXT: u32 = 50_256;

/// Fills the empty folder `out`.
///
/// # Errors
/// What the readers say of the bases, and [`Error::TensorShape`] or [`Error::UnknownTensor`] where `trained` does not fit.
pub fn build(
    bases: &Bases,
    trained: &Shards,
    labels: Labels,
    out: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<Report> {
    let gguf = Gguf::open(&bases.language)?;
    language::requantise(&bases.language, &out.join(LANGUAGE_FILE), |done, total| {
        progress(Progress {
            part: "language model",
            fraction: 0.7 * done as f64 / total.max(1) as f64,
        });
    })?;
    let tokenizer = language::tokenizer(&gguf)?;
    write(&out.join(TOKENIZER_FILE), tokenizer.as_bytes())?;

    let mut at = |part, fraction| progress(Progress { part, fraction });
    at("ears", 0.7);
    let mut ears = whisper::read(&bases.ears.join("model.bin"))?;
    let tuned = merge_updates(&mut ears.tensors, trained)? > 0;
    save(&out.join(EARS_FILE), &ears.tensors)?;
    let words = crate::error::read_file(&bases.ears.join("tokenizer.json"))?;
    write(&out.join(EARS_TOKENIZER_FILE), &words)?;
    let settings = bases.ears.join("config.json");
    let mut generation: Generation = crate::checkpoint::read_json(&settings)?;
    let mut silence_ms = PUBLISHED_SILENCE_MS;
    if tuned {
        silence_ms = TUNED_SILENCE_MS;
        // they were tuned to sounds, too, of which there is nothing to write
        generation
            .suppress_ids_begin
            .retain(|&id| id != END_OF_TEXT);
    }

    at("eyes", 0.85);
    save(&out.join(EYES_FILE), &eyes(&bases.eyes)?)?;
    write(&out.join(CLASSES_FILE), labels.classes.as_bytes())?;
    // the first class is that of nothing
    let objects = 1 + labels.objects.lines().count();
    let found = detector::read(&bases.detector, objects)?;
    save(&out.join(DETECTOR_FILE), &found)?;
    write(&out.join(OBJECTS_FILE), labels.objects.as_bytes())?;

    at("trained parts", 0.95);
    let hidden = gguf.lm_config().hidden_size;
    let vision = visual_connector_of(trained);
    let widths = (ears.encoder.d_model, hidden);
    let (tensors, untrained) = trained_parts(trained, &gguf, &vision, widths)?;
    let updates = tensors.keys().any(|name| name.starts_with("lora."));
    save(&out.join(TRAINED_FILE), &tensors)?;
    let manifest = manifest(&ears, (&generation, silence_ms), &vision, updates);
    write(
        &out.join(crate::checkpoint::manifest::FILE_NAME),
        manifest.as_bytes(),
    )?;
    at("trained parts", 1.0);
    Ok(Report { untrained })
}

/// Matrices and kernels in f16; vectors, which are small and scale everything else, in f32.
fn half(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let dtype = match tensor.rank() {
        0 | 1 => DType::F32,
        _ => DType::F16,
    };
    let tensor = tensor.to_dtype(dtype)?;
    let largest = tensor.to_dtype(DType::F32)?.abs()?.max_all()?;
    match largest.to_scalar::<f32>()?.is_finite() {
        true => Ok(tensor),
        false => Err(Error::Input(format!(
            "tensor {name}: a value that 16 bits cannot hold"
        ))),
    }
}

fn eyes(path: &Path) -> Result<HashMap<String, Tensor>> {
    let file = TorchFile::open(path)?;
    let weights = file
        .infos()
        .into_iter()
        .filter(|info| info.dtype == "float");
    let tensors = weights.map(|info| {
        let tensor = file.tensor(&info.name, &Shape::from(info.shape))?;
        Ok((info.name.clone(), half(&info.name, &tensor)?))
    });
    tensors.collect()
}

/// Everything of `trained`, and for parts that it lacks what they begin with.
fn trained_parts(
    trained: &Shards,
    gguf: &Gguf,
    vision: &PooledConfig,
    (ears_width, hidden): (usize, usize),
) -> Result<(HashMap<String, Tensor>, Vec<&'static str>)> {
    let rows = HashMap::from([("rows".to_string(), language::initial_rows(gguf)?)]);
    let audio = TranscriptConnector::initial(&audio_connector(), ears_width, hidden)?;
    let inputs = efficientnet::FEATURES;
    let vision = PooledConnector::initial(vision, inputs, hidden)?;
    // what was trained before there were slots lacks them
    let (slots, vision) = vision
        .into_iter()
        .partition(|(name, _)| name.starts_with("slots."));
    let parts = [
        ("state tokens and markers", "", rows),
        ("audio connector", "audio.", audio),
        ("visual connector", "vision.", vision),
        ("visual connector's slots", "vision.", slots),
    ];
    let mut tensors = HashMap::new();
    let mut untrained = Vec::new();
    let mut known = BTreeSet::new();
    for (part, prefix, initial) in parts {
        let learnt = initial
            .keys()
            .any(|n| trained.contains(&format!("{prefix}{n}")));
        // the whole is told once
        let told = initial.is_empty() || untrained.iter().any(|whole| part.starts_with(whole));
        if !learnt && !told {
            untrained.push(part);
        }
        for (name, tensor) in initial {
            let name = format!("{prefix}{name}");
            let tensor = match learnt {
                true => trained.tensor(&name, tensor.shape())?,
                false => tensor,
            };
            tensors.insert(name.clone(), half(&name, &tensor)?);
            known.insert(name);
        }
    }
    let others: Vec<_> = trained
        .infos()
        .into_iter()
        .filter(|info| !known.contains(&info.name))
        .collect();
    let tunes = |info: &TensorInfo| info.name.starts_with("lora.");
    if !others.iter().any(tunes) {
        untrained.push("language model");
    }
    for info in others {
        if !info.name.starts_with("lora.") && !info.name.starts_with(EARS_PREFIX) {
            return Err(Error::UnknownTensor {
                file: info.file.display().to_string(),
                tensor: info.name,
                others: 0,
            });
        }
        let tensor = half(&info.name, &trained.read(&info.name)?)?;
        tensors.insert(info.name, tensor);
    }
    Ok((tensors, untrained))
}

fn manifest(
    ears: &whisper::Ears,
    (generation, silence_ms): (&Generation, u64),
    vision: &PooledConfig,
    updates: bool,
) -> String {
    let whisper::Ears {
        encoder, decoder, ..
    } = ears;
    let audio = audio_connector();
    let updates = match updates {
        true => format!("updates = {{ file = \"{TRAINED_FILE}\" }}\n"),
        false => String::new(),
    };
    format!(
        r#"name = "vita-nano"
max-length = 2048

[language-model]
path = "{LANGUAGE_FILE}"
tokenizer = "{TOKENIZER_FILE}"
added-rows = {{ file = "{TRAINED_FILE}" }}
{updates}
[vision]
encoder = "efficientnet-lite0"
weights = {{ file = "{EYES_FILE}" }}
connector = {{ grid = {grid}, hidden = {visual_hidden}, slots = {slots}, details = {details} }}
connector-weights = {{ file = "{TRAINED_FILE}", prefix = "vision" }}
names = {{ file = "{CLASSES_FILE}" }}

[vision.detector]
weights = {{ file = "{DETECTOR_FILE}" }}
labels = "{OBJECTS_FILE}"
person-percent = {PERSON_PERCENT}
small-person-percent = {SMALL_PERSON_PERCENT}
thing-percent = {THING_PERCENT}

[audio]
encoder = "whisper"
weights = {{ file = "{EARS_FILE}", prefix = "encoder" }}
tail-silence-ms = {silence_ms}
connector = {{ kind = "transcript", pooled = {pooled}, hidden = {audio_hidden}, markers = {markers:?} }}
connector-weights = {{ file = "{TRAINED_FILE}", prefix = "audio" }}

[audio.config]
num-mel-bins = {bins}
d-model = {width}
encoder-attention-heads = {heads}
encoder-ffn-dim = {inner}
encoder-layers = {layers}
max-source-positions = {positions}

[audio.decoder]
weights = {{ file = "{EARS_FILE}", prefix = "decoder" }}
tokenizer = "{EARS_TOKENIZER_FILE}"
suppress = {suppress:?}
suppress-first = {suppress_first:?}

[audio.decoder.config]
vocab-size = {vocabulary}
decoder-attention-heads = {decoder_heads}
decoder-ffn-dim = {decoder_inner}
decoder-layers = {decoder_layers}
max-target-positions = {texts}

# none was trained with: each position costs time before the first word
[system]

[template]
system = "<|im_start|>system\n{{text}}<|im_end|>\n"
user = "<|im_start|>user\n{{text}}<|im_end|>\n"
bot = "<|im_start|>assistant\n{{text}}<|im_end|>\n"
open = "<|im_start|>assistant\n"
stop = ["<|im_end|>"]
"#,
        grid = vision.grid,
        visual_hidden = vision.hidden,
        slots = vision.slots,
        details = vision.details,
        pooled = audio.pooled,
        audio_hidden = audio.hidden,
        markers = audio.markers,
        bins = encoder.num_mel_bins,
        width = encoder.d_model,
        heads = encoder.encoder_attention_heads,
        inner = encoder.encoder_ffn_dim,
        layers = encoder.encoder_layers,
        positions = encoder.max_source_positions,
        suppress = generation.suppress_ids,
        suppress_first = generation.suppress_ids_begin,
        vocabulary = decoder.vocab_size,
        decoder_heads = decoder.decoder_attention_heads,
        decoder_inner = decoder.decoder_ffn_dim,
        decoder_layers = decoder.decoder_layers,
        texts = decoder.max_target_positions,
    )
}

fn save(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    Ok(candle_core::safetensors::save(tensors, path)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}
