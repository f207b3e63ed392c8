//! Operations with fast forms in both directions, for training on the CPU.
//!
//! Weights that do not learn are packed twice: as they are for the product, transposed for its
//! gradient, the latter when the first gradient passes. What an operation needs of its forward pass
//! it keeps until its gradient is asked for.
//!
//! Quantised weights stay so in both directions: products are the same as at inference, and a gradient
//! is rounded to 8 bits in blocks of 32 values where it meets the next weight, at more than twice the
//! speed of f32 (`docs/training.md`).

use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vita_kernels::dense::{PackedDense, Values};
use vita_kernels::epilogue::Epilogue;
use vita_kernels::gemm::linear;
use vita_kernels::grad::{self, Sequences};
use vita_kernels::norm::{Norm, normalise};
use vita_kernels::ops::{Packed, with_contiguous};

type CandleResult<T> = candle_core::Result<T>;

/// Values that share a scale in Q8_0.
const Q8_BLOCK: usize = 32;

/// A matrix `[out, in]` that does not learn.
#[derive(Clone)]
pub struct Frozen(Arc<Packings>);

struct Packings {
    forward: Packed,
    backward: OnceLock<Packed>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frozen({} × {})", self.outputs(), self.inputs())
    }
}

impl Frozen {
    /// From a dense matrix on the CPU.
    pub fn new(weight: &Tensor) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        let weight = weight.to_dtype(candle_core::DType::F32)?.contiguous()?;
        let pack = |values: &[f32]| Ok(PackedDense::new(Values::F32(values), n, k));
        Ok(Self::packed(Packed::Dense(with_contiguous(&weight, pack)?)))
    }

    fn packed(forward: Packed) -> Self {
        Self(Arc::new(Packings {
            forward,
            backward: OnceLock::new(),
        }))
    }

    /// From quantised matrices, one above the other: in 8 bits where the kernels can, else in f32.
    pub fn quantised(weights: &[QTensor]) -> Result<Self> {
        let shape = |w: &QTensor| w.shape().dims2();
        let is_q8 = |w: &QTensor| w.dtype() == GgmlDType::Q8_0;
        if let Some((first, k)) = weights.first().map(shape).transpose()?
            && weights.iter().all(is_q8)
            && weights
                .iter()
                .all(|w| w.shape().dims2().is_ok_and(|s| s.1 == k))
            && first.is_multiple_of(Q8_BLOCK)
        {
            let mut bytes = Vec::new();
            let mut n = 0;
            for weight in weights {
                bytes.extend_from_slice(&weight.data()?);
                n += shape(weight)?.0;
            }
            return Ok(Self::packed(Packed::q8_0(&bytes, n, k)));
        }
        let dense = weights.iter().map(|w| w.dequantize(&Device::Cpu));
        let dense = dense.collect::<CandleResult<Vec<_>>>()?;
        Self::new(&Tensor::cat(&dense, 0)?)
    }

    pub fn inputs(&self) -> usize {
        self.0.forward.k()
    }

    pub fn outputs(&self) -> usize {
        self.0.forward.n()
    }

    /// Rows `[ids, in]` of the weight.
    pub(super) fn rows(&self, ids: &[u32]) -> CandleResult<Tensor> {
        let width = self.inputs();
        let mut values = vec![0.0; ids.len() * width];
        for (row, &id) in values.chunks_exact_mut(width).zip(ids) {
            self.0.forward.row(id as usize, row);
        }
        tensor(values, (ids.len(), width))
    }

    /// `x·Wᵀ` of rows.
    fn product(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inputs() * self.outputs()];
        self.0.forward.run(x, &Epilogue::default(), &mut out);
        out
    }

    /// `g·W` of rows: the gradient of [`Self::product`] with regard to x.
    fn product_back(&self, g: &[f32]) -> CandleResult<Vec<f32>> {
        let packed = match self.0.backward.get() {
            Some(packed) => packed,
            None => {
                let packed = self.transposed()?;
                self.0.backward.get_or_init(|| packed)
            }
        };
        let mut out = vec![0.0; g.len() / self.outputs() * self.inputs()];
        packed.run(g, &Epilogue::default(), &mut out);
        Ok(out)
    }

    fn transposed(&self) -> CandleResult<Packed> {
        let (n, k) = (self.outputs(), self.inputs());
        let mut values = vec![0.0; n * k];
        let mut row = vec![0.0; k];
        for i in 0..n {
            self.0.forward.row(i, &mut row);
            for (j, &value) in row.iter().enumerate() {
                values[j * n + i] = value;
            }
        }
        match &self.0.forward {
            Packed::Q8(_) if n.is_multiple_of(Q8_BLOCK) => {
                let dense = tensor(values, (k, n))?;
                let quantised = QTensor::quantize(&dense, GgmlDType::Q8_0)?;
                Ok(Packed::q8_0(&quantised.data()?, k, n))
            }
            _ => Ok(Packed::Dense(PackedDense::new(Values::F32(&values), k, n))),
        }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(xs.contiguous()?.apply_op1(Product(self.clone()))?)
    }

    /// `silu(x·Gᵀ) ⊙ x·Uᵀ` where the first half of the rows is G and the second U.
    pub fn forward_gated(&self, xs: &Tensor) -> Result<Tensor> {
        let op = Gated {
            weight: self.clone(),
            both: Mutex::default(),
            tracked: xs.track_op(),
        };
        Ok(xs.contiguous()?.apply_op1(op)?)
    }

    /// `x·Wᵀ + scale · x·Aᵀ·Bᵀ`, a `[rank, in]`, b `[out, rank]`.
    pub fn forward_low_rank(
        &self,
        xs: &Tensor,
        (a, b): (&Tensor, &Tensor),
        scale: f64,
    ) -> Result<Tensor> {
        let (rank, inputs) = a.dims2()?;
        if inputs != self.inputs() || b.dims() != [self.outputs(), rank] {
            return Err(Error::Input(format!(
                "low-rank {a:?} and {b:?} for {self:?}"
            )));
        }
        let op = LowRankProduct {
            weight: self.clone(),
            scale: scale as f32,
            rank,
        };
        Ok(xs
            .contiguous()?
            .apply_op3(&a.contiguous()?, &b.contiguous()?, op)?)
    }
}

