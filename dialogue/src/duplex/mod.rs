//! The duplex dialogue: two roles over one copy of the weights (arXiv 2408.05211, section 3.4; design of the live demo
//! in spec section 7, without its defects).
//!
//! One sequence speaks (generation), the other listens (monitoring). Each question, spoken or typed, is prefilled in the
//! listening slot and judged by the state token's probabilities. Noise changes nothing but an audited notice. A question
//! stops the running answer, the slots swap roles, and the judged sequence goes on into the new answer.
//!
//! [`Duplex`] does no I/O: its methods say what happened and when, [

mod machine;
mod notice;
mod settings;

use std::time::Duration;

pub use machine::Duplex;
pub use notice::{Answer, CancelReason, CutOff, NoiseReason, Notice};
pub use settings::Settings;

use crate::history::Turn;

/// Number of a question, in the order in which questions came. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnId(pub u64);

/// Number of an answer. Each new one is greater than all before, so that a reader can discard stale words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

/// One of the two sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What was asked, or may have been.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// An utterance that the voice activity detector closed; `start` and `end` include its padding.
    Speech {
        utterance: u64,
        start: Duration,
        end: Duration,
    },
    /// `at`: how far the media had come when it was asked.
    Text { text: String, at: Duration },
}

/// A stretch of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: Duration,
    pub end: Duration,
}

/// What the engine shall do. Commands are to be carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Prefill `history` and then `question` in `slot`, and report the state tokens' probabilities with
    /// [`Duplex::judged`], or [`Duplex::failed`].
    Prefill {
        slot: Slot,
        turn: TurnId,
        question: Question,
        /// The frames that belong to the question; the model's clip rule chooses among them.
        frames: Interval,
        /// Past turns; the last one is the running answer as far as it was said, marked as cut off.
        history: Vec<Turn>,
    },
    /// Go on decoding the judged sequence of `slot` into an answer, reporting [`Duplex::delta`] and [`Duplex::ended`].
    Generate {
        slot: Slot,
        turn: TurnId,
        generation: GenerationId,
    },
    /// Drop the sequence of `slot`, within one decode step.
    Cancel { slot: Slot, turn: TurnId },
    /// Tell the world.
    Publish(Notice),
}

/// How the engine ended an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The model's own end token.
    EndOfSequence,
    /// The limit of new tokens.
    MaxTokens,
    /// The engine could not go on.
    Failed(String),
}
