//! Synthesis of speech by programs of the system, each voice on one side of the split.

use super::{Error, Result};
use crate::Split;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use vita_model::{resample, wav};

/// The rate of all clips.
pub const RATE_HZ: u32 = 16_000;

#[derive(Debug, Clone, PartialEq)]
enum Engine {
    Espeak,
    Flite,
    Hibari,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Voice {
    pub name: String,
    engine: Engine,
    id: String,
    pub split: Split,
    weight: u32,
    /// Middle of the pitch for flite, Hz.
    pitch_hz: f32,
}

/// flite's natural voices and espeak's accents with speakers of both sexes. Held out as a whole:
/// one voice of flite, the neural voice, an accent of espeak with speakers of its own.
const FLITE: [(&str, Split, u32, f32); 4] = [
    ("slt", Split::Train, 12, 180.0),
    ("rms", Split::Train, 12, 105.0),
    ("kal16", Split::Train, 6, 110.0),
    ("awb", Split::Test, 10, 130.0),
];
const ESPEAK_ACCENTS: [&str; 5] = [
    "en-us",
    "en-gb",
    "en-gb-x-rp",
    "en-us-nyc",
    "en-gb-scotland",
];
const ESPEAK_TRAIN: [&str; 12] = [
    "f2", "f3", "f4", "m1", "m3", "m7", "Annie", "Lee", "max", "linda", "Alex", "steph",
];
const ESPEAK_VALID: [(&str, &str); 2] = [("en-us", "f1"), ("en-gb", "m2")];
const ESPEAK_TEST: [(&str, &str); 6] = [
    ("en-gb-x-gbclan", "f5"),
    ("en-gb-x-gbclan", "m5"),
    ("en-029", "Andy"),
    ("en-029", "Alicia"),
    ("en-gb-x-gbcwmd", "Michael"),
    ("en-us", "Gene"),
];

/// Voices of a split; the neural one only where it is there.
pub fn voices(split: Split, with_hibari: bool) -> Vec<Voice> {
    let mut all = Vec::new();
    for (id, side, weight, pitch_hz) in FLITE {
        all.push(voice(Engine::Flite, id, side, weight, pitch_hz));
    }
    if with_hibari {
        all.push(voice(Engine::Hibari, "heart", Split::Test, 10, 0.0));
    }
    let mut espeak = |accent: &str, speaker: &str, side, weight| {
        let id = format!("{accent}+{speaker}");
        all.push(voice(Engine::Espeak, &id, side, weight, 0.0));
    };
    for (i, speaker) in ESPEAK_TRAIN.iter().enumerate() {
        espeak(
            ESPEAK_ACCENTS[i % ESPEAK_ACCENTS.len()],
            speaker,
            Split::Train,
            1,
        );
        espeak(
            ESPEAK_ACCENTS[(i + 1) % ESPEAK_ACCENTS.len()],
            speaker,
            Split::Train,
            1,
        );
    }
    for (accent, speaker) in ESPEAK_VALID {
        espeak(accent, speaker, Split::Valid, 1);
    }
    for (accent, speaker) in ESPEAK_TEST {
        espeak(accent, speaker, Split::Test, 1);
    }
    all.retain(|voice| voice.split == split);
    all
}

fn voice(engine: Engine, id: &str, split: Split, weight: u32, pitch_hz: f32) -> Voice {
    let program = match engine {
        Engine::Espeak => "espeak",
        Engine::Flite => "flite",
        Engine::Hibari => "hibari",
    };
    Voice {
        name: format!("{program}:{id}"),
        engine,
        id: id.to_owned(),
        split,
        weight,
        pitch_hz,
    }
}

/// The more natural voices of some, or all where none is: espeak's are read wrong twice as often.
pub fn clear(voices: &[Voice]) -> Vec<Voice> {
    let clear = voices.iter().filter(|voice| voice.engine != Engine::Espeak);
    let clear: Vec<Voice> = clear.cloned().collect();
    match clear.is_empty() {
        true => voices.to_vec(),
        false => clear,
    }
}

/// One voice by weight.
pub fn choose<'a>(voices: &'a [Voice], rng: &mut StdRng) -> &'a Voice {
    match voices.choose_weighted(rng, |voice| voice.weight) {
        Ok(voice) => voice,
        Err(_) => &voices[0],
    }
}

