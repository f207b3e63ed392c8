use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Words of an answer as they come. A reader passes over those of a generation older than the newest that it has met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delta {
    /// The dialogue in which it was said; a later dialogue of the source has a greater one.
    pub session_id: u64,
    /// Number of the question within the session.
    pub turn_id: u64,
    /// Number of the answer within the session; a later answer has a greater one.
    pub generation_id: u64,
    /// Counts from 0 within a generation.
    pub sequence: u64,
    /// Whole characters.
    pub text: String,
    /// How far the media had come, nanoseconds of stream time.
    pub stream_time_ns: u64,
}
