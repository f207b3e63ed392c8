use super::{Frozen, Weights};
use crate::{Error, Result};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use std::sync::Arc;
use vita_kernels::Activation;
use vita_kernels::ops::Packed;

/// `y = x·Wᵀ + b` with W stored `[out, in]`, dense or quantised.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    outputs: usize,
    low_rank: Option<LowRank>,
    packed_update: Option<PackedUpdate>,
}

/// An update `scale · B·A` of a matrix `[out, in]`: a `[rank, in]`, b `[out, rank]`.
#[derive(Debug, Clone)]
pub struct LowRank {
    pub a: Tensor,
    pub b: Tensor,
    pub scale: f64,
}

/// A low-rank update for the kernels of the CPU; the scale is in `b`.
#[derive(Debug, Clone)]
struct PackedUpdate {
    a: Arc<Packed>,
    b: Arc<Packed>,
}

impl PackedUpdate {
    fn new(update: &LowRank) -> Result<Self> {
        let b = (update.b.to_dtype(DType::F32)? * update.scale)?;
        Ok(Self {
            a: Arc::new(Packed::dense(&update.a.to_dtype(DType::F32)?)?),
            b: Arc::new(Packed::dense(&b)?),
        })
    }
}

impl LowRank {
    /// `scale · x·Aᵀ·Bᵀ` of rows.
    fn product(&self, rows: &Tensor) -> Result<Tensor> {
        let [a, b] = [&self.a, &self.b].map(|m| m.to_dtype(rows.dtype()));
        Ok((rows.matmul(&a?.t()?)?.matmul(&b?.t()?)? * self.scale)?)
    }
}

#[derive(Debug, Clone)]
enum Weight {
    /// For devices, and where it learns.
    Dense(Tensor),
    /// On the CPU where others learn.
    Frozen(Frozen),
    /// For the kernels of the CPU.
    Packed(Arc<Packed>),
    /// In a type that only candle multiplies with.
    Quantised(QMatMul),
}

impl Weight {
    fn new(weight: Tensor, pack: bool) -> Result<Self> {
        if !weight.device().is_cpu() || weight.track_op() {
            return Ok(Self::Dense(weight));
        }
        Ok(match pack {
            true => Self::Packed(Arc::new(Packed::dense(&weight)?)),
            false => Self::Frozen(Frozen::new(&weight)?),
        })
    }

    /// Only packed and frozen weights let gradients pass.
    fn quantised(weight: QTensor, pack: bool) -> Result<Self> {
        if !weight.device().is_cpu() {
            return Ok(Self::Quantised(QMatMul::from_qtensor(weight)?));
        }
        if !pack {
            return Ok(Self::Frozen(Frozen::quantised(&[weight])?));
        }
        Ok(match Packed::quantised(&weight)? {
            Some(packed) => Self::Packed(Arc::new(packed)),
            None => Self::Quantised(QMatMul::from_qtensor(weight)?),
        })
    }
}

impl Linear {
    pub fn new(inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        let bias = w.get(outputs, "bias")?;
        Ok(Self {
            bias: Some(bias),
            ..Self::no_bias(inputs, outputs, w)?
        })
    }

    pub fn no_bias(inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        let weight = match w.quantised((outputs, inputs), "weight")? {
            Some(quantised) => Weight::quantised(quantised, w.packs())?,
            None => Weight::new(w.matrix((outputs, inputs), "weight")?, w.packs())?,
        };
        Ok(Self {
            weight,
            bias: None,
            outputs,
            low_rank: None,
            packed_update: None,
        })
    }

