use super::Weights;
use crate::Result;
use candle_core::quantized::QMatMul;
use candle_core::{Module, Tensor};

/// `y = x·Wᵀ + b` with W stored `[out, in]`, dense or quantised.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    outputs: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    Dense(Tensor),
    Quantised(QMatMul),
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
            Some(quantised) => Weight::Quantised(QMatMul::from_qtensor(quantised)?),
            None => Weight::Dense(w.matrix((outputs, inputs), "weight")?),
        };
        Ok(Self {
            weight,
            bias: None,
            outputs,
        })
    }

    /// From a dense weight `[out, in]` that is already at hand.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let outputs = weight.dim(0)?;
        Ok(Self {
            weight: Weight::Dense(weight),
            bias,
            outputs,
        })
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[.., in]` → `[.., out]`, in the type of `xs`: weights stored in 16 bits are widened as they are used.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut dims = xs.dims().to_vec();
        let inputs = dims.pop().unwrap_or(0);
        let rows = xs.reshape(((), inputs))?;
        let ys = match &self.weight {
            Weight::Dense(weight) => rows.matmul(&weight.to_dtype(xs.dtype())?.t()?)?,
            Weight::Quantised(weight) => weight.forward(&rows)?,
        };
        let ys = match &self.bias {
            Some(bias) => ys.broadcast_add(bias)?,
            None => ys,
        };
        dims.push(self.outputs);
        Ok(ys.reshape(dims)?)
    }
}