/// The values of a contiguous f32 argument.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("expected contiguous f32, found {layout:?}"),
    }
}

/// Gives `f` the values of a gradient or of an argument, contiguous.
fn lend<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> CandleResult<R> {
    with_contiguous(&x.contiguous()?, |values| Ok(f(values)))
}

fn tensor(values: Vec<f32>, like: impl Into<Shape>) -> CandleResult<Tensor> {
    Tensor::from_vec(values, like.into(), &Device::Cpu)
}

fn with_last(layout: &Layout, last: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    if let Some(width) = dims.last_mut() {
        *width = last;
    }
    Shape::from(dims)
}

struct Product(Frozen);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let out = self.0.product(values(storage, layout)?);
        Ok((CpuStorage::F32(out), with_last(layout, self.0.outputs())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let back = lend(grad, |g| self.0.product_back(g))??;
        Ok(Some(tensor(back, arg.shape())?))
    }
}

struct Gated {
    weight: Frozen,
    /// Gate and up of the forward pass.
    both: Mutex<Vec<f32>>,
    tracked: bool,
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "frozen-gated-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let both = self.weight.product(values(storage, layout)?);
        let inner = self.weight.outputs() / 2;
        let mut out = vec![0.0; both.len() / 2];
        grad::silu_gate(&both, inner, &mut out);
        if self.tracked {
            *self.both.lock().unwrap_or_else(PoisonError::into_inner) = both;
        }
        Ok((CpuStorage::F32(out), with_last(layout, inner)))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let mut both =
            std::mem::take(&mut *self.both.lock().unwrap_or_else(PoisonError::into_inner));
        let inner = self.weight.outputs() / 2;
        if both.len() != 2 * grad.elem_count() {
            bail!("the gradient of a gated product is asked for twice");
        }
        lend(grad, |g| grad::silu_gate_backward(&mut both, inner, g))?;
        Ok(Some(tensor(self.weight.product_back(&both)?, arg.shape())?))
    }
}

struct LowRankProduct {
    weight: Frozen,
    scale: f32,
    rank: usize,
}

/// `[rows, columns]` → `[columns, rows]`.
fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len() / columns;
    let mut out = vec![0.0; x.len()];
    for (i, row) in x.chunks_exact(columns).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            out[j * rows + i] = value;
        }
    }
    out
}

impl LowRankProduct {
    /// `scale · x·Aᵀ`: `[rows, rank]`.
    fn inner(&self, x: &[f32], a: &[f32]) -> Vec<f32> {
        let packed = PackedDense::new(Values::F32(a), self.rank, self.weight.inputs());
        self.scaled(x, &packed)
    }

