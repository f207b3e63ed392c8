//! EfficientNet-Lite0: a small convolutional network without squeeze-and-excitation.

use super::conv::{Conv, Layer};
use super::residual::InvertedResidual;
use crate::Result;
use crate::nn::Weights;
use candle_core::Tensor;

const BATCH_NORM_EPS: f64 = 1e-3;

/// Side of the pictures that it was trained on.
pub const PICTURE_SIDE: usize = 224;

/// Shortest side before the centre crop: the crop keeps 0.875 of it.
pub const RESIZED_SIDE: usize = 256;

/// Channels of the feature map.
pub const FEATURES: usize = 1280;

/// Channels of the finer map, of twice as many places each way, behind the block of this number.
pub const FINE_FEATURES: usize = 112;
const FINE_BLOCK: usize = 10;

/// Pixels are normalised to (x − 127)/128.
pub const MEAN: [f64; 3] = [127.0 / 255.0; 3];
pub const STD: [f64; 3] = [128.0 / 255.0; 3];

/// Red, green and blue from 0 to 1, of pixels that are normalised.
pub(super) fn unnormalised(pixels: &Tensor) -> Result<Tensor> {
    Ok(pixels.affine(STD[0], MEAN[0])?)
}

const STEM: usize = 32;

/// Expansion, kernel, stride, channels, repeats of each stage.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

fn conv(layer: Layer, names: (&str, &str), w: &Weights) -> Result<Conv> {
    Conv::with_norm(layer, names, BATCH_NORM_EPS, w)
}

fn block(
    (inputs, outputs): (usize, usize),
    (expansion, size, stride): (usize, usize, usize),
    w: &Weights,
) -> Result<InvertedResidual> {
    let inner = inputs * expansion;
    let expand = Layer::pointwise(inputs, inner);
    let depthwise = Layer::depthwise(inner, size, stride);
    let project = Layer::pointwise(inner, outputs).linear();
    let expand = match expansion {
        1 => None,
        _ => Some(conv(expand, ("_expand_conv", "_bn0"), w)?),
    };
    Ok(InvertedResidual {
        expand,
        depthwise: conv(depthwise, ("_depthwise_conv", "_bn1"), w)?,
        project: conv(project, ("_project_conv", "_bn2"), w)?,
        residual: stride == 1 && inputs == outputs,
    })
}

#[derive(Debug, Clone)]
pub struct EfficientNetLite0 {
    stem: Conv,
    blocks: Vec<InvertedResidual>,
    head: Conv,
}

impl EfficientNetLite0 {
    /// Names are those of the PyTorch port: `_conv_stem`, `_bn0`, `_blocks`, `_conv_head`, `_bn1`.
    pub fn new(w: &Weights) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for (expansion, size, stride, outputs, repeats) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                let w = w.pp("_blocks").pp(blocks.len());
                blocks.push(block((inputs, outputs), (expansion, size, stride), &w)?);
                inputs = outputs;
            }
        }
        let (stem, head) = (
            Layer::dense(3, STEM, 3, 2),
            Layer::pointwise(inputs, FEATURES),
        );
        Ok(Self {
            stem: conv(stem, ("_conv_stem", "_bn0"), w)?,
            head: conv(head, ("_conv_head", "_bn1"), w)?,
            blocks,
        })
    }

    /// `[n, 3, 224, 224]` → `[n, 7, 7, 1280]`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.maps(pixels)?.0)
    }

    /// `[n, 3, 224, 224]` → `[n, 7, 7, 1280]`, and a finer map `[n, 14, 14, 112]`.
    pub fn maps(&self, pixels: &Tensor) -> Result<(Tensor, Tensor)> {
        let pixels = pixels.permute((0, 2, 3, 1))?.contiguous()?;
        let mut xs = self.stem.forward(&pixels)?;
        let mut fine = xs.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            xs = block.forward(&xs)?;
            if i == FINE_BLOCK {
                fine = xs.clone();
            }
        }
        Ok((self.head.forward(&xs)?, fine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, IndexOp};

    #[test]
    fn a_picture_becomes_a_map_of_seven_by_seven() {
        let source = std::sync::Arc::new(crate::nn::RandomSource { seed: 3 });
        let net = EfficientNetLite0::new(&Weights::f32(source)).unwrap();
        let side = PICTURE_SIDE;
        let pixels = Tensor::randn(0f32, 1.0, (2, 3, side, side), &Device::Cpu).unwrap();
        let both = net.forward(&pixels).unwrap();
        assert_eq!(both.dims(), [2, 7, 7, FEATURES]);
        let (_, fine) = net.maps(&pixels).unwrap();
        assert_eq!(fine.dims(), [2, 14, 14, FINE_FEATURES]);
        let second = net.forward(&pixels.i(1..2).unwrap()).unwrap();
        let difference = (both.i(1..2).unwrap() - second).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-3);
    }
}
