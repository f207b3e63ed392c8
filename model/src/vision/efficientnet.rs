//! EfficientNet-Lite0: a small convolutional network without squeeze-and-excitation.

use crate::Result;
use crate::nn::Weights;
use candle_core::{CpuStorage, Layout, Shape, Tensor};

const BATCH_NORM_EPS: f64 = 1e-3;

/// Side of the pictures that it was trained on.
pub const PICTURE_SIDE: usize = 224;

/// Shortest side before the centre crop: the crop keeps 0.875 of it.
pub const RESIZED_SIDE: usize = 256;

/// Channels of the feature map.
pub const FEATURES: usize = 1280;

/// Pixels are normalised to (x − 127)/128.
pub const MEAN: [f64; 3] = [127.0 / 255.0; 3];
pub const STD: [f64; 3] = [128.0 / 255.0; 3];

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

/// A convolution with its batch norm folded in.
#[derive(Debug, Clone)]
struct Conv {
    kernel: Tensor,
    bias: Tensor,
    size: usize,
    stride: usize,
    depthwise: bool,
}

/// `[outputs, inputs per group, side, side]`.
type KernelShape = (usize, usize, usize, usize);

impl Conv {
    fn new(shape: KernelShape, stride: usize, names: (&str, &str), w: &Weights) -> Result<Self> {
        let (outputs, inputs, size, _) = shape;
        let norm = w.pp(names.1);
        let deviation = (norm.get(outputs, "running_var")? + BATCH_NORM_EPS)?.sqrt()?;
        let factor = (norm.get(outputs, "weight")? / deviation)?;
        let bias = (norm.get(outputs, "bias")? - (norm.get(outputs, "running_mean")? * &factor)?)?;
        let kernel = w.pp(names.0).get(shape, "weight")?;
        Ok(Self {
            kernel: kernel.broadcast_mul(&factor.reshape((outputs, 1, 1, 1))?)?,
            bias: bias.reshape((1, outputs, 1, 1))?,
            size,
            stride,
            depthwise: inputs == 1 && size > 1,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = xs.dims4()?;
        let (top, bottom) = same_padding(height, self.size, self.stride);
        let (left, right) = same_padding(width, self.size, self.stride);
        let xs = xs
            .pad_with_zeros(2, top, bottom)?
            .pad_with_zeros(3, left, right)?;
        let ys = match self.depthwise {
            false => xs.conv2d(&self.kernel, 0, self.stride, 1, 1)?,
            true if xs.device().is_cpu()
                && xs.dtype() == candle_core::DType::F32
                && !xs.track_op() =>
            {
                let depthwise = Depthwise {
                    stride: self.stride,
                };
                xs.contiguous()?
                    .apply_op2_no_bwd(&self.kernel.contiguous()?, &depthwise)?
            }
            true => xs.conv2d(&self.kernel, 0, self.stride, 1, channels)?,
        };
        Ok(ys.broadcast_add(&self.bias)?)
    }
}

/// TensorFlow's "same": as little padding as possible, the odd one below and to the right.
fn same_padding(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let needed = (size.div_ceil(stride) - 1) * stride + kernel;
    let total = needed.saturating_sub(size);
    (total / 2, total - total / 2)
}

/// Each channel with its own kernel. candle's grouped convolution copies every channel by itself.
struct Depthwise {
    stride: usize,
}

impl candle_core::CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-conv"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, channels, height, width) = xs_layout.shape().dims4()?;
        let (_, _, size, _) = kernel_layout.shape().dims4()?;
        let xs = &xs.as_slice::<f32>()?[xs_layout.start_offset()..];
        let kernel = &kernel.as_slice::<f32>()?[kernel_layout.start_offset()..];
        let (rows, columns) = (
            (height - size) / self.stride + 1,
            (width - size) / self.stride + 1,
        );
        let mut out = vec![0f32; n * channels * rows * columns];
        let planes = out
            .chunks_exact_mut(rows * columns)
            .zip(xs.chunks_exact(height * width));
        for (i, (target, source)) in planes.enumerate() {
            let taps = &kernel[i % channels * size * size..][..size * size];
            for (row, line) in target.chunks_exact_mut(columns).enumerate() {
                for (tap, weight) in taps.iter().enumerate() {
                    let from = (row * self.stride + tap / size) * width + tap % size;
                    let inputs = source[from..].iter().step_by(self.stride);
                    for (value, input) in line.iter_mut().zip(inputs) {
                        *value += weight * input;
                    }
                }
            }
        }
        Ok((
            CpuStorage::F32(out),
            Shape::from((n, channels, rows, columns)),
        ))
    }
}

