//! The detector's tensors under the names that this crate reads them by.
//!
//! The graph is followed from its input to its outputs, and every convolution on the way has to be the one that the network
//! has there: names in the file mean nothing.

use crate::checkpoint::{Fused, Operation, Operator, TfLite, Window};
use crate::vision::conv::Layer;
use crate::vision::detector::network::{self, EXTRAS, FIRST_MAP_BLOCK, HEAD, MAPS, STEM};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// Reads an SSD-MobileNetV2 with so many classes, that of nothing included.
pub fn read(path: &Path, classes: usize) -> Result<HashMap<String, Tensor>> {
    let file = TfLite::open(path)?;
    let mut graph = Graph {
        file: &file,
        tensors: HashMap::new(),
    };
    let side = network::PICTURE_SIDE;
    let [input] = file.inputs() else {
        return Err(graph.wrong("input", "expected one", file.inputs()));
    };
    graph.expect_shape("input", *input, &[1, side, side, 3])?;
    let maps = graph.maps(*input)?;
    let (mut boxes, mut kinds) = (Vec::new(), Vec::new());
    for (i, &map) in maps.iter().enumerate() {
        let (of_boxes, of_classes) = network::predictors(i, classes);
        boxes.push(graph.conv(map, &format!("predictors.{i}.boxes"), of_boxes)?);
        kinds.push(graph.conv(map, &format!("predictors.{i}.classes"), of_classes)?);
    }
    let anchors = MAPS.iter().map(|(_, side, boxes)| side * side * boxes);
    let anchors = anchors.sum();
    let outputs = [
        ("boxes", graph.joined("boxes", &boxes)?, 4),
        ("classes", graph.joined("classes", &kinds)?, classes),
    ];
    for ((name, found, width), &output) in outputs.iter().zip(file.outputs()) {
        graph.expect_shape(name, *found, &[1, anchors, *width])?;
        if *found != output {
            return Err(graph.wrong(name, "expected the graph's output", output));
        }
    }
    match file.outputs().len() {
        2 => Ok(graph.tensors),
        found => Err(graph.wrong("outputs", "expected two", found)),
    }
}

struct Graph<'a> {
    file: &'a TfLite,
    tensors: HashMap<String, Tensor>,
}

impl<'a> Graph<'a> {
    fn wrong(&self, name: &str, expected: &str, found: impl std::fmt::Debug) -> Error {
        let reason = format!("{name}: {expected}, found {found:?}");
        Error::format(self.file.path(), reason)
    }

    fn expect_shape(&self, name: &str, tensor: usize, expected: &[usize]) -> Result<()> {
        let found = self.file.shape(tensor);
        match found == expected {
            true => Ok(()),
            false => Err(self.wrong(name, &format!("expected shape {expected:?}"), found)),
        }
    }

    /// Maps that are looked at for objects.
    fn maps(&mut self, input: usize) -> Result<Vec<usize>> {
        let mut maps = Vec::new();
        let mut xs = self.conv(input, "stem", STEM)?;
        for (i, block) in network::blocks().into_iter().enumerate() {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let before = xs;
            if let Some(layer) = block.expand {
                xs = self.conv(xs, &name("expand"), layer)?;
            }
            if i == FIRST_MAP_BLOCK {
                maps.push(xs);
            }
            xs = self.conv(xs, &name("depthwise"), block.depthwise)?;
            xs = self.conv(xs, &name("project"), block.project)?;
            if block.residual() {
                xs = self.sum(&name("sum"), before, xs)?;
            }
        }
        xs = self.conv(xs, "head", HEAD)?;
        maps.push(xs);
        for (i, (reduce, filter)) in EXTRAS.into_iter().enumerate() {
            xs = self.conv(xs, &format!("extras.{i}.reduce"), reduce)?;
            xs = self.conv(xs, &format!("extras.{i}.filter"), filter)?;
            maps.push(xs);
        }
        for (map, (channels, side, _)) in maps.iter().zip(MAPS) {
            self.expect_shape("a map", *map, &[1, side, side, channels])?;
        }
        Ok(maps)
    }

