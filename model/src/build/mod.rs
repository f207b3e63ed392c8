//! Makes the folders of vita-nano and its variant from their bases, as they come from package registries, and what was trained.
//!
//! The low-rank updates are not merged: rounded into the language model's 8-bit blocks they would lose what is smaller than
//! a block's step, and they were trained beside exactly these blocks. They stay tensors of their own, which the
//! model computes beside its matrices.

mod detector;
mod join;
mod language;
mod manifest;
mod whisper;

pub use join::join;

pub use crate::audio::UPDATES_PREFIX as EARS_PREFIX;
use crate::audio::merge_updates;
use crate::checkpoint::{Gguf, Shards, TensorInfo, TorchFile};
use crate::connector::{
    PooledConfig, PooledConnector, StackedConfig, TranscriptConfig, TranscriptConnector,
};
use crate::nn::Source;
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

/// File of what a connector trained by CTC has learnt.
pub const CTC_FILE: &str = "ctc.safetensors";

/// Beginning of the names of what a connector trained by CTC has learnt.
pub const CTC_PREFIX: &str = "ctc.";

const LANGUAGE_FILE: &str = "lm.gguf";
const TOKENIZER_FILE: &str = "tokenizer.json";
const EARS_FILE: &str = "ears.safetensors";
const EARS_TOKENIZER_FILE: &str = "ears-tokenizer.json";
const EYES_FILE: &str = "eyes.safetensors";
const CLASSES_FILE: &str = "classes.txt";
const DETECTOR_FILE: &str = "detector.safetensors";
const OBJECTS_FILE: &str = "objects.txt";

/// Who reads what the ears encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// vita-nano: Whisper's own decoder.
    Decoder,
    /// A connector trained by CTC.
    Ctc,
}

/// Sizes of the connectors that are trained for vita-nano.
pub fn audio_connector() -> TranscriptConfig {
    TranscriptConfig {
        pooled: 4,
        hidden: 384,
        markers: [ADDED_TOKENS[3].into(), ADDED_TOKENS[4].into()],
    }
}

pub fn ctc_connector() -> StackedConfig {
    StackedConfig {
        stack: 4,
        hidden: 768,
        groups: 12,
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
    variant: Variant,
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
    let reader = match variant {
        Variant::Decoder => {
            let words = crate::error::read_file(&bases.ears.join("tokenizer.json"))?;
            write(&out.join(EARS_TOKENIZER_FILE), &words)?;
            manifest::decoder_part(&ears, &generation(bases, tuned)?)
        }
        Variant::Ctc => {
            save(&out.join(CTC_FILE), &ctc_parts(trained)?)?;
            ears.tensors.retain(|name, _| name.starts_with("encoder."));
            manifest::ctc_part()
        }
    };
    save(&out.join(EARS_FILE), &ears.tensors)?;
    let silence_ms = match tuned {
        true => TUNED_SILENCE_MS,
        false => PUBLISHED_SILENCE_MS,
    };

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
    let (tensors, untrained) = trained_parts(variant, trained, &gguf, &vision, widths)?;
    let updates = tensors.keys().any(|name| name.starts_with("lora."));
    save(&out.join(TRAINED_FILE), &tensors)?;
    let manifest = manifest::text(&ears, silence_ms, &reader, &vision, updates);
    write(
        &out.join(crate::checkpoint::manifest::FILE_NAME),
        manifest.as_bytes(),
    )?;
    at("trained parts", 1.0);
    Ok(Report { untrained })
}

/// How the decoder is to write.
fn generation(bases: &Bases, tuned: bool) -> Result<Generation> {
    let settings = bases.ears.join("config.json");
    let mut generation: Generation = crate::checkpoint::read_json(&settings)?;
    if tuned {
        // they were tuned to sounds, too, of which there is nothing to write
        generation
            .suppress_ids_begin
            .retain(|&id| id != END_OF_TEXT);
    }
    Ok(generation)
}

/// Matrices and kernels in f16; vectors, which are small and scale everything else, in f32; integers as they are.
fn half(name: &str, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype().is_int() {
        return Ok(tensor.clone());
    }
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

/// What a connector trained by CTC has learnt.
fn ctc_parts(trained: &Shards) -> Result<HashMap<String, Tensor>> {
    let infos = trained.infos().into_iter();
    let own = infos.filter(|info| info.name.starts_with(CTC_PREFIX));
    let tensors = own.map(|info| {
        let tensor = half(&info.name, &trained.read(&info.name)?)?;
        Ok((info.name, tensor))
    });
    let tensors = tensors.collect::<Result<HashMap<_, _>>>()?;
    match tensors.is_empty() {
        true => Err(Error::Input(
            "this variant's reader (ctc.*) is not among what was trained: train the stage align-ctc".into(),
        )),
        false => Ok(tensors),
    }
}

/// Everything of `trained`, and for parts that it lacks what they begin with.
fn trained_parts(
    variant: Variant,
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
        // a reader has a file of its own
        .filter(|info| variant == Variant::Decoder || !info.name.starts_with(CTC_PREFIX))
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

fn save(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    Ok(candle_core::safetensors::save(tensors, path)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}