fn relu6(xs: &Tensor) -> Result<Tensor> {
    Ok(xs.clamp(0f32, 6f32)?)
}

/// Inverted residual: expand, filter each channel, project.
#[derive(Debug, Clone)]
struct Block {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    residual: bool,
}

impl Block {
    fn new(
        (inputs, outputs): (usize, usize),
        (expansion, size, stride): (usize, usize, usize),
        w: &Weights,
    ) -> Result<Self> {
        let inner = inputs * expansion;
        let expand = match expansion {
            1 => None,
            _ => Some(Conv::new(
                (inner, inputs, 1, 1),
                1,
                ("_expand_conv", "_bn0"),
                w,
            )?),
        };
        Ok(Self {
            expand,
            depthwise: Conv::new(
                (inner, 1, size, size),
                stride,
                ("_depthwise_conv", "_bn1"),
                w,
            )?,
            project: Conv::new((outputs, inner, 1, 1), 1, ("_project_conv", "_bn2"), w)?,
            residual: stride == 1 && inputs == outputs,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let ys = match &self.expand {
            Some(expand) => relu6(&expand.forward(xs)?)?,
            None => xs.clone(),
        };
        let ys = self
            .project
            .forward(&relu6(&self.depthwise.forward(&ys)?)?)?;
        match self.residual {
            true => Ok((ys + xs)?),
            false => Ok(ys),
        }
    }
}

#[derive(Debug, Clone)]
pub struct EfficientNetLite0 {
    stem: Conv,
    blocks: Vec<Block>,
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
                blocks.push(Block::new(
                    (inputs, outputs),
                    (expansion, size, stride),
                    &w,
                )?);
                inputs = outputs;
            }
        }
        Ok(Self {
            stem: Conv::new((STEM, 3, 3, 3), 2, ("_conv_stem", "_bn0"), w)?,
            head: Conv::new((FEATURES, inputs, 1, 1), 1, ("_conv_head", "_bn1"), w)?,
            blocks,
        })
    }

    /// `[n, 3, 224, 224]` → `[n, 7, 7, 1280]`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut xs = relu6(&self.stem.forward(pixels)?)?;
        for block in &self.blocks {
            xs = block.forward(&xs)?;
        }
        let xs = relu6(&self.head.forward(&xs)?)?;
        Ok(xs.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, IndexOp};

    #[test]
    fn padding_is_tensorflows() {
        assert_eq!(same_padding(224, 3, 2), (0, 1));
        assert_eq!(same_padding(112, 3, 1), (1, 1));
        assert_eq!(same_padding(56, 5, 2), (1, 2));
        assert_eq!(same_padding(7, 1, 1), (0, 0));
    }

    #[test]
    fn depthwise_equals_candles_grouped_convolution() {
        for (stride, size) in [(1, 3), (2, 3), (1, 5), (2, 5)] {
            let xs = Tensor::randn(0f32, 1.0, (2, 6, 13, 11), &Device::Cpu).unwrap();
            let kernel = Tensor::randn(0f32, 1.0, (6, 1, size, size), &Device::Cpu).unwrap();
            let ours = xs.apply_op2_no_bwd(&kernel, &Depthwise { stride }).unwrap();
            let theirs = xs.conv2d(&kernel, 0, stride, 1, 6).unwrap();
            let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-4);
        }
    }

    #[test]
    fn a_picture_becomes_a_map_of_seven_by_seven() {
        let source = std::sync::Arc::new(crate::nn::RandomSource { seed: 3 });
        let net = EfficientNetLite0::new(&Weights::f32(source)).unwrap();
        let side = PICTURE_SIDE;
        let pixels = Tensor::randn(0f32, 1.0, (2, 3, side, side), &Device::Cpu).unwrap();
        let both = net.forward(&pixels).unwrap();
        assert_eq!(both.dims(), [2, 7, 7, FEATURES]);
        let second = net.forward(&pixels.i(1..2).unwrap()).unwrap();
        let difference = (both.i(1..2).unwrap() - second).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-3);
    }
}
