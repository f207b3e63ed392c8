//! The kernels behind candle's tensors: f32 on the CPU, no gradient.

use super::attention::{Attention, Heads, KeyBias, attention as attend};
use super::epilogue::{Activation, Epilogue};
use super::gemm::{PackedF32, linear};
use super::norm::{Norm, normalise};
use super::q8::{PackedQ8, QuantisedRows, linear_q8};
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

/// Lends the values of a contiguous tensor.
fn with_contiguous<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    with_values(x, |values, layout| {
        if !layout.is_contiguous() {
            bail!("the CPU kernels need a contiguous tensor here, not {layout:?}");
        }
        f(&values[..layout.shape().elem_count()])
    })
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
    F32(PackedF32),
    Q8(PackedQ8),
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::F32(_) => "f32",
            Self::Q8(_) => "q8_0",
        };
        write!(f, "Packed({kind}, {} × {})", self.n(), self.k())
    }
}

impl Packed {
    /// From a dense `[out, in]` on the CPU, of any type that converts to f32.
    pub fn dense(weight: &Tensor) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        let weight = weight
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .contiguous()?;
        with_contiguous(&weight, |values| {
            Ok(Self::F32(PackedF32::new(values, n, k)))
        })
    }

    /// Gate and up projection in one: the product is `silu(gate) · up`.
    pub fn dense_gated(gate: &Tensor, up: &Tensor) -> Result<Self> {
        let (n, k) = gate.dims2()?;
        if up.dims() != [n, k] {
            bail!("gate is {:?}, up {:?}", gate.shape(), up.shape());
        }
        let f32 = |x: &Tensor| {
            x.to_device(&Device::Cpu)?
                .to_dtype(DType::F32)?
                .contiguous()
        };
        with_contiguous(&f32(gate)?, |gate| {
            with_contiguous(&f32(up)?, |up| {
                Ok(Self::F32(PackedF32::gated(gate, up, n, k)))
            })
        })
    }

    /// From the bytes of a GGML Q8_0 tensor `[out, in]`.
    pub fn q8_0(bytes: &[u8], n: usize, k: usize) -> Self {
        Self::Q8(PackedQ8::new(bytes, n, k))
    }

    /// Width of the output.
    pub fn n(&self) -> usize {
        match self {
            Self::F32(w) => w.n(),
            Self::Q8(w) => w.n(),
        }
    }

    /// Width of the input.
    pub fn k(&self) -> usize {
        match self {
            Self::F32(w) => w.k(),
            Self::Q8(w) => w.k(),
        }
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(w) => w.bytes(),
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
            Self::F32(w) => linear(x, w, epilogue, out),
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
                        keys,
                        q,
                        k,
                        v,
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
