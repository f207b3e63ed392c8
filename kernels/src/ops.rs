//! The kernels behind candle's tensors: f32 on the CPU, no gradient.

use super::attention::{Attention, Heads, KeyBias, Piece, attention as attend};
use super::conv::PackedConv;
use super::dense::{PackedDense, Values};
use super::epilogue::{Activation, Epilogue};
use super::gemm::linear;
use super::norm::{Norm, normalise};
use super::q8::{PackedQ8, QuantisedRows, linear_q8};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, D, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::cell::RefCell;

/// Whether the kernels can take this tensor. What they cannot take goes to candle's own operations.
pub fn can_take(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && !x.track_op()
}

/// Lends the values of a tensor with its layout.
pub(crate) fn with_values<R>(
    x: &Tensor,
    f: impl FnOnce(&[f32], &Layout) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => f(&values[layout.start_offset()..], layout),
        _ => bail!(
            "the CPU kernels take f32 on the CPU, not {:?} on {:?}",
            x.dtype(),
            x.device().location()
        ),
    }
}

/// Lends the values of a contiguous f32 tensor on the CPU.
pub fn with_contiguous<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    with_values(x, |values, layout| {
        if !layout.is_contiguous() {
            bail!("the CPU kernels need a contiguous tensor here, not {layout:?}");
        }
        f(&values[..layout.shape().elem_count()])
    })
}

/// Lends a weight matrix in a type that can be packed.
fn with_weight<R>(x: &Tensor, f: impl FnOnce(Values) -> Result<R>) -> Result<R> {
    let x = x.to_device(&Device::Cpu)?.contiguous()?;
    let x = match x.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => x,
        _ => x.to_dtype(DType::F32)?,
    };
    let (storage, layout) = x.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + x.elem_count();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => f(Values::F32(&values[range])),
        Storage::Cpu(CpuStorage::F16(values)) => f(Values::F16(&values[range])),
        Storage::Cpu(CpuStorage::BF16(values)) => f(Values::Bf16(&values[range])),
        _ => bail!(
            "weights are packed from f32, f16 or bf16, not {:?}",
            x.dtype()
        ),
    }
}

/// Lends the values of an optional vector.
fn with_optional<R>(x: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> Result<R>) -> Result<R> {
    match x {
        Some(x) => with_contiguous(x, |values| f(Some(values))),
        None => f(None),
    }
}

/// A weight matrix `[out, in]` packed for the kernels.
pub enum Packed {
    Dense(PackedDense),
    Q8(PackedQ8),
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Dense(_) => "dense",
            Self::Q8(_) => "q8_0",
        };
        write!(f, "Packed({kind}, {} × {})", self.n(), self.k())
    }
}

