use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Question, State, Verdict};

/// A whole answer, also one that was cut off: the one final word on an accepted question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The dialogue in which it was given; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// Number of the question within the session.
    pub turn_id: u64,
    /// Number of the answer within the session; a later answer has a greater one.
    pub generation_id: u64,
    pub question: Question,
    pub state: State,
    pub verdict: Verdict,
    /// What was said: all its deltas put together.
    pub text: String,
    /// Why it stopped before its end; absent when the model ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<CutOff>,
    pub timings: Timings,
    pub tokens: Tokens,
    /// The model's name, as the config or the element has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How far the media had come when it ended, nanoseconds of stream time.
    pub stream_time_ns: u64,
}

/// Why an answer stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CutOff {
    pub reason: CutOffReason,
    /// Of an interruption: the question that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_turn_id: Option<u64>,
    /// Of a failure: what went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutOffReason {
    /// Another question came.
    Interrupted,
    /// The limit of new tokens.
    MaxTokens,
    /// The limit of time.
    MaxDuration,
    /// The dialogue was reset.
    Reset,
    /// The dialogue ended with its pipeline.
    Closed,
    /// The model could not go on.
    Failed,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// How long things took, nanoseconds. What did not come to pass is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// From the end of the question to the first token of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ns: Option<u64>,
    /// Between two tokens, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ns: Option<u64>,
    /// From the verdict to the end of the answer.
    pub generation_ns: u64,
}

/// How many tokens were read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Of the answer.
    pub answer: u64,
    /// Of the prompt, history and media included.
    pub prompt: u64,
    /// Of the prompt's: those remembered from before.
    pub cached: u64,
}
