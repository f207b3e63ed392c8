//! Connector over a coarse map, a finer one with colours, and what a detector takes for people.
//!
//! The coarse map of a classifier knows what things are and little of their colours, edges and number. Here each place of the
//! finer map knows both, its colours and its neighbourhood; a small head marks where things are and where their middles are, which
//! is learnt from the places of composed things; and the slots read off the places and off these marks. The slot of people reads the
//! detector's numbers alone: of people there are too few pictures to learn more than how far the detector is to be trusted.

use super::slots::coordinates;
use super::{PooledConfig, Start, pooled::pooling};
use crate::nn::{LayerNorm, Linear, Weights};
use crate::vision::{DETAIL_COLOURS, DETAIL_FEATURES, Details, PEOPLE_NUMBERS};
use crate::{Error, Result};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::{sigmoid, softmax};
use std::collections::HashMap;

const NORM_EPS: f64 = 1e-5;

/// Sides of the squares around a place whose means it is told, in places.
const AROUND: [usize; 2] = [3, 7];

/// Marks of a place: part of a thing, middle of a thing.
pub const MARKS: usize = 2;

/// About as many places as a thing covers: sums are divided by it, so that numbers stay near one.
const THING_PLACES: f64 = 12.0;

/// Width of the network that reads the detector's numbers.
const PEOPLE_HIDDEN: usize = 64;

#[derive(Debug, Clone)]
pub struct Detailed {
    norm: LayerNorm,
    coarse: Linear,
    fine_norm: LayerNorm,
    fine: Linear,
    colour: Linear,
    place: Linear,
    around: Linear,
    mark: Linear,
    cell: Linear,
    look: Linear,
    gate: Linear,
    fc1: Linear,
    /// `[slots, hidden]`.
    bias: Tensor,
    fc2: Linear,
    people1: Linear,
    people2: Linear,
    grid: usize,
}

/// What each place knows, and the logits of its marks.
struct Known {
    /// `[n, places, width]`.
    places: Tensor,
    /// `[n, places, MARKS]`.
    marks: Tensor,
    side: (usize, usize),
}

impl Detailed {
    /// Names as below; the last of the slots is that of people.
    pub fn new(config: &PooledConfig, inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        let (width, hidden, slots) = (config.details, config.hidden, config.read());
        let plain = |inputs, outputs, name| Linear::no_bias(inputs, outputs, &w.pp(name));
        let linear = |inputs, outputs, name| Linear::new(inputs, outputs, &w.pp(name));
        Ok(Self {
            norm: LayerNorm::new(inputs, NORM_EPS, &w.pp("norm"))?,
            coarse: plain(inputs, width, "coarse")?,
            fine_norm: LayerNorm::new(DETAIL_FEATURES, NORM_EPS, &w.pp("fine-norm"))?,
            fine: linear(DETAIL_FEATURES, width, "fine")?,
            colour: plain(DETAIL_COLOURS, width, "colour")?,
            place: plain(4, width, "place")?,
            around: linear((1 + AROUND.len()) * width, width, "around")?,
            mark: linear(width, MARKS, "mark")?,
            cell: linear(width, outputs, "cell")?,
            look: linear(width, slots, "look")?,
            gate: linear(width, slots, "gate")?,
            fc1: plain(2 * width + MARKS, hidden, "fc1")?,
            bias: w.get((slots, hidden), "bias")?,
            fc2: linear(hidden, outputs, "fc2")?,
            people1: linear(PEOPLE_NUMBERS, PEOPLE_HIDDEN, "people1")?,
            people2: linear(PEOPLE_HIDDEN, outputs, "people2")?,
            grid: config.grid,
        })
    }