impl Packed {
    /// From a dense `[out, in]`; f16 and bf16 stay so, what is neither becomes f32.
    pub fn dense(weight: &Tensor) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        with_weight(weight, |values| {
            Ok(Self::Dense(PackedDense::new(values, n, k)))
        })
    }

    /// Gate and up projection in one: the product is `silu(gate) · up`.
    pub fn dense_gated(gate: &Tensor, up: &Tensor) -> Result<Self> {
        let (n, k) = gate.dims2()?;
        if up.dims() != [n, k] || gate.dtype() != up.dtype() {
            bail!(
                "gate is {:?} {:?}, up {:?} {:?}",
                gate.shape(),
                gate.dtype(),
                up.shape(),
                up.dtype()
            );
        }
        with_weight(gate, |gate| {
            with_weight(up, |up| Ok(Self::Dense(PackedDense::gated(gate, up, n, k))))
        })
    }

    /// From a quantised tensor: Q8_0 as it is, Q4 and Q5 of the same block size requantised. `None`
    /// for the other types, which stay with candle.
    pub fn quantised(weight: &QTensor) -> Result<Option<Self>> {
        use GgmlDType::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
        let (n, k) = weight.shape().dims2()?;
        match weight.dtype() {
            Q8_0 => Ok(Some(Self::q8_0(&weight.data()?, n, k))),
            Q4_0 | Q4_1 | Q5_0 | Q5_1 => {
                let weight = QTensor::quantize(&weight.dequantize(&Device::Cpu)?, Q8_0)?;
                Ok(Some(Self::q8_0(&weight.data()?, n, k)))
            }
            _ => Ok(None),
        }
    }

    /// Gate and up projection in one: the product is `silu(gate) · up`. `None` unless both are Q8_0.
    pub fn quantised_gated(gate: &QTensor, up: &QTensor) -> Result<Option<Self>> {
        let (n, k) = gate.shape().dims2()?;
        if gate.dtype() != GgmlDType::Q8_0 || up.dtype() != GgmlDType::Q8_0 {
            return Ok(None);
        }
        if up.shape() != gate.shape() {
            bail!("gate is {:?}, up {:?}", gate.shape(), up.shape());
        }
        Ok(Some(Self::Q8(PackedQ8::gated(
            &gate.data()?,
            &up.data()?,
            n,
            k,
        ))))
    }

    /// The weight `[out, in]` in f32 again, for what the kernels cannot do. Not for gated weights.
    pub fn unpack(&self) -> Result<Tensor> {
        let (n, k) = (self.n(), self.k());
        let mut values = vec![0.0; n * k];
        for i in 0..n {
            self.row(i, &mut values[i * k..(i + 1) * k]);
        }
        Tensor::from_vec(values, (n, k), &Device::Cpu)
    }

    /// Row `i` of the weight in f32 (embedding look-up). Not for gated weights.
    pub fn row(&self, i: usize, to: &mut [f32]) {
        match self {
            Self::Dense(w) => w.row(i, to),
            Self::Q8(w) => w.row(i, to),
        }
    }

    /// From the bytes of a GGML Q8_0 tensor `[out, in]`.
    pub fn q8_0(bytes: &[u8], n: usize, k: usize) -> Self {
        Self::Q8(PackedQ8::new(bytes, n, k))
    }

    /// Width of the output.
    pub fn n(&self) -> usize {
        match self {
            Self::Dense(w) => w.n(),
            Self::Q8(w) => w.n(),
        }
    }

    /// Width of the input.
    pub fn k(&self) -> usize {
        match self {
            Self::Dense(w) => w.k(),
            Self::Q8(w) => w.k(),
        }
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.bytes(),
            Self::Q8(w) => w.bytes(),
        }
    }

    /// `activation(x·wᵀ + bias)`: `[.., in]` → `[.., out]`.
    pub fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let (shape, rows) = self.output(x)?;
        let mut out = vec![0.0; rows * self.n()];
        with_contiguous(&x.contiguous()?, |x| {
            with_optional(bias, |bias| {
                self.run(
                    x,
                    &Epilogue {
                        bias,
                        activation,
                        ..Epilogue::default()
                    },
                    &mut out,
                );
                Ok(())
            })
        })?;
        Tensor::from_vec(out, shape, &Device::Cpu)
    }

    /// `residual + scale · (x·wᵀ + bias)`, the scale one value a column.
    pub fn forward_residual(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        scale: Option<&Tensor>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let (shape, _) = self.output(x)?;
        if residual.shape() != &shape {
            bail!("residual is {:?}, the product {shape:?}", residual.shape());
        }
        let mut out = with_contiguous(&residual.contiguous()?, |values| Ok(values.to_vec()))?;
        with_contiguous(&x.contiguous()?, |x| {
            with_optional(bias, |bias| {
                with_optional(scale, |scale| {
                    let epilogue = Epilogue {
                        bias,
                        scale,
                        accumulate: true,
                        ..Epilogue::default()
                    };
                    self.run(x, &epilogue, &mut out);
                    Ok(())
                })
            })
        })?;
        Tensor::from_vec(out, shape, &Device::Cpu)
    }

    /// The same on slices: `out[rows, n] = epilogue(x[rows, k] · wᵀ)`.
    pub fn run(&self, x: &[f32], epilogue: &Epilogue, out: &mut [f32]) {
        thread_local! {
            static QUANTISED: RefCell<QuantisedRows> = RefCell::default();
        }
        match self {
            Self::Dense(w) => linear(x, w, epilogue, out),
            Self::Q8(w) => QUANTISED.with_borrow_mut(|quantised| {
                quantised.fill(x, w.k());
                linear_q8(quantised, w, epilogue, out);
            }),
        }
    }

    fn output(&self, x: &Tensor) -> Result<(Shape, usize)> {
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.k() => *last = self.n(),
            _ => bail!(
                "the input is {:?}, the weight takes {}",
                x.shape(),
                self.k()
            ),
        }
        let rows = dims[..dims.len() - 1].iter().product();
        Ok((Shape::from(dims), rows))
    }
}

