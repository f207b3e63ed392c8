//! Connectionist temporal classification (Graves et al. 2006): the probability that a sequence of
//! labels comes out when blanks and repetitions are taken away, summed over all ways.

use crate::nn::values;
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// Negative logarithm of that probability, for log-probabilities `[steps, classes]` (each row sums to
/// one in probabilities). The gradient is computed by the forward-backward algorithm in logarithms.
///
/// # Errors
/// Where the labels need more steps than there are, or are no classes or the blank.
pub fn ctc_loss(log_probabilities: &Tensor, labels: &[u32], blank: u32) -> Result<Tensor> {
    let (steps, classes) = log_probabilities.dims2()?;
    let wrong = labels
        .iter()
        .find(|&&l| l as usize >= classes || l == blank);
    if let Some(label) = wrong.or((blank as usize >= classes).then_some(&blank)) {
        return Err(Error::Input(format!(
            "label {label} among {classes} classes with blank {blank}"
        )));
    }
    let needed = ctc_steps(labels);
    if needed > steps || steps == 0 {
        return Err(Error::Input(format!(
            "{} labels need {needed} steps, there are {steps}",
            labels.len()
        )));
    }
    let op = Ctc {
        labels: labels.to_vec(),
        blank,
        gradient: Mutex::default(),
    };
    let xs = log_probabilities.to_dtype(DType::F32)?.contiguous()?;
    Ok(xs.apply_op1(op)?)
}

/// Steps that labels need: one each, and a blank between two that are the same.
pub fn ctc_steps(labels: &[u32]) -> usize {
    let repeated = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
    labels.len() + repeated
}

struct Ctc {
    labels: Vec<u32>,
    blank: u32,
    gradient: Mutex<Vec<f32>>,
}

fn add_logs(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    match high == f64::NEG_INFINITY {
        true => high,
        false => high + (low - high).exp().ln_1p(),
    }
}

impl Ctc {
    /// The state at each place of `blank, label, blank, …, blank`.
    fn states(&self) -> Vec<usize> {
        let labels = self
            .labels
            .iter()
            .flat_map(|&l| [l as usize, self.blank as usize]);
        std::iter::once(self.blank as usize).chain(labels).collect()
    }

    /// Loss, and its gradient with regard to the log-probabilities.
    fn run(&self, xs: &[f32], classes: usize) -> (f64, Vec<f32>) {
        let states = self.states();
        let (steps, count) = (xs.len() / classes, states.len());
        let x = |t: usize, s: usize| f64::from(xs[t * classes + states[s]]);
        // a label may follow another without a blank between, unless they are the same
        let skips =
            |s: usize| s >= 2 && states[s] != self.blank as usize && states[s] != states[s - 2];
        let none = f64::NEG_INFINITY;
        let mut forward = vec![none; steps * count];
        forward[0] = x(0, 0);
        if count > 1 {
            forward[1] = x(0, 1);
        }
        for t in 1..steps {
            let (before, now) = forward[(t - 1) * count..].split_at_mut(count);
            for s in 0..count {
                let mut sum = before[s];
                if s >= 1 {
                    sum = add_logs(sum, before[s - 1]);
                }
                if skips(s) {
                    sum = add_logs(sum, before[s - 2]);
                }
                now[s] = sum + x(t, s);
            }
        }
        let mut backward = vec![none; steps * count];
        for s in count.saturating_sub(2)..count {
            backward[(steps - 1) * count + s] = 0.0;
        }
        for t in (0..steps - 1).rev() {
            let (now, after) = backward[t * count..].split_at_mut(count);
            for s in 0..count {
                let mut sum = after[s] + x(t + 1, s);
                if s + 1 < count {
                    sum = add_logs(sum, after[s + 1] + x(t + 1, s + 1));
                }
                if s + 2 < count && skips(s + 2) {
                    sum = add_logs(sum, after[s + 2] + x(t + 1, s + 2));
                }
                now[s] = sum;
            }
        }
        let last = &forward[(steps - 1) * count..];
        let total = last[count.saturating_sub(2)..]
            .iter()
            .fold(none, |sum, &a| add_logs(sum, a));
        let mut gradient = vec![0f32; xs.len()];
        for t in 0..steps {
            for s in 0..count {
                let at = t * count + s;
                let share = (forward[at] + backward[at] - total).exp();
                gradient[t * classes + states[s]] -= share as f32;
            }
        }
        (-total, gradient)
    }
}

