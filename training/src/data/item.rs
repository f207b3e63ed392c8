//! One line of `items.jsonl`: something said, typed, heard or shown, and what is to come of it.

use super::number;
use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Valid,
    Test,
}

/// Decides the state token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Spoken to the assistant: `<1>` and an answer.
    Query,
    /// Not for the assistant: `<2>` and nothing.
    Noise,
    /// Typed: `<3>` and an answer.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phrasing {
    Seen,
    Unseen,
}

/// Which system prompt goes in front (one for each kind of data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Lang,
    Image,
    Video,
}

/// When an answer counts as right.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Each must occur, as whole words; `a|b` is met by either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// None of these may occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// The last number of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

impl Rule {
    /// Case, punctuation and the way in which numbers are written don't matter.
    pub fn is_right(&self, answer: &str) -> bool {
        let said = normalise(answer);
        let has = |wanted: &str| {
            wanted
                .split('|')
                .any(|one| contains_words(&said, &normalise(one)))
        };
        self.words.iter().all(|wanted| has(wanted))
            && !self.wrong.iter().any(|wrong| has(wrong))
            && self
                .number
                .is_none_or(|wanted| number::last_in(answer) == Some(wanted))
    }
}

/// Lower-case words with single spaces, numbers up to 99 in words.
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase().replace(['’', '\''], "");
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| match word.parse::<u32>() {
            Ok(n) if n < 100 => number::words(n),
            _ => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

fn contains_words(text: &str, wanted: &str) -> bool {
    !wanted.is_empty() && format!(" {text} ").contains(&format!(" {wanted} "))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Follows from the content.
    pub id: String,
    pub split: Split,
    pub kind: Kind,
    /// 16 kHz mono s16, cut as the voice activity detector would cut it. `None`: typed, or spoken but
    /// known only as text.
    pub audio: Option<PathBuf>,
    /// What is said or typed. For speech without audio: as ears might have written it.
    pub words: String,
    #[serde(default)]
    pub pictures: Vec<PathBuf>,
    pub system: System,
    pub answer: Option<String>,
    pub intent: String,
    pub voice: String,
    pub phrasing: Phrasing,
    /// question, chat, side-talk, to-others, prose, sound …
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Rule>,
}

/// Name of the list of items in a data folder.
pub const ITEMS_FILE: &str = "items.jsonl";

/// Reads all items of a data folder.
pub fn read_items(folder: &Path) -> Result<Vec<Item>> {
    let path = folder.join(ITEMS_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::corpus(&path, format!("line {}: {e}", i + 1)))
        })
        .collect()
}

/// Writes all items, in one step: a reader never meets half a list.
pub(super) fn write_items(folder: &Path, items: &[Item]) -> Result<PathBuf> {
    let (path, part) = (
        folder.join(ITEMS_FILE),
        folder.join(format!("{ITEMS_FILE}.part")),
    );
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
        for item in items {
            serde_json::to_writer(&mut file, item)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&part, &path)
    };
    write().map_err(Error::io(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_words() {
        let rule = Rule {
            words: vec!["can't|cannot".into(), "door".into()],
            ..Default::default()
        };
        assert!(rule.is_right("I CAN'T open the door."));
        assert!(rule.is_right("I can’t, it is a door"));
        assert!(!rule.is_right("I can open the door"));
        assert!(!rule.is_right("I can't open the doors"));
    }

    #[test]
    fn a_number_counts_however_it_is_written() {
        let rule = Rule {
            number: Some(12),
            ..Default::default()
        };
        for right in ["Twelve.", "12", "Seven plus five is twelve.", "7 + 5 = 12"] {
            assert!(rule.is_right(right), "{right}");
        }
        for wrong in ["Seven.", "twelve, no, eleven", "", "one hundred and twenty"] {
            assert!(!rule.is_right(wrong), "{wrong}");
        }
        let twenty_four = Rule {
            words: vec!["twenty four".into()],
            ..Default::default()
        };
        assert!(twenty_four.is_right("24 hours"));
        assert!(twenty_four.is_right("Twenty-four."));
    }

    #[test]
    fn what_must_not_be_said() {
        let rule = Rule {
            words: vec!["left".into()],
            wrong: vec!["right".into()],
            ..Default::default()
        };
        assert!(rule.is_right("On the left."));
        assert!(!rule.is_right("On the left or the right."));
    }
}