/// A convolution kernel for pictures with the channels innermost.
pub struct Conv(PackedConv);

impl std::fmt::Debug for Conv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conv({} → {})", self.0.channels(), self.0.outputs())
    }
}

impl Conv {
    /// From a square kernel `[outputs, channels, size, size]`.
    pub fn new(kernel: &Tensor, stride: usize) -> Result<Self> {
        let (outputs, channels, size, other) = kernel.dims4()?;
        if size != other || stride == 0 {
            bail!("a kernel of {:?} at a stride of {stride}", kernel.shape());
        }
        let kernel = kernel
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .contiguous()?;
        with_contiguous(&kernel, |kernel| {
            Ok(Self(PackedConv::new(
                kernel,
                [outputs, channels, size],
                stride,
            )))
        })
    }

    /// `activation(conv(x) + bias)` without padding: `[batch, height, width, channels]` → `[batch,
    /// height', width', outputs]`.
    pub fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        if channels != self.0.channels() {
            bail!(
                "the input is {:?}, the kernel takes {} channels",
                x.shape(),
                self.0.channels()
            );
        }
        let [rows, columns] = self.0.output([height, width]);
        let mut out = vec![0.0; batch * rows * columns * self.0.outputs()];
        with_contiguous(&x.contiguous()?, |x| {
            with_optional(bias, |bias| {
                let epilogue = Epilogue {
                    bias,
                    activation,
                    ..Epilogue::default()
                };
                self.0.run(x, [batch, height, width], &epilogue, &mut out);
                Ok(())
            })
        })?;
        Tensor::from_vec(out, (batch, rows, columns, self.0.outputs()), &Device::Cpu)
    }
}

/// `softmax(scale·q·kᵀ + key_bias)·v`, the heads side by side in the result.
///
/// q `[batch, heads, queries, dim]`, k `[batch, kv_heads, keys, dim]`, v `[batch, kv_heads, keys,
/// width]`; `key_bias` `[batch, kv_heads or 1, 1, keys]`. `causal`: query `i` sees keys up to
/// `i + keys − queries`. Result `[batch, queries, heads, width]`.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    causal: bool,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, heads, queries, width) = q.dims4()?;
    let (_, kv_heads, keys, v_width) = v.dims4()?;
    if k.dims() != [batch, kv_heads, keys, width]
        || v.dim(0)? != batch
        || kv_heads == 0
        || heads % kv_heads != 0
    {
        bail!(
            "attention of q {:?}, k {:?}, v {:?}",
            q.shape(),
            k.shape(),
            v.shape()
        );
    }
    let bias_heads = match key_bias.map(Tensor::dims) {
        None => 1,
        Some(&[b, h, 1, n]) if b == batch && (h == 1 || h == kv_heads) && n == keys => h,
        Some(dims) => bail!("key bias {dims:?} for {batch} × {kv_heads} × {keys} keys"),
    };
    let key_bias = key_bias.map(Tensor::contiguous).transpose()?;
    let mut out = vec![0.0; batch * queries * heads * v_width];
    with_heads(q, |q| {
        with_heads(k, |k| {
            with_heads(v, |v| {
                with_optional(key_bias.as_ref(), |bias| {
                    let key_bias = bias.map(|data| KeyBias {
                        data,
                        heads: bias_heads,
                    });
                    let scale = scale as f32;
                    let what = Attention {
                        batch,
                        heads,
                        kv_heads,
                        queries,
                        q,
                        pieces: &[Piece { k, v, keys }],
                        scale,
                        causal,
                        key_bias,
                    };
                    attend(&what, &mut out);
                    Ok(())
                })
            })
        })
    })?;
    Tensor::from_vec(out, (batch, queries, heads, v_width), &Device::Cpu)
}

