//! Connector for convolutional vision encoders: the feature map, pooled to a small grid, through an MLP.

use super::Start;
use crate::Result;
use crate::nn::{LayerNorm, Linear, Weights};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;

const NORM_EPS: f64 = 1e-5;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PooledConfig {
    /// Side of the grid: its square is the number of vectors per picture.
    pub grid: usize,
    /// Width between the two linear layers.
    pub hidden: usize,
}

/// Adaptive average pooling → LayerNorm → Linear → GELU → Linear.
#[derive(Debug, Clone)]
pub struct PooledConnector {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    grid: usize,
}

impl PooledConnector {
    /// Names: `norm`, `fc1`, `fc2`.
    pub fn new(config: &PooledConfig, inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::new(inputs, NORM_EPS, &w.pp("norm"))?,
            fc1: Linear::new(inputs, config.hidden, &w.pp("fc1"))?,
            fc2: Linear::new(config.hidden, outputs, &w.pp("fc2"))?,
            grid: config.grid,
        })
    }

    /// Weights to begin training with: its vectors are zeros.
    pub fn initial(
        config: &PooledConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<HashMap<String, Tensor>> {
        let hidden = config.hidden;
        super::initial(&[
            ("norm.weight", &[inputs], Start::Ones),
            ("norm.bias", &[inputs], Start::Zeros),
            ("fc1.weight", &[hidden, inputs], Start::Random),
            ("fc1.bias", &[hidden], Start::Zeros),
            ("fc2.weight", &[outputs, hidden], Start::Zeros),
            ("fc2.bias", &[outputs], Start::Zeros),
        ])
    }

    /// `[n, rows, columns, inputs]` → `[n, grid², outputs]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (n, rows, columns, channels) = features.dims4()?;
        let pool = pooling(rows, columns, self.grid)?.to_dtype(features.dtype())?;
        let cells = features.reshape((n, rows * columns, channels))?;
        let pooled = pool
            .to_device(features.device())?
            .broadcast_matmul(&cells)?;
        let inner = self.fc1.forward(&self.norm.forward(&pooled)?)?.gelu_erf()?;
        self.fc2.forward(&inner)
    }
}

/// `[grid², rows·columns]`: the weights of each cell in each mean. Cell i spans
/// ⌊i·size/grid⌋..⌈(i+1)·size/grid⌉, as in PyTorch.
fn pooling(rows: usize, columns: usize, grid: usize) -> Result<Tensor> {
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
}
