//! One recording as many: log-mel features of it as another throat, another pace and another microphone would have
//! given them. What voices there are teach more than themselves then.

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

/// Features `[frames, bins]` to others `[frames', bins]`.
pub fn varied(features: &Tensor, rng: &mut StdRng) -> Result<Tensor> {
    let mut values = features.to_vec2::<f32>()?;
    if rng.random_bool(WARPED) {
        let tract = rng.random_range(TRACT[0]..TRACT[1]);
        let pace = rng.random_range(PACE[0]..PACE[1]);
        values = warped(&values, tract, pace);
        tilt(&mut values, rng.random_range(-TILT..TILT));
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
    fn the_same_seed_varies_the_same() {
        let device = candle_core::Device::Cpu;
        let features = Tensor::rand(0f32, 1.0, (50, 80), &device).unwrap();
        let varied = |seed| {
            let varied = varied(&features, &mut StdRng::seed_from_u64(seed)).unwrap();
            varied.to_vec2::<f32>().unwrap()
        };
        assert_eq!(varied(3), varied(3));
        assert_ne!(varied(3), varied(4));
        assert!((0..20).map(varied).all(|values| values[0].len() == 80));
    }
}
