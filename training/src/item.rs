//! What is said, shown and answered: one item a line, JSON.

use crate::data::Rule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    Train,
    Valid,
    Test,
}

/// Decides the state token: a question aloud `<1>`, nothing for us `<2>`, a typed question `<3>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Query,
    Noise,
    Text,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Query, Self::Noise, Self::Text];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phrasing {
    Seen,
    Unseen,
}

/// Which system text the conversation begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    Lang,
    Image,
    Video,
}

/// One item. Paths are absolute after [`read_items`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: String,
    pub split: Split,
    pub kind: Kind,
    /// A WAV file; without one, what is said is simulated from the words.
    pub audio: Option<PathBuf>,
    /// What is said or typed.
    #[serde(default)]
    pub words: String,
    #[serde(default)]
    pub pictures: Vec<PathBuf>,
    pub system: System,
    /// What is to be answered; nothing to what is not for us.
    pub answer: Option<String>,
    #[serde(default)]
    pub intent: Option<String>,
    #[serde(default)]
    pub voice: Option<String>,
    pub phrasing: Option<Phrasing>,
    /// For the tables of the evaluation.
    #[serde(default)]
    pub group: Option<String>,
    /// When an answer counts as right; without it, when it says what `answer` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Rule>,
}

/// Reads a file of items. Relative paths in it are meant from its folder.
pub fn read_items(path: &Path) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            let fail = |reason: String| Error::format(path, format!("line {}: {reason}", i + 1));
            let mut item: Item = serde_json::from_str(line).map_err(|e| fail(e.to_string()))?;
            if item.kind != Kind::Noise && item.answer.is_none() {
                return Err(fail(format!(
                    "item {:?} is a question without an answer",
                    item.id
                )));
            }
            let paths = item.audio.iter_mut().chain(&mut item.pictures);
            paths.for_each(|path| *path = folder.join(&*path));
            Ok(item)
        })
        .collect()
}
