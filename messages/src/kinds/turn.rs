//! What happens to a question besides its answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Question, State, Verdict};

/// A question was accepted; its answer begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Query {
    /// The dialogue in which it was asked; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// Number of the question within the session.
    pub turn_id: u64,
    /// Number of its answer within the session; a later answer has a greater one.
    pub generation_id: u64,
    pub question: Question,
    pub state: State,
    pub verdict: Verdict,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// An utterance was not answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Noise {
    /// The dialogue in which it was heard; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// Number of the question within the session.
    pub turn_id: u64,
    pub question: Question,
    pub reason: NoiseReason,
    /// Absent when the model was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// Why an utterance was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoiseReason {
    /// By its probabilities.
    Judged,
    /// Shorter than the shortest utterance that is judged.
    TooShort,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// The running answer was stopped by another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interrupted {
    /// The dialogue in which it happened; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// The question whose answer was stopped.
    pub turn_id: u64,
    /// The answer that was stopped.
    pub generation_id: u64,
    /// The question that stopped it.
    pub by_turn_id: u64,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// The two sequences of a dialogue changed roles: the one that listened now speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolesSwapped {
    /// The dialogue in which it happened; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// The question that is answered now.
    pub turn_id: u64,
    /// Its answer.
    pub generation_id: u64,
    /// The sequence that answers it.
    pub speaking: Slot,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// One of the two sequences of a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    A,
    B,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// A question was dropped without an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// The dialogue in which it was asked; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// Number of the question within the session.
    pub turn_id: u64,
    pub question: Question,
    pub reason: CancelReason,
    /// Of a failure: what went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// Why a question was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Too many were waiting; this was the oldest.
    QueueFull,
    /// It waited too long for its turn.
    Stale,
    /// The model gave no verdict in time.
    JudgingTimedOut,
    /// The model could not read it.
    Failed,
    /// The dialogue was reset.
    Reset,
    /// The dialogue ended with its pipeline.
    Closed,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// The dialogue was emptied: nothing runs, nothing waits, nothing is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// The dialogue that was emptied; it goes on under the same number.
    pub session_id: u64,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}
