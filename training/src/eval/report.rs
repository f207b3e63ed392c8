//! The table, for people and for programs.

use super::interval::wilson;
use crate::Kind;
use serde::Serialize;
use std::fmt;

/// A line of the table: a share, with what it must and should reach.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub key: &'static str,
    pub measure: &'static str,
    pub right: usize,
    pub total: usize,
    /// Share; for errors, of words that are wrong.
    pub value: f64,
    /// Wilson score interval at 95 %.
    pub low: f64,
    pub high: f64,
    pub must: f64,
    pub aim: Option<f64>,
    /// Small is good.
    pub errors: bool,
    /// `None`: nothing was counted.
    pub passed: Option<bool>,
    /// A few of what went wrong.
    pub examples: Vec<String>,
}

impl Row {
    pub fn new(measure: &Measure, right: usize, total: usize, examples: Vec<String>) -> Self {
        let value = if total == 0 {
            0.0
        } else {
            right as f64 / total as f64
        };
        let (low, high) = wilson(right.min(total), total);
        let reached = match measure.errors {
            true => value <= measure.must,
            false => value >= measure.must,
        };
        Self {
            key: measure.key,
            measure: measure.text,
            right,
            total,
            value,
            low,
            high,
            must: measure.must,
            aim: measure.aim,
            errors: measure.errors,
            passed: (total > 0).then_some(reached),
            examples,
        }
    }
}

/// An item that a row counts as wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wrong {
    /// The row.
    pub key: &'static str,
    pub id: String,
    pub kind: Kind,
    pub group: Option<String>,
    pub intent: Option<String>,
    pub voice: Option<String>,
    /// What was said or typed, where that is known.
    pub words: String,
    /// What the ears wrote of it.
    pub heard: Option<String>,
    pub expected: Option<String>,
    /// What the model said; nothing where only the state counts.
    pub said: String,
    /// Probabilities of the states query, noise and text.
    pub states: [f64; 3],
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let voice = self.voice.as_deref().or(self.group.as_deref());
        write!(f, "{}: {:?}", voice.unwrap_or("?"), self.words)?;
        if let Some(heard) = &self.heard {
            write!(f, " heard {heard:?}")?;
        }
        let ([query, noise, text], said, expected) = (self.states, &self.said, &self.expected);
        write!(
            f,
            " → {query:.2}/{noise:.2}/{text:.2} {said:?}, expected {expected:?}"
        )
    }
}

/// What is measured, and what it must reach.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub key: &'static str,
    pub text: &'static str,
    pub must: f64,
    pub aim: Option<f64>,
    pub errors: bool,
}

const fn share(key: &'static str, text: &'static str, must: f64, aim: Option<f64>) -> Measure {
    Measure {
        key,
        text,
        must,
        aim,
        errors: false,
    }
}

const fn error(key: &'static str, text: &'static str, must: f64, aim: Option<f64>) -> Measure {
    Measure {
        errors: true,
        ..share(key, text, must, aim)
    }
}

