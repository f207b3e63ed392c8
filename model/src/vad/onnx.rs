//! The initialisers (weights) of an ONNX file, and nothing else of it: a reader of the few protobuf fields that hold
//! them.
//!
//! Field numbers are those of `onnx.proto`: `ModelProto.graph` 7, `GraphProto.initializer` 5, `TensorProto` below. The
//! bytes are not trusted: every length is checked, so any input ends in tensors or in an [`OnnxError`].

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use thiserror::Error;

const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_DIMS: u64 = 1;
const TENSOR_DATA_TYPE: u64 = 2;
const TENSOR_SEGMENT: u64 = 3;
const TENSOR_FLOAT_DATA: u64 = 4;
const TENSOR_NAME: u64 = 8;
const TENSOR_RAW_DATA: u64 = 9;
const TENSOR_EXTERNAL_DATA: u64 = 13;

/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;

/// Why an ONNX file could not be read. Offsets are bytes from the start of the file.
#[derive(Debug, Error)]
pub enum OnnxError {
    #[error("onnx file is damaged at byte {offset}: {what}")]
    Malformed { offset: usize, what: &'static str },
    #[error("onnx file holds no graph; is it an onnx model?")]
    NoGraph,
    #[error("initialiser '{name}' of the onnx file {what}")]
    Initialiser { name: String, what: String },
}

/// All float32 initialisers of the ONNX model in `bytes`, by name.
///
/// # Errors
/// Where `bytes` is not a whole protobuf message of the ONNX layout, or where an initialiser is of another type than
/// float32, is stored outside of the file, or has not the number of values that its shape says.
pub fn initialisers(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, OnnxError> {
    let mut tensors = BTreeMap::new();
    let mut has_graph = false;
    let mut model = Message::new(bytes, 0);
    while let Some((field, value)) = model.next()? {
        if field != MODEL_GRAPH {
            continue;
        }
        has_graph = true;
        let mut graph = value.message()?;
        while let Some((field, value)) = graph.next()? {
            if field != GRAPH_INITIALIZER {
                continue;
            }
            let offset = value.offset;
            let (name, tensor) = tensor(value.message()?)?;
            if tensors.insert(name, tensor).is_some() {
                return Err(malformed(
                    offset,
                    "an initialiser of the same name came before",
                ));
            }
        }
    }
    if has_graph {
        Ok(tensors)
    } else {
        Err(OnnxError::NoGraph)
    }
}

fn tensor(mut fields: Message<'_>) -> Result<(String, Tensor), OnnxError> {
    let mut name = String::new();
    let mut shape = Vec::new();
    let mut data_type = 0;
    let mut values = Vec::new();
    let mut elsewhere = false;
    while let Some((field, value)) = fields.next()? {
        match field {
            TENSOR_DIMS => value.varints(&mut shape)?,
            TENSOR_DATA_TYPE => data_type = value.varint()?,
            TENSOR_FLOAT_DATA | TENSOR_RAW_DATA => value.floats(&mut values)?,
            TENSOR_NAME => name = value.string()?,
            TENSOR_SEGMENT | TENSOR_EXTERNAL_DATA => elsewhere = true,
            _ => (),
        }
    }
    let refuse = |what: String| OnnxError::Initialiser {
        name: name.clone(),
        what,
    };
    if data_type != FLOAT {
        return Err(refuse(format!(
            "has data type {data_type}, expected float32 (1)"
        )));
    }
    if elsewhere {
        return Err(refuse(
            "is stored in pieces or outside of the file; save the model in one file".into(),
        ));
    }
    let shape: Option<Vec<usize>> = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let count = shape.as_ref().and_then(|shape| {
        shape
            .iter()
            .try_fold(1_usize, |count, &dim| count.checked_mul(dim))
    });
    match (shape, count) {
        (Some(shape), Some(count)) if count == values.len() => {
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu)
                .map_err(|error| refuse(error.to_string()))?;
            Ok((name, tensor))
        }
        (shape, _) => Err(refuse(format!(
            "holds {} values, which its shape {shape:?} does not",
            values.len()
        ))),
    }
}

fn malformed(offset: usize, what: &'static str) -> OnnxError {
    OnnxError::Malformed { offset, what }
}

/// A protobuf message that is read field by field.
struct Message<'a> {
    rest: &'a [u8],
    /// Of `rest`, in the file.
    offset: usize,
}

/// What a field holds, by its wire type.
enum Wire<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

struct Value<'a> {
    wire: Wire<'a>,
    /// Of the value, in the file.
    offset: usize,
}

impl<'a> Message<'a> {
    fn new(rest: &'a [u8], offset: usize) -> Self {
        Self { rest, offset }
    }

