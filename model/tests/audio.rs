//! Audio features against recorded outputs of independent implementations, and under any slicing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;
use vita_model::fbank::{Cmvn, Error, Fbank, WhaleConfig, normalise_whisper};
use vita_model::resample::resample;
use vita_model::wav;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

fn golden(file: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(tests().join("golden").join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32)
        .map(|(name, tensor)| {
            let values = tensor
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            (name.to_owned(), values.collect())
        })
        .collect()
}

fn samples(file: &str) -> Vec<f32> {
    wav::read(&tests().join(file)).unwrap().samples
}

fn jfk() -> Vec<f32> {
    let cache = std::env::var_os("VITA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| {
                    PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache")
                });
            base.join("vita-stream")
        });
    let file = cache.join("media/jfk.wav");
    wav::read(&file).expect("scripts/setup fetches it").samples
}

fn whale() -> Fbank {
    Fbank::whale(&WhaleConfig::default()).unwrap()
}

#[track_caller]
fn assert_close(got: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: length");
    let (at, error) = got
        .iter()
        .zip(wanted)
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        .fold((0, 0.0), |worst, (n, e)| {
            if e.is_nan() || e > worst.1 {
                (n, e)
            } else {
                worst
            }
        });
    println!("{what}: largest error {error:e} at {at}");
    assert!(
        error <= tolerance,
        "{what}: off by {error} at {at}, tolerance {tolerance}"
    );
}

#[test]
fn whale_equals_the_reference() {
    let golden = golden("audio.safetensors");
    let fbank = whale();
    for (name, samples) in [
        ("fbank_a", samples("golden/inputs/wave_a.wav")),
        ("fbank_stereo", samples("golden/inputs/stereo.wav")),
        ("fbank_silence_1000", vec![0.0; 1000]),
        ("fbank_q1", samples("media/q1.wav")),
        ("fbank_q2", samples("media/q2.wav")),
    ] {
        assert_close(&fbank.compute(&samples).unwrap(), &golden[name], 5e-3, name);
    }
}

#[test]
fn cmvn_equals_the_reference() {
    let golden = golden("audio.safetensors");
    let cmvn = Cmvn::read(&tests().join("golden/checkpoint/audio_encoder/global_cmvn")).unwrap();
    let mut frames = golden["single.input"].clone();
    cmvn.apply(&mut frames);
    assert_close(&frames, &golden["single.cmvn"], 1e-5, "single.cmvn");
}

#[test]
fn frame_counts_follow_the_table() {
    let text = std::fs::read_to_string(tests().join("golden/audio_lengths.json")).unwrap();
    let table: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(table.len() > 10);
    let fbank = whale();
    for (samples, row) in table {
        let wanted = row["fbank_frames"].as_i64().unwrap();
        match fbank.compute(&vec![0.1; samples.parse().unwrap()]) {
            Ok(frames) => assert_eq!((frames.len() / 80) as i64, wanted, "{samples} samples"),
            Err(Error::TooShort { needed: 400, .. }) => assert_eq!(wanted, -1, "{samples} samples"),
            Err(other) => panic!("{samples} samples: {other}"),
        }
    }
}

#[test]
fn whisper_equals_the_reference() {
    let bytes = std::fs::read(tests().join("golden/whisper_mel.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let integers = |name: &str| -> Vec<usize> {
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as usize)
            .collect()
    };
    let mut features = Fbank::whisper().compute(&jfk()).unwrap();
    normalise_whisper(&mut features);
    assert_eq!(features.len() / 80, integers("frame_count")[0]);
    let kept: Vec<f32> = integers("frames")
        .iter()
        .flat_map(|&n| features[n * 80..][..80].to_vec())
        .collect();
    assert_close(
        &kept,
        &golden("whisper_mel.safetensors")["features"],
        1e-4,
        "whisper",
    );
}

#[test]
fn resampling_equals_the_reference() {
    let golden = golden("resample.safetensors");
    for rate in [8_000, 22_050, 24_000, 44_100, 48_000] {
        let wav = wav::read(&tests().join(format!("golden/inputs/resample_{rate}.wav"))).unwrap();
        assert_eq!(wav.sample_rate_hz, rate);
        let got = resample(&wav.samples, rate, 16_000).unwrap();
        let name = format!("from_{rate}");
        assert_close(&got, &golden[&name], 1e-5, &name);
        let name = format!("proper_fbank_from_{rate}");
        if let Some(wanted) = golden.get(&name) {
            assert_close(&whale().compute(&got).unwrap(), wanted, 5e-3, &name);
        }
    }
}

