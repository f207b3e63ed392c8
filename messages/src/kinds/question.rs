use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// What was asked, or may have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    pub kind: QuestionKind,
    /// What was typed, or what the model read of the speech, where it has a reader for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of speech: the utterance, as in the `speech` messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utterance_id: Option<u64>,
    /// Where it began, nanoseconds of stream time. Typed text: how far the media had come.
    pub start_stream_time_ns: u64,
    /// Where it ended, nanoseconds of stream time.
    pub end_stream_time_ns: u64,
    /// When speech began on the wall clock, where the source tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_time: Option<WallTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// Somebody spoke.
    Speech,
    /// Somebody typed.
    Text,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// What the question was taken for: VITA's state tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// `<1>`: spoken to the model.
    Query,
    /// `<2>`: noise, or talk that is not meant for the model.
    Noise,
    /// `<3>`: typed.
    Text,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// Probabilities of the three state tokens as the first token of the answer, from the softmax over the whole vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateProbabilities {
    pub query: f64,
    pub noise: f64,
    pub text: f64,
}

/// How a question was judged, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    pub state_probabilities: StateProbabilities,
    /// How long it took from the end of the question, nanoseconds.
    pub judging_ns: u64,
    /// The frames that the model saw with the question, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<SeenFrame>,
    /// How much older than the end of the question the newest of these frames is, nanoseconds of stream time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_ns: Option<u64>,
}

/// A frame that the model saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeenFrame {
    /// Position in the stream, nanoseconds.
    pub stream_time_ns: u64,
    /// When the camera captured it, where the source tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_time: Option<WallTime>,
    /// How often the model saw it: short clips are shown more than once.
    pub repeat: u32,
}
