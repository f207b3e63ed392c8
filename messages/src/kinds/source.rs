use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// A source came up, stalled or went down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    pub state: SourceStatus,
    /// Why it stalled or went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SourceReason>,
    /// Attempts to bring it up, this one included, since it was last up; from 1.
    pub attempt: u64,
    /// When it will be tried again; absent when it will not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry: Option<WallTime>,
    /// What it carries, once that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceStatus {
    Up,
    Stalled,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceReason {
    pub kind: SourceReasonKind,
    /// For people; holds no secret.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceReasonKind {
    /// The stream ended.
    Ended,
    /// Nothing came for longer than the stall time-out.
    Stalled,
    /// Nobody listens at that address and port.
    Refused,
    /// No route to the host.
    Unreachable,
    NameNotFound,
    /// The server does not know the path, or the file is not there.
    NotFound,
    /// No or wrong user name or password.
    Unauthorized,
    /// The peer does not speak the protocol.
    Protocol,
    TimedOut,
    Tls,
    /// A camera or sound device is missing or busy.
    Device,
    /// The stream holds nothing that can be used, or could not be decoded.
    Media,
    /// The pipeline failed in another way.
    Pipeline,
    /// It was asked to stop.
    Stopped,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// One stream of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Media {
    pub kind: MediaKind,
    /// In lower case, as in `h264`, `opus`, `raw`.
    pub codec: String,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames a second, as the stream says; many cameras do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
    /// Audio samples a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate_hz: Option<u32>,
    /// Audio channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}

impl Media {
    /// With nothing known but the codec.
    pub fn new(kind: MediaKind, codec: impl Into<String>) -> Self {
        Self {
            kind,
            codec: codec.into(),
            width: None,
            height: None,
            frame_rate: None,
            sample_rate_hz: None,
            channels: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Video,
    Audio,
    /// Metadata, or one that this version does not know.
    #[serde(other)]
    Other,
}
