//! State dictionaries in torch's legacy format: five pickles (magic number, version, machine, tensors, keys of the storages),
//! then the storages, each with its length in u64.
//!
//! The pickles go through a machine of our own that refuses whatever a state dictionary does not need.

mod pickle;

use super::TensorInfo;
use super::bytes::Bytes;
use super::cursor::Cursor;
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use pickle::{Value, View};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// 0x1950a86a20f9469cfc6c, with the byte that keeps it positive.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// A tensor's place: a view into a storage of the file.
struct Entry {
    /// torch's name of the type of its elements, such as `Float`.
    kind: String,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Bytes of the storage.
    data: Range<usize>,
}

/// An opened file; tensors are read from the mapping when they are asked for.
pub struct TorchFile {
    path: PathBuf,
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
}

impl TorchFile {
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    /// A file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(path, Bytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new(bytes.as_slice());
        let mut next = || {
            let value = pickle::load(&mut cursor);
            value.map_err(|refusal| {
                Error::format(path, format!("at byte {}: {refusal}", cursor.at()))
            })
        };
        let (magic, version, _machine) = (next()?, next()?, next()?);
        if magic != Value::Long(MAGIC.to_vec()) || version != Value::Int(VERSION) {
            let reason = "expected a file of torch's legacy format, found another";
            return Err(Error::format(path, reason));
        }
        let (Value::Dict(tensors), Value::List(keys)) = (next()?, next()?) else {
            return Err(Error::format(
                path,
                "expected a dictionary of tensors and a list of storages",
            ));
        };
        let views = views(path, tensors.values())?;
        let storages = storages(path, &mut cursor, keys.values(), &views)?;
        let entries = views.into_iter().map(|(name, view)| {
            let data = storages.get(&view.storage.key).cloned();
            let entry = data.and_then(|data| entry(&view, data));
            let entry = entry.ok_or_else(|| {
                let found = (&view.shape, &view.strides, view.offset, view.storage.len);
                let reason = format!(
                    "tensor {name}: shape, strides and offset {found:?} do not fit its storage"
                );
                Error::format(path, reason)
            })?;
            Ok((name, entry))
        });
        Ok(Self {
            entries: entries.collect::<Result<_>>()?,
            path: path.to_path_buf(),
            bytes,
        })
    }

    /// Name, type, shape and bytes of every tensor, by name.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let info = |(name, entry): (&String, &Entry)| TensorInfo {
            name: name.clone(),
            file: self.path.clone(),
            dtype: entry.kind.to_lowercase(),
            shape: entry.shape.clone(),
            bytes: (entry.shape.iter().product::<usize>() * bytes_of(&entry.kind)) as u64,
        };
        self.entries.iter().map(info).collect()
    }
}

impl Source for TorchFile {
    /// Weights: only `float` will do.
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let file = || self.path.display().to_string();
        let entry = self.entries.get(name).ok_or_else(|| Error::MissingTensor {
            file: file(),
            tensor: name.into(),
            expected: expected.dims().to_vec(),
        })?;
        if entry.kind != "Float" {
            return Err(Error::TensorDType {
                file: file(),
                tensor: name.into(),
                expected: "float".into(),
                found: entry.kind.to_lowercase(),
            });
        }
        if entry.shape != expected.dims() {
            return Err(Error::TensorShape {
                file: file(),
                tensor: name.into(),
                expected: expected.dims().to_vec(),
                found: entry.shape.clone(),
            });
        }
        let data = self.bytes.as_slice().get(entry.data.clone());
        let whole = Tensor::from_raw_buffer(
            data.unwrap_or_default(),
            DType::F32,
            &[entry.data.len() / DType::F32.size_in_bytes()],
            &Device::Cpu,
        )?;
        let places = Tensor::from_vec(entry.places(), expected.elem_count(), &Device::Cpu)?;
        Ok(whole.index_select(&places, 0)?.reshape(expected)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }
}

impl Entry {
    /// Places of the elements in the storage, in row-major order.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![self.offset as u32];
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            let steps = 0..size as u32;
            places = places
                .iter()
                .flat_map(|&place| steps.clone().map(move |i| place + i * stride as u32))
                .collect();
        }
        places
    }
}

/// The view, if all of it lies in its storage and it shows no more values than that has: strides of zero could ask for
/// any memory.
fn entry(view: &View, data: Range<usize>) -> Option<Entry> {
    let sizes = |values: &[i64]| -> Option<Vec<usize>> {
        values.iter().map(|&v| usize::try_from(v).ok()).collect()
    };
    let kind = view.storage.kind.strip_suffix("Storage")?;
    let (shape, strides) = (sizes(&view.shape)?, sizes(&view.strides)?);
    let offset = usize::try_from(view.offset).ok()?;
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(offset, |last, (&size, &stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(stride)?)
        })?;
    let held = data.len() / bytes_of(kind);
    let fits = shape.len() == strides.len() && elements <= held;
    (fits && (elements == 0 || last < held.min(u32::MAX as usize))).then(|| Entry {
        kind: kind.to_string(),
        offset,
        shape,
        strides,
        data,
    })
}

fn views(path: &Path, tensors: &[Value]) -> Result<BTreeMap<String, View>> {
    let view = |pair: &[Value]| match pair {
        [Value::Text(name), Value::Tensor(view)] => Ok((name.to_string(), (**view).clone())),
        _ => Err(Error::format(
            path,
            "expected tensors under names, found another thing",
        )),
    };
    tensors.chunks(2).map(view).collect()
}

/// Where the bytes of each storage are.
fn storages(
    path: &Path,
    cursor: &mut Cursor<'_>,
    keys: &[Value],
    views: &BTreeMap<String, View>,
) -> Result<HashMap<String, Range<usize>>> {
    let known: HashMap<&str, &pickle::Storage> = views
        .values()
        .map(|view| (view.storage.key.as_str(), view.storage.as_ref()))
        .collect();
    let mut places = HashMap::new();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(Error::format(
                path,
                "expected names of storages, found another thing",
            ));
        };
        let Some(storage) = known.get(key.as_ref()) else {
            return Err(Error::format(
                path,
                format!("storage {key} belongs to no tensor"),
            ));
        };
        let cut_off = || {
            let reason = format!("storage {key} lies beyond the end: is the file cut off?");
            Error::format(path, reason)
        };
        let len = cursor.array().map(u64::from_le_bytes).ok_or_else(cut_off)?;
        if i64::try_from(len) != Ok(storage.len) {
            let reason = format!(
                "storage {key}: expected {} elements, found {len}",
                storage.len
            );
            return Err(Error::format(path, reason));
        }
        let bytes = usize::try_from(len).ok();
        let bytes = bytes.and_then(|n| n.checked_mul(bytes_of_storage(&storage.kind)));
        let start = cursor.at();
        bytes.and_then(|n| cursor.take(n)).ok_or_else(cut_off)?;
        places.insert(key.to_string(), start..cursor.at());
    }
    Ok(places)
}

fn bytes_of_storage(kind: &str) -> usize {
    bytes_of(kind.strip_suffix("Storage").unwrap_or(kind))
}

/// Bytes of one element.
fn bytes_of(kind: &str) -> usize {
    match kind {
        "Double" | "Long" => 8,
        "Half" | "BFloat16" | "Short" => 2,
        "Byte" | "Char" | "Bool" => 1,
        _ => 4,
    }
}