    /// From a dense weight `[out, in]` that is already at hand.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self {
            bias,
            ..Self::from_weight(weight, true)?
        })
    }

    /// From a dense weight `[out, in]`, for the kernels of inference (`packs`) or for those that gradients pass.
    pub fn from_weight(weight: Tensor, packs: bool) -> Result<Self> {
        let outputs = weight.dim(0)?;
        let weight = Weight::new(weight, packs)?;
        Ok(Self {
            weight,
            bias: None,
            outputs,
            low_rank: None,
            packed_update: None,
        })
    }

    /// The same matrix with an update beside it, in place of any that it had.
    pub fn updated(&self, low_rank: LowRank) -> Result<Self> {
        let learns = low_rank.a.track_op() || low_rank.b.track_op();
        let packed_update = match &self.weight {
            Weight::Packed(_) if !learns => Some(PackedUpdate::new(&low_rank)?),
            _ => None,
        };
        Ok(Self {
            low_rank: Some(low_rank),
            packed_update,
            ..self.clone()
        })
    }

    /// The update beside the matrix.
    pub fn low_rank(&self) -> Option<&LowRank> {
        self.low_rank.as_ref()
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// # Errors
    /// Of a weight in a type that only candle multiplies with.
    pub fn inputs(&self) -> Result<usize> {
        match &self.weight {
            Weight::Dense(weight) => Ok(weight.dim(1)?),
            Weight::Frozen(weight) => Ok(weight.inputs()),
            Weight::Packed(weight) => Ok(weight.k()),
            Weight::Quantised(_) => Err(Error::Input("the inputs of a quantised weight".into())),
        }
    }

    /// Rows `[ids, in]` of the weight, f32: a head that is also a table of embeddings.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.outputs) {
            return Err(Error::Input(format!("row {id} of {}", self.outputs)));
        }
        match &self.weight {
            Weight::Packed(packed) => {
                let width = packed.k();
                let mut values = vec![0.0; ids.len() * width];
                for (row, &id) in values.chunks_exact_mut(width).zip(ids) {
                    packed.row(id as usize, row);
                }
                Ok(Tensor::from_vec(values, (ids.len(), width), &Device::Cpu)?)
            }
            Weight::Dense(weight) => {
                let ids = Tensor::new(ids, weight.device())?;
                Ok(weight.index_select(&ids, 0)?.to_dtype(DType::F32)?)
            }
            Weight::Frozen(frozen) => Ok(frozen.rows(ids)?),
            Weight::Quantised(_) => Err(Error::Input(
                "rows of a quantised weight that is not packed".into(),
            )),
        }
    }

    /// `[.., in]` → `[.., out]`, in the type of `xs`: weights stored in 16 bits are widened as they are used.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_with(xs, Activation::None)
    }

    /// [`Self::forward`] and an activation, in one pass where the kernels can.
    pub fn forward_with(&self, xs: &Tensor, activation: Activation) -> Result<Tensor> {
        if let Some(packed) = self.packed(xs) {
            let bias = self.bias_in_f32()?;
            let ys = packed.forward(&xs.to_dtype(DType::F32)?, bias.as_ref(), activation)?;
            return Ok(ys.to_dtype(xs.dtype())?);
        }
        let ys = self.product(xs)?;
        Ok(match activation {
            Activation::None => ys,
            Activation::Gelu => ys.gelu_erf()?,
            Activation::Relu => ys.relu()?,
            Activation::Relu6 => ys.clamp(0f32, 6f32)?,
            Activation::Silu => ys.silu()?,
        })
    }

    /// `residual + scale · forward(xs)`, in one pass where the kernels can. `scale` is one value per output.
    pub fn forward_onto(
        &self,
        residual: &Tensor,
        xs: &Tensor,
        scale: Option<&Tensor>,
    ) -> Result<Tensor> {
        let kernels = self.packed(xs).filter(|_| {
            xs.dtype() == DType::F32 && !residual.track_op() && !scale.is_some_and(Tensor::track_op)
        });
        if let Some(packed) = kernels {
            let bias = self.bias.as_ref();
            return Ok(packed.forward_residual(xs, bias, scale, residual)?);
        }
        let ys = self.forward(xs)?;
        Ok(match scale {
            Some(scale) => (residual + ys.broadcast_mul(scale)?)?,
            None => (residual + ys)?,
        })
    }

    /// The packed weight, where no gradient is wanted.
    fn packed(&self, xs: &Tensor) -> Option<&Packed> {
        let frozen = !xs.track_op() && !self.bias.as_ref().is_some_and(Tensor::track_op);
        match &self.weight {
            Weight::Packed(packed) if frozen && self.low_rank.is_none() => Some(packed),
            _ => None,
        }
    }

    fn bias_in_f32(&self) -> Result<Option<Tensor>> {
        Ok(self
            .bias
            .as_ref()
            .map(|bias| bias.to_dtype(DType::F32))
            .transpose()?)
    }

    /// Whether the product of these rows holds the update already.
    fn has_update_in_product(&self, xs: &Tensor) -> bool {
        let packed = self.packed_update.is_some() && !xs.track_op();
        packed || matches!(self.weight, Weight::Frozen(_))
    }

    /// Beside the fast path: with gradients, or with an update.
    fn product(&self, xs: &Tensor) -> Result<Tensor> {
        let mut dims = xs.dims().to_vec();
        let inputs = dims.pop().unwrap_or(0);
        let rows = xs.reshape(((), inputs))?;
        let times = |weight: &Tensor| -> Result<Tensor> {
            Ok(rows.matmul(&weight.to_dtype(xs.dtype())?.t()?)?)
        };
        let ys = match (&self.weight, &self.low_rank) {
            (Weight::Dense(weight), _) => times(weight)?,
            (Weight::Packed(weight), _) if !xs.track_op() => {
                let rows = rows.to_dtype(DType::F32)?;
                let ys = weight.forward(&rows, None, Activation::None)?;
                let ys = match &self.packed_update {
                    Some(PackedUpdate { a, b }) => {
                        let inner = a.forward(&rows, None, Activation::None)?;
                        b.forward_residual(&inner, None, None, &ys)?
                    }
                    None => ys,
                };
                ys.to_dtype(xs.dtype())?
            }
            (Weight::Packed(weight), _) => times(&weight.unpack()?)?,
            (Weight::Quantised(weight), _) => weight.forward(&rows)?,
            (Weight::Frozen(weight), None) => weight.forward(&rows)?,
            (Weight::Frozen(weight), Some(update)) => {
                weight.forward_low_rank(&rows, (&update.a, &update.b), update.scale)?
            }
        };
        let ys = match &self.low_rank {
            Some(update) if !self.has_update_in_product(xs) => (ys + update.product(&rows)?)?,
            _ => ys,
        };
        let ys = match &self.bias {
            Some(bias) => ys.broadcast_add(bias)?,
            None => ys,
        };
        dims.push(self.outputs);
        Ok(ys.reshape(dims)?)
    }
}

