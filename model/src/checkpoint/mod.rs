//! Checkpoint folders: configs in both dialects of the release, side files, safetensors (spec section 1).

mod bytes;
mod cmvn;
mod config;
mod ctranslate2;
mod cursor;
mod demo;
mod files;
mod gguf;
mod inspect;
pub mod manifest;
mod pth;
mod shards;
mod tflite;
mod train_yaml;
mod training;

pub use cmvn::load_cmvn;
pub use config::{Layout, ModelConfig};
pub use ctranslate2::CTranslate2;
pub use files::{QUANTISED_FILE, WeightFiles, open_weights};
pub use gguf::{Gguf, GgufFile};
pub use inspect::{Inspection, PRECISIONS, PartInfo};
pub use pth::TorchFile;
pub use shards::{Shards, TensorInfo};
pub use tflite::{Fused, Operation, Operator, TfLite, Window};

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Largest size that any dimension may claim; beyond it a config is nonsense, and arithmetic on it
/// could overflow.
const MAX_SIZE: usize = 1 << 24;

/// Checks that sizes are within 1..=2²⁴.
pub(crate) fn check_sizes(path: &Path, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes
        .iter()
        .find(|(_, size)| !(1..=MAX_SIZE).contains(size))
    {
        Some((key, size)) => Err(Error::config(path, *key, format!("1 to {MAX_SIZE}"), size)),
        None => Ok(()),
    }
}

/// Longest sequence that is prepared for; tables of positions grow with it.
const MAX_POSITIONS: usize = 1 << 20;

fn check_max_length(path: &Path, key: &str, length: usize) -> Result<()> {
    match (2..=MAX_POSITIONS).contains(&length) {
        true => Ok(()),
        false => Err(Error::config(
            path,
            key,
            format!("2 to {MAX_POSITIONS}"),
            length,
        )),
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&crate::error::read_file(path)?).map_err(|e| Error::format(path, e))
}

/// A part's folder, which the config names by the path it had where the model was trained: as it
/// stands, inside the checkpoint, or by its last component inside the checkpoint or beside it.
fn part_folder(config: &Path, folder: &Path, key: &str, name: &str) -> Result<PathBuf> {
    let last = Path::new(name)
        .file_name()
        .map(PathBuf::from)
        .unwrap_or_default();
    let mut candidates = vec![folder.join(name), folder.join(&last)];
    candidates.extend(folder.parent().map(|parent| parent.join(&last)));
    candidates
        .into_iter()
        .find(|path| !name.is_empty() && path.is_dir())
        .ok_or_else(|| {
            let expected = format!("a folder in {} or beside it", folder.display());
            Error::config(config, key, expected, format!("{name:?}"))
        })
}
