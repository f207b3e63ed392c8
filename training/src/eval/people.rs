//! Recordings of people, none of them meant for an assistant: five sentences of a novel read aloud and
//! five people naming playing cards (Debian's `pocketsphinx-testdata`), a president's speech, and people
//! who name pictures (`tuxpaint-stamps-default`). Nobody asks anything in any of them, so silence is
//! right for all. None is used in training.

use crate::data::{RATE_HZ, decode};
use crate::{Error, Item, Kind, Result, Split, System};
use std::path::{Path, PathBuf};
use vita_model::{resample, wav};

const POCKETSPHINX: &str = "/usr/share/pocketsphinx/test/data";
const STAMPS: &str = "/usr/share/tuxpaint/stamps";
/// What is said in `media/jfk.wav` of the cache.
const JFK: &str = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country.";

/// A recording, and what is said in it where that is known.
pub struct Recording {
    pub group: &'static str,
    pub path: PathBuf,
    pub words: Option<String>,
}

impl Recording {
    pub fn item(&self) -> Item {
        Item {
            id: self.path.display().to_string(),
            split: Split::Test,
            kind: Kind::Noise,
            audio: Some(self.path.clone()),
            words: self.words.clone().unwrap_or_default(),
            pictures: Vec::new(),
            system: System::Lang,
            answer: None,
            intent: None,
            voice: None,
            phrasing: None,
            group: Some(self.group.to_owned()),
            right: None,
        }
    }
}

/// All that are installed.
pub fn recordings(cache: &Path) -> Vec<Recording> {
    let mut found = Vec::new();
    let jfk = cache.join("media/jfk.wav");
    if jfk.is_file() {
        let words = Some(JFK.to_owned());
        found.push(Recording {
            group: "jfk",
            path: jfk,
            words,
        });
    }
    let transcripts = |path: &str| {
        std::fs::read_to_string(Path::new(POCKETSPHINX).join(path)).unwrap_or_default()
    };
    let read = transcripts("librivox/transcription");
    for path in files(&Path::new(POCKETSPHINX).join("librivox"), ".wav") {
        let words = transcript(&read, &path);
        found.push(Recording {
            group: "librivox",
            path,
            words,
        });
    }
    for path in files(&Path::new(POCKETSPHINX).join("cards"), ".wav") {
        found.push(Recording {
            group: "cards",
            path,
            words: None,
        });
    }
    for path in files(Path::new(STAMPS), "_desc.ogg") {
        found.push(Recording {
            group: "naming",
            path,
            words: None,
        });
    }
    found
}

/// The words in front of `(…name)`.
fn transcript(lines: &str, path: &Path) -> Option<String> {
    let name = path.file_stem()?.to_str()?;
    let line = lines.lines().find(|line| line.contains(name))?;
    let words = line.split('(').next()?;
    Some(
        words
            .replace("<s>", "")
            .replace("</s>", "")
            .trim()
            .to_owned(),
    )
}

/// Files of a folder and of those below it, by name.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Samples at the ears' rate; what is no WAV file goes through ffmpeg.
pub fn samples(path: &Path) -> Result<Vec<f32>> {
    if path.extension().is_none_or(|e| e != "wav") {
        return decode(path).map_err(|e| Error::Input(e.to_string()));
    }
    let sound = wav::read(path).map_err(|e| Error::Input(e.to_string()))?;
    resample::resample(&sound.samples, sound.sample_rate_hz, RATE_HZ)
        .map_err(|e| Error::format(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_by_its_name() {
        let lines = "<s> ten of clubs </s> (001)\nand so it was (book-0870)\n";
        let of = |path| transcript(lines, Path::new(path));
        assert_eq!(of("/x/001.wav").as_deref(), Some("ten of clubs"));
        assert_eq!(of("/x/book-0870.wav").as_deref(), Some("and so it was"));
        assert_eq!(of("/x/other.wav"), None);
    }
}
