//! One recording as many: log-mel features of it as another throat, another pace, another microphone and another room
//! would have given them. What voices there are teach more than themselves then.

use crate::Result;
use crate::features::SAMPLE_RATE_HZ;
use candle_core::Tensor;
use rand::Rng;
use rand::rngs::StdRng;
use vita_model::fbank::slaney;

/// How much longer or shorter the vocal tract is (Jaitly & Hinton, "Vocal tract length perturbation improves speech
/// recognition", 2013; wider than theirs, since there are fewer speakers here), and how much slower or faster the speech.
const TRACT: [f32; 2] = [0.84, 1.2];
const PACE: [f32; 2] = [0.82, 1.2];
const WARPED: f64 = 0.7;

/// Greatest rise or fall from the lowest band to the highest: 0.25 of Whisper's scale are 10 dB.
const TILT: f32 = 0.25;

/// Bands and moments that are hidden in training, so that no recording is known by heart (Park et al., "SpecAugment", 2019).
const MASKED: f64 = 0.5;
const WIDEST_BAND: usize = 12;
const LONGEST_MOMENT: usize = 12;

/// How far below the speech is what others say at the same time, or a hiss, dB.
const SNR_DB: [f32; 2] = [0.0, 20.0];
/// Of a hiss, from one band to the next, dB: greatest rise or fall.
const HISS_TILT_DB: f32 = 0.3;

/// A room's echo: share of the draws, how loud it begins, and in how many frames (of 10 ms) it falls by 60 dB.
const ECHOED: f64 = 0.3;
const ECHO: [f32; 2] = [0.03, 0.3];
const ECHO_FRAMES: [f32; 2] = [10.0, 45.0];

/// Features `[frames, bins]` to others `[frames', bins]`, with what `others` say behind them: a hiss, where nobody says
/// anything; `None` is a quiet room.
pub fn varied(features: &Tensor, others: Option<&[Tensor]>, rng: &mut StdRng) -> Result<Tensor> {
    let mut values = features.to_vec2::<f32>()?;
    if rng.random_bool(WARPED) {
        let tract = rng.random_range(TRACT[0]..TRACT[1]);
        let pace = rng.random_range(PACE[0]..PACE[1]);
        values = warped(&values, tract, pace);
        tilt(&mut values, rng.random_range(-TILT..TILT));
    }
    if rng.random_bool(ECHOED) {
        let (loud, frames) = (ECHO, ECHO_FRAMES);
        let (loud, frames) = (
            rng.random_range(loud[0]..loud[1]),
            rng.random_range(frames[0]..frames[1]),
        );
        values = as_powers(&values, |powers| echo(powers, loud, frames));
    }
    if let Some(others) = others {
        let snr_db = rng.random_range(SNR_DB[0]..SNR_DB[1]);
        let noise = noise(others, (values.len(), features.dim(1)?), rng)?;
        values = as_powers(&values, |powers| add(powers, &noise, snr_db));
    }
    mask(&mut values, rng);
    let shape = (values.len(), features.dim(1)?);
    let values: Vec<f32> = values.into_iter().flatten().collect();
    Ok(Tensor::from_vec(values, shape, features.device())?)
}

/// All frequencies times `tract`, and `pace` times as fast.
fn warped(values: &[Vec<f32>], tract: f32, pace: f32) -> Vec<Vec<f32>> {
    let bins = values.first().map_or(0, Vec::len);
    let sources: Vec<f32> = (0..bins).map(|bin| source(bin, bins, tract)).collect();
    let frames = ((values.len() as f32 / pace) as usize).max(1);
    let frame = |i: usize| {
        let moment = i as f32 * pace;
        let (before, behind) = (at(values, moment), at(values, moment + 1.0));
        let between = moment.fract();
        let value = |source: &f32| {
            let of = |frame: &[f32]| between_bins(frame, *source);
            of(before) * (1.0 - between) + of(behind) * between
        };
        sources.iter().map(value).collect()
    };
    (0..frames).map(frame).collect()
}

fn at(values: &[Vec<f32>], moment: f32) -> &[f32] {
    &values[(moment as usize).min(values.len() - 1)]
}

