use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Rotary positions in the "rotate half" layout, tabulated in f32 as PyTorch computes them.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    /// `[positions, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
    positions: usize,
}

/// Cosines and sines of one step's tokens, `[tokens, head_dim / 2]`.
pub(super) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    pub fn new(
        theta: f64,
        head_dim: usize,
        positions: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let theta = theta as f32;
        let inverse: Vec<f32> = (0..head_dim / 2)
            .map(|i| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32))
            .collect();
        let angles: Vec<f32> = (0..positions)
            .flat_map(|p| inverse.iter().map(move |f| p as f32 * f))
            .collect();
        let table = |values: Vec<f32>| -> Result<Tensor> {
            let table = Tensor::from_vec(values, (positions, head_dim / 2), device)?;
            Ok(table.to_dtype(dtype)?)
        };
        Ok(Self {
            cos: table(angles.iter().map(|a| a.cos()).collect())?,
            sin: table(angles.iter().map(|a| a.sin()).collect())?,
            positions,
        })
    }

    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Angles of tokens at the given runs of positions (first, count).
    pub fn angles(&self, runs: &[(usize, usize)]) -> Result<Angles> {
        let needed = runs
            .iter()
            .map(|(first, count)| first + count)
            .max()
            .unwrap_or(0);
        if needed > self.positions {
            let available = self.positions;
            return Err(Error::TooLong { needed, available });
        }
        let gather = |table: &Tensor| -> Result<Tensor> {
            let parts = runs
                .iter()
                .map(|&(first, count)| table.narrow(0, first, count));
            let parts = parts.collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Tensor::cat(&parts, 0)?)
        };
        Ok(Angles {
            cos: gather(&self.cos)?,
            sin: gather(&self.sin)?,
        })
    }
}

impl Angles {
    /// Rotates `[tokens, heads, head_dim]`.
    pub fn rotate(&self, xs: &Tensor) -> Result<Tensor> {
        if xs.track_op() && xs.device().is_cpu() && xs.dtype() == DType::F32 {
            return crate::nn::rotate(xs, &self.cos, &self.sin);
        }
        if xs.track_op() {
            // the fused operation has no gradient
            let heads_first = xs.transpose(0, 1)?.unsqueeze(0)?.contiguous()?;
            let rotated = candle_nn::rotary_emb::rope_slow(&heads_first, &self.cos, &self.sin)?;
            return Ok(rotated.squeeze(0)?.transpose(0, 1)?);
        }
        let xs = xs.unsqueeze(0)?.contiguous()?;
        Ok(candle_nn::rotary_emb::rope_thd(&xs, &self.cos, &self.sin)?.squeeze(0)?)
    }
}