    /// The next field's number and value; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, OnnxError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at = self.offset;
        let tag = self.varint()?;
        if tag >> 3 == 0 {
            return Err(malformed(at, "a field has number 0"));
        }
        let mut offset = self.offset;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Wire::Fixed64
            }
            2 => {
                let length = self.varint()?;
                offset = self.offset;
                let length = usize::try_from(length)
                    .map_err(|_| malformed(offset, "a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Wire::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            _ => return Err(malformed(at, "a field has an unknown wire type")),
        };
        Ok(Some((tag >> 3, Value { wire, offset })))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OnnxError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(malformed(
                self.offset,
                "a field is longer than what holds it",
            ));
        };
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }

    /// Base 128, least significant first, at most 64 bits.
    fn varint(&mut self) -> Result<u64, OnnxError> {
        let at = self.offset;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(at, "a number has more than 64 bits"))
    }
}

impl<'a> Value<'a> {
    fn bytes(&self, what: &'static str) -> Result<&'a [u8], OnnxError> {
        match self.wire {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed(self.offset, what)),
        }
    }

    fn message(&self) -> Result<Message<'a>, OnnxError> {
        Ok(Message::new(self.bytes("expected a message")?, self.offset))
    }

    fn string(&self) -> Result<String, OnnxError> {
        let bytes = self.bytes("expected text")?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| malformed(self.offset, "text is not utf-8"))?;
        Ok(text.to_owned())
    }

    fn varint(&self) -> Result<u64, OnnxError> {
        match self.wire {
            Wire::Varint(value) => Ok(value),
            _ => Err(malformed(self.offset, "expected a number")),
        }
    }

    /// Appends one number, or a packed list of them.
    fn varints(&self, into: &mut Vec<u64>) -> Result<(), OnnxError> {
        let Wire::Bytes(bytes) = self.wire else {
            into.push(self.varint()?);
            return Ok(());
        };
        let mut packed = Message::new(bytes, self.offset);
        while !packed.rest.is_empty() {
            into.push(packed.varint()?);
        }
        Ok(())
    }

    /// Appends one little-endian float32, or a packed list of them.
    fn floats(&self, into: &mut Vec<f32>) -> Result<(), OnnxError> {
        if let Wire::Fixed32(bytes) = self.wire {
            into.push(f32::from_le_bytes(bytes));
            return Ok(());
        }
        let (values, rest) = self.bytes("expected float32 values")?.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(malformed(
                self.offset,
                "float32 values take no multiple of 4 bytes",
            ));
        }
        into.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    }

    /// A model of one initialiser, `w` of shape `[2, 1]`.
    fn model(tensor_fields: &[u8]) -> Vec<u8> {
        let mut tensor = field(8, b"w");
        tensor.extend_from_slice(tensor_fields);
        [
            field(2, b"producer"),
            field(7, &[field(2, b"graph"), field(5, &tensor)].concat()),
        ]
        .concat()
    }

    fn message(bytes: &[u8]) -> String {
        initialisers(bytes).expect_err("refused").to_string()
    }

    #[test]
    fn reads_raw_and_listed_values_with_packed_and_single_dims() {
        let values = [1.5_f32, -2.0];
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let single_dims = [8, 2, 8, 1, 16, 1];
        let packed_dims = [field(1, &[2, 1]), vec![16, 1]].concat();
        let one_by_one: Vec<u8> = values
            .iter()
            .flat_map(|value| [vec![4 << 3 | 5], value.to_le_bytes().to_vec()].concat())
            .collect();
        for (head, data) in [
            (&single_dims[..], field(9, &raw)),
            (&packed_dims[..], field(4, &raw)),
            (&single_dims[..], one_by_one),
        ] {
            let tensors = initialisers(&model(&[head, &data[..]].concat())).expect("a good model");
            assert_eq!(tensors["w"].dims(), [2, 1]);
            assert_eq!(
                tensors["w"]
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap(),
                values
            );
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        assert_eq!(
            message(b""),
            "onnx file holds no graph; is it an onnx model?"
        );
        assert_eq!(
            message(&[0x3a, 5, 0]),
            "onnx file is damaged at byte 2: a field is longer than what holds it"
        );
        assert_eq!(
            message(&[0x3b]),
            "onnx file is damaged at byte 0: a field has an unknown wire type"
        );
        assert_eq!(
            message(&[0xff; 12]),
            "onnx file is damaged at byte 0: a number has more than 64 bits"
        );
        assert_eq!(
            message(&model(&[16, 7])),
            "initialiser 'w' of the onnx file has data type 7, expected float32 (1)"
        );
        let short = [&[8, 2, 8, 1, 16, 1][..], &field(9, &[0; 4])].concat();
        assert_eq!(
            message(&model(&short)),
            "initialiser 'w' of the onnx file holds 1 values, which its shape Some([2, 1]) does not"
        );
        let huge = [
            field(
                1,
                &[0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
            ),
            vec![16, 1],
        ]
        .concat();
        assert!(message(&model(&huge)).contains("holds 0 values"));
        let twice = field(
            7,
            &[
                field(5, &[field(8, b"w"), vec![16, 1, 8, 0]].concat()),
                field(5, &[field(8, b"w"), vec![16, 1, 8, 0]].concat()),
            ]
            .concat(),
        );
        assert!(message(&twice).ends_with("an initialiser of the same name came before"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_tensors_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = initialisers(&bytes);
            let _ = initialisers(&field(7, &bytes));
            let _ = initialisers(&field(7, &field(5, &bytes)));
        }
    }
}
