//! What the stages that align the senses have in common.

use crate::Result;
use crate::sampler::generator;
use candle_core::Tensor;
use rand::seq::SliceRandom;
use vita_model::train::{AdamW, Gradients, Schedule};

/// Longest gradient over all that learns.
const CLIP: f64 = 1.0;

/// The examples of an update, of `all`: each once in a pass, in an order that the seed and `what` decide.
pub(crate) fn chosen(all: usize, batch: usize, (seed, what): (u64, u64), step: u64) -> Vec<usize> {
    let passes = all.div_ceil(batch.max(1)).max(1) as u64;
    let mut order: Vec<usize> = (0..all).collect();
    order.shuffle(&mut generator(seed, what, step / passes));
    let from = (step % passes) as usize * batch;
    order.into_iter().skip(from).take(batch).collect()
}

/// One update against a loss, and the loss.
pub(crate) fn descend(
    optimiser: &mut AdamW,
    loss: &Tensor,
    (peak, updates): (f64, u64),
    step: u64,
) -> Result<f64> {
    let mut gradients = Gradients::of(optimiser.variables(), &loss.backward()?)?;
    gradients.clip(CLIP);
    let schedule = Schedule {
        peak,
        warm_up: 50,
        updates,
        floor: 0.02,
    };
    optimiser.update(&gradients, |_| schedule.rate(step))?;
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_example_comes_once_in_a_pass() {
        let of_pass = |pass: u64| -> Vec<usize> {
            let steps = (0..4).map(|step| chosen(10, 3, (1, 30), 4 * pass + step));
            steps.flatten().collect()
        };
        let (first, second) = (of_pass(0), of_pass(1));
        assert_ne!(first, second);
        for mut pass in [first, second] {
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
    }
}
