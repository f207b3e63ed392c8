//! Speech is found where it is, and nowhere else.

use std::{path::Path, process::Command};

use crate::bench::*;

/// Where speech truly is in a recording without much else: from the first 30 ms that have a tenth of the loudest
/// amplitude (a reader's breath has less, a click is shorter) to the last with a twentieth (words fade). First sample,
/// and the one after the last.
fn loud(samples: &[f32]) -> (usize, usize) {
    let energy = |frame: &[f32]| frame.iter().map(|sample| sample * sample).sum();
    let energies: Vec<f32> = samples.chunks(160).map(energy).collect();
    let loudest = energies.iter().copied().fold(0.0, f32::max);
    let above = |limit: f32| move |frames: &[f32]| frames.iter().all(|energy| *energy > limit);
    let first = energies
        .windows(3)
        .position(above(loudest / 100.0))
        .unwrap();
    let last = energies
        .windows(3)
        .rposition(above(loudest / 400.0))
        .unwrap();
    (first * 160, (last + 3) * 160)
}

/// Noise of the given strength, the same each time.
fn add_noise(samples: &mut [f32], strength: f32) {
    let mut state = 1_u32;
    for sample in samples {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample += strength * (state as i32 as f32 / 2_147_483_648.0);
    }
}

/// Each utterance (recording, where it is loud) with 2 s of silence before it and behind the last, and the true start
/// and end of each in ms.
fn scene(utterances: &[Vec<f32>], noise: f32) -> (Vec<f32>, Vec<(i64, i64)>) {
    let mut samples = silence(2000);
    let mut truth = Vec::new();
    for utterance in utterances {
        let (first, last) = loud(utterance);
        let ms = |at: usize| ((samples.len() + at) as u64 * 1000 / RATE) as i64;
        truth.push((ms(first), ms(last)));
        samples.extend_from_slice(utterance);
        samples.extend(silence(2000));
    }
    add_noise(&mut samples, noise);
    (samples, truth)
}

#[track_caller]
fn assert_found(what: &str, utterances: &[Vec<f32>], noise: f32) {
    let (samples, truth) = scene(utterances, noise);
    let mut bench = Bench::new("F32LE");
    bench.push(&samples, &[320]);
    bench.eos();
    let marks = bench.marks();
    assert_eq!(
        ends(&marks),
        vec![accepted("silence"); truth.len()],
        "{what}: {marks:?}"
    );
    for (index, (start, end)) in truth.into_iter().enumerate() {
        let ms = |mark: &gst::Structure| time(mark, "stream-time").mseconds() as i64;
        let (found_start, found_end) = (ms(&marks[2 * index]), ms(&marks[2 * index + 1]));
        assert!(
            (found_start - start).abs() <= TOLERANCE_MS,
            "{what} {index}: start at {found_start} ms, truly {start}"
        );
        assert!(
            (found_end - end).abs() <= TOLERANCE_MS,
            "{what} {index}: end at {found_end} ms, truly {end}"
        );
        // The first and the last sound are inside.
        assert!(
            found_start <= start && found_end >= end - 32,
            "{what} {index}: {found_start} to {found_end} in {start} to {end}"
        );
    }
    assert_eq!(bench.messages(), marks, "{what}: the bus tells the same");
}

/// A synthetic voice, whose start and end are known to the sample.
fn synthesised(folder: &Path, text: &str) -> Vec<f32> {
    let (spoken, resampled) = (folder.join("spoken.wav"), folder.join("resampled.wav"));
    let run = |command: &mut Command| {
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make setup`"));
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(Command::new("espeak-ng").arg("-w").arg(&spoken).arg(text));
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-i"])
        .arg(&spoken)
        .args(["-ar", "16000", "-ac", "1"])
        .arg(&resampled));
    recording(&resampled)
}

#[test]
fn recorded_speech_is_found_where_it_is() {
    let mut people = ["0870", "0880", "0920", "0930"]
        .map(|number| recording(&librivox(number)))
        .to_vec();
    people.push(q1());
    assert_found("people", &people, 0.0);
    assert_found("people in noise", &people, 0.003);
}

#[test]
fn synthetic_speech_is_found_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [
        "what is the person at the door holding",
        "stop",
        "please count the chairs in this room",
    ];
    let voices = texts.map(|text| synthesised(folder.path(), text));
    assert_found("espeak-ng", &voices, 0.0005);
}

#[test]
fn silence_and_noise_are_not_speech() {
    let mut samples = silence(20_000);
    add_noise(&mut samples[160_000..], 0.3);
    let mut bench = Bench::new("F32LE");
    bench.push(&samples, &[512]);
    bench.eos();
    assert_eq!(bench.marks(), Vec::<gst::Structure>::new());
    assert_eq!(
        (bench.stat::<u64>("samples"), bench.stat::<u64>("blocks")),
        (320_000, 625)
    );
}
