//! The block that MobileNetV2 and EfficientNet are made of.

use super::conv::Conv;
use crate::Result;
use candle_core::Tensor;

/// Inverted residual: expand, filter each channel, project.
#[derive(Debug, Clone)]
pub(super) struct InvertedResidual {
    pub expand: Option<Conv>,
    pub depthwise: Conv,
    pub project: Conv,
    /// Whether its input is added to what comes out.
    pub residual: bool,
}

impl InvertedResidual {
    /// `[n, height, width, inputs]` → `[n, height', width', outputs]`.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let expanded = self.expanded(xs)?;
        self.finish(xs, &expanded)
    }

    /// The first half, which detectors look at.
    pub fn expanded(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.expand {
            Some(expand) => expand.forward(xs),
            None => Ok(xs.clone()),
        }
    }

    /// What follows upon [`Self::expanded`].
    pub fn finish(&self, xs: &Tensor, expanded: &Tensor) -> Result<Tensor> {
        let filtered = self.depthwise.forward(expanded)?;
        match self.residual {
            true => self.project.forward_onto(xs, &filtered),
            false => self.project.forward(&filtered),
        }
    }
}
