//! Connector for convolutional vision encoders: the feature map, pooled to a small grid, through an MLP, and behind it
//! vectors that each tell one thing of the whole picture.

use super::detailed::Detailed;
use super::{Start, slots::Slots};
use crate::nn::{LayerNorm, Linear, Weights};
use crate::vision::Details;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;

const NORM_EPS: f64 = 1e-5;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PooledConfig {
    /// Side of the grid: its square is the number of vectors that stand for a part of the picture.
    pub grid: usize,
    /// Width between the two linear layers.
    pub hidden: usize,
    /// Vectors behind them, each of which tells one thing of the whole picture; with them, those of the grid
    /// know their places.
    #[serde(default)]
    pub slots: usize,
    /// Width of what is known of each place of a finer map with its colours, see `detailed`; without it there is no such map.
    #[serde(default)]
    pub details: usize,
}

impl PooledConfig {
    /// Vectors of a picture.
    pub fn vectors(&self) -> usize {
        self.grid * self.grid + self.slots
    }

    /// Slots that are read off the picture's places; with details the last reads the detector's numbers.
    pub(super) fn read(&self) -> usize {
        self.slots.saturating_sub(1)
    }
}

/// See [`PooledConfig`].
#[derive(Debug, Clone)]
pub enum PooledConnector {
    Plain(Box<Plain>),
    Detailed(Box<Detailed>),
}

/// Adaptive average pooling → LayerNorm → Linear → GELU → Linear; see `slots` for the vectors behind.
#[derive(Debug, Clone)]
pub struct Plain {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    grid: usize,
    slots: Option<Box<Slots>>,
}

impl PooledConnector {
    /// Names: `norm`, `fc1`, `fc2`, `slots`; with details those of [`Detailed`] in `details`.
    pub fn new(config: &PooledConfig, inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        if config.details > 0 {
            let detailed = Detailed::new(config, inputs, outputs, &w.pp("details"))?;
            return Ok(Self::Detailed(Box::new(detailed)));
        }
        Ok(Self::Plain(Box::new(Plain {
            norm: LayerNorm::new(inputs, NORM_EPS, &w.pp("norm"))?,
            fc1: Linear::new(inputs, config.hidden, &w.pp("fc1"))?,
            fc2: Linear::new(config.hidden, outputs, &w.pp("fc2"))?,
            grid: config.grid,
            slots: match config.slots {
                0 => None,
                slots => {
                    let slots = Slots::new(slots, config.hidden, outputs, &w.pp("slots"))?;
                    Some(Box::new(slots))
                }
            },
        })))
    }

    /// Whether it takes [`Details`].
    pub fn is_detailed(&self) -> bool {
        matches!(self, Self::Detailed(_))
    }

    /// Weights to begin training with: its vectors are zeros.
    pub fn initial(
        config: &PooledConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<HashMap<String, Tensor>> {
        if config.details > 0 {
            let detailed = Detailed::initial(config, inputs, outputs)?;
            let named = detailed
                .into_iter()
                .map(|(n, t)| (format!("details.{n}"), t));
            return Ok(named.collect());
        }
        let hidden = config.hidden;
        let mut tensors = super::initial(&[
            ("norm.weight", &[inputs], Start::Ones),
            ("norm.bias", &[inputs], Start::Zeros),
            ("fc1.weight", &[hidden, inputs], Start::Random),
            ("fc1.bias", &[hidden], Start::Zeros),
            ("fc2.weight", &[outputs, hidden], Start::Zeros),
            ("fc2.bias", &[outputs], Start::Zeros),
        ])?;
        if config.slots > 0 {
            let slots = Slots::initial(config.slots, hidden, outputs)?;
            let named = |(name, tensor)| (format!("slots.{name}"), tensor);
            tensors.extend(slots.into_iter().map(named));
        }
        Ok(tensors)
    }

    /// `[n, rows, columns, inputs]` → `[n, grid² + slots, outputs]`.
    ///
    /// # Errors
    /// Where it takes details and there are none.
    pub fn forward(&self, features: &Tensor, details: Option<&Details>) -> Result<Tensor> {
        match (self, details) {
            (Self::Plain(plain), _) => plain.forward(features),
            (Self::Detailed(detailed), Some(details)) => Ok(detailed.forward(features, details)?.0),
            (Self::Detailed(_), None) => Err(Error::Input(
                "the picture was looked at without the details that its connector takes".into(),
            )),
        }
    }
}

impl Plain {
    fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (n, rows, columns, channels) = features.dims4()?;
        let pool = pooling(rows, columns, self.grid)?.to_dtype(features.dtype())?;
        let cells = features.reshape((n, rows * columns, channels))?;
        let pooled = pool
            .to_device(features.device())?
            .broadcast_matmul(&cells)?;
        let inner = self.inner(&pooled)?;
        let Some(slots) = &self.slots else {
            return self.fc2.forward(&inner);
        };
        let inner = slots.placed(&inner, self.grid, self.grid)?;
        let whole = slots.placed(&self.inner(&cells)?, rows, columns)?;
        Ok(Tensor::cat(
            &[self.fc2.forward(&inner)?, slots.forward(&whole)?],
            1,
        )?)
    }

