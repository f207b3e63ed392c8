//! Models of TensorFlow Lite: the operators of their graph and its constant tensors.
//!
//! The file is a FlatBuffer. A table begins with the distance back to its list of fields, which says for each field where in
//! the table it stands; what has no fixed size is named by a distance forward. Numbers of fields and operators are
//! those of TensorFlow's `schema.fbs`, version 3. The bytes are not trusted: every place is checked before it is read,
//! and every count has a limit.

use super::bytes::Bytes;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::path::{Path, PathBuf};

const IDENTIFIER: &[u8; 4] = b"TFL3";
const VERSION: u32 = 3;

/// More operators, tensors, operands or dimensions than any model for a small device has: a file that says so is damaged.
const MAX_OPERATORS: usize = 1 << 12;
const MAX_TENSORS: usize = 1 << 14;
const MAX_OPERANDS: usize = 1 << 8;
const MAX_RANK: usize = 8;

/// Types of tensors by their numbers in the file, with their bytes.
const TYPES: [(&str, usize); 5] = [("f32", 4), ("f16", 2), ("i32", 4), ("u8", 1), ("i64", 8)];

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Conv2d(Window),
    DepthwiseConv2d(Window),
    Add(Fused),
    Concatenation {
        axis: i32,
    },
    Dequantize,
    Logistic,
    Reshape,
    Squeeze,
    /// Its number in the schema.
    Other(i32),
}

/// How a kernel moves over a picture, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Else only where the whole kernel fits.
    pub same_padding: bool,
    /// Down, across.
    pub strides: [i32; 2],
    pub dilations: [i32; 2],
    pub fused: Fused,
}

/// An activation that is part of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fused {
    None,
    Relu,
    Relu6,
    Other(u8),
}

/// An operator of the graph; operands are numbers of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub operation: Operation,
    /// `None` stands for an optional one that is left out.
    pub inputs: Vec<Option<usize>>,
    pub outputs: Vec<usize>,
}

struct Entry {
    shape: Vec<usize>,
    /// Its number in the schema.
    kind: usize,
    /// Empty unless it is a constant.
    data: Range<usize>,
}

