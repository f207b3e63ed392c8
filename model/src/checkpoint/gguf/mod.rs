//! GGUF files: a language model in llama.cpp's names and blocks, seen through the names of the rest of
//! this crate.

mod file;
mod metadata;
mod names;
mod tokenizer;

pub use file::GgufFile;

use crate::Result;
use crate::lm::LmConfig;
use crate::nn::Source;
use crate::prompt::Tokenizer;
use candle_core::quantized::gguf_file::TensorInfo;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Shape, Tensor};
use metadata::Metadata;
use names::{Place, Rows};
use std::borrow::Cow;
use std::path::Path;

/// A language model's file.
pub struct Gguf {
    file: GgufFile,
    config: LmConfig,
    /// llama.cpp stores the query and key rows of this architecture for interleaved rotation.
    interleaved: bool,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(GgufFile::open(path)?)
    }

    /// A file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::new(GgufFile::from_bytes(path, bytes)?)
    }

    fn new(file: GgufFile) -> Result<Self> {
        let metadata = Metadata::new(file.path(), file.content());
        let config = metadata.lm_config()?;
        config.validate(file.path())?;
        Ok(Self {
            interleaved: metadata.architecture()? == "llama",
            config,
            file,
        })
    }

    /// Sizes of the language model.
    pub fn lm_config(&self) -> &LmConfig {
        &self.config
    }

    /// The tokenizer in the file's metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let json = self.tokenizer_json()?.to_string();
        Tokenizer::from_bytes(self.file.path(), json.as_bytes())
    }

    /// The same as a `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Result<serde_json::Value> {
        tokenizer::tokenizer_json(&Metadata::new(self.file.path(), self.file.content()))
    }

    /// Name, type, shape and bytes of every tensor, by name.
    pub fn infos(&self) -> Vec<super::TensorInfo> {
        self.file.infos()
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<(Place, &TensorInfo)> {
        let place = names::place(name, &self.config, self.interleaved);
        let info = place.as_ref().and_then(|p| self.file.info(&p.name));
        place
            .zip(info)
            .ok_or_else(|| self.file.missing(name, expected))
    }

    /// The bytes of the wanted rows, in the wanted order.
    fn read(&self, name: &str, expected: &Shape) -> Result<(GgmlDType, Cow<'_, [u8]>)> {
        let (place, info) = self.find(name, expected.dims())?;
        let stored = info.shape.dims();
        let (part, shape) = match (place.expert, stored) {
            (Some(expert), [experts, rest @ ..]) if expert < *experts => ((expert, *experts), rest),
            _ => ((0, 1), stored),
        };
        if shape != expected.dims() {
            return Err(self.file.wrong_shape(&place.name, expected, shape));
        }
        let all = self.file.data(&place.name, info)?;
        let size = all.len() / part.1;
        let data = &all[part.0 * size..][..size];
        let bytes = match place.rows {
            Rows::AsStored => Cow::Borrowed(data),
            Rows::OfHeads(heads) => Cow::Owned(names::undo_interleaving(data, shape[0], heads)),
        };
        Ok((info.ggml_dtype, bytes))
    }
}

impl Source for Gguf {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let (dtype, bytes) = self.read(name, expected)?;
        file::dense(dtype, bytes, expected)
    }

    fn quantised(&self, name: &str, expected: &Shape, device: &Device) -> Result<Option<QTensor>> {
        let (dtype, bytes) = self.read(name, expected)?;
        file::blocks(dtype, bytes, expected, device)
    }

    fn contains(&self, name: &str) -> bool {
        self.find(name, &[]).is_ok()
    }
}
