//! What the stages that align the senses have in common.

use crate::bar::bar;
use crate::instruct::{Checkpoint, Progress};
use crate::sampler::{Draws, generator};
use crate::{Error, Places, Result, Stage, StageOptions};
use candle_core::Tensor;
use rand::seq::SliceRandom;
use std::time::{Duration, Instant};
use vita_model::train::{AdamW, Gradients, Schedule};

const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Longest gradient over all that learns.
const CLIP: f64 = 1.0;

/// What learns in such a stage, with what it learns from.
pub(crate) trait Alignment {
    fn optimiser(&mut self) -> &mut AdamW;

    /// Of the update behind `step` others.
    fn loss(&self, step: u64) -> Result<Tensor>;

    /// How it does on the split valid, for people.
    fn valid(&self) -> Result<String>;
}

/// Where it ends.
pub(crate) struct Goal {
    pub updates: u64,
    /// Largest learning rate.
    pub peak: f64,
    /// Updates between two looks at the split valid.
    pub measured: u64,
}

/// Goes on from the newest checkpoint. Says how many updates there were in all.
pub(crate) fn learn(
    alignment: &mut impl Alignment,
    (places, stage): (&Places, Stage),
    goal: &Goal,
    options: &StageOptions,
) -> Result<u64> {
    let folder = places.stage(stage);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let mut done = 0;
    if let Some(checkpoint) = Checkpoint::newest(&folder)? {
        done = checkpoint.progress.step;
        alignment.optimiser().restore(&checkpoint.state, done)?;
    }
    let save = |optimiser: &AdamW, step| {
        let draws = Draws::default();
        Checkpoint::save(&folder, Progress { step, draws }, &optimiser.state()?)
    };
    let (began, mut saved) = (Instant::now(), Instant::now());
    let bar = bar(options.progress, "updates", done, goal.updates);
    while done < goal.updates && !options.is_over(began) {
        let loss = alignment.loss(done)?;
        let loss = descend(alignment.optimiser(), &loss, goal, done)?;
        done += 1;
        bar.set_position(done);
        bar.set_message(format!("loss {loss:.3}"));
        if done.is_multiple_of(goal.measured.max(1)) {
            let valid = alignment.valid()?;
            tracing::info!(update = done, loss, "{valid}");
            bar.println(format!("{done}: loss {loss:.3}, {valid}"));
        }
        if saved.elapsed() >= SAVE_EVERY {
            save(alignment.optimiser(), done)?;
            saved = Instant::now();
        }
    }
    save(alignment.optimiser(), done)?;
    bar.finish_and_clear();
    Ok(done)
}

/// The examples of an update, of `all`: each once in a pass, in an order that the seed and `what` decide.
pub(crate) fn chosen(all: usize, batch: usize, (seed, what): (u64, u64), step: u64) -> Vec<usize> {
    let passes = all.div_ceil(batch.max(1)).max(1) as u64;
    let mut order: Vec<usize> = (0..all).collect();
    order.shuffle(&mut generator(seed, what, step / passes));
    let from = (step % passes) as usize * batch;
    order.into_iter().skip(from).take(batch).collect()
}

/// One update against a loss, and the loss.
fn descend(optimiser: &mut AdamW, loss: &Tensor, goal: &Goal, step: u64) -> Result<f64> {
    let mut gradients = Gradients::of(optimiser.variables(), &loss.backward()?)?;
    gradients.clip(CLIP);
    let schedule = Schedule {
        peak: goal.peak,
        warm_up: 50,
        updates: goal.updates,
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