/// An opened file; constants are read from the mapping when they are asked for.
pub struct TfLite {
    path: PathBuf,
    bytes: Bytes,
    operators: Vec<Operator>,
    tensors: Vec<Entry>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl TfLite {
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::map(path)?)
    }

    /// A file that is already in memory; `path` is for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(path, Bytes::Owned(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let flat = Flat {
            path,
            bytes: bytes.as_slice(),
        };
        let model = flat.root()?;
        let codes = flat.codes(&model)?;
        let graphs = flat.tables(&model, fields::MODEL_SUBGRAPHS, 1)?;
        let Some(graph) = graphs.first() else {
            return Err(flat.damaged(model.at, "a model without a graph"));
        };
        let buffers = flat.vector(&model, fields::MODEL_BUFFERS, 4)?;
        let tensors = flat
            .tables(graph, fields::GRAPH_TENSORS, MAX_TENSORS)?
            .iter()
            .map(|table| flat.tensor(table, buffers.clone()))
            .collect::<Result<Vec<_>>>()?;
        let count = tensors.len();
        let operators = flat
            .tables(graph, fields::GRAPH_OPERATORS, MAX_OPERATORS)?
            .iter()
            .map(|table| flat.operator(table, &codes, count))
            .collect::<Result<Vec<_>>>()?;
        let inputs = flat.operands(graph, fields::GRAPH_INPUTS, count)?;
        let outputs = flat.operands(graph, fields::GRAPH_OUTPUTS, count)?;
        Ok(Self {
            path: path.to_path_buf(),
            operators,
            tensors,
            inputs: inputs.into_iter().flatten().collect(),
            outputs: outputs.into_iter().flatten().collect(),
            bytes,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In the order in which they run.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// Numbers of the graph's inputs.
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Shape of a tensor, empty where there is none of this number.
    pub fn shape(&self, tensor: usize) -> &[usize] {
        self.tensors.get(tensor).map_or(&[], |entry| &entry.shape)
    }

    /// Values of a constant of a floating-point type, as stored.
    pub fn constant(&self, tensor: usize) -> Result<Tensor> {
        let wrong = |expected: &str, found: String| Error::TensorDType {
            file: self.path.display().to_string(),
            tensor: tensor.to_string(),
            expected: expected.into(),
            found,
        };
        let entry = self.tensors.get(tensor);
        let Some(entry) = entry.filter(|entry| !entry.data.is_empty()) else {
            return Err(wrong("a constant", "a result".into()));
        };
        let dtype = match TYPES.get(entry.kind) {
            Some(("f32", _)) => DType::F32,
            Some(("f16", _)) => DType::F16,
            Some((other, _)) => return Err(wrong("f32 or f16", (*other).into())),
            None => return Err(wrong("f32 or f16", format!("type {}", entry.kind))),
        };
        let data = self.bytes.as_slice().get(entry.data.clone());
        let data = data.unwrap_or_default();
        Ok(Tensor::from_raw_buffer(
            data,
            dtype,
            &entry.shape,
            &Device::Cpu,
        )?)
    }
}

/// Numbers of fields in their tables.
mod fields {
    pub const MODEL_VERSION: usize = 0;
    pub const MODEL_CODES: usize = 1;
    pub const MODEL_SUBGRAPHS: usize = 2;
    pub const MODEL_BUFFERS: usize = 4;
    pub const CODE_OLD: usize = 0;
    pub const CODE: usize = 3;
    pub const GRAPH_TENSORS: usize = 0;
    pub const GRAPH_INPUTS: usize = 1;
    pub const GRAPH_OUTPUTS: usize = 2;
    pub const GRAPH_OPERATORS: usize = 3;
    pub const TENSOR_SHAPE: usize = 0;
    pub const TENSOR_TYPE: usize = 1;
    pub const TENSOR_BUFFER: usize = 2;
    pub const BUFFER_DATA: usize = 0;
    pub const OPERATOR_CODE: usize = 0;
    pub const OPERATOR_INPUTS: usize = 1;
    pub const OPERATOR_OUTPUTS: usize = 2;
    pub const OPERATOR_OPTIONS: usize = 4;
    pub const ADD_FUSED: usize = 0;
    pub const CONCATENATION_AXIS: usize = 0;
    pub const WINDOW_PADDING: usize = 0;
    pub const WINDOW_STRIDE_ACROSS: usize = 1;
    pub const WINDOW_STRIDE_DOWN: usize = 2;
    /// Of a convolution; a depthwise one has its multiplier of channels before it.
    pub const WINDOW_FUSED: usize = 3;
}

/// Where a table and its list of fields begin.
#[derive(Debug, Clone, Copy)]
struct Table {
    at: usize,
    list: usize,
    fields: usize,
}

/// The bytes, and every way in which they are read.
struct Flat<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl Flat<'_> {
    fn damaged(&self, at: usize, what: impl std::fmt::Display) -> Error {
        Error::format(self.path, format!("at byte {at}: {what}"))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let rest = self.bytes.get(at..);
        let array = rest.and_then(|rest| rest.first_chunk::<N>());
        array
            .copied()
            .ok_or_else(|| self.damaged(at, "the file ends here: is it cut off?"))
    }

    fn u32(&self, at: usize) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array(at)?) as usize)
    }

    fn u16(&self, at: usize) -> Result<usize> {
        Ok(u16::from_le_bytes(self.array(at)?).into())
    }

    fn root(&self) -> Result<Table> {
        if self.array::<4>(4)? != *IDENTIFIER {
            let reason = "expected a model of TensorFlow Lite, found another file";
            return Err(Error::format(self.path, reason));
        }
        let model = self.table(self.u32(0)?)?;
        let version = self.scalar(&model, fields::MODEL_VERSION)?;
        match version.map(u32::from_le_bytes) {
            Some(VERSION) => Ok(model),
            found => {
                let reason = format!("expected version {VERSION} of the schema, found {found:?}");
                Err(Error::format(self.path, reason))
            }
        }
    }

    fn table(&self, at: usize) -> Result<Table> {
        let back = i32::from_le_bytes(self.array(at)?);
        let list = i64::try_from(at)
            .ok()
            .and_then(|at| at.checked_sub(back.into()));
        let list = list.and_then(|list| usize::try_from(list).ok());
        let list = list.ok_or_else(|| self.damaged(at, "a table whose fields are nowhere"))?;
        let fields = self.u16(list)?.saturating_sub(4) / 2;
        Ok(Table { at, list, fields })
    }

    /// Where a field stands, unless it is left out.
    fn field(&self, table: &Table, field: usize) -> Result<Option<usize>> {
        if field >= table.fields {
            return Ok(None);
        }
        Ok(match self.u16(table.list + 4 + 2 * field)? {
            0 => None,
            distance => Some(table.at + distance),
        })
    }

    fn scalar<const N: usize>(&self, table: &Table, field: usize) -> Result<Option<[u8; N]>> {
        let at = self.field(table, field)?;
        at.map(|at| self.array(at)).transpose()
    }

    fn byte(&self, table: &Table, field: usize) -> Result<u8> {
        Ok(self.scalar(table, field)?.map_or(0, |[byte]| byte))
    }

    fn i32(&self, table: &Table, field: usize, default: i32) -> Result<i32> {
        Ok(self
            .scalar(table, field)?
            .map_or(default, i32::from_le_bytes))
    }

    /// What stands at the distance that stands here.
    fn follow(&self, at: usize) -> Result<usize> {
        let there = at.checked_add(self.u32(at)?);
        there.ok_or_else(|| self.damaged(at, "a distance beyond the file"))
    }

    /// Bytes of a list of elements of one size; nothing where it is left out.
    fn vector(&self, table: &Table, field: usize, size: usize) -> Result<Range<usize>> {
        let Some(at) = self.field(table, field)? else {
            return Ok(0..0);
        };
        let at = self.follow(at)?;
        let (start, count) = (at.saturating_add(4), self.u32(at)?);
        let end = count.checked_mul(size).and_then(|n| n.checked_add(start));
        match end {
            Some(end) if end <= self.bytes.len() => Ok(start..end),
            _ => Err(self.damaged(at, format!("a list of {count}: is the file cut off?"))),
        }
    }

    fn bounded(&self, list: Range<usize>, size: usize, limit: usize) -> Result<Range<usize>> {
        let count = list.len() / size;
        match count <= limit {
            true => Ok(list),
            false => Err(self.damaged(
                list.start,
                format!("a list of {count}, expected at most {limit}"),
            )),
        }
    }

    fn tables(&self, table: &Table, field: usize, limit: usize) -> Result<Vec<Table>> {
        let list = self.bounded(self.vector(table, field, 4)?, 4, limit)?;
        let tables = list.step_by(4).map(|at| self.table(self.follow(at)?));
        tables.collect()
    }

    fn integers(&self, table: &Table, field: usize, limit: usize) -> Result<Vec<i32>> {
        let list = self.bounded(self.vector(table, field, 4)?, 4, limit)?;
        let integers = list
            .step_by(4)
            .map(|at| Ok(i32::from_le_bytes(self.array(at)?)));
        integers.collect()
    }

    /// Numbers of tensors, of which there are `count`.
    fn operands(&self, table: &Table, field: usize, count: usize) -> Result<Vec<Option<usize>>> {
        let operands = self.integers(table, field, MAX_OPERANDS)?;
        let operand = |number| match usize::try_from(number) {
            Ok(number) if number < count => Ok(Some(number)),
            Err(_) if number == -1 => Ok(None),
            _ => Err(self.damaged(table.at, format!("tensor {number} of {count}"))),
        };
        operands.into_iter().map(operand).collect()
    }

    /// Numbers of operators. Those beyond 127 stand in a newer field.
    fn codes(&self, model: &Table) -> Result<Vec<i32>> {
        let code = |table: &Table| {
            let old = self.byte(table, fields::CODE_OLD)?;
            Ok(i32::from(old).max(self.i32(table, fields::CODE, 0)?))
        };
        let tables = self.tables(model, fields::MODEL_CODES, MAX_OPERATORS)?;
        tables.iter().map(code).collect()
    }

    fn tensor(&self, table: &Table, buffers: Range<usize>) -> Result<Entry> {
        let shape = self.integers(table, fields::TENSOR_SHAPE, MAX_RANK)?;
        let shape = shape.into_iter().map(usize::try_from);
        let shape = shape.collect::<std::result::Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| self.damaged(table.at, "a tensor of a negative size"))?;
        let kind = usize::from(self.byte(table, fields::TENSOR_TYPE)?);
        let buffer = self.scalar(table, fields::TENSOR_BUFFER)?;
        let buffer = buffer.map_or(0, u32::from_le_bytes) as usize;
        let Some(at) = buffers.step_by(4).nth(buffer) else {
            return Err(self.damaged(table.at, format!("buffer {buffer} is not in the file")));
        };
        let buffer = self.table(self.follow(at)?)?;
        let data = self.vector(&buffer, fields::BUFFER_DATA, 1)?;
        let size = TYPES.get(kind).map(|(_, size)| *size);
        let bytes = shape
            .iter()
            .try_fold(size.unwrap_or(0), |n, &dim| n.checked_mul(dim));
        match size.is_none() || data.is_empty() || bytes == Some(data.len()) {
            true => Ok(Entry { shape, kind, data }),
            false => {
                let (found, kind) = (data.len(), TYPES[kind].0);
                Err(self.damaged(table.at, format!("{found} bytes for {kind} {shape:?}")))
            }
        }
    }

    fn operator(&self, table: &Table, codes: &[i32], tensors: usize) -> Result<Operator> {
        let code = self.scalar(table, fields::OPERATOR_CODE)?;
        let code = code.map_or(0, u32::from_le_bytes) as usize;
        let Some(&code) = codes.get(code) else {
            return Err(self.damaged(table.at, format!("operator code {code} of {}", codes.len())));
        };
        let options = match self.field(table, fields::OPERATOR_OPTIONS)? {
            Some(at) => Some(self.table(self.follow(at)?)?),
            None => None,
        };
        let outputs = self.operands(table, fields::OPERATOR_OUTPUTS, tensors)?;
        Ok(Operator {
            operation: self.operation(code, options.as_ref())?,
            inputs: self.operands(table, fields::OPERATOR_INPUTS, tensors)?,
            outputs: outputs.into_iter().flatten().collect(),
        })
    }

    fn operation(&self, code: i32, options: Option<&Table>) -> Result<Operation> {
        let Some(options) = options else {
            return Ok(match code {
                6 => Operation::Dequantize,
                14 => Operation::Logistic,
                22 => Operation::Reshape,
                43 => Operation::Squeeze,
                other => Operation::Other(other),
            });
        };
        Ok(match code {
            0 => Operation::Add(self.fused(options, fields::ADD_FUSED)?),
            2 => Operation::Concatenation {
                axis: self.i32(options, fields::CONCATENATION_AXIS, 0)?,
            },
            3 => Operation::Conv2d(self.window(options, 0)?),
            4 => Operation::DepthwiseConv2d(self.window(options, 1)?),
            6 => Operation::Dequantize,
            14 => Operation::Logistic,
            22 => Operation::Reshape,
            43 => Operation::Squeeze,
            other => Operation::Other(other),
        })
    }

    /// `more`: fields between strides and activation.
    fn window(&self, options: &Table, more: usize) -> Result<Window> {
        let fused = fields::WINDOW_FUSED + more;
        Ok(Window {
            same_padding: self.byte(options, fields::WINDOW_PADDING)? == 0,
            strides: [
                self.i32(options, fields::WINDOW_STRIDE_DOWN, 0)?,
                self.i32(options, fields::WINDOW_STRIDE_ACROSS, 0)?,
            ],
            dilations: [
                self.i32(options, fused + 2, 1)?,
                self.i32(options, fused + 1, 1)?,
            ],
            fused: self.fused(options, fused)?,
        })
    }

    fn fused(&self, options: &Table, field: usize) -> Result<Fused> {
        Ok(match self.byte(options, field)? {
            0 => Fused::None,
            1 => Fused::Relu,
            3 => Fused::Relu6,
            other => Fused::Other(other),
        })
    }
}
