//! Vectors that each tell one thing of a whole picture, such as its main thing, a colour, a side or a number.
//!
//! A number cannot be read off any one cell of a grid, and a language model that has to compare sixteen cells to find a
//! side needs far more training than these few hundred thousand weights.

use super::Start;
use crate::Result;
use crate::nn::{Linear, Weights};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::{sigmoid, softmax};
use std::collections::HashMap;

/// What is known of a place: across, down, and their squares.
const COORDINATES: usize = 4;

/// For each slot: where to look (a softmax over the places) and how much of something there is (a gate at each
/// place); both means go through one MLP with a bias for each slot.
#[derive(Debug, Clone)]
pub struct Slots {
    place: Linear,
    look: Linear,
    gate: Linear,
    fc1: Linear,
    /// `[slots, hidden]`.
    bias: Tensor,
    fc2: Linear,
}

impl Slots {
    /// Names: `place`, `look`, `gate`, `fc1`, `bias`, `fc2`.
    pub fn new(slots: usize, hidden: usize, outputs: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            place: Linear::no_bias(COORDINATES, hidden, &w.pp("place"))?,
            look: Linear::new(hidden, slots, &w.pp("look"))?,
            gate: Linear::new(hidden, slots, &w.pp("gate"))?,
            fc1: Linear::no_bias(2 * hidden, hidden, &w.pp("fc1"))?,
            bias: w.get((slots, hidden), "bias")?,
            fc2: Linear::new(hidden, outputs, &w.pp("fc2"))?,
        })
    }

    /// Weights to begin training with: its vectors are zeros.
    pub fn initial(slots: usize, hidden: usize, outputs: usize) -> Result<HashMap<String, Tensor>> {
        super::initial(&[
            ("place.weight", &[hidden, COORDINATES], Start::Random),
            ("look.weight", &[slots, hidden], Start::Random),
            ("look.bias", &[slots], Start::Zeros),
            ("gate.weight", &[slots, hidden], Start::Random),
            ("gate.bias", &[slots], Start::Zeros),
            ("fc1.weight", &[hidden, 2 * hidden], Start::Random),
            ("bias", &[slots, hidden], Start::Random),
            ("fc2.weight", &[outputs, hidden], Start::Zeros),
            ("fc2.bias", &[outputs], Start::Zeros),
        ])
    }

    /// Adds what each of `[n, rows·columns, hidden]` has to know about its place.
    pub fn placed(&self, places: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
        let coordinates = coordinates(rows, columns)?
            .to_dtype(places.dtype())?
            .to_device(places.device())?;
        Ok(places.broadcast_add(&self.place.forward(&coordinates)?)?)
    }

    /// `[n, places, hidden]` → `[n, slots, outputs]`.
    pub fn forward(&self, places: &Tensor) -> Result<Tensor> {
        let count = places.dim(1)? as f64;
        let by_slot = |logits: Tensor| logits.transpose(1, 2)?.contiguous();
        let look = softmax(&by_slot(self.look.forward(places)?)?, D::Minus1)?;
        let gate = (sigmoid(&by_slot(self.gate.forward(places)?)?)? / count)?;
        let read = Tensor::cat(&[look.matmul(places)?, gate.matmul(places)?], 2)?;
        let inner = self.fc1.forward(&read)?.broadcast_add(&self.bias)?;
        self.fc2.forward(&inner.gelu_erf()?)
    }
}

/// `[rows·columns, 4]`: the middle of each place, from −1 to 1.
pub(super) fn coordinates(rows: usize, columns: usize) -> Result<Tensor> {
    let middle = |i: usize, size: usize| (2 * i + 1) as f32 / size as f32 - 1.0;
    let places = (0..rows * columns).flat_map(|i| {
        let (across, down) = (middle(i % columns, columns), middle(i / columns, rows));
        [across, down, across * across, down * down]
    });
    let values = places.collect::<Vec<_>>();
    Ok(Tensor::from_vec(
        values,
        (rows * columns, COORDINATES),
        &Device::Cpu,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_symmetrical_and_inside() {
        let all = coordinates(3, 7).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(all.len(), 21);
        for (i, place) in all.iter().enumerate() {
            let opposite = &all[20 - i];
            assert!((place[0] + opposite[0]).abs() < 1e-6 && (place[1] + opposite[1]).abs() < 1e-6);
            assert!(place.iter().all(|x| x.abs() < 1.0));
        }
        assert!(all[0][0] < all[1][0] && all[0][1] < all[7][1]);
    }
}