#[test]
fn parameters_are_checked() {
    let default = WhaleConfig::default;
    for (config, field) in [
        (
            WhaleConfig {
                num_mel_bins: 0,
                ..default()
            },
            "num_mel_bins",
        ),
        (
            WhaleConfig {
                frame_length_ms: f64::NAN,
                ..default()
            },
            "frame_length_ms",
        ),
        (
            WhaleConfig {
                frame_shift_ms: 30.0,
                ..default()
            },
            "frame_shift_ms",
        ),
        (
            WhaleConfig {
                high_freq_hz: 8_001.0,
                ..default()
            },
            "high_freq_hz",
        ),
        (
            WhaleConfig {
                low_freq_hz: 8_000.0,
                ..default()
            },
            "low_freq_hz",
        ),
        (
            WhaleConfig {
                dither: -1.0,
                ..default()
            },
            "dither",
        ),
        (
            WhaleConfig {
                sample_rate_hz: 0,
                ..default()
            },
            "sample_rate_hz",
        ),
    ] {
        let error = Fbank::whale(&config).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn dither_is_noise_of_the_wanted_level_and_reproducible() {
    let fbank = Fbank::whale(&WhaleConfig {
        dither: 1.0,
        ..WhaleConfig::default()
    })
    .unwrap();
    let silence = vec![0.0; 16_000];
    let frames = fbank.compute(&silence).unwrap();
    assert_eq!(frames, fbank.compute(&silence).unwrap());
    // White noise of variance 1, through pre-emphasis and window: the energy at each FFT bin is about
    // |1 - 0.97 z|² Σ window². Far from the floor, and near that value in the top filter, where many bins are averaged.
    let window_energy: f64 = (0..400)
        .map(|n| (0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / 399.0).cos()).powf(1.7))
        .sum();
    let bins = 512.0 / 16_000.0 * 290.0; // weights of the top filter add up to half of its width of 580 Hz
    let wanted = (3.85 * window_energy * bins).ln();
    let top = frames
        .chunks_exact(80)
        .map(|frame| f64::from(frame[79]))
        .sum::<f64>()
        / (frames.len() / 80) as f64;
    assert!(
        (top - wanted).abs() < 0.4,
        "the top filter has {top}, expected about {wanted}"
    );
}

#[test]
fn broken_samples_stay_in_their_frames() {
    let fbank = whale();
    let clean = vec![0.25; 4_000];
    let mut broken = clean.clone();
    broken[2_000] = f32::NAN;
    broken[2_001] = f32::INFINITY;
    let (clean, broken) = (
        fbank.compute(&clean).unwrap(),
        fbank.compute(&broken).unwrap(),
    );
    assert!(broken.iter().all(|x| x.is_finite()));
    // The frames from 11 (1760..2160) to 12 (1920..2320) see sample 2000.
    assert_eq!(clean[..11 * 80], broken[..11 * 80]);
    assert_eq!(clean[13 * 80..], broken[13 * 80..]);
}

/// Noise with a tone: no two frames are alike.
fn signal(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    (0..length)
        .map(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let noise = (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
            0.3 * noise + 0.4 * (n as f32 * 0.05).sin()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_slicing_gives_the_same_bits(
        length in 0usize..12_000,
        seed in any::<u64>(),
        cuts in prop::collection::vec(0usize..6_000, 0..40),
        which in 0..3,
    ) {
        let fbank = match which {
            0 => whale(),
            1 => Fbank::whale(&WhaleConfig { dither: 1.0, ..WhaleConfig::default() }).unwrap(),
            _ => Fbank::whisper(),
        };
        let samples = signal(length, seed);
        let whole = fbank.compute(&samples).unwrap_or_default();

        let mut state = fbank.state();
        let mut out = Vec::new();
        // What a stream left behind must not reach the next one.
        fbank.push(&mut state, &signal(777, !seed), &mut out);
        state.reset();
        out.clear();

        let mut rest = samples.as_slice();
        let mut frames = 0;
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            frames += fbank.push(&mut state, now, &mut out);
            rest = later;
        }
        frames += fbank.push(&mut state, rest, &mut out);
        prop_assert_eq!(state.samples(), length as u64);
        frames += fbank.finish(&mut state, &mut out);
        prop_assert_eq!(frames * 80, out.len());
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&whole), bits(&out));
    }

    #[test]
    fn whisper_has_a_frame_every_160_samples(length in 201usize..4_000) {
        let frames = Fbank::whisper().compute(&signal(length, 7)).unwrap();
        prop_assert_eq!(frames.len() / 80, length / 160);
    }
}

#[test]
fn a_frame_of_silence_is_that_of_zeros() {
    for fbank in [
        Fbank::whale(&WhaleConfig::default()).unwrap(),
        Fbank::whisper(),
    ] {
        let frames = fbank.compute(&[0.0; 1_600]).unwrap();
        for frame in frames.chunks_exact(fbank.num_mel_bins()) {
            assert_eq!(frame, fbank.silence());
        }
    }
}