fn between_bins(frame: &[f32], at: f32) -> f32 {
    let last = frame.len() - 1;
    let low = (at as usize).min(last);
    let between = at - low as f32;
    frame[low] * (1.0 - between) + frame[(low + 1).min(last)] * between
}

/// Where in the recording a bin's frequency was before all were multiplied by `tract`.
fn source(bin: usize, bins: usize, tract: f32) -> f32 {
    let highest_hz = f64::from(SAMPLE_RATE_HZ) / 2.0;
    let step = slaney::mel(highest_hz) / (bins + 1) as f64;
    let was_hz = slaney::hz(step * (bin + 1) as f64) / f64::from(tract);
    let was_bin = slaney::mel(was_hz.min(highest_hz)) / step - 1.0;
    was_bin.clamp(0.0, (bins - 1) as f64) as f32
}

/// As a microphone that prefers high or low frequencies.
fn tilt(values: &mut [Vec<f32>], by: f32) {
    for frame in values {
        let bins = frame.len() as f32;
        for (bin, value) in frame.iter_mut().enumerate() {
            *value += by * (bin as f32 / bins - 0.5);
        }
    }
}

/// Changes what the features are logarithms of: Whisper's are (lg power + 4) / 4, and none is more than 80 dB below the
/// greatest.
fn as_powers(values: &[Vec<f32>], change: impl FnOnce(&mut Vec<Vec<f32>>)) -> Vec<Vec<f32>> {
    let of = |frame: &Vec<f32>| frame.iter().map(|value| power(*value)).collect();
    let mut powers: Vec<Vec<f32>> = values.iter().map(of).collect();
    change(&mut powers);
    let greatest = powers.iter().flatten().copied().fold(1e-10, f32::max);
    let feature = |power: &f32| (power.max(greatest * 1e-8).log10() + 4.0) / 4.0;
    let of = |frame: Vec<f32>| frame.iter().map(feature).collect();
    powers.into_iter().map(of).collect()
}

fn power(feature: f32) -> f32 {
    10f32.powf(4.0 * feature - 4.0)
}

/// Powers `[frames, bins]` of what others say, each from some moment on and again when it ends; of a hiss without others.
fn noise(
    others: &[Tensor],
    (frames, bins): (usize, usize),
    rng: &mut StdRng,
) -> Result<Vec<Vec<f32>>> {
    let mut sum = vec![vec![0.0; bins]; frames];
    for other in others {
        let said = other.to_vec2::<f32>()?;
        let from = rng.random_range(0..said.len());
        for (frame, said) in sum.iter_mut().zip(said.iter().cycle().skip(from)) {
            frame
                .iter_mut()
                .zip(said)
                .for_each(|(sum, value)| *sum += power(*value));
        }
    }
    if others.is_empty() {
        let tilt_db = rng.random_range(-HISS_TILT_DB..HISS_TILT_DB);
        for frame in &mut sum {
            for (bin, value) in frame.iter_mut().enumerate() {
                // a band of noise has the power of a few Gaussian values' squares
                let chance: f32 = -(0..4)
                    .map(|_| rng.random_range(1e-6f32..1.0).ln())
                    .sum::<f32>();
                *value = chance * 10f32.powf(0.1 * tilt_db * bin as f32);
            }
        }
    }
    Ok(sum)
}

fn add(powers: &mut [Vec<f32>], noise: &[Vec<f32>], snr_db: f32) {
    let sum = |of: &[Vec<f32>]| of.iter().flatten().sum::<f32>();
    let scale = sum(powers) / sum(noise).max(1e-20) * 10f32.powf(-0.1 * snr_db);
    for (frame, noise) in powers.iter_mut().zip(noise) {
        frame
            .iter_mut()
            .zip(noise)
            .for_each(|(power, noise)| *power += scale * noise);
    }
}

/// What was, fading, in all that follows.
fn echo(powers: &mut [Vec<f32>], loud: f32, frames: f32) {
    let fading = 10f32.powf(-6.0 / frames);
    let mut rest = vec![0.0; powers.first().map_or(0, Vec::len)];
    for frame in powers {
        for (power, rest) in frame.iter_mut().zip(&mut rest) {
            let dry = *power;
            *power += loud * *rest;
            *rest = (*rest + dry) * fading;
        }
    }
}

