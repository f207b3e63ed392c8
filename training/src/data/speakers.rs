//! Speakers that are drawn: nobody's throat and nobody's accent, another in every clip. What is learnt of a handful of
//! voices is those voices; of these, what all have in common.

use super::{Error, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Sounds of English (espeak-ng's names) that speakers of other languages and regions say as another.
const SHIFTS: [(&str, &str); 28] = [
    ("T", "t"),
    ("T", "s"),
    ("T", "f"),
    ("D", "d"),
    ("D", "z"),
    ("w", "v"),
    ("v", "w"),
    ("v", "b"),
    ("z", "s"),
    ("S", "s"),
    ("Z", "S"),
    ("N", "n"),
    ("h", "x"),
    ("r", "R"),
    ("r", "l"),
    ("I", "i:"),
    ("i:", "I"),
    ("U", "u:"),
    ("u:", "U"),
    ("V", "a"),
    ("V", "U"),
    ("a", "E"),
    ("E", "a"),
    ("E", "e:"),
    ("A:", "a"),
    ("O:", "0"),
    ("eI", "e:"),
    ("oU", "o:"),
];
const SHIFTED: f64 = 0.08;

/// What espeak-ng reads of its data to speak English.
const NEEDED: [&str; 6] = [
    "phondata",
    "phonindex",
    "phontab",
    "intonations",
    "en_dict",
    "lang",
];

/// A variant of a voice of espeak-ng, in the form of the files in its `voices/!v`.
pub fn variant(rng: &mut StdRng) -> String {
    let mut text = String::from("language variant\nname drawn\n");
    let lowest_hz: u32 = rng.random_range(65..230);
    let highest_hz = lowest_hz * rng.random_range(115..190) / 100;
    let _ = writeln!(text, "pitch {lowest_hz} {highest_hz}");
    let tract: f32 = rng.random_range(0.88..1.2);
    for formant in 0..9 {
        let frequency = 100.0 * tract * rng.random_range(0.94..1.06);
        let (height, width) = (rng.random_range(70..150), rng.random_range(75..150));
        let _ = writeln!(text, "formant {formant} {frequency:.0} {height} {width}");
    }
    let (roughness, intonation) = (rng.random_range(0..6), rng.random_range(1..5));
    let (voicing, consonants) = (rng.random_range(40..130), rng.random_range(70..130));
    let _ = writeln!(text, "roughness {roughness}\nintonation {intonation}");
    let _ = writeln!(
        text,
        "voicing {voicing}\nconsonants {consonants} {consonants}"
    );
    for (sound, other) in SHIFTS {
        if rng.random_bool(SHIFTED) {
            let _ = writeln!(text, "replace 00 {sound} {other}");
        }
    }
    text
}

/// A folder for espeak-ng's `--path` in which English is as in the installed one, and `variant` is the voices' variant
/// `drawn`. It goes when what is returned is dropped.
pub fn with_variant(installed: &Path, variant: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().map_err(Error::io(Path::new("a temporary folder")))?;
    let data = folder.path().join("espeak-ng-data");
    let variants = data.join("voices/!v");
    std::fs::create_dir_all(&variants).map_err(Error::io(&variants))?;
    for name in NEEDED {
        let path = installed.join(name);
        std::os::unix::fs::symlink(&path, data.join(name)).map_err(Error::io(&path))?;
    }
    let file = variants.join("drawn");
    std::fs::write(&file, variant).map_err(Error::io(&file))?;
    Ok(folder)
}

/// Where espeak-ng has its data, as it says itself.
pub fn installed() -> Result<PathBuf> {
    let said = super::speech::output(std::process::Command::new("espeak-ng").arg("--version"))?;
    let said = String::from_utf8_lossy(&said);
    let folder = said.split_once("Data at:").map(|(_, folder)| folder.trim());
    folder.map(PathBuf::from).ok_or_else(|| {
        Error::tool(
            "espeak-ng",
            format!("does not say where its data is: {said:?}"),
        )
    })
}

/// Two of Kokoro's voices, and how much of the second: what its program takes for one voice between them.
pub fn between(voices: &[&str], rng: &mut StdRng) -> String {
    let one = voices.choose(rng).copied().unwrap_or_default();
    let other = voices.choose(rng).copied().unwrap_or_default();
    format!("{one}+{other}:{:.2}", rng.random_range(0.2..0.8))
}

#[cfg(test)]
mod tests {
    use super::super::speech::run;
    use super::*;
    use rand::SeedableRng;
    use std::process::Command;

    fn speaks(variant: &str, text: &str) -> String {
        let folder = with_variant(&installed().unwrap(), variant).unwrap();
        let mut command = Command::new("espeak-ng");
        command.arg(format!("--path={}", folder.path().display()));
        command.args(["-q", "-x", "-v", "en-us+drawn", "--", text]);
        let spoken = super::super::speech::output(&mut command).unwrap();
        String::from_utf8(spoken).unwrap().trim().to_owned()
    }

    #[test]
    fn every_shift_is_one_that_espeak_makes() {
        let text = "this thing was very zealous, she measures how right it is, you could move up, bet that all fathers say so";
        let plain = speaks("language variant\nname drawn\n", text);
        for (sound, other) in SHIFTS {
            let shifted = format!("language variant\nname drawn\nreplace 00 {sound} {other}\n");
            assert_ne!(speaks(&shifted, text), plain, "{sound} as {other}");
        }
    }

    #[test]
    fn drawn_speakers_are_many_and_speak() {
        let scratch = tempfile::tempdir().unwrap();
        let mut clips = std::collections::BTreeSet::new();
        for seed in 0..6 {
            let text = variant(&mut StdRng::seed_from_u64(seed));
            let folder = with_variant(&installed().unwrap(), &text).unwrap();
            let wav = scratch.path().join("a.wav");
            let mut command = Command::new("espeak-ng");
            command.arg(format!("--path={}", folder.path().display()));
            command.args(["-v", "en+drawn", "-w"]).arg(&wav);
            run(command.args(["--", "open the door"])).unwrap();
            let clip = std::fs::read(&wav).unwrap();
            assert!(clip.len() > 8_000, "{} bytes: {text}", clip.len());
            clips.insert(clip);
        }
        assert_eq!(clips.len(), 6);
    }
}
