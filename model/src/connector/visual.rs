//! Visual connector (spec 2.6): halve, shuffle pixels into channels, MLP.

use crate::nn::{Linear, Weights};
use crate::{Error, Result};
use candle_core::Tensor;

/// The released code multiplies the features by this before the shuffle. It looks like a mix-up of
/// arguments, but the model was trained with it.
const FEATURE_SCALE: f64 = 0.5;

/// Side of the square of neighbouring cells that become one token.
const SHUFFLE: usize = 2;

/// `[n, rows, columns, c]` → `[n, rows/2 · columns/2, 4c]`; of each 2×2 square the cells follow each
/// other row by row.
pub fn shuffle_pixels(features: &Tensor) -> Result<Tensor> {
    let (n, rows, columns, channels) = features.dims4()?;
    if rows % SHUFFLE != 0 || columns % SHUFFLE != 0 {
        return Err(Error::Input(format!(
            "a feature map of {rows}×{columns} cannot be cut into squares of {SHUFFLE}×{SHUFFLE}"
        )));
    }
    let (down, across) = (rows / SHUFFLE, columns / SHUFFLE);
    Ok(features
        .reshape(&[n, down, SHUFFLE, across, SHUFFLE, channels])?
        .permute([0, 1, 3, 2, 4, 5])?
        .reshape((n, down * across, SHUFFLE * SHUFFLE * channels))?)
}

/// What the vision tower hands to its connector: features `[n, rows, columns, c]`, halved and shuffled.
pub fn visual_tokens(features: &Tensor) -> Result<Tensor> {
    shuffle_pixels(&(features * FEATURE_SCALE)?)
}

/// Linear layers with GELU (erf) between them: `mlp2x_gelu` and its like, or one `linear`.
#[derive(Debug, Clone)]
pub struct MlpProjector {
    layers: Vec<Linear>,
}

impl MlpProjector {
    /// `inputs` → `outputs` → … → `outputs`, named 0, 2, 4, … as in a `Sequential` with activations
    /// between; a single layer has no number.
    pub fn new(depth: usize, inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        if depth == 1 && !w.contains("0.weight") {
            let layers = vec![Linear::new(inputs, outputs, w)?];
            return Ok(Self { layers });
        }
        let layers = (0..depth)
            .map(|i| {
                let inputs = if i == 0 { inputs } else { outputs };
                Linear::new(inputs, outputs, &w.pp(2 * i))
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Depth named by `mm_projector_type`: `linear` or `mlp<N>x_gelu`.
    pub fn depth_of(kind: &str) -> Option<usize> {
        match kind {
            "linear" => Some(1),
            _ => kind
                .strip_prefix("mlp")?
                .strip_suffix("x_gelu")?
                .parse()
                .ok()
                .filter(|depth| (1..=8).contains(depth)),
        }
    }

    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut xs = xs.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                xs = xs.gelu_erf()?;
            }
            xs = layer.forward(&xs)?;
        }
        Ok(xs)
    }
}