/// The neural voice, a process of its own that stays loaded.
pub struct Hibari {
    process: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Hibari {
    /// `None` where the package isn't installed.
    pub fn start(python: &Path) -> Option<Self> {
        let parts = ["hibari", "onnxruntime"];
        if !parts.iter().all(|part| python.join(part).is_dir()) {
            return None;
        }
        let mut child = Command::new("python3")
            .args(["-c", include_str!("hibari.py")])
            .env("PYTHONPATH", python)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (input, output) = (child.stdin.take()?, child.stdout.take()?);
        Some(Self {
            process: Mutex::new((child, input, BufReader::new(output))),
        })
    }

    fn say(&self, text: &str, speed: f32, seed: u32, path: &Path) -> Result<()> {
        let job = serde_json::json!({ "text": text, "speed": speed, "seed": seed, "path": path });
        let mut process = match self.process.lock() {
            Ok(process) => process,
            Err(poisoned) => poisoned.into_inner(),
        };
        let (_, input, output) = &mut *process;
        let mut answer = String::new();
        writeln!(input, "{job}")
            .and_then(|()| input.flush())
            .and_then(|()| output.read_line(&mut answer))
            .map_err(|e| Error::tool("hibari", e.to_string()))?;
        match answer.trim() {
            "ok" => Ok(()),
            other => Err(Error::tool("hibari", format!("{text:?}: {other}"))),
        }
    }
}

impl Drop for Hibari {
    fn drop(&mut self) {
        if let Ok((child, ..)) = self.process.get_mut() {
            // It ends by itself when its input closes; this is for one that hangs.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Speaks `text`: samples in [−1, 1] at [`RATE_HZ`]. Speed and pitch vary with `rng`.
pub fn say(
    voice: &Voice,
    text: &str,
    rng: &mut StdRng,
    hibari: Option<&Hibari>,
    scratch: &Path,
) -> Result<Vec<f32>> {
    let path = scratch.join(format!("say-{:016x}.wav", rng.random::<u64>()));
    let result = speak(voice, text, rng, hibari, &path).and_then(|()| read(&path));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
        _ => result,
    }
}

fn speak(
    voice: &Voice,
    text: &str,
    rng: &mut StdRng,
    hibari: Option<&Hibari>,
    path: &Path,
) -> Result<()> {
    match voice.engine {
        Engine::Espeak => {
            let (speed, pitch) = (rng.random_range(135..195), rng.random_range(30..70));
            let mut command = Command::new("espeak-ng");
            command.args([
                "-v",
                &voice.id,
                "-s",
                &speed.to_string(),
                "-p",
                &pitch.to_string(),
            ]);
            // Behind `--`: a text may begin with a dash.
            run(command.arg("-w").arg(path).args(["--", text]))
        }
        Engine::Flite => {
            let stretch = rng.random_range(0.85..1.2);
            let pitch = voice.pitch_hz * rng.random_range(0.88..1.14);
            let mut command = Command::new("flite");
            command.args(["-voice", &voice.id]);
            command.args(["--setf", &format!("duration_stretch={stretch:.3}")]);
            command.args(["--setf", &format!("int_f0_target_mean={pitch:.1}")]);
            run(command.arg("-o").arg(path).args(["-t", text]))
        }
        Engine::Hibari => {
            let hibari = hibari.ok_or_else(|| Error::tool("hibari", "is not installed"))?;
            hibari.say(text, rng.random_range(0.88..1.15), rng.random(), path)
        }
    }
}

fn read(path: &Path) -> Result<Vec<f32>> {
    let sound = wav::read(path)?;
    resample::resample(&sound.samples, sound.sample_rate_hz, RATE_HZ)
        .map_err(|e| Error::tool("resample", e.to_string()))
}

/// Runs a program to its end; its error output becomes the error's text.
pub(super) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What a program writes.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let result = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::tool(&program, e.to_string()))?;
    if !result.status.success() {
        let text = String::from_utf8_lossy(&result.stderr);
        let last = text.lines().last().unwrap_or("failed").to_owned();
        return Err(Error::tool(&program, last));
    }
    Ok(result.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn no_voice_is_on_two_sides() {
        let names = |split| -> BTreeSet<String> {
            voices(split, true).into_iter().map(|v| v.name).collect()
        };
        let (train, valid, test) = (names(Split::Train), names(Split::Valid), names(Split::Test));
        assert!(train.len() >= 20 && test.len() >= 8);
        assert!(train.is_disjoint(&test) && train.is_disjoint(&valid) && valid.is_disjoint(&test));
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for voice in voices(Split::Train, false).iter().step_by(5) {
            let say = |seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                say(voice, "open the door", &mut rng, None, folder.path()).unwrap()
            };
            let first = say(1);
            assert!(
                first.len() > 4_000,
                "{}: {} samples",
                voice.name,
                first.len()
            );
            assert_eq!(first, say(1), "{}", voice.name);
        }
    }
}