    /// Takes the weights of the convolution over `input` that is as described, and gives its output.
    fn conv(&mut self, input: usize, name: &str, layer: Layer) -> Result<usize> {
        let (outputs, inputs, size, _) = layer.shape();
        // channels innermost; a depthwise kernel has its only input outermost
        let shape = match layer.depthwise {
            true => [1, size, size, outputs],
            false => [outputs, size, size, inputs],
        };
        let file = self.file;
        let fits = |operator: &&Operator| {
            let window = match (operator.operation, layer.depthwise) {
                (Operation::Conv2d(window), false) => window,
                (Operation::DepthwiseConv2d(window), true) => window,
                _ => return false,
            };
            let [Some(xs), Some(weight), Some(_)] = operator.inputs[..] else {
                return false;
            };
            xs == input && window == expected(&layer) && file.shape(weight) == shape
        };
        let operator = self.only(name, &format!("expected one {layer:?}"), fits)?;
        let [_, Some(weight), Some(bias)] = operator.inputs[..] else {
            return Err(self.wrong(name, "expected weight and bias", &operator.inputs));
        };
        let weight = self.constant(name, weight)?;
        let weight = match layer.depthwise {
            true => weight.permute((3, 0, 1, 2))?,
            false => weight.permute((0, 3, 1, 2))?,
        };
        self.put(format!("{name}.weight"), &weight.contiguous()?)?;
        self.expect_shape(name, bias, &[outputs])?;
        let bias = self.constant(name, bias)?.to_dtype(DType::F32)?;
        self.put(format!("{name}.bias"), &bias)?;
        self.output(name, operator)
    }

    fn sum(&self, name: &str, a: usize, b: usize) -> Result<usize> {
        let fits = |operator: &&Operator| {
            let both = [[Some(a), Some(b)], [Some(b), Some(a)]];
            operator.operation == Operation::Add(Fused::None)
                && both.iter().any(|both| operator.inputs == both)
        };
        let operator = self.only(name, "expected one", fits)?;
        self.output(name, operator)
    }

    /// The list that predictions of all maps end in, whose order is that of the maps.
    fn joined(&self, name: &str, predictions: &[usize]) -> Result<usize> {
        let reshaped = predictions.iter().map(|&of| self.reshaped(name, of));
        let reshaped = reshaped
            .map(|of| of.map(Some))
            .collect::<Result<Vec<_>>>()?;
        let fits = |operator: &&Operator| {
            operator.operation == Operation::Concatenation { axis: 1 }
                && operator.inputs == reshaped
        };
        let operator = self.only(name, "expected one list of all maps", fits)?;
        let joined = self.output(name, operator)?;
        match self.file.outputs().contains(&joined) {
            true => Ok(joined),
            false => self.reshaped(name, joined),
        }
    }

    fn reshaped(&self, name: &str, of: usize) -> Result<usize> {
        let fits = |operator: &&Operator| {
            operator.operation == Operation::Reshape && operator.inputs.first() == Some(&Some(of))
        };
        self.output(name, self.only(name, "expected one reshaped list", fits)?)
    }

    fn only(
        &self,
        name: &str,
        expected: &str,
        fits: impl Fn(&&Operator) -> bool,
    ) -> Result<&'a Operator> {
        let fitting: Vec<&Operator> = self.file.operators().iter().filter(fits).collect();
        match fitting[..] {
            [only] => Ok(only),
            _ => Err(self.wrong(name, expected, fitting.len())),
        }
    }

    fn output(&self, name: &str, operator: &Operator) -> Result<usize> {
        match operator.outputs[..] {
            [output] => Ok(output),
            _ => Err(self.wrong(name, "expected one output", &operator.outputs)),
        }
    }

    /// A constant, or what an operator makes of one that is stored in 16 bits.
    fn constant(&self, name: &str, tensor: usize) -> Result<Tensor> {
        let made = self.file.operators().iter().find(|operator| {
            operator.operation == Operation::Dequantize && operator.outputs == [tensor]
        });
        match made.map(|operator| &operator.inputs[..]) {
            None => self.file.constant(tensor),
            Some([Some(stored)]) => self.file.constant(*stored),
            Some(inputs) => Err(self.wrong(name, "expected one stored constant", inputs)),
        }
    }

    fn put(&mut self, name: String, tensor: &Tensor) -> Result<()> {
        let tensor = super::half(&name, tensor)?;
        self.tensors.insert(name, tensor);
        Ok(())
    }
}

fn expected(layer: &Layer) -> Window {
    let stride = layer.stride as i32;
    Window {
        same_padding: true,
        strides: [stride; 2],
        dilations: [1; 2],
        fused: match layer.relu6 {
            true => Fused::Relu6,
            false => Fused::None,
        },
    }
}
