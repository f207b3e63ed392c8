//! Convolutions of small networks with TensorFlow's "same" padding, the channels innermost.

use crate::Result;
use crate::nn::{Linear, Weights};
use candle_core::{CpuStorage, DType, Layout, Shape, Tensor};
use std::sync::Arc;
use vita_kernels::threads::share_chunks;
use vita_kernels::{Activation, ops};

/// What a convolution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    pub inputs: usize,
    pub outputs: usize,
    /// Side of its kernel.
    pub size: usize,
    pub stride: usize,
    /// Each channel with a kernel of its own.
    pub depthwise: bool,
    /// Whether its outputs are clamped to [0, 6].
    pub relu6: bool,
}

impl Layer {
    pub const fn dense(inputs: usize, outputs: usize, size: usize, stride: usize) -> Self {
        Self {
            inputs,
            outputs,
            size,
            stride,
            depthwise: false,
            relu6: true,
        }
    }

    pub const fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self::dense(inputs, outputs, 1, 1)
    }

    pub const fn depthwise(channels: usize, size: usize, stride: usize) -> Self {
        Self {
            depthwise: true,
            ..Self::dense(channels, channels, size, stride)
        }
    }

    /// Without the clamp.
    pub const fn linear(self) -> Self {
        Self {
            relu6: false,
            ..self
        }
    }

    /// `[outputs, inputs per group, side, side]`.
    pub fn shape(&self) -> (usize, usize, usize, usize) {
        let inputs = if self.depthwise { 1 } else { self.inputs };
        (self.outputs, inputs, self.size, self.size)
    }

    fn activation(&self) -> Activation {
        match self.relu6 {
            true => Activation::Relu6,
            false => Activation::None,
        }
    }

    /// Padding before and behind a side of the input.
    fn padding(&self, side: usize) -> (usize, usize) {
        same_padding(side, self.size, self.stride)
    }
}

/// As little padding as possible, the odd one below and to the right.
fn same_padding(side: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let needed = (side.div_ceil(stride).max(1) - 1) * stride + kernel;
    let total = needed.saturating_sub(side);
    (total / 2, total - total / 2)
}

#[derive(Debug, Clone)]
enum Kernel {
    /// A product over the channels.
    Pointwise(Linear),
    /// For the kernels of the CPU.
    Packed(Arc<ops::Conv>),
    /// For the CPU, `[taps, channels]`.
    Depthwise(Tensor),
    /// For other devices, shaped as [`Layer::shape`].
    Plain(Tensor),
}

impl Kernel {
    fn new(layer: &Layer, kernel: Tensor, bias: &Tensor) -> Result<Self> {
        if (layer.size, layer.stride, layer.depthwise) == (1, 1, false) {
            let weight = kernel.reshape((layer.outputs, layer.inputs))?;
            return Ok(Self::Pointwise(Linear::from_tensors(
                weight,
                Some(bias.clone()),
            )?));
        }
        if !kernel.device().is_cpu() || kernel.dtype() != DType::F32 {
            return Ok(Self::Plain(kernel));
        }
        if !layer.depthwise {
            let packed = ops::Conv::new(&kernel, layer.stride)?;
            return Ok(Self::Packed(Arc::new(packed)));
        }
        match layer.outputs.is_multiple_of(LANES) {
            true => Ok(Self::Depthwise(kernel.flatten_from(1)?.t()?.contiguous()?)),
            false => Ok(Self::Plain(kernel)),
        }
    }
}

/// A convolution with its bias and activation.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    layer: Layer,
    kernel: Kernel,
    bias: Tensor,
}

impl Conv {
    /// Tensors `weight`, shaped as [`Layer::shape`], and `bias`.
    pub fn new(layer: Layer, w: &Weights) -> Result<Self> {
        let bias = w.get(layer.outputs, "bias")?;
        Self::from_tensors(layer, w.get(layer.shape(), "weight")?, bias)
    }