    /// Weights to begin training with: its vectors are zeros, and nothing is marked.
    pub fn initial(
        config: &PooledConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<HashMap<String, Tensor>> {
        use Start::{Ones, Random, Zeros};
        let (width, hidden, slots) = (config.details, config.hidden, config.read());
        let around = (1 + AROUND.len()) * width;
        super::initial(&[
            ("norm.weight", &[inputs], Ones),
            ("norm.bias", &[inputs], Zeros),
            ("coarse.weight", &[width, inputs], Random),
            ("fine-norm.weight", &[DETAIL_FEATURES], Ones),
            ("fine-norm.bias", &[DETAIL_FEATURES], Zeros),
            ("fine.weight", &[width, DETAIL_FEATURES], Random),
            ("fine.bias", &[width], Zeros),
            ("colour.weight", &[width, DETAIL_COLOURS], Random),
            ("place.weight", &[width, 4], Random),
            ("around.weight", &[width, around], Random),
            ("around.bias", &[width], Zeros),
            ("mark.weight", &[MARKS, width], Zeros),
            ("mark.bias", &[MARKS], Zeros),
            ("cell.weight", &[outputs, width], Zeros),
            ("cell.bias", &[outputs], Zeros),
            ("look.weight", &[slots, width], Random),
            ("look.bias", &[slots], Zeros),
            ("gate.weight", &[slots, width], Random),
            ("gate.bias", &[slots], Zeros),
            ("fc1.weight", &[hidden, 2 * width + MARKS], Random),
            ("bias", &[slots, hidden], Random),
            ("fc2.weight", &[outputs, hidden], Zeros),
            ("fc2.bias", &[outputs], Zeros),
            ("people1.weight", &[PEOPLE_HIDDEN, PEOPLE_NUMBERS], Random),
            ("people1.bias", &[PEOPLE_HIDDEN], Zeros),
            ("people2.weight", &[outputs, PEOPLE_HIDDEN], Zeros),
            ("people2.bias", &[outputs], Zeros),
        ])
    }

    /// `[n, rows, columns, inputs]` and details → `[n, grid² + slots, outputs]`, and the logits of the marks
    /// `[n, fine rows·columns, MARKS]`.
    pub fn forward(&self, map: &Tensor, details: &Details) -> Result<(Tensor, Tensor)> {
        let Known {
            places,
            marks,
            side: (rows, columns),
        } = self.known(map, details)?;
        let pool = pooling(rows, columns, self.grid)?.to_dtype(places.dtype())?;
        let pooled = pool.to_device(places.device())?.broadcast_matmul(&places)?;
        let cells = self.cell.forward(&pooled)?;
        let slots = self.slots(&places, &marks)?;
        let numbers = self.people1.forward(&details.people)?.gelu_erf()?;
        let people = self.people2.forward(&numbers)?.unsqueeze(1)?;
        Ok((Tensor::cat(&[cells, slots, people], 1)?, marks))
    }

    fn known(&self, map: &Tensor, details: &Details) -> Result<Known> {
        let (n, coarse_rows, coarse_columns, inputs) = map.dims4()?;
        let (_, rows, columns, channels) = details.fine.dims4()?;
        if channels != DETAIL_FEATURES + DETAIL_COLOURS {
            let reason = format!("a finer map of {channels} channels");
            return Err(Error::Input(reason));
        }
        let map = map.reshape((n, coarse_rows * coarse_columns, inputs))?;
        let coarse = self.coarse.forward(&self.norm.forward(&map)?)?;
        let spread = spread((coarse_rows, coarse_columns), (rows, columns))?;
        let fine = details.fine.reshape((n, rows * columns, channels))?;
        let features = fine.narrow(2, 0, DETAIL_FEATURES)?.contiguous()?;
        let colours = fine.narrow(2, DETAIL_FEATURES, DETAIL_COLOURS)?;
        let fine = (self.fine.forward(&self.fine_norm.forward(&features)?)?
            + self.colour.forward(&colours.contiguous()?)?)?;
        let alike = |constant: Tensor| -> Result<Tensor> {
            Ok(constant.to_dtype(fine.dtype())?.to_device(fine.device())?)
        };
        let own = (&fine + alike(spread)?.broadcast_matmul(&coarse)?)?.gelu_erf()?;
        let mut near = vec![own.clone()];
        for side in AROUND {
            near.push(alike(means_around(rows, columns, side)?)?.broadcast_matmul(&own)?);
        }
        let both = self.around.forward(&Tensor::cat(&near, 2)?)?.gelu_erf()?;
        let place = self.place.forward(&alike(coordinates(rows, columns)?)?)?;
        let places = (both + own)?.broadcast_add(&place)?;
        Ok(Known {
            marks: self.mark.forward(&places)?,
            places,
            side: (rows, columns),
        })
    }

    /// `[n, slots, outputs]` of all slots but that of people.
    fn slots(&self, places: &Tensor, marks: &Tensor) -> Result<Tensor> {
        let by_slot = |logits: Tensor| logits.transpose(1, 2)?.contiguous();
        let look = softmax(&by_slot(self.look.forward(places)?)?, D::Minus1)?;
        let gate = (sigmoid(&by_slot(self.gate.forward(places)?)?)? / THING_PLACES)?;
        let (n, slots, _) = look.dims3()?;
        // parts of things in units of a thing, and their number
        let sums = sigmoid(marks)?.sum(1)?;
        let scale = Tensor::new(&[1.0 / THING_PLACES as f32, 1.0], &Device::Cpu)?;
        let scale = scale.to_dtype(sums.dtype())?.to_device(sums.device())?;
        let sums = sums.broadcast_mul(&scale)?.unsqueeze(1)?;
        let sums = sums.broadcast_as((n, slots, MARKS))?.contiguous()?;
        let read = Tensor::cat(&[look.matmul(places)?, gate.matmul(places)?, sums], 2)?;
        let inner = self.fc1.forward(&read)?.broadcast_add(&self.bias)?;
        self.fc2.forward(&inner.gelu_erf()?)
    }
}

/// `[fine places, coarse places]`: each fine place takes the coarse places around its middle, bilinear.
fn spread(coarse: (usize, usize), fine: (usize, usize)) -> Result<Tensor> {
    let taps = |i: usize, from: usize, to: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let first = at as usize;
        let share = at - first as f32;
        [(first, 1.0 - share), ((first + 1).min(from - 1), share)]
    };
    let mut weights = vec![0f32; fine.0 * fine.1 * coarse.0 * coarse.1];
    for place in 0..fine.0 * fine.1 {
        let down = taps(place / fine.1, coarse.0, fine.0);
        let across = taps(place % fine.1, coarse.1, fine.1);
        for (row, by_row) in down {
            for (column, by_column) in across {
                let at = place * coarse.0 * coarse.1 + row * coarse.1 + column;
                weights[at] += by_row * by_column;
            }
        }
    }
    let shape = (fine.0 * fine.1, coarse.0 * coarse.1);
    Ok(Tensor::from_vec(weights, shape, &Device::Cpu)?)
}