/// Causal attention of the newest queries of one sequence over keys and values that lie in pieces,
/// oldest first.
///
/// q `[heads, new, dim]`, the pieces `[kv_heads, len, dim]`; query `i` sees all but the `new − 1 − i` last
/// keys. Result `[new, heads, dim]`.
pub fn attention_causal(q: &Tensor, pieces: &[(Tensor, Tensor)], scale: f64) -> Result<Tensor> {
    let (heads, queries, width) = q.dims3()?;
    let kv_heads = pieces.first().map_or(Ok(0), |(k, _)| k.dim(0))?;
    let keys = pieces
        .iter()
        .map(|(k, _)| k.dim(1))
        .sum::<Result<usize>>()?;
    if kv_heads == 0 || heads % kv_heads != 0 || keys < queries {
        bail!(
            "attention of {queries} queries in {heads} heads over {keys} keys in {kv_heads} heads"
        );
    }
    for (k, v) in pieces {
        if k.dims() != v.dims() || k.dim(0)? != kv_heads || k.dim(2)? != width {
            bail!(
                "attention of q {:?} over k {:?}, v {:?}",
                q.shape(),
                k.shape(),
                v.shape()
            );
        }
    }
    // The guards keep the storages lent while the kernel runs.
    let lent = pieces
        .iter()
        .map(|(k, v)| (k.storage_and_layout(), v.storage_and_layout()))
        .collect::<Vec<_>>();
    let mut views = Vec::with_capacity(lent.len());
    for ((k, k_layout), (v, v_layout)) in &lent {
        let keys = k_layout.dims()[1];
        let (k, v) = (sequence(k, k_layout)?, sequence(v, v_layout)?);
        views.push(Piece { k, v, keys });
    }
    let (q_storage, q_layout) = q.storage_and_layout();
    let mut out = vec![0.0; queries * heads * width];
    let what = Attention {
        batch: 1,
        heads,
        kv_heads,
        queries,
        q: sequence(&q_storage, q_layout)?,
        pieces: &views,
        scale: scale as f32,
        causal: true,
        key_bias: None,
    };
    attend(&what, &mut out);
    Tensor::from_vec(out, (queries, heads, width), &Device::Cpu)
}

/// `[heads, rows, width]` as the only entry of a batch.
fn sequence<'a>(storage: &'a Storage, layout: &Layout) -> Result<Heads<'a>> {
    match (storage, layout.stride(), layout.dims()) {
        (Storage::Cpu(CpuStorage::F32(values)), &[head_stride, row_stride, 1], &[_, _, width]) => {
            let data = &values[layout.start_offset()..];
            Ok(Heads {
                data,
                batch_stride: 0,
                head_stride,
                row_stride,
                width,
            })
        }
        _ => {
            bail!("attention takes f32 on the CPU with a contiguous last dimension, not {layout:?}")
        }
    }
}

fn with_heads<R>(x: &Tensor, f: impl FnOnce(Heads) -> Result<R>) -> Result<R> {
    let width = x.dim(D::Minus1)?;
    let x = if x.stride().last() == Some(&1) || width == 1 {
        x.clone()
    } else {
        x.contiguous()?
    };
    with_values(&x, |data, layout| match *layout.stride() {
        [batch_stride, head_stride, row_stride, _] => f(Heads {
            data,
            batch_stride,
            head_stride,
            row_stride,
            width,
        }),
        _ => bail!("heads must have four dimensions, not {:?}", layout.shape()),
    })
}

/// LayerNorm over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    with_contiguous(weight, |weight| {
        with_contiguous(bias, |bias| {
            normalised(x, &Norm::Layer { weight, bias, eps })
        })
    })
}

/// RMSNorm over the last dimension.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    with_contiguous(weight, |weight| normalised(x, &Norm::Rms { weight, eps }))
}

fn normalised(x: &Tensor, norm: &Norm) -> Result<Tensor> {
    let (Norm::Layer { weight, .. } | Norm::Rms { weight, .. }) = norm;
    if x.dim(D::Minus1)? != weight.len() {
        bail!("norm of {} values over {:?}", weight.len(), x.shape());
    }
    let mut out = vec![0.0; x.elem_count()];
    with_contiguous(&x.contiguous()?, |x| {
        normalise(norm, x, &mut out);
        Ok(())
    })?;
    Tensor::from_vec(out, x.shape(), &Device::Cpu)
}
