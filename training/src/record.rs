//! What a run has to say for itself: lines of JSON, one an event.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Line {
    Update {
        step: u64,
        /// Mean over the batch's targets.
        loss: f64,
        rate: f64,
        gradient: f64,
        items: usize,
        tokens: usize,
        seconds: f64,
    },
    /// On the split `valid`.
    Valid(crate::instruct::Measures),
    /// On items of the split `test`, for the curve alone.
    Watched(crate::instruct::Measures),
    /// The run went on after a stop.
    Resumed { step: u64 },
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Self::Update { step, .. } | Self::Resumed { step } => *step,
            Self::Valid(measures) | Self::Watched(measures) => measures.step,
        }
    }
}

/// A log that is appended to.
pub struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// Opens the log. What a run that was cut off had written after update `step`, from where it now
    /// goes on, is taken out.
    pub fn open(path: &Path, step: u64) -> Result<(Self, Vec<Line>)> {
        let mut lines = read(path)?;
        let before = lines.len();
        lines.retain(|line| line.step() <= step);
        if lines.len() < before {
            let partial = path.with_extension("partial");
            let text: String = lines.iter().map(to_text).collect();
            std::fs::write(&partial, text).map_err(Error::io(&partial))?;
            std::fs::rename(&partial, path).map_err(Error::io(path))?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        let file = file.map_err(Error::io(path))?;
        let path = path.to_path_buf();
        Ok((Self { path, file }, lines))
    }

    pub fn write(&mut self, line: &Line) -> Result<()> {
        let text = to_text(line);
        self.file
            .write_all(text.as_bytes())
            .map_err(Error::io(&self.path))
    }
}

fn to_text(line: &Line) -> String {
    // a struct of numbers and strings always has a JSON form
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

/// The lines of a log; the last may have been cut off.
fn read(path: &Path) -> Result<Vec<Line>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let mut lines = Vec::new();
    for text in BufReader::new(file).lines() {
        let text = text.map_err(Error::io(path))?;
        lines.extend(serde_json::from_str::<Line>(&text));
    }
    Ok(lines)
}
