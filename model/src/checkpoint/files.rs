//! The weights of a checkpoint folder, in whichever files they are.

use super::{GgufFile, Shards, TensorInfo};
use crate::Result;
use crate::nn::Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that a quantised folder has in place of `model.safetensors`.
pub const QUANTISED_FILE: &str = "model.gguf";

/// A source that knows all that it holds, and what nobody asked for.
pub trait WeightFiles: Source {
    /// Every tensor, by name.
    fn infos(&self) -> Vec<TensorInfo>;

    /// Names that nobody asked for, in order.
    fn unused(&self) -> Vec<String>;

    /// Path of the file that holds a tensor.
    fn file_of(&self, name: &str) -> PathBuf;
}

/// Opens `model.gguf` where a folder has one, else its safetensors files.
pub fn open_weights(folder: &Path) -> Result<Arc<dyn WeightFiles>> {
    let quantised = folder.join(QUANTISED_FILE);
    match quantised.is_file() {
        true => Ok(Arc::new(GgufFile::open(&quantised)?)),
        false => Ok(Arc::new(Shards::open(folder)?)),
    }
}

impl WeightFiles for Shards {
    fn infos(&self) -> Vec<TensorInfo> {
        self.infos()
    }

    fn unused(&self) -> Vec<String> {
        self.unused()
    }

    fn file_of(&self, name: &str) -> PathBuf {
        self.file_of(name).to_path_buf()
    }
}

impl WeightFiles for GgufFile {
    fn infos(&self) -> Vec<TensorInfo> {
        self.infos()
    }

    fn unused(&self) -> Vec<String> {
        self.unused()
    }

    fn file_of(&self, _name: &str) -> PathBuf {
        self.path().to_path_buf()
    }
}
