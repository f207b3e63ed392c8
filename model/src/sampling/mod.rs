//! Choosing the next token, and knowing when to stop.

mod stop;

pub use stop::{Stop, StopRules};

use crate::{Error, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

/// How tokens are drawn. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// Only the so many most probable.
    pub top_k: Option<usize>,
    /// Only the most probable that together reach this probability.
    pub top_p: Option<f32>,
    /// The same seed and logits give the same tokens.
    pub seed: u64,
}

impl SamplingParams {
    /// Refuses values without a meaning.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Input(what));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return fail(format!("temperature {} is not 0 or more", self.temperature));
        }
        if self.top_k == Some(0) {
            return fail("top_k 0 leaves no token".into());
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => fail(format!("top_p {p} is not between 0 and 1")),
            _ => Ok(()),
        }
    }
}

/// One sequence's parameters and random numbers. A copy goes on as the original would have.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: StdRng,
}

impl Sampler {
    pub fn new(params: SamplingParams) -> Result<Self> {
        params.validate()?;
        let rng = StdRng::seed_from_u64(params.seed);
        Ok(Self { params, rng })
    }

    /// Draws from logits; of equals the first.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let best = argmax(logits)?;
        if self.params.temperature == 0.0 {
            return Ok(best as u32);
        }
        let max = logits[best];
        let scaled = |l: f32| f64::from((l - max) / self.params.temperature).exp();
        let mut candidates: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(i, &l)| (i as u32, scaled(l)))
            .collect();
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        candidates.truncate(self.params.top_k.unwrap_or(usize::MAX));
        let mut total: f64 = candidates.iter().map(|c| c.1).sum();
        if let Some(top_p) = self.params.top_p {
            let wanted = f64::from(top_p) * total;
            let mut reached = 0.0;
            let enough = candidates.iter().position(|c| {
                reached += c.1;
                reached >= wanted
            });
            candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
            total = candidates.iter().map(|c| c.1).sum();
        }
        let mut left = self.rng.random::<f64>() * total;
        let drawn = candidates.iter().find(|c| {
            left -= c.1;
            left < 0.0
        });
        Ok(drawn.map_or(best as u32, |c| c.0))
    }
}

fn argmax(logits: &[f32]) -> Result<usize> {
    let mut best = None;
    for (i, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return Err(
                candle_core::Error::Msg(format!("the logit of token {i} is not a number")).into(),
            );
        }
        if best.is_none_or(|(_, max)| logit > max) {
            best = Some((i, logit));
        }
    }
    let best = best.ok_or_else(|| Error::Input("no logits to choose from".into()))?;
    Ok(best.0)
}

/// Probability of one token under a softmax over all of them, in f64.
pub fn probability(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| f64::from(l - max).exp();
    let total: f64 = logits.iter().map(|&l| weight(l)).sum();
    logits.get(id as usize).map_or(0.0, |&l| weight(l) / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(params: SamplingParams, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(params).unwrap();
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts
            .into_iter()
            .map(|n| n as f64 / draws as f64)
            .collect()
    }

    #[test]
    fn draws_as_often_as_the_softmax_says() {
        let logits = [1.0, 3.0, 2.0, -40.0];
        let params = SamplingParams {
            temperature: 2.0,
            ..Default::default()
        };
        let tempered = logits.map(|l| l / 2.0);
        for (id, seen) in frequencies(params, &logits, 20_000).into_iter().enumerate() {
            assert!(
                (seen - probability(&tempered, id as u32)).abs() < 0.02,
                "{id}: {seen}"
            );
        }
    }

    #[test]
    fn top_k_and_top_p_leave_only_the_best() {
        let logits = [0.0, 5.0, 4.9, 1.0];
        let base = SamplingParams {
            temperature: 1.0,
            ..Default::default()
        };
        let k = frequencies(
            SamplingParams {
                top_k: Some(2),
                ..base
            },
            &logits,
            2000,
        );
        assert!(k[0] == 0.0 && k[3] == 0.0 && k[1] > 0.0 && k[2] > 0.0);
        let p = frequencies(
            SamplingParams {
                top_p: Some(0.3),
                ..base
            },
            &logits,
            200,
        );
        assert_eq!(p, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_seed_repeats_itself_and_a_copy_goes_on_alike() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
        let params = SamplingParams {
            temperature: 1.0,
            seed: 7,
            ..Default::default()
        };
        let (mut a, mut b) = (Sampler::new(params).unwrap(), Sampler::new(params).unwrap());
        let draw = |s: &mut Sampler| {
            (0..20)
                .map(|_| s.sample(&logits).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(&mut a), draw(&mut b));
        let mut copy = a.clone();
        assert_eq!(draw(&mut a), draw(&mut copy));
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        let bad = [
            SamplingParams {
                temperature: -1.0,
                ..Default::default()
            },
            SamplingParams {
                top_k: Some(0),
                ..Default::default()
            },
            SamplingParams {
                top_p: Some(0.0),
                ..Default::default()
            },
            SamplingParams {
                top_p: Some(f32::NAN),
                ..Default::default()
            },
        ];
        assert!(bad.iter().all(|p| Sampler::new(*p).is_err()));
        let mut greedy = Sampler::new(SamplingParams::default()).unwrap();
        assert!(greedy.sample(&[]).is_err() && greedy.sample(&[0.0, f32::NAN]).is_err());
        assert_eq!(greedy.sample(&[1.0, 2.0, 2.0]).unwrap(), 1);
    }
}
