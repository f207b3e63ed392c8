//! From clean speech to what a microphone in a room gives, cut as the voice activity detector cuts it.

use super::sound::{at_peak, looped, piece};
use super::speech::RATE_HZ;
use rand::Rng;
use rand::rngs::StdRng;

/// How likely and how strong.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Augment {
    /// Share of clips with something in the background.
    pub noise: f64,
    /// Signal to noise, dB, from … to.
    pub snr_db: [f32; 2],
    /// Share of clips with reverberation.
    pub reverb: f64,
    /// Loudness, peak from … to.
    pub gain: [f32; 2],
    /// Silence that stays at each end, from … to. `vitavad` leaves 200 ms.
    pub pad_ms: [u32; 2],
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            noise: 0.6,
            snr_db: [5.0, 25.0],
            reverb: 0.3,
            gain: [0.15, 1.0],
            pad_ms: [120, 260],
        }
    }
}

impl Augment {
    /// `background` is what may stand behind the speech.
    pub fn apply(&self, speech: &[f32], background: Option<&[f32]>, rng: &mut StdRng) -> Vec<f32> {
        let mut out = self.padded(trimmed(speech), rng);
        if rng.random_bool(self.reverb) {
            out = reverberated(&out, rng);
        }
        let noisy = rng.random_bool(self.noise);
        let snr_db = rng.random_range(self.snr_db[0]..=self.snr_db[1]);
        if let Some(noise) = background.filter(|_| noisy) {
            let noise = looped(&piece(noise, out.len(), rng), out.len());
            mix(&mut out, &noise, snr_db);
        }
        // A microphone is never silent; 1e-4 is −80 dB.
        for x in &mut out {
            *x += rng.random_range(-1e-4..1e-4);
        }
        at_peak(out, rng.random_range(self.gain[0]..=self.gain[1]) * 0.98)
    }

    fn padded(&self, speech: &[f32], rng: &mut StdRng) -> Vec<f32> {
        let mut pad = || {
            let ms = rng.random_range(self.pad_ms[0]..=self.pad_ms[1]);
            vec![0.0; (ms * RATE_HZ / 1_000) as usize]
        };
        [pad(), speech.to_vec(), pad()].concat()
    }
}

/// Without the silence at the ends: 10 ms frames under 2 % of the loudest.
pub fn trimmed(samples: &[f32]) -> &[f32] {
    const FRAME: usize = RATE_HZ as usize / 100;
    let energy: Vec<f32> = samples.chunks(FRAME).map(power).collect();
    let floor = energy.iter().copied().fold(0.0, f32::max) * 4e-4;
    let loud = |e: &f32| *e > floor;
    let (Some(first), Some(last)) = (energy.iter().position(loud), energy.iter().rposition(loud))
    else {
        return samples;
    };
    &samples[first * FRAME..samples.len().min((last + 1) * FRAME)]
}

fn power(samples: &[f32]) -> f32 {
    samples.iter().map(|x| x * x).sum::<f32>() / samples.len().max(1) as f32
}

fn mix(speech: &mut [f32], noise: &[f32], snr_db: f32) {
    let (signal, background) = (power(trimmed(speech)), power(noise));
    if signal == 0.0 || background == 0.0 {
        return;
    }
    let scale = (signal / background / 10f32.powf(snr_db / 10.0)).sqrt();
    for (x, n) in speech.iter_mut().zip(noise) {
        *x += scale * n;
    }
}

/// A small room: some 40 reflections that fade over 80 to 300 ms.
fn reverberated(samples: &[f32], rng: &mut StdRng) -> Vec<f32> {
    let decay_secs = rng.random_range(0.08f32..0.3);
    let level = rng.random_range(0.1f32..0.35);
    let mut out = samples.to_vec();
    for _ in 0..40 {
        let delay_secs = rng.random_range(0.003..decay_secs);
        let delay = (delay_secs * RATE_HZ as f32) as usize;
        let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let gain = sign * level * (-4.0 * delay_secs / decay_secs).exp();
        for (x, dry) in out.iter_mut().skip(delay).zip(samples) {
            *x += gain * dry;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tone(length: usize) -> Vec<f32> {
        (0..length).map(|i| 0.5 * (i as f32 * 0.2).sin()).collect()
    }

    #[test]
    fn cut_as_the_detector_cuts() {
        let speech = [vec![0.0; 9_000], tone(16_000), vec![0.0; 20_000]].concat();
        let quiet = Augment {
            noise: 0.0,
            reverb: 0.0,
            pad_ms: [200, 200],
            ..Default::default()
        };
        let out = quiet.apply(&speech, None, &mut StdRng::seed_from_u64(1));
        let expected = 16_000 + 2 * 3_200;
        assert!(out.len().abs_diff(expected) <= 320, "{}", out.len());
    }

    #[test]
    fn noise_is_as_far_below_as_wanted() {
        let (mut speech, noise) = (tone(16_000), vec![0.1; 16_000]);
        let before = power(&speech);
        mix(&mut speech, &noise, 10.0);
        let added = power(&speech) - before;
        let snr_db = 10.0 * (before / added).log10();
        assert!((snr_db - 10.0).abs() < 0.5, "{snr_db}");
    }
}