/// `[places, places]`: the mean of the square around each place, as far as it lies in the map.
fn means_around(rows: usize, columns: usize, side: usize) -> Result<Tensor> {
    let reach = side / 2;
    let near = |a: usize, b: usize| a.abs_diff(b) <= reach;
    let places = rows * columns;
    let mut weights = Vec::with_capacity(places * places);
    for place in 0..places {
        let (row, column) = (place / columns, place % columns);
        let inside = (0..places).map(|p| near(p / columns, row) && near(p % columns, column));
        let inside: Vec<bool> = inside.collect();
        let share = 1.0 / inside.iter().filter(|inside| **inside).count() as f32;
        weights.extend(
            inside
                .iter()
                .map(|&inside| if inside { share } else { 0.0 }),
        );
    }
    Ok(Tensor::from_vec(weights, (places, places), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{RandomSource, TensorMap};
    use std::sync::Arc;

    const CONFIG: PooledConfig = PooledConfig {
        grid: 3,
        hidden: 16,
        slots: 4,
        details: 8,
    };

    fn wave(shape: &[usize], seed: f32) -> Tensor {
        let values = (0..shape.iter().product()).map(|i| (i as f32 * seed).sin().abs());
        Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    }

    fn details(seed: f32) -> Details {
        Details {
            fine: wave(&[1, 14, 14, DETAIL_FEATURES + DETAIL_COLOURS], seed),
            people: wave(&[1, PEOPLE_NUMBERS], seed),
        }
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_scalar().unwrap()
    }

    #[test]
    fn the_slot_of_people_reads_the_detector_and_the_others_the_maps() {
        let w = Weights::f32(Arc::new(RandomSource { seed: 5 }));
        let connector = Detailed::new(&CONFIG, 12, 8, &w).unwrap();
        let map = wave(&[1, 7, 7, 12], 0.3);
        let (vectors, marks) = connector.forward(&map, &details(0.7)).unwrap();
        assert_eq!(vectors.dims(), [1, CONFIG.vectors(), 8]);
        assert_eq!(marks.dims(), [1, 196, MARKS]);
        let others = Details {
            people: wave(&[1, PEOPLE_NUMBERS], 0.9),
            ..details(0.7)
        };
        let (with_others, _) = connector.forward(&map, &others).unwrap();
        let part = |all: &Tensor, from, len| all.narrow(1, from, len).unwrap();
        assert_eq!(
            difference(&part(&vectors, 0, 12), &part(&with_others, 0, 12)),
            0.0
        );
        assert!(difference(&part(&vectors, 12, 1), &part(&with_others, 12, 1)) > 1e-4);
        let (elsewhere, _) = connector
            .forward(&map.flip(&[2]).unwrap(), &details(0.7))
            .unwrap();
        assert!(difference(&part(&vectors, 9, 3), &part(&elsewhere, 9, 3)) > 1e-4);
        assert_eq!(
            difference(&part(&vectors, 12, 1), &part(&elsewhere, 12, 1)),
            0.0
        );
        let without = details(0.7).fine.narrow(3, 0, DETAIL_FEATURES).unwrap();
        let without = Details {
            fine: without,
            ..details(0.7)
        };
        assert!(connector.forward(&map, &without).is_err());
    }

    #[test]
    fn an_untrained_connector_says_nothing() {
        let tensors = Detailed::initial(&CONFIG, 12, 8).unwrap();
        let w = Weights::f32(Arc::new(TensorMap(tensors)));
        let connector = Detailed::new(&CONFIG, 12, 8, &w).unwrap();
        let (vectors, marks) = connector
            .forward(&wave(&[1, 7, 7, 12], 0.3), &details(0.7))
            .unwrap();
        assert_eq!(difference(&vectors, &vectors.zeros_like().unwrap()), 0.0);
        assert_eq!(difference(&marks, &marks.zeros_like().unwrap()), 0.0);
    }

    #[test]
    fn constant_maps_stay_constant() {
        for matrix in [
            spread((7, 7), (14, 14)).unwrap(),
            means_around(14, 14, 7).unwrap(),
        ] {
            let sums = matrix.sum(1).unwrap().to_vec1::<f32>().unwrap();
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5));
        }
        // a corner of the finer map is the corner of the coarse one
        let spread = spread((7, 7), (14, 14)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(spread[0][0], 1.0);
    }
}
