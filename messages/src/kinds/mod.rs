//! One struct a kind of message. A new kind is its struct and one line in the list below: place, schema, AsyncAPI and parsing follow from it.

mod answer;
mod delta;
mod frame;
mod lost;
mod question;
mod source;
mod speech;
mod turn;

pub use answer::{Answer, CutOff, CutOffReason, Timings, Tokens};
pub use delta::Delta;
pub use frame::{Frame, FrameReason};
pub use lost::{Lost, LostCause};
pub use question::{Question, QuestionKind, SeenFrame, State, StateProbabilities, Verdict};
pub use source::{Media, MediaKind, Source, SourceReason, SourceReasonKind, SourceStatus};
pub use speech::{Speech, SpeechEdge, SpeechEndReason};
pub use turn::{
    CancelReason, Cancelled, Interrupted, Noise, NoiseReason, Query, Reset, RolesSwapped, Slot,
};

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
    /// A question was accepted; its answer begins.
    Query = "query", Event;
    /// An utterance was not answered: noise, or not meant for the model.
    Noise = "noise", Event;
    /// Words of an answer as they come.
    Delta = "delta", Live;
    /// A whole answer, also one that was cut off.
    Answer = "answer", Kept;
    /// The running answer was stopped by another question.
    Interrupted = "interrupted", Event;
    /// The two sequences of a dialogue changed roles.
    RolesSwapped = "roles_swapped", Event;
    /// A question was dropped without an answer.
    Cancelled = "cancelled", Event;
    /// The dialogue was emptied.
    Reset = "reset", Event;
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
        .into_iter()
        .chain(dialogue(time))
        .collect()
    }

    fn dialogue(time: WallTime) -> Vec<Body> {
        let question = Question {
            kind: QuestionKind::Speech,
            text: Some("what is on the table".into()),
            utterance_id: Some(7),
            start_stream_time_ns: 1_200_000_000,
            end_stream_time_ns: 3_200_000_000,
            capture_time: Some(time),
        };
        let verdict = Verdict {
            state_probabilities: StateProbabilities {
                query: 0.75,
                noise: 0.125,
                text: 0.0625,
            },
            judging_ns: 90_000_000,
            frames: vec![SeenFrame {
                stream_time_ns: 3_000_000_000,
                capture_time: Some(time),
                repeat: 4,
            }],
            staleness_ns: Some(200_000_000),
        };
        let (session_id, turn_id, generation_id) = (1_764_000_000_000, 5, 3);
        let stream_time_ns = 3_300_000_000;
        vec![
            Query {
                session_id,
                turn_id,
                generation_id,
                question: question.clone(),
                state: State::Query,
                verdict: verdict.clone(),
                stream_time_ns,
            }
            .into(),
            Noise {
                session_id,
                turn_id,
                question: question.clone(),
                reason: NoiseReason::Judged,
                verdict: Some(verdict.clone()),
                stream_time_ns,
            }
            .into(),
            Delta {
                session_id,
                turn_id,
                generation_id,
                sequence: 0,
                text: "A cup".into(),
                stream_time_ns,
            }
            .into(),
            Answer {
                session_id,
                turn_id,
                generation_id,
                question: question.clone(),
                state: State::Query,
                verdict,
                text: "A cup".into(),
                cut_off: Some(CutOff {
                    reason: CutOffReason::Interrupted,
                    by_turn_id: Some(6),
                    text: Some("by another".into()),
                }),
                timings: Timings {
                    first_token_ns: Some(110_000_000),
                    token_ns: Some(20_000_000),
                    generation_ns: 60_000_000,
                },
                tokens: Tokens {
                    answer: 2,
                    prompt: 300,
                    cached: 250,
                },
                model: Some("nano".into()),
                stream_time_ns,
            }
            .into(),
            Interrupted {
                session_id,
                turn_id,
                generation_id,
                by_turn_id: 6,
                stream_time_ns,
            }
            .into(),
            RolesSwapped {
                session_id,
                turn_id: 6,
                generation_id: 4,
                speaking: Slot::B,
                stream_time_ns,
            }
            .into(),
            Cancelled {
                session_id,
                turn_id,
                question,
                reason: CancelReason::Failed,
                text: Some("the prompt is too long".into()),
                stream_time_ns,
            }
            .into(),
            Reset {
                session_id,
                stream_time_ns,
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
