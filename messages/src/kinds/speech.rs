use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// Speech started or ended. Times of an end are those of the padded end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speech {
    pub edge: SpeechEdge,
    /// The same at start and end; counts up within one run of a source.
    pub utterance_id: u64,
    /// Position in the stream, nanoseconds.
    pub stream_time_ns: u64,
    /// Position on the pipeline's clock, nanoseconds.
    pub running_time_ns: u64,
    /// When the source captured it, where the source tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_time: Option<WallTime>,
    /// At an end: where it started, nanoseconds of stream time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_stream_time_ns: Option<u64>,
    /// At an end: how long it was, padding included, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// At an end: false when it was shorter than the shortest utterance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
    /// At an end: why there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SpeechEndReason>,
    /// The voice activity network's, 0 to 1, at the edge.
    pub probability: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeechEdge {
    Start,
    End,
}

/// Why an utterance ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeechEndReason {
    Silence,
    MaxDuration,
    Eos,
    Flush,
    Gap,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}
