use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WallTime;

/// Durable messages of this source were given up. Sent before the first message after the gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// How many messages.
    pub count: u64,
    pub cause: LostCause,
    /// When the first of them was given up.
    pub first_time: WallTime,
    /// When the last of them was given up.
    pub last_time: WallTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LostCause {
    /// The spool's limit was reached, so the oldest went.
    SpoolFull,
    /// They came faster than they could be written down.
    QueueFull,
    /// The spool could not be written.
    SpoolWrite,
    /// The broker refused them as too large.
    TooLarge,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}
