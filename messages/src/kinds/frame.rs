use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// A frame was sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Position in the stream, nanoseconds.
    pub stream_time_ns: u64,
    /// Position on the pipeline's clock, nanoseconds.
    pub running_time_ns: u64,
    /// When the camera captured it, where the source tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_time: Option<WallTime>,
    pub reason: FrameReason,
    /// Frames sampled so far in this run of the source, this one included.
    pub kept: u64,
    /// Whether it is a key frame of a compressed stream; raw frames always are.
    pub keyframe: bool,
}

/// Why a frame was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameReason {
    Rate,
    Clip,
    OnDemand,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}
