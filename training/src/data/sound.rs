//! Sounds of a room that are not speech to anybody: recordings from system packages, and synthetic ones.

use super::speech::{RATE_HZ, output};
use super::{Error, Result};
use crate::Split;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of Debian packages with recordings; what is not installed is not used.
const FOLDERS: [(&str, &str); 12] = [
    ("real-sound", "/usr/share/tuxpaint/stamps/animals"),
    ("real-sound", "/usr/share/tuxpaint/stamps/vehicles"),
    ("real-sound", "/usr/share/tuxpaint/stamps/household"),
    ("real-sound", "/usr/share/tuxpaint/stamps/naturalforces"),
    ("real-sound", "/usr/share/tuxpaint/stamps/military"),
    ("music", "/usr/share/tuxpaint/stamps/hobbies/music"),
    ("music", "/usr/share/sounds/lomiri/ringtones"),
    ("music", "/usr/share/games/asc/music"),
    ("music", "/usr/share/games/frozen-bubble/snd"),
    ("chime", "/usr/share/sounds/freedesktop/stereo"),
    ("chime", "/usr/share/sounds/Yaru/stereo"),
    ("chime", "/usr/share/sounds/lomiri/notifications"),
];
const LONGEST_SECS: usize = 20;

/// A recording in memory.
#[derive(Debug)]
pub struct Recording {
    pub group: &'static str,
    pub split: Split,
    pub samples: Vec<f32>,
}

/// All recordings, a fifth of them held out by name.
pub fn recordings() -> Result<Vec<Recording>> {
    let mut found = Vec::new();
    for (group, folder) in FOLDERS {
        let mut files = Vec::new();
        collect(Path::new(folder), &mut files)?;
        files.sort();
        for path in files {
            let samples = decode(&path)?;
            if samples.len() < RATE_HZ as usize / 5 {
                continue;
            }
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.push(Recording {
                group,
                split: split_of(&name),
                samples,
            });
        }
    }
    Ok(found)
}

/// The side of the split that a recording or picture is on: by its name, so it stays there.
pub(super) fn split_of(name: &str) -> Split {
    match Sha256::digest(name.as_bytes())[0] % 10 {
        0..2 => Split::Test,
        2 => Split::Valid,
        _ => Split::Train,
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if folder.is_file() {
        files.push(folder.to_owned());
    }
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            collect(&path, files)?;
        } else if is_sound(&name) {
            files.push(path);
        }
    }
    Ok(())
}

/// Not the recordings of people: `…_desc.ogg` names a picture in English, `…_fr.ogg` says something in
/// French. A model that learnt them as noise would learn that real voices are noise; the evaluation
/// uses them.
fn is_sound(name: &str) -> bool {
    let Some((stem, end)) = name.rsplit_once('.') else {
        return false;
    };
    let tail = stem.rsplit('_').next().filter(|_| stem.contains('_'));
    let language = tail.is_some_and(|t| {
        t == "desc" || (2..=3).contains(&t.len()) && !t.starts_with(char::is_numeric)
    });
    ["ogg", "oga", "wav", "mp3"].contains(&end) && !language && !stem.contains("_desc_")
}

/// Any sound file, mono at [`RATE_HZ`], at most 20 s.
pub fn decode(path: &Path) -> Result<Vec<f32>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i"]).arg(path);
    command.args([
        "-t",
        &LONGEST_SECS.to_string(),
        "-ac",
        "1",
        "-ar",
        &RATE_HZ.to_string(),
    ]);
    let bytes = output(command.args(["-f", "s16le", "-"]))?;
    let samples = bytes
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]));
    Ok(samples.map(|s| f32::from(s) / 32_768.0).collect())
}

/// A piece of a recording, as long as wanted where it is long enough.
pub fn piece(samples: &[f32], wanted: usize, rng: &mut StdRng) -> Vec<f32> {
    let start = rng.random_range(0..=samples.len().saturating_sub(wanted));
    let end = samples.len().min(start + wanted);
    samples[start..end].to_vec()
}

/// Repeats a piece until it is `wanted` long.
pub fn looped(piece: &[f32], wanted: usize) -> Vec<f32> {
    match piece.is_empty() {
        true => vec![0.0; wanted],
        false => piece.iter().copied().cycle().take(wanted).collect(),
    }
}

/// Kinds of made-up sound.
pub const SYNTHETIC: [&str; 6] = ["hiss", "hum", "knocks", "beeps", "melody", "silence"];