/// `silu(x·Gᵀ) ⊙ x·Uᵀ`: the first half of the language models' feed-forward.
#[derive(Debug, Clone)]
pub struct GatedLinear(Gated);

#[derive(Debug, Clone)]
enum Gated {
    /// Both in one pass over the input.
    Packed(Arc<Packed>),
    /// The same where others learn: gate above up.
    Frozen(Frozen),
    Separate {
        gate: Linear,
        up: Linear,
    },
}

impl GatedLinear {
    /// Weights `[out, in]` without bias.
    pub fn new(inputs: usize, outputs: usize, gate: &Weights, up: &Weights) -> Result<Self> {
        let shape = (outputs, inputs);
        let together = match (gate.device().is_cpu(), gate.packs()) {
            (false, _) => None,
            (true, true) => Self::packed(shape, gate, up)?.map(|p| Gated::Packed(Arc::new(p))),
            (true, false) => Self::frozen(shape, gate, up)?.map(Gated::Frozen),
        };
        Ok(Self(match together {
            Some(together) => together,
            None => Gated::Separate {
                gate: Linear::no_bias(inputs, outputs, gate)?,
                up: Linear::no_bias(inputs, outputs, up)?,
            },
        }))
    }

    fn frozen(shape: (usize, usize), gate: &Weights, up: &Weights) -> Result<Option<Frozen>> {
        let quantised = (
            gate.quantised(shape, "weight")?,
            up.quantised(shape, "weight")?,
        );
        if let (Some(gate), Some(up)) = quantised {
            return Ok(Some(Frozen::quantised(&[gate, up])?));
        }
        let (gate, up) = (gate.matrix(shape, "weight")?, up.matrix(shape, "weight")?);
        if gate.track_op() || up.track_op() {
            return Ok(None);
        }
        Ok(Some(Frozen::new(&Tensor::cat(&[gate, up], 0)?)?))
    }

    fn packed(shape: (usize, usize), gate: &Weights, up: &Weights) -> Result<Option<Packed>> {
        let quantised = (
            gate.quantised(shape, "weight")?,
            up.quantised(shape, "weight")?,
        );
        match quantised {
            (Some(gate), Some(up)) => Ok(Packed::quantised_gated(&gate, &up)?),
            (None, None) => {
                let (gate, up) = (gate.matrix(shape, "weight")?, up.matrix(shape, "weight")?);
                let frozen = !gate.track_op() && !up.track_op();
                Ok(frozen
                    .then(|| Packed::dense_gated(&gate, &up))
                    .transpose()?)
            }
            _ => Ok(None),
        }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Gated::Packed(_) if xs.track_op() => Err(Error::Input(
                "no gradient passes packed weights: load with Weights::for_training".into(),
            )),
            Gated::Packed(packed) => {
                let ys = packed.forward(&xs.to_dtype(DType::F32)?, None, Activation::None)?;
                Ok(ys.to_dtype(xs.dtype())?)
            }
            Gated::Frozen(both) => both.forward_gated(xs),
            Gated::Separate { gate, up } => {
                Ok((gate.forward_with(xs, Activation::Silu)? * up.forward(xs)?)?)
            }
        }
    }
}
