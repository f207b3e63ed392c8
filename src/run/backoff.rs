//! How long to wait before the next attempt.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::plan::Retry;

/// Capped exponential back-off with jitter. Time is passed in.
///
/// A connection that held longer than the cap proves that the other side is well again: the next wait is the first one.
/// One that held for less does not, so a server that accepts and at once hangs up is not hammered.
#[derive(Debug)]
pub struct Backoff<R> {
    retry: Retry,
    rng: R,
    failures: u32,
    up_since: Option<Instant>,
}

impl<R: Rng> Backoff<R> {
    pub fn new(retry: Retry, rng: R) -> Self {
        Self {
            retry,
            rng,
            failures: 0,
            up_since: None,
        }
    }

    /// The attempt succeeded at `now`.
    pub fn succeeded(&mut self, now: Instant) {
        self.up_since.get_or_insert(now);
    }

    /// The attempt, or what it had led to, ended at `now`: the wait before the next one.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let held = self
            .up_since
            .take()
            .map(|since| now.saturating_duration_since(since));
        if held.is_some_and(|held| held > self.retry.max) {
            self.failures = 0;
        }
        let doubled = 2f64.powi(self.failures.min(1_000) as i32) * self.retry.initial.as_secs_f64();
        self.failures = self.failures.saturating_add(1);
        let jitter = self.retry.jitter.clamp(0.0, 1.0);
        let factor = 1.0 + jitter * self.rng.random_range(-1.0..=1.0);
        Duration::from_secs_f64(doubled.min(self.retry.max.as_secs_f64()) * factor)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn backoff(jitter: f64) -> Backoff<StdRng> {
        let retry = Retry {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(10),
            jitter,
        };
        Backoff::new(retry, StdRng::seed_from_u64(7))
    }

    #[test]
    fn doubles_up_to_the_cap() {
        let mut backoff = backoff(0.0);
        let now = Instant::now();
        let waits: Vec<_> = (0..7).map(|_| backoff.failed(now).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn stays_at_the_cap_for_ever() {
        let mut backoff = backoff(0.0);
        let now = Instant::now();
        assert_eq!(
            (0..5_000).map(|_| backoff.failed(now)).last(),
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn jitter_spreads_within_its_bounds() {
        let mut backoff = backoff(0.2);
        let now = Instant::now();
        let waits: Vec<_> = (0..200)
            .map(|_| backoff.failed(now).as_secs_f64())
            .skip(5)
            .collect();
        assert!(waits.iter().all(|wait| (8.0..=12.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 8.5) && waits.iter().any(|wait| *wait > 11.5));
    }

    #[test]
    fn only_a_connection_that_held_starts_over() {
        let mut backoff = backoff(0.0);
        let start = Instant::now();
        backoff.failed(start);
        backoff.failed(start);
        backoff.succeeded(start);
        assert_eq!(
            backoff.failed(start + Duration::from_secs(3)),
            Duration::from_secs(2)
        );
        backoff.succeeded(start);
        assert_eq!(
            backoff.failed(start + Duration::from_secs(11)),
            Duration::from_millis(500)
        );
    }

    #[test]
    fn a_success_counts_from_its_first_moment() {
        let mut backoff = backoff(0.0);
        let start = Instant::now();
        backoff.failed(start);
        backoff.succeeded(start);
        backoff.succeeded(start + Duration::from_secs(10));
        assert_eq!(
            backoff.failed(start + Duration::from_secs(11)),
            Duration::from_millis(500)
        );
    }
}