    /// A kernel with its batch norm, which is folded into it; `names` are theirs.
    pub fn with_norm(layer: Layer, names: (&str, &str), eps: f64, w: &Weights) -> Result<Self> {
        let outputs = layer.outputs;
        let norm = w.pp(names.1);
        let deviation = (norm.get(outputs, "running_var")? + eps)?.sqrt()?;
        let factor = (norm.get(outputs, "weight")? / deviation)?;
        let bias = (norm.get(outputs, "bias")? - (norm.get(outputs, "running_mean")? * &factor)?)?;
        let kernel = w.pp(names.0).get(layer.shape(), "weight")?;
        let kernel = kernel.broadcast_mul(&factor.reshape((outputs, 1, 1, 1))?)?;
        Self::from_tensors(layer, kernel, bias)
    }

    fn from_tensors(layer: Layer, kernel: Tensor, bias: Tensor) -> Result<Self> {
        let kernel = Kernel::new(&layer, kernel, &bias)?;
        Ok(Self {
            layer,
            kernel,
            bias,
        })
    }

    /// `[n, height, width, inputs]` → `[n, height / stride, width / stride, outputs]`, rounded up.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let activation = self.layer.activation();
        match &self.kernel {
            Kernel::Pointwise(linear) => linear.forward_with(xs, activation),
            Kernel::Packed(conv) => {
                Ok(conv.forward(&self.padded(xs)?, Some(&self.bias), activation)?)
            }
            Kernel::Depthwise(kernel) => {
                let op = Depthwise(self.layer);
                Ok(xs.contiguous()?.apply_op3_no_bwd(kernel, &self.bias, &op)?)
            }
            Kernel::Plain(kernel) => {
                let groups = self.layer.inputs / kernel.dim(1)?;
                let xs = self.padded(xs)?.permute((0, 3, 1, 2))?.contiguous()?;
                let ys = xs.conv2d(kernel, 0, self.layer.stride, 1, groups)?;
                let ys = ys.permute((0, 2, 3, 1))?.broadcast_add(&self.bias)?;
                match self.layer.relu6 {
                    true => Ok(ys.clamp(0f32, 6f32)?),
                    false => Ok(ys.contiguous()?),
                }
            }
        }
    }

    /// `residual + forward(xs)`.
    pub fn forward_onto(&self, residual: &Tensor, xs: &Tensor) -> Result<Tensor> {
        match &self.kernel {
            Kernel::Pointwise(linear) if !self.layer.relu6 => {
                linear.forward_onto(residual, xs, None)
            }
            _ => Ok((residual + self.forward(xs)?)?),
        }
    }

    fn padded(&self, xs: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = xs.dims4()?;
        let (top, bottom) = self.layer.padding(height);
        let (left, right) = self.layer.padding(width);
        let xs = xs.pad_with_zeros(1, top, bottom)?;
        Ok(xs.pad_with_zeros(2, left, right)?)
    }
}

/// Channels computed together: what is summed stays in registers.
const LANES: usize = 16;

/// Largest kernel of a depthwise convolution: 5×5.
const MAX_TAPS: usize = 25;

/// Each channel with its own kernel: candle's grouped convolution copies every channel by itself.
struct Depthwise(Layer);

impl candle_core::CustomOp3 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-conv"
    }

    /// Pictures `[n, height, width, channels]`, kernel `[taps, channels]`, bias `[channels]`, all contiguous.
    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, height, width, channels) = xs_layout.shape().dims4()?;
        let taps = kernel_layout.shape().dims2()?.0;
        if taps > MAX_TAPS || !channels.is_multiple_of(LANES) {
            candle_core::bail!("a depthwise kernel of {taps} taps for {channels} channels");
        }
        let xs = &xs.as_slice::<f32>()?[xs_layout.start_offset()..];
        let kernel = &kernel.as_slice::<f32>()?[kernel_layout.start_offset()..];
        let bias = &bias.as_slice::<f32>()?[bias_layout.start_offset()..];
        let stride = self.0.stride;
        let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
        let mut out = vec![0f32; n * rows * columns * channels];
        share_chunks(&mut out, columns * channels, |i, line| {
            let picture = &xs[i / rows * height * width * channels..];
            for (column, cell) in line.chunks_exact_mut(channels).enumerate() {
                let (taps, count) = self.taps([i % rows, column], [height, width], channels);
                self.cell(picture, kernel, bias, &taps[..count], cell);
            }
        });
        let shape = Shape::from((n, rows, columns, channels));
        Ok((CpuStorage::F32(out), shape))
    }
}

