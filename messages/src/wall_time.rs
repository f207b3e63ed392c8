use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point on the wall clock, in UTC; RFC 3339 with up to nine digits of a second in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

impl WallTime {
    pub fn now() -> Self {
        Self(OffsetDateTime::now_utc())
    }

    /// `unix_ns`: nanoseconds since 1970, as elements give capture times. Every `u64` is a date (the last is in 2554).
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        Self(
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns))
                .unwrap_or(OffsetDateTime::UNIX_EPOCH),
        )
    }

    /// Nanoseconds since 1970, negative before.
    pub fn unix_ns(self) -> i128 {
        self.0.unix_timestamp_nanos()
    }
}

impl From<OffsetDateTime> for WallTime {
    fn from(time: OffsetDateTime) -> Self {
        Self(time.to_offset(time::UtcOffset::UTC))
    }
}

impl From<WallTime> for OffsetDateTime {
    fn from(time: WallTime) -> Self {
        time.0
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl JsonSchema for WallTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "WallTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}
