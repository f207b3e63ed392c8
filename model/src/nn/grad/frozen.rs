//! Products with weights that do not learn.

use super::{CandleResult, lend, tensor, values, with_last};
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vita_kernels::dense::{PackedDense, Values};
use vita_kernels::epilogue::Epilogue;
use vita_kernels::gemm::linear;
use vita_kernels::grad;
use vita_kernels::ops::{Packed, with_contiguous};

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
    pub(in crate::nn) fn rows(&self, ids: &[u32]) -> CandleResult<Tensor> {
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