    fn scaled(&self, x: &[f32], packed: &PackedDense) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / packed.k() * packed.n()];
        linear(x, packed, &Epilogue::default(), &mut out);
        out.iter_mut().for_each(|value| *value *= self.scale);
        out
    }

    fn backward(&self, x: &[f32], a: &[f32], b: &[f32], g: &[f32]) -> CandleResult<[Vec<f32>; 3]> {
        let (inputs, outputs, rank) = (self.weight.inputs(), self.weight.outputs(), self.rank);
        let h = self.inner(x, a);
        let b_back = PackedDense::new(Values::F32(&transposed(b, rank)), rank, outputs);
        let dh = self.scaled(g, &b_back);
        let mut db = vec![0.0; rank * outputs];
        grad::outer_sum(&h, rank, g, outputs, &mut db);
        let mut da = vec![0.0; rank * inputs];
        grad::outer_sum(&dh, rank, x, inputs, &mut da);
        let mut dx = self.weight.product_back(g)?;
        let a_back = PackedDense::new(Values::F32(&transposed(a, inputs)), inputs, rank);
        linear(&dh, &a_back, &onto(), &mut dx);
        Ok([dx, da, transposed(&db, outputs)])
    }
}

fn onto() -> Epilogue<'static> {
    Epilogue {
        accumulate: true,
        ..Epilogue::default()
    }
}

impl CustomOp3 for LowRankProduct {
    fn name(&self) -> &'static str {
        "low-rank-product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = values(x, x_layout)?;
        let mut out = self.weight.product(x);
        let h = self.inner(x, values(a, a_layout)?);
        let b = Values::F32(values(b, b_layout)?);
        let b = PackedDense::new(b, self.weight.outputs(), self.rank);
        linear(&h, &b, &onto(), &mut out);
        Ok((
            CpuStorage::F32(out),
            with_last(x_layout, self.weight.outputs()),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, da, db] = lend(x, |x| {
            lend(a, |a| {
                lend(b, |b| lend(grad, |g| self.backward(x, a, b, g)))
            })
        })?????;
        Ok((
            Some(tensor(dx, x.shape())?),
            Some(tensor(da, a.shape())?),
            Some(tensor(db, b.shape())?),
        ))
    }
}

/// RMSNorm with a weight that does not learn.
pub(super) fn rms_norm(xs: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let weight = weight.clone();
    Ok(xs.contiguous()?.apply_op1(RmsNorm { weight, eps })?)
}

struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let mut out = vec![0.0; x.len()];
        let eps = self.eps;
        lend(&self.weight, |weight| {
            normalise(&Norm::Rms { weight, eps }, x, &mut out)
        })?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let mut out = vec![0.0; arg.elem_count()];
        lend(arg, |x| {
            lend(&self.weight, |weight| {
                lend(grad, |g| {
                    grad::rms_norm_backward(x, weight, self.eps, g, &mut out)
                })
            })
        })???;
        Ok(Some(tensor(out, arg.shape())?))
    }
}

/// Rotary positions: xs `[tokens, heads, dim]`, cos and sin `[tokens, dim/2]`.
pub fn rotate(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (cos, sin) = (cos.clone(), sin.clone());
    Ok(xs.contiguous()?.apply_op1(Rotation { cos, sin })?)
}

struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    fn run(&self, mut xs: Vec<f32>, dims: &[usize], backwards: bool) -> CandleResult<Vec<f32>> {
        let &[_, heads, dim] = dims else {
            bail!("expected tokens, heads, dim, found {dims:?}");
        };
        lend(&self.cos, |cos| {
            lend(&self.sin, |sin| {
                grad::rotate(&mut xs, heads, cos, sin, dim, backwards)
            })
        })??;
        Ok(xs)
    }
}

impl CustomOp1 for Rotation {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let xs = self.run(values(storage, layout)?.to_vec(), layout.dims(), false)?;
        Ok((CpuStorage::F32(xs), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let xs = self.run(lend(grad, <[f32]>::to_vec)?, arg.dims(), true)?;
        Ok(Some(tensor(xs, arg.shape())?))
    }
}

/// Causal attention within sequences of the given lengths that lie one after the other: q
/// `[tokens, heads, dim]`, k and v `[tokens, kv_heads, dim]`. Result as q.
pub fn attend_sequences([q, k, v]: [&Tensor; 3], lengths: &[usize], scale: f64) -> Result<Tensor> {
    let op = Attention {
        lengths: lengths.to_vec(),
        scale: scale as f32,
        probabilities: Mutex::default(),
        tracked: q.track_op() || k.track_op() || v.track_op(),
    };
    Ok(q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)?)
}

struct Attention {
    lengths: Vec<usize>,
    scale: f32,
    probabilities: Mutex<Vec<f32>>,
    tracked: bool,
}