impl Depthwise {
    /// Where the inputs of an output and their weights begin, without those in the padding.
    fn taps(
        &self,
        [row, column]: [usize; 2],
        [height, width]: [usize; 2],
        channels: usize,
    ) -> ([(usize, usize); MAX_TAPS], usize) {
        let Layer { size, stride, .. } = self.0;
        let (top, left) = (self.0.padding(height).0, self.0.padding(width).0);
        let (mut taps, mut count) = ([(0, 0); MAX_TAPS], 0);
        for tap in 0..size * size {
            let y = (row * stride + tap / size).wrapping_sub(top);
            let x = (column * stride + tap % size).wrapping_sub(left);
            if y < height && x < width {
                taps[count] = ((y * width + x) * channels, tap * channels);
                count += 1;
            }
        }
        (taps, count)
    }

    fn cell(
        &self,
        picture: &[f32],
        kernel: &[f32],
        bias: &[f32],
        taps: &[(usize, usize)],
        cell: &mut [f32],
    ) {
        let highest = if self.0.relu6 { 6.0 } else { f32::INFINITY };
        let lowest = if self.0.relu6 { 0.0 } else { f32::NEG_INFINITY };
        let (cell, _) = cell.as_chunks_mut::<LANES>();
        let (bias, _) = bias.as_chunks::<LANES>();
        for (i, (out, bias)) in cell.iter_mut().zip(bias).enumerate() {
            let mut sums = *bias;
            for &(input, weight) in taps {
                let inputs = picture[input + i * LANES..].first_chunk::<LANES>();
                let weights = kernel[weight + i * LANES..].first_chunk::<LANES>();
                if let (Some(inputs), Some(weights)) = (inputs, weights) {
                    for lane in 0..LANES {
                        sums[lane] += inputs[lane] * weights[lane];
                    }
                }
            }
            *out = sums.map(|sum| sum.max(lowest).min(highest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::TensorMap;
    use candle_core::Device;

    #[test]
    fn padding_is_tensorflows() {
        assert_eq!(same_padding(224, 3, 2), (0, 1));
        assert_eq!(same_padding(112, 3, 1), (1, 1));
        assert_eq!(same_padding(75, 3, 2), (1, 1));
        assert_eq!(same_padding(56, 5, 2), (1, 2));
        assert_eq!(same_padding(7, 1, 1), (0, 0));
        assert_eq!(same_padding(1, 3, 2), (1, 1));
    }

    /// Every way of computing gives what candle's convolution gives.
    #[test]
    fn all_kinds_equal_candles_convolution() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        for layer in [
            Layer::dense(3, 8, 3, 2),
            Layer::pointwise(32, 24),
            Layer::pointwise(32, 24).linear(),
            Layer::depthwise(32, 3, 1),
            Layer::depthwise(32, 3, 2),
            Layer::depthwise(48, 5, 2),
            Layer::depthwise(32, 5, 1).linear(),
            Layer::depthwise(6, 3, 2),
        ] {
            let (outputs, inputs, side, _) = layer.shape();
            let tensors = [
                ("weight".to_string(), random(&[outputs, inputs, side, side])),
                ("bias".to_string(), random(&[outputs])),
            ];
            let w = Weights::f32(Arc::new(TensorMap(tensors.into())));
            let ours = Conv::new(layer, &w).unwrap();
            let plain = Conv {
                kernel: Kernel::Plain(w.get(layer.shape(), "weight").unwrap()),
                ..ours.clone()
            };
            for (height, width) in [(13, 11), (10, 12), (1, 2)] {
                let xs = random(&[2, height, width, layer.inputs]);
                let (ours, plain) = (ours.forward(&xs).unwrap(), plain.forward(&xs).unwrap());
                assert_eq!(ours.dims(), plain.dims(), "{layer:?}");
                let difference = (ours - plain).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 1e-4, "{layer:?}");
            }
        }
    }
}
