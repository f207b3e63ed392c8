//! Mean cross-entropy over the positions that have a target (spec 8.1).

use crate::nn::values;
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Shape, Tensor, bail};
use std::sync::{Mutex, PoisonError};
use vita_kernels::grad;

type CandleResult<T> = candle_core::Result<T>;

/// What was asked of each row, and how much it counts.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// A token for each row of logits.
    pub targets: Vec<u32>,
    /// The mean is weighted by these; all 1 for the plain mean.
    pub weights: Vec<f32>,
}

impl CrossEntropy {
    /// The plain mean.
    pub fn mean(targets: Vec<u32>) -> Self {
        let weights = vec![1.0; targets.len()];
        Self { targets, weights }
    }
}

/// Loss (a scalar) of logits that lie in two parts, as [`LanguageModel::split_logits`] gives them.
///
/// [`LanguageModel::split_logits`]: crate::lm::LanguageModel::split_logits
pub fn cross_entropy(own: &Tensor, added: Option<&Tensor>, what: &CrossEntropy) -> Result<Tensor> {
    let (rows, own_width) = own.dims2()?;
    let added_width = added.map_or(Ok(0), |added| added.dim(1))?;
    let widths = [own_width, added_width];
    let vocabulary = own_width + added_width;
    let whole: f64 = what.weights.iter().map(|&w| f64::from(w)).sum();
    if what.targets.len() != rows || what.weights.len() != rows || whole <= 0.0 {
        let (targets, weights) = (what.targets.len(), what.weights.len());
        return Err(Error::Input(format!(
            "{rows} rows of logits for {targets} targets with {weights} weights that sum to {whole}"
        )));
    }
    if let Some(target) = what.targets.iter().find(|&&t| t as usize >= vocabulary) {
        return Err(Error::Input(format!(
            "target {target} of a vocabulary of {vocabulary}"
        )));
    }
    let weights = what.weights.iter().map(|w| w / whole as f32).collect();
    let op = Loss {
        what: CrossEntropy {
            targets: what.targets.clone(),
            weights,
        },
        widths,
        kept: Mutex::default(),
    };
    let f32 = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    let own = f32(own)?;
    Ok(match added {
        Some(added) => own.apply_op2(&f32(added)?, op)?,
        None => own.apply_op1(op)?,
    })
}

struct Loss {
    /// Weights sum to one.
    what: CrossEntropy,
    widths: [usize; 2],
    /// Gradients of both parts.
    kept: Mutex<[Vec<f32>; 2]>,
}

impl Loss {
    fn run(&self, own: &[f32], added: &[f32]) -> (CpuStorage, Shape) {
        let mut parts = [own.to_vec(), added.to_vec()];
        let [own, added] = &mut parts;
        let (targets, weights) = (&self.what.targets, &self.what.weights);
        let loss = grad::cross_entropy([own, added], self.widths, targets, weights);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = parts;
        (CpuStorage::F32(vec![loss as f32]), Shape::from(()))
    }

    fn gradients(&self, grad: &Tensor) -> CandleResult<[Tensor; 2]> {
        let factor = f64::from(grad.to_scalar::<f32>()?);
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let rows = self.what.targets.len();
        if kept[0].len() != rows * self.widths[0] {
            bail!("the gradient of a loss is asked for twice");
        }
        let [own, added] = kept;
        let part = |values, width| {
            let part = Tensor::from_vec(values, (rows, width), &Device::Cpu)?;
            if factor == 1.0 {
                Ok(part)
            } else {
                part * factor
            }
        };
        Ok([part(own, self.widths[0])?, part(added, self.widths[1])?])
    }
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, own: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.run(values(own, layout)?, &[]))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let [own, _] = self.gradients(grad)?;
        Ok(Some(own))
    }
}

impl CustomOp2 for Loss {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        own: &CpuStorage,
        own_layout: &Layout,
        added: &CpuStorage,
        added_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.run(values(own, own_layout)?, values(added, added_layout)?))
    }

    fn bwd(
        &self,
        _own: &Tensor,
        _added: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [own, added] = self.gradients(grad)?;
        Ok((Some(own), Some(added)))
    }
}
