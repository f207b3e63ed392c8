//! One struct a kind of message. A new kind is its struct and one line in the list below: place, schema, AsyncAPI and parsing follow from it.

mod frame;
mod lost;
mod source;
mod speech;

pub use frame::{Frame, FrameReason};
pub use lost::{Lost, LostCause};
pub use source::{Media, MediaKind, Source, SourceReason, SourceReasonKind, SourceStatus};
pub use speech::{Speech, SpeechEdge, SpeechEndReason};

/// Where under `<prefix>.<source>` a kind goes, and whether it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `event.<kind>`, kept by JetStream.
    Event,
    /// `<kind>`, kept by JetStream.
    Kept,
    /// `<kind>`, for those who listen now.
    Live,
}

impl Place {
    /// Whether JetStream keeps it, and the spool while the broker is away.
    pub fn is_durable(self) -> bool {
        self != Self::Live
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal, $place:ident;)+) => {
        /// What a message tells of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind),+
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Its word in subjects and types.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            pub fn place(self) -> Place {
                match self { $(Self::$kind => Place::$place),+ }
            }

            /// One line for documents.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim_ascii()),+ }
            }

            pub(crate) fn data_schema(self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                match self { $(Self::$kind => generator.subschema_for::<$kind>()),+ }
            }
        }

        /// A message's `data`.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(untagged)]
        pub enum Body {
            $($(#[doc = $doc])+ $kind($kind)),+
        }

        impl Body {
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),+ }
            }

            pub(crate) fn read(kind: Kind, data: &str) -> serde_json::Result<Self> {
                match kind { $(Kind::$kind => serde_json::from_str(data).map(Self::$kind)),+ }
            }
        }

        $(impl From<$kind> for Body {
            fn from(body: $kind) -> Self {
                Self::$kind(body)
            }
        })+
    };
}

kinds! {
    /// Speech started or ended.
    Speech = "speech", Event;
    /// A source came up, stalled or went down.
    Source = "source", Event;
    /// Messages of this source had to be given up before the broker was back.
    Lost = "lost", Event;
    /// A frame was sampled.
    Frame = "frame", Live;
}

impl Kind {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::WallTime;

    /// One of each kind, all fields set.
    pub(crate) fn samples() -> Vec<Body> {
        let time = WallTime::from_unix_ns(1_764_000_000_123_456_789);
        vec![
            Speech {
                edge: SpeechEdge::End,
                utterance_id: 7,
                stream_time_ns: 3_200_000_000,
                running_time_ns: 3_210_000_000,
                capture_time: Some(time),
                start_stream_time_ns: Some(1_200_000_000),
                duration_ns: Some(2_000_000_000),
                accepted: Some(true),
                reason: Some(SpeechEndReason::Silence),
                probability: 0.25,
            }
            .into(),
            Source {
                state: SourceStatus::Down,
                reason: Some(SourceReason {
                    kind: SourceReasonKind::Refused,
                    text: "connection refused".into(),
                }),
                attempt: 3,
                next_retry: Some(time),
                media: vec![Media {
                    width: Some(1920),
                    ..Media::new(MediaKind::Video, "h264")
                }],
            }
            .into(),
            Lost {
                count: 12,
                cause: LostCause::SpoolFull,
                first_time: time,
                last_time: time,
            }
            .into(),
            Frame {
                stream_time_ns: 1_000_000_000,
                running_time_ns: 1_010_000_000,
                capture_time: Some(time),
                reason: FrameReason::Rate,
                kept: 41,
                keyframe: true,
            }
            .into(),
        ]
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_comes_back_from_it() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
            assert!(!kind.summary().is_empty());
        }
    }

    #[test]
    fn every_kind_has_a_sample() {
        let kinds: Vec<Kind> = samples().iter().map(Body::kind).collect();
        assert_eq!(kinds, Kind::ALL);
    }
}
