//! The reader of TensorFlow Lite models: what it gives, what it refuses, and that no bytes make it panic.

use proptest::prelude::*;
use std::path::Path;
use vita_model::checkpoint::{Fused, Operation, TfLite, Window};
use vita_model::{Error, ErrorKind};

/// A FlatBuffer, written from its root on: what a field names follows later.
#[derive(Default)]
struct Flat(Vec<u8>);

#[derive(Clone, Copy)]
enum Field {
    Absent,
    Byte(u8),
    Int(i32),
    /// Of what is named later by its place.
    Later,
}
use Field::{Absent, Byte, Int, Later};

/// A place that names what is written next.
type Place = usize;

impl Flat {
    fn name(&mut self, place: Place) {
        let distance = (self.0.len() - place) as u32;
        self.0[place..place + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// Gives the places of its [`Later`] fields.
    fn table<const N: usize>(&mut self, place: Place, fields: &[Field]) -> [Place; N] {
        let list = self.0.len();
        let size = 4 + 4 * fields.len();
        self.0.extend((4 + 2 * fields.len() as u16).to_le_bytes());
        self.0.extend((size as u16).to_le_bytes());
        for (i, field) in fields.iter().enumerate() {
            let at = if matches!(field, Absent) {
                0
            } else {
                4 + 4 * i
            };
            self.0.extend((at as u16).to_le_bytes());
        }
        self.name(place);
        let start = self.0.len();
        self.0.extend(((start - list) as i32).to_le_bytes());
        let mut later = Vec::new();
        for field in fields {
            let value = match field {
                Byte(value) => i32::from(*value),
                Int(value) => *value,
                Absent => 0,
                Later => {
                    later.push(self.0.len());
                    0
                }
            };
            self.0.extend(value.to_le_bytes());
        }
        later.try_into().unwrap()
    }

    fn list<const N: usize>(&mut self, place: Place) -> [Place; N] {
        self.name(place);
        self.0.extend((N as u32).to_le_bytes());
        std::array::from_fn(|_| {
            self.0.extend([0; 4]);
            self.0.len() - 4
        })
    }

    fn bytes(&mut self, place: Place, count: usize, bytes: &[u8]) {
        self.name(place);
        self.0.extend((count as u32).to_le_bytes());
        self.0.extend(bytes);
    }

    fn ints(&mut self, place: Place, ints: &[i32]) {
        let bytes: Vec<u8> = ints.iter().flat_map(|i| i.to_le_bytes()).collect();
        self.bytes(place, ints.len(), &bytes);
    }
}

/// A convolution of stride 2 with a kernel `[2, 1, 1, 3]` in f32, and an operator that the reader does not know.
fn model() -> Vec<u8> {
    let mut flat = Flat(b"\0\0\0\0TFL3".to_vec());
    let [codes, graphs, buffers] = flat.table(0, &[Int(3), Later, Later, Absent, Later]);
    let [conv, unknown] = flat.list(codes);
    let [] = flat.table(conv, &[Byte(3)]);
    // beyond 127 the number is in the newer field
    let [] = flat.table(unknown, &[Byte(127), Absent, Absent, Int(150)]);
    let [graph] = flat.list(graphs);
    let [tensors, inputs, outputs, operators] = flat.table(graph, &[Later; 4]);
    let shapes: [(&[i32], i32); 4] = [
        (&[1, 8, 8, 3], 0),
        (&[2, 1, 1, 3], 1),
        (&[1, 4, 4, 2], 0),
        (&[1, 4, 4, 2], 0),
    ];
    let places: [Place; 4] = flat.list(tensors);
    for (place, (shape, buffer)) in places.into_iter().zip(shapes) {
        let [at] = flat.table(place, &[Later, Byte(0), Int(buffer)]);
        flat.ints(at, shape);
    }
    flat.ints(inputs, &[0]);
    flat.ints(outputs, &[3]);
    let [first, second] = flat.list(operators);
    let [ins, outs, options] = flat.table(first, &[Int(0), Later, Later, Byte(1), Later]);
    flat.ints(ins, &[0, 1, -1]);
    flat.ints(outs, &[2]);
    let [] = flat.table(options, &[Byte(1), Int(2), Int(2), Byte(3)]);
    let [ins, outs] = flat.table(second, &[Int(1), Later, Later]);
    flat.ints(ins, &[2]);
    flat.ints(outs, &[3]);
    let [nothing, kernel] = flat.list(buffers);
    let [] = flat.table(nothing, &[]);
    let [data] = flat.table(kernel, &[Later]);
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    flat.bytes(data, values.len(), &values);
    flat.0
}

fn read(bytes: Vec<u8>) -> Result<TfLite, Error> {
    TfLite::from_bytes(Path::new("folder/model.tflite"), bytes)
}

#[test]
fn operators_and_constants_come_as_they_are_in_the_file() {
    let file = read(model()).unwrap();
    let [conv, other] = file.operators() else {
        panic!("{:?}", file.operators());
    };
    let window = Window {
        same_padding: false,
        strides: [2, 2],
        dilations: [1, 1],
        fused: Fused::Relu6,
    };
    assert_eq!(conv.operation, Operation::Conv2d(window));
    assert_eq!(conv.inputs, [Some(0), Some(1), None]);
    assert_eq!(conv.outputs, [2]);
    assert_eq!(other.operation, Operation::Other(150));
    assert_eq!((file.inputs(), file.outputs()), (&[0][..], &[3][..]));
    assert_eq!(file.shape(0), [1, 8, 8, 3]);
    assert_eq!(file.shape(9), [0; 0]);
    let kernel = file.constant(1).unwrap();
    assert_eq!(kernel.dims(), [2, 1, 1, 3]);
    let values = kernel.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn errors_name_file_and_place() {
    let said = |error: Error, kind, word: &str| {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(
            text.contains("folder/model.tflite") && text.contains(word),
            "{text}"
        );
    };
    let file = read(model()).unwrap();
    for tensor in [0, 9] {
        said(
            file.constant(tensor).unwrap_err(),
            ErrorKind::Tensor,
            "constant",
        );
    }
    let refused = |bytes: Vec<u8>, word| said(read(bytes).err().unwrap(), ErrorKind::Format, word);
    let bytes = model();
    refused(b"\0\0\0\0PNG\0".to_vec(), "another file");
    refused(bytes[..bytes.len() - 1].to_vec(), "cut off");
    let mut short = bytes.clone();
    let at = short.len() - 28;
    short[at..at + 4].copy_from_slice(&20u32.to_le_bytes());
    refused(short, "20 bytes for f32 [2, 1, 1, 3]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_bytes_make_the_reader_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = model();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = &cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(file) = read(bytes) {
            for tensor in 0..5 {
                let _ = file.constant(tensor);
            }
        }
    }

    #[test]
    fn no_file_of_any_bytes_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read([&bytes[..4.min(bytes.len())], b"TFL3", &bytes].concat());
    }
}
