//! What a model file or folder holds, without loading it.

use super::manifest::{self, AudioPart, Manifest, VisionPart};
use super::{Gguf, ModelConfig, Shards, TensorInfo, open_weights};
use crate::Result;
use crate::lm::LmConfig;
use std::collections::BTreeMap;
use std::path::Path;

/// Parts without which there is no seeing, and no hearing.
const EYES: &str = "vision tower";
const EARS: &str = "audio encoder";

/// Tensors that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartInfo {
    pub tensors: usize,
    pub parameters: u64,
    /// As stored.
    pub bytes: u64,
    /// Tensors of each stored type.
    pub dtypes: BTreeMap<String, usize>,
}

/// The answer to "what is this, and how much memory does it need?".
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    pub kind: &'static str,
    pub parts: BTreeMap<String, PartInfo>,
    pub lm: LmConfig,
    pub max_length: usize,
}

/// Weights kept in a type, by the bits that one parameter takes.
pub const PRECISIONS: [(&str, f64); 4] = [
    ("f32", 32.0),
    ("f16/bf16", 16.0),
    ("Q8_0", 8.5),
    ("Q4_K", 4.5),
];

impl Inspection {
    /// A folder with a manifest, a VITA checkpoint or a GGUF file.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Self::of_gguf(path);
        }
        match path.join(manifest::FILE_NAME).is_file() {
            true => Self::of_manifest(path),
            false => Self::of_checkpoint(path),
        }
    }

    fn of_gguf(path: &Path) -> Result<Self> {
        let file = Gguf::open(path)?;
        let mut parts = BTreeMap::new();
        collect(&mut parts, file.infos(), |_| "language model");
        let lm = file.lm_config().clone();
        Ok(Self {
            kind: "gguf",
            parts,
            max_length: lm.max_position_embeddings,
            lm,
        })
    }

    fn of_checkpoint(folder: &Path) -> Result<Self> {
        let config = ModelConfig::load(folder)?;
        let mut parts = BTreeMap::new();
        collect(&mut parts, open_weights(folder)?.infos(), part_of);
        Ok(Self {
            kind: "vita checkpoint",
            parts,
            lm: config.lm,
            max_length: config.max_length,
        })
    }

    fn of_manifest(folder: &Path) -> Result<Self> {
        let manifest = Manifest::load(folder)?;
        let path = manifest::inside(folder, &manifest.language_model.path)?;
        let mut parts = BTreeMap::new();
        let lm = match path.is_dir() {
            true => {
                collect(&mut parts, Shards::open(&path)?.infos(), part_of);
                LmConfig::load(&path.join("config.json"))?
            }
            false => {
                let inspection = Self::of_gguf(&path)?;
                parts = inspection.parts;
                inspection.lm
            }
        };
        let mut files = Vec::new();
        match &manifest.vision {
            Some(
                VisionPart::EfficientNetLite0 {
                    weights,
                    connector_weights,
                    ..
                }
                | VisionPart::InternVit {
                    weights,
                    connector_weights,
                    ..
                },
            ) => files.extend([(EYES, weights), ("visual connector", connector_weights)]),
            None => {}
        }
        if let Some(VisionPart::EfficientNetLite0 { detector, .. }) = &manifest.vision {
            files.extend(detector.iter().map(|d| ("detector", &d.weights)));
        }
        if let Some(AudioPart::Whisper {
            weights,
            connector_weights,
            decoder,
            ctc,
            ..
        }) = &manifest.audio
        {
            files.extend([(EARS, weights), ("audio connector", connector_weights)]);
            files.extend(decoder.iter().map(|d| ("audio decoder", &d.weights)));
            files.extend(ctc.iter().map(|c| ("audio reader", &c.weights)));
        }
        files.extend(
            manifest
                .language_model
                .added_rows
                .as_ref()
                .map(|rows| ("added tokens", rows)),
        );
        for (part, file) in files {
            let shards = Shards::from_file(&manifest::inside(folder, &file.file)?)?;
            let infos = shards
                .infos()
                .into_iter()
                .filter(|i| i.name.starts_with(&file.prefix));
            collect(&mut parts, infos.collect(), |_| part);
        }
        Ok(Self {
            kind: "model folder",
            parts,
            max_length: manifest.max_length,
            lm,
        })
    }

    /// Whether pictures can be encoded.
    pub fn has_eyes(&self) -> bool {
        self.parts.contains_key(EYES)
    }

    /// Whether sound can be encoded.
    pub fn has_ears(&self) -> bool {
        self.parts.contains_key(EARS)
    }

    pub fn parameters(&self) -> u64 {
        self.parts.values().map(|p| p.parameters).sum()
    }

    /// Bytes of all weights at so many bits a parameter.
    pub fn weight_bytes(&self, bits: f64) -> u64 {
        (self.parameters() as f64 * bits / 8.0) as u64
    }

    /// Bytes of keys and values of one sequence of so many positions, kept in f32 as on a CPU.
    pub fn cache_bytes(&self, positions: usize) -> u64 {
        const F32_BYTES: u64 = 4;
        let per_layer = 2 * self.lm.kv_heads() as u64 * self.lm.head_width() as u64;
        positions as u64 * self.lm.num_hidden_layers as u64 * per_layer * F32_BYTES
    }
}

fn part_of(name: &str) -> &'static str {
    let prefixes = [
        ("model.vision_tower.", EYES),
        ("model.mm_projector.", "visual connector"),
        ("model.audio_encoder.adpter.", "audio connector"),
        ("model.audio_encoder.", EARS),
    ];
    let found = prefixes.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or("language model", |(_, part)| part)
}

fn collect(
    parts: &mut BTreeMap<String, PartInfo>,
    infos: Vec<TensorInfo>,
    part_of: impl Fn(&str) -> &'static str,
) {
    for info in infos {
        let part = parts.entry(part_of(&info.name).to_string()).or_default();
        part.tensors += 1;
        part.parameters += info.shape.iter().map(|&d| d as u64).product::<u64>();
        part.bytes += info.bytes;
        *part.dtypes.entry(info.dtype).or_default() += 1;
    }
}

impl std::fmt::Display for PartInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dtypes = self
            .dtypes
            .iter()
            .map(|(dtype, n)| format!("{dtype} × {n}"));
        f.write_str(&dtypes.collect::<Vec<_>>().join(", "))
    }
}
