//! Safetensors files of a checkpoint, memory-mapped.

use super::bytes::Bytes;
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use safetensors::tensor::{Metadata, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Header length prefix of the format.
const PREFIX_BYTES: usize = 8;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

struct Shard {
    path: PathBuf,
    bytes: Bytes,
    metadata: Metadata,
    data_start: usize,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let header = SafeTensors::read_metadata(bytes.as_slice());
        let (header_len, metadata) = header.map_err(|e| Error::format(path, e))?;
        let data_start = PREFIX_BYTES + header_len;
        let found = bytes.as_slice().len().saturating_sub(data_start);
        if found != metadata.data_len() {
            let expected = metadata.data_len();
            let reason =
                format!("expected {expected} bytes of tensors, found {found}: is it cut off?");
            return Err(Error::format(path, reason));
        }
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            metadata,
            data_start,
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What is known of a tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub file: PathBuf,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// All tensors of a checkpoint folder. Remembers which were asked for.
pub struct Shards {
    /// Named in the error when a tensor is in no file.
    listing: PathBuf,
    shards: Vec<Shard>,
    places: HashMap<String, usize>,
    used: Mutex<BTreeSet<String>>,
}

impl Shards {
    /// Maps `model.safetensors`, or the files named by `model.safetensors.index.json`.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        if !index.is_file() {
            let single = folder.join(SINGLE);
            return Self::new(single.clone(), vec![Shard::open(&single)?]);
        }
        let Index { weight_map } = super::read_json(&index)?;
        let files: BTreeSet<&String> = weight_map.values().collect();
        let shards = files
            .into_iter()
            .map(|file| Shard::open(&folder.join(plain_name(&index, file)?)))
            .collect::<Result<Vec<_>>>()?;
        let all = Self::new(index, shards)?;
        for (tensor, file) in &weight_map {
            let found = all.places.get(tensor).map(|&i| &all.shards[i].path);
            if found.and_then(|path| path.file_name()) != Some(file.as_ref()) {
                let expected = format!("tensor {tensor} in {file}");
                let found = found.map_or("no such tensor".into(), |p| p.display().to_string());
                return Err(Error::config(&all.listing, "weight_map", expected, found));
            }
        }
        Ok(all)
    }

    /// One safetensors file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::new(
            path.to_path_buf(),
            vec![Shard::parse(path, Bytes::Owned(bytes))?],
        )
    }

    /// One safetensors file.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::new(path.to_path_buf(), vec![Shard::open(path)?])
    }

    fn new(listing: PathBuf, shards: Vec<Shard>) -> Result<Self> {
        let mut places = HashMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for name in shard.metadata.offset_keys() {
                if let Some(other) = places.insert(name.clone(), i) {
                    let other = shards[other].path.display();
                    let reason = format!("tensor {name} is in {other} as well");
                    return Err(Error::format(&shard.path, reason));
                }
            }
        }
        Ok(Self {
            listing,
            shards,
            places,
            used: Mutex::default(),
        })
    }

    /// Every tensor, by name.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let mut infos: Vec<_> = self
            .places
            .iter()
            .filter_map(|(name, &i)| {
                let shard = &self.shards[i];
                let info = shard.metadata.info(name)?;
                let (start, end) = info.data_offsets;
                Some(TensorInfo {
                    name: name.clone(),
                    file: shard.path.clone(),
                    dtype: format!("{:?}", info.dtype),
                    shape: info.shape.clone(),
                    bytes: (end - start) as u64,
                })
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Names that nobody asked for, in order.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = self
            .places
            .keys()
            .filter(|n| !used.contains(*n))
            .cloned()
            .collect();
        names.sort();
        names
    }

    /// Path of the file that holds a tensor, or of the listing.
    pub fn file_of(&self, name: &str) -> &Path {
        match self.places.get(name) {
            Some(&i) => &self.shards[i].path,
            None => &self.listing,
        }
    }

    /// A tensor of any shape, in its stored type.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let shape = self.find(name, &[])?.1.shape.clone();
        self.read_as(name, &Shape::from(shape))
    }

    fn read_as(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let (shard, info) = self.find(name, expected.dims())?;
        if info.shape != expected.dims() {
            return Err(Error::TensorShape {
                file: shard.path.display().to_string(),
                tensor: name.into(),
                expected: expected.dims().to_vec(),
                found: info.shape.clone(),
            });
        }
        let (start, end) = info.data_offsets;
        let data = shard
            .bytes
            .as_slice()
            .get(shard.data_start + start..shard.data_start + end);
        let (Some(data), Ok(dtype)) = (data, DType::try_from(info.dtype)) else {
            return Err(self.wrong_type(name, &format!("{:?}", info.dtype)));
        };
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_string());
        Ok(Tensor::from_raw_buffer(
            data,
            dtype,
            &info.shape,
            &Device::Cpu,
        )?)
    }

    fn find(
        &self,
        name: &str,
        expected: &[usize],
    ) -> Result<(&Shard, &safetensors::tensor::TensorInfo)> {
        let shard = self.places.get(name).map(|&i| &self.shards[i]);
        shard
            .and_then(|shard| Some((shard, shard.metadata.info(name)?)))
            .ok_or_else(|| self.missing(name, expected))
    }

    fn wrong_type(&self, name: &str, found: &str) -> Error {
        Error::TensorDType {
            file: self.file_of(name).display().to_string(),
            tensor: name.into(),
            expected: "f32, f16 or bf16".into(),
            found: found.to_lowercase(),
        }
    }

    fn missing(&self, name: &str, expected: &[usize]) -> Error {
        Error::MissingTensor {
            file: self.listing.display().to_string(),
            tensor: name.into(),
            expected: expected.to_vec(),
        }
    }
}

/// Shard names come from a file: they may not lead out of the folder.
fn plain_name<'a>(index: &Path, file: &'a str) -> Result<&'a str> {
    match Path::new(file).file_name() {
        Some(name) if name == file => Ok(file),
        _ => Err(Error::config(
            index,
            "weight_map",
            "plain file names",
            format!("{file:?}"),
        )),
    }
}

impl Source for Shards {
    /// Weights: only floating-point types will do.
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let tensor = self.read_as(name, expected)?;
        match tensor.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => Ok(tensor),
            other => Err(self.wrong_type(name, other.as_str())),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}
