//! What a room tells. Times of the media are stream times; spans are of the room's clock (see [`super::Pacing`]).

use std::sync::Arc;
use std::time::Duration;

use vita_dialogue::duplex::{CancelReason, CutOff, GenerationId, Slot, TurnId};
use vita_dialogue::state::State;
use vita_model::generate::StateProbabilities;

/// Something that happened in a room.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// How far the media had come.
    pub stream_time: Duration,
    pub kind: EventKind,
}

/// Order: see [`vita_dialogue::duplex::Notice`].
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A question was accepted; its answer is `generation`.
    Query {
        generation: GenerationId,
        state: State,
        turn: Turn,
        verdict: Verdict,
    },
    /// An utterance was not answered. No verdict: it was shorter than the minimum.
    Noise {
        turn: Turn,
        verdict: Option<Verdict>,
    },
    /// The running answer `generation` to `turn` was stopped by the question `by`.
    Interrupted {
        turn: TurnId,
        generation: GenerationId,
        by: TurnId,
    },
    RolesSwapped {
        turn: TurnId,
        generation: GenerationId,
        speaking: Slot,
    },
    /// Words as they come.
    Delta {
        turn: TurnId,
        generation: GenerationId,
        sequence: u64,
        text: String,
    },
    /// The one end of an accepted question.
    Answer(Box<Answer>),
    /// A question got no answer.
    Cancelled { turn: Turn, reason: CancelReason },
    /// The history was emptied.
    Reset,
    /// After [`super::Room::finish`]: everything that was asked has its end.
    Drained,
    /// The room is closed. Nothing comes after it.
    Closed,
    /// The room broke, and is closed. Nothing comes after it.
    Failed(String),
}

/// A question by its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub id: TurnId,
    pub question: Question,
}

/// What was asked, or may have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The utterance as its source counts them; `None`: typed.
    pub utterance_id: Option<u64>,
    /// Typed, or what the model's ears read.
    pub text: Option<String>,
    /// Of a typed question both are how far the media had come.
    pub start: Duration,
    pub end: Duration,
    /// Unix nanoseconds of the start.
    pub capture_time_ns: Option<u64>,
}

/// How a question was judged, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub states: StateProbabilities,
    /// From the question's end to here.
    pub judging: Duration,
    /// Oldest first.
    pub frames: Arc<[FrameSeen]>,
    /// The question's end minus the newest frame's time; `None` without frames.
    pub staleness: Option<Duration>,
}

/// A frame that the model was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSeen {
    pub time: Duration,
    /// Unix nanoseconds.
    pub capture_time_ns: Option<u64>,
    /// How often.
    pub repeat: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub turn: Turn,
    pub generation: GenerationId,
    pub state: State,
    pub verdict: Verdict,
    /// All deltas put together.
    pub text: String,
    /// `None`: the model ended it itself.
    pub cut_off: Option<CutOff>,
    pub tokens: Tokens,
    pub timings: Timings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the answer, without its state token.
    pub answer: usize,
    pub prompt: usize,
    /// Of the prompt's: remembered from before.
    pub cached: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the question's end to the first token after the state token.
    pub first_token: Option<Duration>,
    /// A decode step, on average.
    pub token: Option<Duration>,
    /// From the verdict to the end.
    pub generation: Duration,
}