impl Attention {
    fn sequences(&self, q: &[usize], k: &[usize]) -> CandleResult<Sequences<'_>> {
        match (q, k) {
            (&[_, heads, dim], &[_, kv_heads, _]) => Ok(Sequences {
                lengths: &self.lengths,
                heads,
                kv_heads,
                dim,
                scale: self.scale,
            }),
            _ => bail!("attention of q {q:?} over k {k:?}"),
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention-of-sequences"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let what = self.sequences(q_layout.dims(), k_layout.dims())?;
        let mut probabilities = vec![0.0; what.probabilities()];
        let q = values(q, q_layout)?;
        let mut out = vec![0.0; q.len()];
        let kv = (values(k, k_layout)?, values(v, v_layout)?);
        grad::attention(&what, [q, kv.0, kv.1], &mut probabilities, &mut out);
        if self.tracked {
            *self
                .probabilities
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = probabilities;
        }
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let what = self.sequences(q.dims(), k.dims())?;
        let kept = self
            .probabilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut dq = vec![0.0; q.elem_count()];
        let (mut dk, mut dv) = (vec![0.0; k.elem_count()], vec![0.0; k.elem_count()]);
        lend(q, |q| {
            lend(k, |k| {
                lend(v, |v| {
                    lend(grad, |g| {
                        let to = [&mut dq[..], &mut dk[..], &mut dv[..]];
                        grad::attention_backward(&what, [q, k, v], &kept, g, to);
                    })
                })
            })
        })????;
        Ok((
            Some(tensor(dq, q.shape())?),
            Some(tensor(dk, k.shape())?),
            Some(tensor(dv, v.shape())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn random(shape: impl Into<Shape>) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    /// Gradients of `sum(f(x) · direction)`.
    fn gradient(x: &Var, direction: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let loss = (f(x.as_tensor()) * direction).unwrap().sum_all().unwrap();
        loss.backward().unwrap().get(x.as_tensor()).unwrap().clone()
    }

    fn length(x: &Tensor) -> f32 {
        x.sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .sqrt()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    }

    #[track_caller]
    fn alike(a: &Tensor, b: &Tensor, tolerance: f32) {
        let error = length(&(a - b).unwrap()) / length(b);
        assert!(error < tolerance, "relative difference {error}");
    }

    #[test]
    fn quantised_weights_give_nearly_the_same_gradients() {
        let (inputs, inner, rows) = (64, 96, 9);
        let quantised = |seed: f64| {
            let w = (random((inner, inputs)) * (0.1 * seed)).unwrap();
            QTensor::quantize(&w, GgmlDType::Q8_0).unwrap()
        };
        let (gate, up) = (quantised(1.0), quantised(2.0));
        let dense = [&gate, &up].map(|w| w.dequantize(&Device::Cpu).unwrap());
        let x = Var::from_tensor(&random((rows, inputs))).unwrap();
        let direction = random((rows, inner));
        let both = Frozen::new(&Tensor::cat(&dense, 0).unwrap()).unwrap();
        let by_hand = |x: &Tensor| {
            let times = |w: &Tensor| x.matmul(&w.t().unwrap()).unwrap();
            (times(&dense[0]).silu().unwrap() * times(&dense[1])).unwrap()
        };
        let wanted = gradient(&x, &direction, by_hand);
        let exact = gradient(&x, &direction, |x| both.forward_gated(x).unwrap());
        alike(&exact, &wanted, 1e-5);
        let eight_bits = Frozen::quantised(&[gate, up]).unwrap();
        let found = gradient(&x, &direction, |x| eight_bits.forward_gated(x).unwrap());
        alike(&found, &wanted, 0.02);
    }

    #[test]
    fn attention_of_shared_heads_has_the_gradients_of_its_definition() {
        let (lengths, heads, kv_heads, dim) = ([3, 5], 4, 2, 20);
        let tokens = lengths.iter().sum::<usize>();
        let inputs = [heads, kv_heads, kv_heads]
            .map(|heads| Var::from_tensor(&random((tokens, heads, dim))).unwrap());
        let by_hand = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let mut parts = Vec::new();
            let mut first = 0;
            for len in lengths {
                let rows = |x: &Tensor| {
                    let rows = x.narrow(0, first, len).unwrap().transpose(0, 1).unwrap();
                    rows.contiguous().unwrap()
                };
                let part = super::super::attend_causal(&rows(q), &[(rows(k), rows(v))], 0.3);
                parts.push(part.unwrap().transpose(0, 1).unwrap());
                first += len;
            }
            Tensor::cat(&parts, 0).unwrap()
        };
        let direction = random((tokens, heads, dim));
        for learning in 0..3 {
            let with = |x: &Tensor| {
                let mut all = inputs.each_ref().map(|var| var.as_detached_tensor());
                all[learning] = x.clone();
                all
            };
            let wanted = gradient(&inputs[learning], &direction, |x| {
                let [q, k, v] = with(x);
                by_hand(&q, &k, &v)
            });
            let found = gradient(&inputs[learning], &direction, |x| {
                let [q, k, v] = with(x);
                attend_sequences([&q, &k, &v], &lengths, 0.3).unwrap()
            });
            alike(&found, &wanted, 1e-5);
        }
    }
}
