//! The container: named tensors in blocks, whatever their names mean.

use crate::checkpoint::TensorInfo;
use crate::checkpoint::bytes::Bytes;
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::quantized::gguf_file::{self, Content};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Shape, Tensor};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where data begin is a multiple of this in every GGUF file; its `general.alignment` may ask for more. candle reads blocks
/// where they lie, and stops the program when they lie askew.
const ALIGNMENT: u64 = 8;

/// An opened file; tensors are read from the mapping when they are asked for, by the names that they have there.
pub struct GgufFile {
    path: PathBuf,
    bytes: Bytes,
    content: Content,
    used: Mutex<BTreeSet<String>>,
}

impl GgufFile {
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
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            content,
            used: Mutex::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself, by key.
    pub fn metadata(&self) -> &std::collections::HashMap<String, gguf_file::Value> {
        &self.content.metadata
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// Name, type, shape and bytes of every tensor, by name.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let mut infos: Vec<_> = self
            .content
            .tensor_infos
            .iter()
            .map(|(name, info)| TensorInfo {
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

    /// Names that nobody asked for by them, in order.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.content.tensor_infos.keys();
        let mut names: Vec<_> = names
            .filter(|name| !used.contains(*name))
            .cloned()
            .collect();
        names.sort();
        names
    }

    pub(super) fn info(&self, name: &str) -> Option<&gguf_file::TensorInfo> {
        self.content.tensor_infos.get(name)
    }

    pub(super) fn missing(&self, name: &str, expected: &[usize]) -> Error {
        Error::MissingTensor {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: expected.to_vec(),
        }
    }

    pub(super) fn wrong_shape(&self, name: &str, expected: &Shape, found: &[usize]) -> Error {
        Error::TensorShape {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: expected.dims().to_vec(),
            found: found.to_vec(),
        }
    }

    pub(super) fn data(&self, name: &str, info: &gguf_file::TensorInfo) -> Result<&[u8]> {
        let start = self.content.tensor_data_offset.checked_add(info.offset);
        if let Some(start) = start.filter(|start| !start.is_multiple_of(ALIGNMENT)) {
            let reason = format!(
                "tensor {name}: its data begins at byte {start}, expected a multiple of {ALIGNMENT}"
            );
            return Err(Error::format(&self.path, reason));
        }
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

    fn read(&self, name: &str, expected: &Shape) -> Result<(GgmlDType, &[u8])> {
        let info = self
            .info(name)
            .ok_or_else(|| self.missing(name, expected.dims()))?;
        if info.shape != *expected {
            return Err(self.wrong_shape(name, expected, info.shape.dims()));
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(name.to_string());
        Ok((info.ggml_dtype, self.data(name, info)?))
    }
}

impl Source for GgufFile {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let (dtype, data) = self.read(name, expected)?;
        dense(dtype, Cow::Borrowed(data), expected)
    }

    fn quantised(&self, name: &str, expected: &Shape, device: &Device) -> Result<Option<QTensor>> {
        let (dtype, data) = self.read(name, expected)?;
        blocks(dtype, Cow::Borrowed(data), expected, device)
    }

    fn contains(&self, name: &str) -> bool {
        self.info(name).is_some()
    }
}

/// The numbers of a tensor: 16- and 32-bit ones as they are, blocks as f32.
pub(super) fn dense(dtype: GgmlDType, data: Cow<'_, [u8]>, shape: &Shape) -> Result<Tensor> {
    let raw = |dtype| Tensor::from_raw_buffer(&data, dtype, shape.dims(), &Device::Cpu);
    Ok(match dtype {
        GgmlDType::F32 => raw(DType::F32)?,
        GgmlDType::F16 => raw(DType::F16)?,
        GgmlDType::BF16 => raw(DType::BF16)?,
        _ => {
            let storage = QStorage::from_data(data, &Device::Cpu, dtype)?;
            QTensor::new(storage, shape.clone())?.dequantize(&Device::Cpu)?
        }
    })
}

/// A tensor in its blocks, if it is in blocks.
pub(super) fn blocks(
    dtype: GgmlDType,
    data: Cow<'_, [u8]>,
    shape: &Shape,
    device: &Device,
) -> Result<Option<QTensor>> {
    if matches!(dtype, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16) {
        return Ok(None);
    }
    let storage = QStorage::from_data(data, device, dtype)?;
    Ok(Some(QTensor::new(storage, shape.clone())?))
}

/// Bytes of a tensor, unless its header makes no sense.
fn stored_bytes(info: &gguf_file::TensorInfo) -> Option<usize> {
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
