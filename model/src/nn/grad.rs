//! Operations with fast forms in both directions, for training on the CPU.
//!
//! Weights that do not learn are packed twice: as they are for the product, transposed for its
//! gradient, the latter when the first gradient passes. What an operation needs of its forward pass
//! it keeps until its gradient is asked for.

use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vita_kernels::dense::{PackedDense, Values};
use vita_kernels::epilogue::Epilogue;
use vita_kernels::gemm::linear;
use vita_kernels::grad::{self, Sequences};
use vita_kernels::norm::{Norm, normalise};
use vita_kernels::ops::with_contiguous;

type CandleResult<T> = candle_core::Result<T>;

/// A matrix `[out, in]` that does not learn.
#[derive(Clone)]
pub struct Frozen(Arc<Packings>);

struct Packings {
    forward: PackedDense,
    backward: OnceLock<PackedDense>,
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
        Ok(Self(Arc::new(Packings {
            forward: with_contiguous(&weight, pack)?,
            backward: OnceLock::new(),
        })))
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
        linear(x, &self.0.forward, &Epilogue::default(), &mut out);
        out
    }

    /// `g·W` of rows: the gradient of [`Self::product`] with regard to x.
    fn product_back(&self, g: &[f32]) -> Vec<f32> {
        let packed = self.0.backward.get_or_init(|| {
            let (n, k) = (self.outputs(), self.inputs());
            let mut transposed = vec![0.0; n * k];
            let mut row = vec![0.0; k];
            for i in 0..n {
                self.0.forward.row(i, &mut row);
                for (j, &value) in row.iter().enumerate() {
                    transposed[j * n + i] = value;
                }
            }
            PackedDense::new(Values::F32(&transposed), k, n)
        });
        let mut out = vec![0.0; g.len() / self.outputs() * self.inputs()];
        linear(g, packed, &Epilogue::default(), &mut out);
        out
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
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
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
        let back = lend(grad, |g| self.0.product_back(g))?;
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
        Ok(Some(tensor(self.weight.product_back(&both), arg.shape())?))
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

    fn backward(&self, x: &[f32], a: &[f32], b: &[f32], g: &[f32]) -> [Vec<f32>; 3] {
        let (inputs, outputs, rank) = (self.weight.inputs(), self.weight.outputs(), self.rank);
        let h = self.inner(x, a);
        let b_back = PackedDense::new(Values::F32(&transposed(b, rank)), rank, outputs);
        let dh = self.scaled(g, &b_back);
        let mut db = vec![0.0; rank * outputs];
        grad::outer_sum(&h, rank, g, outputs, &mut db);
        let mut da = vec![0.0; rank * inputs];
        grad::outer_sum(&dh, rank, x, inputs, &mut da);
        let mut dx = self.weight.product_back(g);
        let a_back = PackedDense::new(Values::F32(&transposed(a, inputs)), inputs, rank);
        linear(&dh, &a_back, &onto(), &mut dx);
        [dx, da, transposed(&db, outputs)]
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
        })????;
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
