//! `model.bin` of CTranslate2, version 6: named variables one after the other, little-endian.
//!
//! u32 version, specification, u32 revision, u32 count; for each variable a name, u8 rank, u32 dimensions, u8 type, u32
//! bytes, data; u32 count of aliases, each two names. A name is its length in u16, terminating zero included, and the bytes.

use super::TensorInfo;
use super::bytes::Bytes;
use super::cursor::Cursor;
use crate::nn::Source;
use crate::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const VERSION: u32 = 6;

/// More variables, aliases or dimensions than any model has: a file that says so is damaged.
const MAX_VARIABLES: u32 = 1 << 20;
const MAX_RANK: u8 = 8;

/// Types by their numbers in the file, with their bytes.
const TYPES: [(&str, usize); 6] = [
    ("f32", 4),
    ("i8", 1),
    ("i16", 2),
    ("i32", 4),
    ("f16", 2),
    ("bf16", 2),
];

struct Variable {
    shape: Vec<usize>,
    kind: usize,
    data: Range<usize>,
}

/// An opened file; variables are read from the mapping when they are asked for.
pub struct CTranslate2 {
    path: PathBuf,
    bytes: Bytes,
    specification: String,
    variables: BTreeMap<String, Variable>,
    aliases: BTreeMap<String, String>,
}

impl CTranslate2 {
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    /// A file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(path, Bytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let mut reader = Reader {
            path,
            cursor: Cursor::new(bytes.as_slice()),
        };
        let version = reader.u32()?;
        if version != VERSION {
            let reason = format!("expected version {VERSION} of CTranslate2, found {version}");
            return Err(Error::format(path, reason));
        }
        let specification = reader.name()?;
        let _revision = reader.u32()?;
        let mut variables = BTreeMap::new();
        for _ in 0..reader.count()? {
            let (name, variable) = reader.variable()?;
            if variables.contains_key(&name) {
                return Err(Error::format(path, format!("tensor {name} is there twice")));
            }
            variables.insert(name, variable);
        }
        let mut aliases = BTreeMap::new();
        for _ in 0..reader.count()? {
            let (alias, name) = (reader.name()?, reader.name()?);
            aliases.insert(alias, name);
        }
        Ok(Self {
            path: path.to_path_buf(),
            specification,
            variables,
            aliases,
            bytes,
        })
    }

    /// What the file says it is, such as `WhisperSpec`.
    pub fn specification(&self) -> &str {
        &self.specification
    }

    /// Name, type, shape and bytes of every variable, by name.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let info = |(name, variable): (&String, &Variable)| TensorInfo {
            name: name.clone(),
            file: self.path.clone(),
            dtype: TYPES[variable.kind].0.into(),
            shape: variable.shape.clone(),
            bytes: variable.data.len() as u64,
        };
        self.variables.iter().map(info).collect()
    }

    /// A whole number without dimensions, such as a count of heads.
    pub fn integer(&self, name: &str) -> Result<i64> {
        let variable = self.find(name, &[])?;
        let data = self.data(variable);
        match (variable.shape.as_slice(), variable.kind, data) {
            ([], 1, &[byte]) => Ok(i64::from(byte as i8)),
            ([], 2, &[a, b]) => Ok(i64::from(i16::from_le_bytes([a, b]))),
            ([], 3, &[a, b, c, d]) => Ok(i64::from(i32::from_le_bytes([a, b, c, d]))),
            _ => Err(self.wrong_type(name, "a whole number", variable)),
        }
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<&Variable> {
        let real = self.aliases.get(name).map_or(name, String::as_str);
        self.variables
            .get(real)
            .ok_or_else(|| Error::MissingTensor {
                file: self.path.display().to_string(),
                tensor: name.into(),
                expected: expected.to_vec(),
            })
    }

    fn data(&self, variable: &Variable) -> &[u8] {
        self.bytes
            .as_slice()
            .get(variable.data.clone())
            .unwrap_or_default()
    }

    fn wrong_type(&self, name: &str, expected: &str, variable: &Variable) -> Error {
        Error::TensorDType {
            file: self.path.display().to_string(),
            tensor: name.into(),
            expected: expected.into(),
            found: format!("{} {:?}", TYPES[variable.kind].0, variable.shape),
        }
    }
}

impl Source for CTranslate2 {
    /// Weights: only floating-point types will do.
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let variable = self.find(name, expected.dims())?;
        let dtype = match TYPES[variable.kind].0 {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            _ => return Err(self.wrong_type(name, "f32, f16 or bf16", variable)),
        };
        if variable.shape != expected.dims() {
            return Err(Error::TensorShape {
                file: self.path.display().to_string(),
                tensor: name.into(),
                expected: expected.dims().to_vec(),
                found: variable.shape.clone(),
            });
        }
        let data = self.data(variable);
        Ok(Tensor::from_raw_buffer(
            data,
            dtype,
            &variable.shape,
            &Device::Cpu,
        )?)
    }

    fn contains(&self, name: &str) -> bool {
        self.find(name, &[]).is_ok()
    }
}

struct Reader<'a> {
    path: &'a Path,
    cursor: Cursor<'a>,
}

impl Reader<'_> {
    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        let at = self.cursor.at();
        Error::format(self.path, format!("at byte {at}: {what}"))
    }

    fn whole<T>(&self, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.damaged("the file ends here: is it cut off?"))
    }

    fn u32(&mut self) -> Result<u32> {
        let value = self.cursor.u32();
        self.whole(value)
    }

    fn count(&mut self) -> Result<u32> {
        match self.u32()? {
            count if count <= MAX_VARIABLES => Ok(count),
            count => Err(self.damaged(format!("a count of {count}: is the file damaged?"))),
        }
    }

    fn name(&mut self) -> Result<String> {
        let len = self.cursor.u16();
        let len = usize::from(self.whole(len)?);
        let bytes = self.cursor.take(len);
        match self.whole(bytes)? {
            [name @ .., 0] => String::from_utf8(name.to_vec()).map_err(|e| self.damaged(e)),
            _ => Err(self.damaged("a name without its terminating zero")),
        }
    }

    fn variable(&mut self) -> Result<(String, Variable)> {
        let name = self.name()?;
        let rank = self.cursor.u8();
        let rank = self.whole(rank)?;
        if rank > MAX_RANK {
            return Err(self.damaged(format!("tensor {name}: {rank} dimensions")));
        }
        let shape = (0..rank).map(|_| Ok(self.u32()? as usize));
        let shape = shape.collect::<Result<Vec<usize>>>()?;
        let kind = self.cursor.u8();
        let kind = usize::from(self.whole(kind)?);
        let Some((type_name, size)) = TYPES.get(kind) else {
            return Err(self.damaged(format!("tensor {name}: unknown type {kind}")));
        };
        let bytes = self.u32()? as usize;
        let expected = shape.iter().try_fold(*size, |n, &dim| n.checked_mul(dim));
        if expected != Some(bytes) {
            let what = format!("tensor {name}: {bytes} bytes for {type_name} {shape:?}");
            return Err(self.damaged(what));
        }
        let start = self.cursor.at();
        let data = self.cursor.take(bytes);
        self.whole(data)?;
        let data = start..self.cursor.at();
        Ok((name, Variable { shape, kind, data }))
    }
}