    /// `[n, places, inputs]` → `[n, places, hidden]`.
    fn inner(&self, places: &Tensor) -> Result<Tensor> {
        Ok(self.fc1.forward(&self.norm.forward(places)?)?.gelu_erf()?)
    }
}

/// `[grid², rows·columns]`: the weights of each cell in each mean. Cell i spans
/// ⌊i·size/grid⌋..⌈(i+1)·size/grid⌉, as in PyTorch.
pub(super) fn pooling(rows: usize, columns: usize, grid: usize) -> Result<Tensor> {
    let span = |i: usize, size: usize| (i * size / grid)..((i + 1) * size).div_ceil(grid);
    let mut weights = Vec::with_capacity(grid * grid * rows * columns);
    for cell in 0..grid * grid {
        let (down, across) = (span(cell / grid, rows), span(cell % grid, columns));
        let share = 1.0 / (down.len() * across.len()) as f32;
        for place in 0..rows * columns {
            let inside = down.contains(&(place / columns)) && across.contains(&(place % columns));
            weights.push(if inside { share } else { 0.0 });
        }
    }
    let shape = (grid * grid, rows * columns);
    Ok(Tensor::from_vec(weights, shape, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{RandomSource, TensorMap};

    #[test]
    fn every_mean_has_the_whole_weight_and_no_cell_is_left_out() {
        let pool = pooling(7, 7, 4).unwrap();
        let sums = pool.sum(1).unwrap().to_vec1::<f32>().unwrap();
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-6));
        let seen = pool.sum(0).unwrap().to_vec1::<f32>().unwrap();
        assert!(seen.iter().all(|s| *s > 0.0));
        // the first of four spans over seven is 0..2
        let first = pool.get(0).unwrap().to_vec1::<f32>().unwrap();
        let places: Vec<_> = (0..49).filter(|&i| first[i] > 0.0).collect();
        assert_eq!(places, [0, 1, 7, 8]);
    }

    fn connector(slots: usize, seed: u64) -> PooledConnector {
        let config = PooledConfig {
            grid: 3,
            hidden: 16,
            slots,
            details: 0,
        };
        let w = Weights::f32(std::sync::Arc::new(RandomSource { seed }));
        PooledConnector::new(&config, 12, 8, &w).unwrap()
    }

    fn map(seed: f32) -> Tensor {
        let values = (0..7 * 7 * 12).map(|i| (i as f32 * seed).sin()).collect();
        Tensor::from_vec(values, (1, 7, 7, 12), &Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_scalar().unwrap()
    }

    #[test]
    fn slots_stand_behind_the_grid_and_see_where_things_are() {
        assert_eq!(
            connector(0, 5).forward(&map(0.3), None).unwrap().dims(),
            [1, 9, 8]
        );
        let connector = connector(4, 5);
        let straight = connector.forward(&map(0.3), None).unwrap();
        assert_eq!(straight.dims(), [1, 13, 8]);
        let mirrored = map(0.3).flip(&[2]).unwrap();
        let mirrored = connector.forward(&mirrored, None).unwrap();
        let slots = |all: &Tensor| all.narrow(1, 9, 4).unwrap();
        assert!(difference(&slots(&straight), &slots(&mirrored)) > 1e-4);
    }

    #[test]
    fn an_untrained_connector_says_nothing() {
        let config = PooledConfig {
            grid: 3,
            hidden: 16,
            slots: 4,
            details: 0,
        };
        let tensors = PooledConnector::initial(&config, 12, 8).unwrap();
        let w = Weights::f32(std::sync::Arc::new(TensorMap(tensors)));
        let connector = PooledConnector::new(&config, 12, 8, &w).unwrap();
        let vectors = connector.forward(&map(0.7), None).unwrap();
        assert_eq!(vectors.dims(), [1, config.vectors(), 8]);
        assert_eq!(difference(&vectors, &vectors.zeros_like().unwrap()), 0.0);
    }
}