/// All rows that count something, in the table's order.
pub const MEASURES: [Measure; 18] = [
    share(
        "state",
        "state right, unseen voices and phrasings",
        0.93,
        Some(0.98),
    ),
    share(
        "sounds",
        "noise, music, babble, silence, real sounds: silent",
        0.97,
        Some(0.995),
    ),
    share(
        "talk",
        "talk between people, prose, questions to others: silent",
        0.90,
        Some(0.97),
    ),
    share(
        "people",
        "recordings of people not meant for it: silent",
        0.90,
        Some(0.98),
    ),
    share(
        "spoken-seen",
        "spoken by unseen voices, seen phrasings: answer right",
        0.88,
        Some(0.97),
    ),
    share(
        "spoken-unseen",
        "spoken by unseen voices, unseen phrasings: answer right",
        0.70,
        Some(0.90),
    ),
    share("typed-state", "typed: state <3>", 0.99, None),
    share(
        "typed-answer",
        "typed, unseen phrasings: answer right",
        0.85,
        Some(0.95),
    ),
    error("wer-librivox", "word error, LibriVox", 0.35, Some(0.15)),
    error("wer-jfk", "word error, JFK", 0.30, Some(0.15)),
    share(
        "shown-state",
        "state right beside a picture that is not meant",
        0.93,
        Some(0.98),
    ),
    share(
        "photo",
        "\"what do you see\", held-out photos: main thing named",
        0.55,
        Some(0.80),
    ),
    share("person", "\"is there a person\"", 0.85, Some(0.95)),
    share(
        "people-count",
        "\"how many people\" (0, 1, 2, more)",
        0.65,
        Some(0.85),
    ),
    share(
        "colour",
        "colour of a thing, composed scenes",
        0.85,
        Some(0.95),
    ),
    share("side", "left or right, composed scenes", 0.85, Some(0.95)),
    share(
        "moved",
        "moved or not over a clip, composed scenes",
        0.85,
        Some(0.95),
    ),
    share(
        "count",
        "how many things, composed scenes",
        0.65,
        Some(0.85),
    ),
];

/// Free chat: how likely the base model's own answers are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chat {
    pub prompts: usize,
    /// Mean loss of a token of the base's answer, nats.
    pub model_nats: f64,
    pub base_nats: f64,
    pub passed: bool,
}

/// So much worse, in nats a token, counts as no worse: the base's own greedy answers are the most likely
/// ones under the base, so any other model is a little worse at them.
pub const CHAT_TOLERANCE_NATS: f64 = 0.1;

/// Milliseconds, medians, of spoken questions on this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Latency {
    pub questions: usize,
    /// From the end of the utterance until it is known whether it was one.
    pub state_ms: f64,
    pub first_word_ms: f64,
    /// Tokens a second behind the first.
    pub tokens_per_sec: f64,
    /// Most memory that the process had, MiB.
    pub peak_rss_mib: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub model: String,
    pub seed: u64,
    /// Most items a row.
    pub limit: Option<usize>,
    pub rows: Vec<Row>,
    /// All that the rows count as wrong, in their order.
    #[serde(skip)]
    pub wrong: Vec<Wrong>,
    pub chat: Option<Chat>,
    pub latency: Option<Latency>,
    /// What could not be measured.
    pub notes: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<58} {:>8} {:>15} {:>9} {:>6} {:>6}",
            "measure", "found", "95 %", "counted", "must", "aim"
        )?;
        let percent = |x: f64| format!("{:.1}", 100.0 * x);
        for row in &self.rows {
            let verdict = match row.passed {
                Some(true) => "",
                Some(false) => "  missed",
                None => "  not measured",
            };
            let (sign, aim) = (
                if row.errors { "≤" } else { "≥" },
                row.aim.map_or("–".into(), percent),
            );
            writeln!(
                f,
                "{:<58} {:>8} {:>15} {:>9} {:>6} {:>6}{verdict}",
                row.measure,
                percent(row.value),
                format!("{} – {}", percent(row.low), percent(row.high)),
                format!("{}/{}", row.right, row.total),
                format!("{sign}{}", percent(row.must)),
                aim
            )?;
        }
        if let Some(chat) = &self.chat {
            writeln!(
                f,
                "free chat, {} prompts: {:.3} nats a token of the base's own answers, the base {:.3}{}",
                chat.prompts,
                chat.model_nats,
                chat.base_nats,
                if chat.passed { "" } else { "  missed" }
            )?;
        }
        if let Some(latency) = &self.latency {
            writeln!(
                f,
                "{} spoken questions, medians: state after {:.0} ms, first word after {:.0} ms, {:.1} tokens/s; {:.0} MiB at most",
                latency.questions,
                latency.state_ms,
                latency.first_word_ms,
                latency.tokens_per_sec,
                latency.peak_rss_mib
            )?;
        }
        for note in &self.notes {
            writeln!(f, "not measured: {note}")?;
        }
        Ok(())
    }
}