/// A made-up sound with a peak near 0.5 (silence: near 0).
pub fn synthetic(kind: &str, length: usize, rng: &mut StdRng) -> Vec<f32> {
    match kind {
        "hiss" => hiss(length, rng),
        "hum" => hum(length, rng),
        "knocks" => knocks(length, rng),
        "beeps" => tones(length, rng, 0.05..0.3, 600.0..2_400.0, 1),
        "melody" => tones(length, rng, 0.15..0.6, 110.0..880.0, 4),
        _ => hiss(length, rng).into_iter().map(|x| x * 0.003).collect(),
    }
}

/// Noise between white and brown, as fans and rooms have it.
fn hiss(length: usize, rng: &mut StdRng) -> Vec<f32> {
    let keep = rng.random_range(0.0f32..0.98);
    let mut low = 0.0;
    let samples = (0..length).map(|_| {
        low = keep * low + (1.0 - keep) * rng.random_range(-1.0f32..1.0);
        low
    });
    at_peak(samples.collect(), 0.5)
}

/// Mains hum with harmonics.
fn hum(length: usize, rng: &mut StdRng) -> Vec<f32> {
    let base = [50.0f32, 60.0, 100.0, 120.0]
        .choose(rng)
        .copied()
        .unwrap_or(50.0);
    let levels: Vec<f32> = (1..8)
        .map(|n| rng.random_range(0.0..1.0) / n as f32)
        .collect();
    let sample = |i: usize| {
        let t = i as f32 / RATE_HZ as f32;
        let partials = levels
            .iter()
            .enumerate()
            .map(|(n, level)| level * (std::f32::consts::TAU * base * (n + 1) as f32 * t).sin());
        partials.sum()
    };
    at_peak((0..length).map(sample).collect(), 0.5)
}

/// Knocks, clicks, keys: short bursts that ring out.
fn knocks(length: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut out = vec![0.0; length];
    let mut at = rng.random_range(0..RATE_HZ as usize / 4);
    while at < length {
        let (pitch, decay) = (
            rng.random_range(80.0f32..3_000.0),
            rng.random_range(60.0f32..600.0),
        );
        let level = rng.random_range(0.3..1.0);
        for (i, x) in out[at..].iter_mut().take(RATE_HZ as usize / 5).enumerate() {
            let t = i as f32 / RATE_HZ as f32;
            let ring = (std::f32::consts::TAU * pitch * t).sin() + rng.random_range(-0.5..0.5);
            *x += level * ring * (-t * decay).exp();
        }
        at += rng.random_range(RATE_HZ as usize / 16..RATE_HZ as usize);
    }
    at_peak(out, 0.6)
}

/// Notes one after another, `voices` at a time.
fn tones(
    length: usize,
    rng: &mut StdRng,
    secs: std::ops::Range<f32>,
    pitch: std::ops::Range<f32>,
    voices: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; length];
    for _ in 0..voices {
        let mut at = 0;
        while at < length {
            let note = (rng.random_range(secs.clone()) * RATE_HZ as f32) as usize + 1;
            // Equal temperament, so that it sounds like music rather than like an alarm.
            let semitone = (12.0 * (rng.random_range(pitch.clone()) / 440.0).log2()).round();
            let frequency = 440.0 * (semitone / 12.0).exp2();
            let rest = rng.random_bool(0.2);
            for (i, x) in out[at..].iter_mut().take(note).enumerate() {
                let phase = std::f32::consts::TAU * frequency * i as f32 / RATE_HZ as f32;
                let envelope = (-3.0 * i as f32 / note as f32).exp() * (i as f32 / 80.0).min(1.0);
                *x += if rest {
                    0.0
                } else {
                    envelope * (phase.sin() + 0.4 * (2.0 * phase).sin())
                };
            }
            at += note;
        }
    }
    at_peak(out, 0.5)
}

pub(super) fn at_peak(mut samples: Vec<f32>, peak: f32) -> Vec<f32> {
    let loudest = samples.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    if loudest > 0.0 {
        samples.iter_mut().for_each(|x| *x *= peak / loudest);
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn made_up_sounds_stay_in_range() {
        let mut rng = StdRng::seed_from_u64(3);
        for kind in SYNTHETIC {
            let sound = synthetic(kind, 8_000, &mut rng);
            assert_eq!(sound.len(), 8_000);
            assert!(sound.iter().all(|x| x.abs() <= 0.61), "{kind}");
            assert!(sound.iter().any(|x| *x != 0.0), "{kind}");
        }
    }

    #[test]
    fn what_people_say_is_no_sound() {
        assert!(is_sound("dog.ogg") && is_sound("train.wav"));
        assert!(!is_sound("dog_desc.ogg") && !is_sound("dog_desc_fr.ogg") && !is_sound("dog.png"));
    }
}