impl CustomOp1 for Ctc {
    fn name(&self) -> &'static str {
        "ctc"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let &[_, classes] = layout.dims() else {
            bail!("expected steps and classes, found {layout:?}");
        };
        let (loss, gradient) = self.run(values(storage, layout)?, classes);
        *self.gradient.lock().unwrap_or_else(PoisonError::into_inner) = gradient;
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        arg: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let kept =
            std::mem::take(&mut *self.gradient.lock().unwrap_or_else(PoisonError::into_inner));
        if kept.len() != arg.elem_count() {
            bail!("the gradient of a CTC loss is asked for twice");
        }
        let factor = f64::from(grad.to_scalar::<f32>()?);
        let gradient = Tensor::from_vec(kept, arg.shape(), &Device::Cpu)?;
        Ok(Some((gradient * factor)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// All ways, one by one.
    fn by_force(probabilities: &[Vec<f64>], labels: &[u32], blank: u32) -> f64 {
        let (steps, classes) = (probabilities.len(), probabilities[0].len());
        let mut whole = 0.0;
        for way in 0..classes.pow(steps as u32) {
            let path: Vec<_> = (0..steps)
                .map(|t| way / classes.pow(t as u32) % classes)
                .collect();
            let mut written: Vec<u32> = path.iter().map(|&c| c as u32).collect();
            written.dedup();
            written.retain(|&c| c != blank);
            if written == labels {
                whole += path
                    .iter()
                    .enumerate()
                    .map(|(t, &c)| probabilities[t][c])
                    .product::<f64>();
            }
        }
        -whole.ln()
    }

    fn log_softmax(logits: &Tensor) -> Tensor {
        candle_nn::ops::log_softmax(logits, 1).unwrap()
    }

    #[test]
    fn it_sums_over_all_ways() {
        for (labels, blank, classes) in [
            (vec![0, 1], 2, 3),
            (vec![1, 1], 0, 3),
            (vec![2], 0, 3),
            (vec![], 1, 3),
            (vec![1, 2, 1], 0, 3),
        ] {
            let logits = Tensor::randn(0f32, 1.5, (5, classes), &Device::Cpu).unwrap();
            let xs = log_softmax(&logits);
            let probabilities: Vec<Vec<f64>> = xs
                .to_vec2::<f32>()
                .unwrap()
                .into_iter()
                .map(|row| row.into_iter().map(|x| f64::from(x).exp()).collect())
                .collect();
            let ours = ctc_loss(&xs, &labels, blank).unwrap();
            let ours = f64::from(ours.to_scalar::<f32>().unwrap());
            let force = by_force(&probabilities, &labels, blank);
            assert!((ours - force).abs() < 1e-4, "{labels:?}: {ours}, {force}");
        }
    }

    #[test]
    fn its_gradient_is_the_difference_quotient() {
        let logits = Tensor::randn(0f32, 1.0, (6, 4), &Device::Cpu).unwrap();
        let var = Var::from_tensor(&logits).unwrap();
        let loss = |x: &Tensor| ctc_loss(&log_softmax(x), &[1, 1, 3], 0).unwrap();
        let gradients = loss(&var).backward().unwrap();
        let gradient = gradients
            .get(var.as_tensor())
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        let values = logits.to_vec2::<f32>().unwrap();
        let step = 1e-2;
        for t in 0..6 {
            for c in 0..4 {
                let at = |change: f32| {
                    let mut values = values.clone();
                    values[t][c] += change;
                    let xs = Tensor::new(values, &Device::Cpu).unwrap();
                    loss(&xs).to_scalar::<f32>().unwrap()
                };
                let quotient = (at(step) - at(-step)) / (2.0 * step);
                let found = gradient[t][c];
                assert!((quotient - found).abs() < 2e-3, "{quotient}, {found}");
            }
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let xs = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(ctc_loss(&xs, &[1, 1, 2], 0).is_err());
        assert!(ctc_loss(&xs, &[0], 0).is_err());
        assert!(ctc_loss(&xs, &[4], 0).is_err());
        assert!(ctc_loss(&xs, &[1, 2, 1], 0).is_ok());
    }
}
