//! Synthesis of speech by programs of the system, each voice on one side of the split.

use super::neural::{Neural, Talk};
use super::{Error, Result, speakers};
use crate::Split;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::path::Path;
use std::process::{Command, Stdio};
use vita_model::{resample, wav};

/// The rate of all clips.
pub const RATE_HZ: u32 = 16_000;

#[derive(Debug, Clone, PartialEq)]
enum Engine {
    Espeak,
    /// A speaker of its own in every clip (see [`speakers`]).
    EspeakDrawn,
    Flite,
    Hibari,
    Kokoro,
    /// Between two of [`Engine::Kokoro`]'s.
    KokoroBetween,
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
/// `en` is Britain's: of `en-gb`, the language, espeak-ng has no variants, whatever is asked for.
const ESPEAK_ACCENTS: [&str; 5] = ["en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland"];
const ESPEAK_TRAIN: [&str; 24] = [
    "f2", "f3", "f4", "m1", "m3", "m7", "Annie", "Lee", "max", "linda", "Alex", "steph", "m4",
    "m6", "m8", "belinda", "aunty", "caleb", "john", "Mike", "paul", "shelby", "travis", "victor",
];
const ESPEAK_VALID: [(&str, &str); 2] = [("en-us", "f1"), ("en", "m2")];
const ESPEAK_TEST: [(&str, &str); 6] = [
    ("en-gb-x-gbclan", "f5"),
    ("en-gb-x-gbclan", "m5"),
    ("en-029", "Andy"),
    ("en-029", "Alicia"),
    ("en-gb-x-gbcwmd", "Michael"),
    ("en-us", "Gene"),
];

/// Kokoro's voices; not `af_heart`, the one that hibari has too, which is held out. Behind those from America and Britain
/// are those that learnt other languages first, and speak English as one does who did. `hm_omega`,
/// `im_nicola` and `zm_yunxi` are in no split: between models it is chosen by how they hear these.
const KOKORO_TRAIN: [&str; 50] = [
    "af_alloy",
    "af_aoede",
    "af_bella",
    "af_jessica",
    "af_kore",
    "af_nicole",
    "af_nova",
    "af_river",
    "af_sarah",
    "af_sky",
    "am_adam",
    "am_echo",
    "am_eric",
    "am_fenrir",
    "am_liam",
    "am_michael",
    "am_onyx",
    "am_puck",
    "am_santa",
    "bf_alice",
    "bf_emma",
    "bf_isabella",
    "bf_lily",
    "bm_daniel",
    "bm_fable",
    "bm_george",
    "bm_lewis",
    "ef_dora",
    "em_alex",
    "em_santa",
    "ff_siwis",
    "hf_alpha",
    "hf_beta",
    "hm_psi",
    "if_sara",
    "jf_alpha",
    "jf_gongitsune",
    "jf_nezumi",
    "jf_tebukuro",
    "jm_kumo",
    "pf_dora",
    "pm_alex",
    "pm_santa",
    "zf_xiaobei",
    "zf_xiaoni",
    "zf_xiaoxiao",
    "zf_xiaoyi",
    "zm_yunjian",
    "zm_yunxia",
    "zm_yunyang",
];

/// Voices of a split; neural ones only where they are there.
pub fn voices(split: Split, neural: &Neural) -> Vec<Voice> {
    let mut all = Vec::new();
    for (id, side, weight, pitch_hz) in FLITE {
        all.push(voice(Engine::Flite, id, side, weight, pitch_hz));
    }
    if neural.hibari.is_some() {
        all.push(voice(Engine::Hibari, "heart", Split::Test, 10, 0.0));
    }
    if neural.kokoro.is_some() {
        let train = |id| voice(Engine::Kokoro, id, Split::Train, 1, 0.0);
        all.extend(KOKORO_TRAIN.into_iter().map(train));
        all.push(voice(
            Engine::KokoroBetween,
            "between",
            Split::Train,
            30,
            0.0,
        ));
    }
    all.push(voice(Engine::EspeakDrawn, "drawn", Split::Train, 30, 0.0));
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
        Engine::Espeak | Engine::EspeakDrawn => "espeak",
        Engine::Flite => "flite",
        Engine::Hibari => "hibari",
        Engine::Kokoro | Engine::KokoroBetween => "kokoro",
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
    let robots = [Engine::Espeak, Engine::EspeakDrawn];
    let clear = voices
        .iter()
        .filter(|voice| !robots.contains(&voice.engine));
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

/// Speaks `text`: samples in [−1, 1] at [`RATE_HZ`]. Speed and pitch vary with `rng`.
pub fn say(
    voice: &Voice,
    text: &str,
    rng: &mut StdRng,
    neural: &Neural,
    scratch: &Path,
) -> Result<Vec<f32>> {
    let path = scratch.join(format!("say-{:016x}.wav", rng.random::<u64>()));
    let result = speak(voice, text, rng, neural, &path).and_then(|()| read(&path));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
        _ => result,
    }
}

fn speak(voice: &Voice, text: &str, rng: &mut StdRng, neural: &Neural, path: &Path) -> Result<()> {
    match voice.engine {
        Engine::Espeak => espeak(&voice.id, None, text, rng, path),
        Engine::EspeakDrawn => {
            let accent = ESPEAK_ACCENTS.choose(rng).copied().unwrap_or("en-us");
            let data = speakers::with_variant(&speakers::installed()?, &speakers::variant(rng))?;
            let id = format!("{accent}+drawn");
            espeak(&id, Some(data.path()), text, rng, path)
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
        Engine::Hibari => talk(&neural.hibari, &voice.id, text, rng, path),
        Engine::Kokoro => talk(&neural.kokoro, &voice.id, text, rng, path),
        Engine::KokoroBetween => {
            let id = speakers::between(&KOKORO_TRAIN, rng);
            talk(&neural.kokoro, &id, text, rng, path)
        }
    }
}

/// By espeak-ng, with the data in `data` where it is not the installed one's.
fn espeak(id: &str, data: Option<&Path>, text: &str, rng: &mut StdRng, path: &Path) -> Result<()> {
    let (speed, pitch) = (rng.random_range(135..195), rng.random_range(30..70));
    let mut command = Command::new("espeak-ng");
    if let Some(data) = data {
        command.arg(format!("--path={}", data.display()));
    }
    command.args(["-v", id, "-s", &speed.to_string()]);
    command.args(["-p", &pitch.to_string()]);
    // Behind `--`: a text may begin with a dash.
    run(command.arg("-w").arg(path).args(["--", text]))
}

fn talk(talk: &Option<Talk>, id: &str, text: &str, rng: &mut StdRng, path: &Path) -> Result<()> {
    let missing = || Error::tool(id, "is not installed");
    let talk = talk.as_ref().ok_or_else(missing)?;
    talk.say((id, text), rng.random_range(0.88..1.15), rng.random(), path)
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
            voices(split, &Neural::none())
                .into_iter()
                .map(|v| v.name)
                .collect()
        };
        let (train, valid, test) = (names(Split::Train), names(Split::Valid), names(Split::Test));
        assert!(train.len() >= 20 && test.len() >= 7);
        assert!(train.is_disjoint(&test) && train.is_disjoint(&valid) && valid.is_disjoint(&test));
    }

    #[test]
    fn every_voice_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = std::collections::BTreeMap::new();
        for split in [Split::Train, Split::Valid, Split::Test] {
            for voice in voices(split, &Neural::none()) {
                let (none, mut rng) = (Neural::none(), StdRng::seed_from_u64(1));
                let said = say(&voice, "open the door", &mut rng, &none, folder.path()).unwrap();
                let bits: Vec<u32> = said.iter().map(|sample| sample.to_bits()).collect();
                if let Some(other) = known.insert(bits, voice.name.clone()) {
                    panic!("{} speaks as {other} does", voice.name);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for voice in voices(Split::Train, &Neural::none()).iter().step_by(5) {
            let say = |seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                say(
                    voice,
                    "open the door",
                    &mut rng,
                    &Neural::none(),
                    folder.path(),
                )
                .unwrap()
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
