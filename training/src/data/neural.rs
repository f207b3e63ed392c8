//! Neural voices: Python programs that stay loaded and speak one sentence after another.

use super::{Error, Result};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// What is installed of them.
pub struct Neural {
    pub hibari: Option<Talk>,
    pub kokoro: Option<Talk>,
}

impl Neural {
    /// From the folder of the set-up for training.
    pub fn start(training: &Path) -> Self {
        let python = training.join("python");
        let has = |part: &str| python.join(part).is_dir();
        if !has("onnxruntime") {
            return Self::none();
        }
        let is_whole = |part: &str| training.join(part).exists();
        let has_kokoro = is_whole("kokoro/model.4") && is_whole("kokoro-js/voices");
        let talk = |is_there: bool, program: &str| {
            let talk = is_there.then(|| Talk::start(program, training, &python));
            talk.flatten()
        };
        Self {
            hibari: talk(
                has("hibari"),
                concat!(include_str!("hibari.py"), include_str!("voices.py")),
            ),
            kokoro: talk(
                has_kokoro,
                concat!(include_str!("kokoro.py"), include_str!("voices.py")),
            ),
        }
    }

    pub fn none() -> Self {
        Self {
            hibari: None,
            kokoro: None,
        }
    }

    /// What the data lacks without those that are not there.
    pub fn notes(&self) -> Vec<String> {
        let missing = [
            (
                self.hibari.is_none(),
                "the neural voice hibari is not installed: the test has one voice less",
            ),
            (
                self.kokoro.is_none(),
                "the neural voices of Kokoro are not installed: training lacks most of its voices",
            ),
        ];
        let missing = missing.into_iter().filter(|(is_missing, _)| *is_missing);
        missing.map(|(_, note)| note.to_owned()).collect()
    }
}

/// One such program.
pub struct Talk {
    process: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Talk {
    fn start(program: &str, training: &Path, python: &Path) -> Option<Self> {
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(training)
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

    /// Writes a WAV file to `path`; `speed` 1 is as the voice was recorded.
    pub fn say(
        &self,
        (voice, text): (&str, &str),
        speed: f32,
        seed: u32,
        path: &Path,
    ) -> Result<()> {
        let job = serde_json::json!({ "voice": voice, "text": text, "speed": speed, "seed": seed, "path": path });
        let mut process = match self.process.lock() {
            Ok(process) => process,
            Err(poisoned) => poisoned.into_inner(),
        };
        let (_, input, output) = &mut *process;
        let mut answer = String::new();
        writeln!(input, "{job}")
            .and_then(|()| input.flush())
            .and_then(|()| output.read_line(&mut answer))
            .map_err(|e| Error::tool(voice, e.to_string()))?;
        match answer.trim() {
            "ok" => Ok(()),
            other => Err(Error::tool(voice, format!("{text:?}: {other}"))),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Ok((child, ..)) = self.process.get_mut() {
            // It ends by itself when its input closes; this is for one that hangs.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