/// A band and a moment or two set to the mean, each half of the times.
fn mask(values: &mut [Vec<f32>], rng: &mut StdRng) {
    let (frames, bins) = (values.len(), values.first().map_or(0, Vec::len));
    let mean = values.iter().flatten().sum::<f32>() / (frames * bins).max(1) as f32;
    for (length, longest, across) in [
        (bins, WIDEST_BAND, true),
        (frames, LONGEST_MOMENT, false),
        (frames, LONGEST_MOMENT, false),
    ] {
        if !rng.random_bool(MASKED) || length <= longest {
            continue;
        }
        let wide = rng.random_range(1..=longest);
        let from = rng.random_range(0..=length - wide);
        match across {
            true => values
                .iter_mut()
                .for_each(|frame| frame[from..from + wide].fill(mean)),
            false => values[from..from + wide]
                .iter_mut()
                .for_each(|frame| frame.fill(mean)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Frames with one loud band.
    fn tone(frames: usize, loud: usize) -> Vec<Vec<f32>> {
        let mut frame = vec![0.0; 80];
        frame[loud] = 1.0;
        vec![frame; frames]
    }

    fn loudest(frame: &[f32]) -> usize {
        (0..frame.len())
            .max_by(|a, b| frame[*a].total_cmp(&frame[*b]))
            .unwrap()
    }

    #[test]
    fn a_longer_tract_sounds_lower_and_a_faster_pace_is_shorter() {
        let tone = tone(100, 40);
        let at = |tract| {
            let out = warped(&tone, tract, 1.25);
            assert_eq!(out.len(), 80);
            loudest(&out[10])
        };
        // band 40 is 1,8 kHz; an octave there is 15 bands
        assert_eq!((at(1.0), at(0.5), at(2.0)), (40, 22, 58));
    }

    #[test]
    fn nothing_but_a_pace_of_one_leaves_all_as_it_was() {
        let mut rng = StdRng::seed_from_u64(1);
        let values: Vec<Vec<f32>> = (0..7)
            .map(|_| (0..80).map(|_| rng.random()).collect())
            .collect();
        for (before, after) in values.iter().zip(warped(&values, 1.0, 1.0)) {
            let apart = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-3);
        }
    }

    #[test]
    fn noise_is_as_far_below_as_wanted_and_an_echo_fades() {
        let total = |values: &[Vec<f32>]| values.iter().flatten().map(|v| power(*v)).sum::<f32>();
        let speech = tone(50, 40);
        let mut rng = StdRng::seed_from_u64(1);
        let hiss = noise(&[], (50, 80), &mut rng).unwrap();
        let noisy = as_powers(&speech, |powers| add(powers, &hiss, 10.0));
        let added = total(&noisy) / total(&speech) - 1.0;
        assert!((added - 0.1).abs() < 1e-3, "{added}");

        let mut click = vec![vec![0.0; 2]; 40];
        click[3] = vec![1.0, 0.5];
        echo(&mut click, 0.1, 20.0);
        assert_eq!((click[2][0], click[3][0]), (0.0, 1.0));
        assert!((click[23][0] / 1e-7 - 1.0).abs() < 1e-3, "{}", click[23][0]);
        assert!((click[4][1] / click[4][0] - 0.5).abs() < 1e-3);
    }

    #[test]
    fn the_same_seed_varies_the_same() {
        let device = candle_core::Device::Cpu;
        let features = Tensor::rand(0f32, 1.0, (50, 80), &device).unwrap();
        let varied = |seed| {
            let others = [features.clone()];
            let others = Some(&others[..seed as usize % 2]);
            let varied = varied(&features, others, &mut StdRng::seed_from_u64(seed)).unwrap();
            varied.to_vec2::<f32>().unwrap()
        };
        assert_eq!(varied(3), varied(3));
        assert_ne!(varied(3), varied(4));
        assert!((0..20).map(varied).all(|values| values[0].len() == 80));
    }
}
