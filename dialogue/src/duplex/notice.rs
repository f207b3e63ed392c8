use std::time::Duration;

use super::{GenerationId, Question, Slot, TurnId};
use crate::state::{State, StateProbabilities};

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A question was accepted; its answer is `generation`.
    Query {
        turn: TurnId,
        generation: GenerationId,
        question: Question,
        state: State,
        probabilities: StateProbabilities,
    },
    /// An utterance was not answered.
    Noise {
        turn: TurnId,
        question: Question,
        reason: NoiseReason,
    },
    /// The running answer `generation` to `turn` was stopped by the question `by`.
    Interrupted {
        turn: TurnId,
        generation: GenerationId,
        by: TurnId,
    },
    /// The slots changed roles: `speaking` now answers `turn`, the other listens.
    RolesSwapped {
        turn: TurnId,
        speaking: Slot,
        generation: GenerationId,
    },
    /// Words as they come; `sequence` counts from 0 within a generation.
    Delta {
        generation: GenerationId,
        turn: TurnId,
        sequence: u64,
        text: String,
    },
    /// The one final answer to an accepted question.
    Answer(Answer),
    /// A question that got no answer, and why.
    Cancelled {
        turn: TurnId,
        question: Question,
        reason: CancelReason,
    },
    /// The history was emptied; everything that was running or waiting has been ended by notices of its own.
    Reset,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub turn: TurnId,
    pub generation: GenerationId,
    pub question: Question,
    pub state: State,
    pub probabilities: StateProbabilities,
    /// All deltas put together.
    pub text: String,
    /// `None`: the model ended it itself.
    pub cut_off: Option<CutOff>,
    /// When the question was accepted.
    pub started: Duration,
    pub ended: Duration,
}

/// Why an answer stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutOff {
    Interrupted {
        by: TurnId,
    },
    MaxTokens,
    MaxDuration,
    Reset,
    /// The room was closed.
    Closed,
    Failed(String),
}

/// Why an utterance was not answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoiseReason {
    /// The model judged it so, or the rule for doubtful probabilities did.
    Judged(StateProbabilities),
    /// Shorter than [`super::Settings::minimum_utterance`].
    TooShort,
}

/// Why a question was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// Too many questions were waiting; this was the oldest.
    QueueFull,
    /// [`super::Settings::maximum_wait`] was over before it could be judged.
    Stale,
    /// [`super::Settings::maximum_wait`] was over while it was judged.
    JudgingTimedOut,
    Failed(String),
    Reset,
    /// The room was closed.
    Closed,
}
