//! Sample rate conversion by a windowed-sinc polyphase filter (model specification 4.1; the default of
//! `torchaudio.functional.resample`): Hann window, 6 zero crossings to each side, roll-off 0.99.

use std::f64::consts::PI;

const ZERO_CROSSINGS: f64 = 6.0;
const ROLL_OFF: f64 = 0.99;

/// The largest rate that is resampled. It bounds the filter's size.
const MAX_RATE_HZ: u32 = 768_000;

/// A rate that can't be converted.
#[derive(Debug, thiserror::Error)]
#[error("resample: a sample rate is {rate_hz} Hz, expected 1 to {MAX_RATE_HZ}")]
pub struct RateError {
    rate_hz: u32,
}

/// The non-zero taps of one output phase; `taps[i]` weighs input sample `start + i`, counted from the phase's block.
struct Phase {
    start: i64,
    taps: Vec<f32>,
}

/// Converts a whole signal. The output has `ceil(n · to / from)` samples.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>, RateError> {
    for rate_hz in [from_hz, to_hz] {
        if !(1..=MAX_RATE_HZ).contains(&rate_hz) {
            return Err(RateError { rate_hz });
        }
    }
    if from_hz == to_hz {
        return Ok(samples.to_vec());
    }
    let gcd = gcd(from_hz, to_hz);
    let (from, to) = (u64::from(from_hz / gcd), u64::from(to_hz / gcd));
    let wanted = (samples.len() as u64 * to).div_ceil(from);
    // A signal shorter than one block uses only the first phases.
    let phases: Vec<Phase> = (0..to.min(wanted))
        .map(|phase| design(from, to, phase))
        .collect();
    let output = (0..wanted).map(|n| {
        let phase = &phases[(n % to) as usize];
        filter(samples, (n / to * from) as i64 + phase.start, &phase.taps)
    });
    Ok(output.collect())
}

/// Σ taps[i] · samples[start + i], with zeros on both sides of the signal.
fn filter(samples: &[f32], start: i64, taps: &[f32]) -> f32 {
    let skipped = (-start).clamp(0, taps.len() as i64) as usize;
    let from = (start.max(0) as usize).min(samples.len());
    samples[from..]
        .iter()
        .zip(&taps[skipped..])
        .map(|(x, tap)| x * tap)
        .sum()
}

/// The taps of `phase`: output time `phase / to`, input times `t / from`, both in blocks.
fn design(from: u64, to: u64, phase: u64) -> Phase {
    let (a, b, p) = (from as f64, to as f64, phase as f64);
    let base = ROLL_OFF * a.min(b);
    let width = (ZERO_CROSSINGS * a / base).ceil() as i64;
    let tau = |t: i64| (t as f64 / a - p / b) * base;
    // Outside of ±6 zero crossings the window is zero.
    let reach = ZERO_CROSSINGS * a / base;
    let centre = p * a / b;
    let start = ((centre - reach).ceil() as i64).max(-width);
    let end = ((centre + reach).floor() as i64).min(width + from as i64 - 1);
    let tap = |t: i64| {
        let tau = tau(t).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS);
        let window = (PI * tau / (2.0 * ZERO_CROSSINGS)).cos().powi(2);
        let sinc = if tau == 0.0 {
            1.0
        } else {
            (PI * tau).sin() / (PI * tau)
        };
        (window * sinc * base / a) as f32
    };
    Phase {
        start,
        taps: (start..=end).map(tap).collect(),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_frequency_and_level() {
        let tone = |rate: f64, n: usize| (2.0 * PI * 440.0 * n as f64 / rate).sin() as f32;
        for (from, to) in [
            (44_100, 16_000),
            (8_000, 16_000),
            (16_000, 48_000),
            (11_025, 16_000),
        ] {
            let input: Vec<f32> = (0..from as usize)
                .map(|n| tone(f64::from(from), n))
                .collect();
            let output = resample(&input, from, to).unwrap();
            assert_eq!(output.len(), to as usize);
            // Away from the ends, where the filter sees only the tone.
            let middle = to as usize / 10..to as usize * 9 / 10;
            for (n, got) in output
                .iter()
                .enumerate()
                .filter(|(n, _)| middle.contains(n))
            {
                let error = (got - tone(f64::from(to), n)).abs();
                assert!(error < 4e-3, "{from} to {to}: sample {n} is off by {error}");
            }
        }
    }

    #[test]
    fn lengths_and_rates_at_the_edges() {
        assert!(resample(&[], 8_000, 16_000).unwrap().is_empty());
        assert_eq!(resample(&[1.0; 3], 48_000, 16_000).unwrap().len(), 1);
        assert_eq!(resample(&[1.0; 4], 48_000, 16_000).unwrap().len(), 2);
        assert_eq!(resample(&[0.5; 4], 16_000, 16_000).unwrap(), [0.5; 4]);
        assert!(
            resample(&[], 0, 16_000)
                .unwrap_err()
                .to_string()
                .contains("0 Hz")
        );
    }
}
