//! GGUF files: a language model in llama.cpp's names and blocks, seen through the names of the rest of
//! this crate.

mod metadata;
mod names;
mod tokenizer;

use super::bytes::Bytes;
use crate::lm::LmConfig;
use crate::nn::Source;
use crate::prompt::Tokenizer;
use crate::{Error, Result};
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Shape, Tensor};
use metadata::Metadata;
use names::{Place, Rows};
use std::borrow::Cow;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// An opened file; tensors are read from the mapping when they are asked for.
pub struct Gguf {
    path: PathBuf,
    bytes: Bytes,
    content: Content,
    config: LmConfig,
    /// llama.cpp stores the query and key rows of this architecture for interleaved rotation.
    interleaved: bool,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    /// A file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(path, Bytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let content = Content::read(&mut Cursor::new(bytes.as_slice()));
        let content = content.map_err(|e| Error::format(path, first_line(&e)))?;
        let metadata = Metadata::new(path, &content);
        let config = metadata.lm_config()?;
        config.validate(path)?;
        Ok(Self {
            interleaved: metadata.architecture()? == "llama",
            path: path.to_path_buf(),
            bytes,
            content,
            config,
        })
    }

    /// Sizes of the language model.
    pub fn lm_config(&self) -> &LmConfig {
        &self.config
    }

    /// The tokenizer in the file's metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let json = tokenizer::tokenizer_json(&Metadata::new(&self.path, &self.content))?;
        Tokenizer::from_bytes(&self.path, json.to_string().as_bytes())
    }

    /// Name, type, shape and bytes of every tensor, by name.
    pub fn infos(&self) -> Vec<super::TensorInfo> {
        let mut infos: Vec<_> = self
            .content
            .tensor_infos
            .iter()
            .map(|(name, info)| super::TensorInfo {
                name: name.clone(),
                file: self.path.clone(),
                dtype: format!("{:?}", info.ggml_dtype),
                shape: info.shape.dims().to_vec(),
                bytes: stored_bytes(info).unwrap_or(0) as u64,
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<(Place, &TensorInfo)> {
        let place = names::place(name, &self.config, self.interleaved);
        let info = place
            .as_ref()
            .and_then(|p| self.content.tensor_infos.get(&p.name));
        place.zip(info).ok_or_else(|| Error::MissingTensor {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: expected.to_vec(),
        })
    }

    /// The bytes of the wanted rows, in the wanted order, and the shape that they have.
    fn read(&self, name: &str, expected: &Shape) -> Result<(GgmlDType, Vec<u8>)> {
        let (place, info) = self.find(name, expected.dims())?;
        let stored = info.shape.dims();
        let (part, shape) = match (place.expert, stored) {
            (Some(expert), [experts, rest @ ..]) if expert < *experts => ((expert, *experts), rest),
            _ => ((0, 1), stored),
        };
        if shape != expected.dims() {
            return Err(Error::TensorShape {
                file: self.path.display().to_string(),
                tensor: place.name,
                expected: expected.dims().to_vec(),
                found: shape.to_vec(),
            });
        }
        let all = self.stored_data(&place.name, info)?;
        let size = all.len() / part.1;
        let data = &all[part.0 * size..][..size];
        let bytes = match place.rows {
            Rows::AsStored => data.to_vec(),
            Rows::OfHeads(heads) => names::undo_interleaving(data, shape[0], heads),
        };
        Ok((info.ggml_dtype, bytes))
    }

    fn stored_data(&self, name: &str, info: &TensorInfo) -> Result<&[u8]> {
        let start = self.content.tensor_data_offset.checked_add(info.offset);
        let range = start.zip(stored_bytes(info)).and_then(|(start, size)| {
            let start = usize::try_from(start).ok()?;
            Some(start..start.checked_add(size)?)
        });
        let data = range.and_then(|range| self.bytes.as_slice().get(range));
        data.ok_or_else(|| {
            let reason =
                format!("tensor {name}: its data lies beyond the end: is the file cut off?");
            Error::format(&self.path, reason)
        })
    }
}

/// Bytes of a tensor, unless its header makes no sense.
fn stored_bytes(info: &TensorInfo) -> Option<usize> {
    let dims = info.shape.dims();
    let elements = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let (block, size) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
    let whole = dims.last().is_none_or(|row| row % block == 0);
    whole.then(|| (elements / block).checked_mul(size))?
}

/// candle's errors go on with a backtrace.
fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_string()
}

impl Source for Gguf {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let (dtype, bytes) = self.read(name, expected)?;
        let dims = expected.dims();
        let dense = |dtype| Tensor::from_raw_buffer(&bytes, dtype, dims, &Device::Cpu);
        Ok(match dtype {
            GgmlDType::F32 => dense(DType::F32)?,
            GgmlDType::F16 => dense(DType::F16)?,
            GgmlDType::BF16 => dense(DType::BF16)?,
            _ => {
                let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)?;
                QTensor::new(storage, expected.clone())?.dequantize(&Device::Cpu)?
            }
        })
    }

    fn quantised(&self, name: &str, expected: &Shape, device: &Device) -> Result<Option<QTensor>> {
        let (_, info) = self.find(name, expected.dims())?;
        if matches!(
            info.ggml_dtype,
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16
        ) {
            return Ok(None);
        }
        let (dtype, bytes) = self.read(name, expected)?;
        let storage = QStorage::from_data(Cow::Owned(bytes), device, dtype)?;
        Ok(Some(QTensor::new(storage, expected.clone())?))
    }

    fn contains(&self, name: &str) -> bool {
        self.find(name, &[]).is_ok()
    }
}
