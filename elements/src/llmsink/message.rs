//! What a room tells, as element messages (docs/architecture.md, "Element messages and events").

use std::time::Duration;

use gst::prelude::*;
use gst::structure::Builder;
use vita_dialogue::duplex::{CancelReason, CutOff, Slot};
use vita_dialogue::state::State;
use vita_engine::room::event::{Answer, Event, EventKind, FrameSeen, Question, Turn, Verdict};

/// `None`: nothing that goes on the bus as an element message.
pub(super) fn structure(event: &Event) -> Option<gst::Structure> {
    let builder = match &event.kind {
        EventKind::Query {
            generation,
            state,
            turn,
            verdict,
        } => {
            let builder = of_turn("vita-query", turn).field("generation", generation.0);
            with_verdict(builder.field("state", state_name(*state)), verdict)
        }
        EventKind::Noise { turn, verdict } => {
            let builder = of_turn("vita-noise", turn);
            match verdict {
                Some(verdict) => with_verdict(builder.field("reason", "judged"), verdict),
                None => builder.field("reason", "too-short"),
            }
        }
        EventKind::Interrupted {
            turn,
            generation,
            by,
        } => gst::Structure::builder("vita-interrupted")
            .field("turn", turn.0)
            .field("generation", generation.0)
            .field("by-turn", by.0),
        EventKind::RolesSwapped {
            turn,
            generation,
            speaking,
        } => gst::Structure::builder("vita-roles-swapped")
            .field("turn", turn.0)
            .field("generation", generation.0)
            .field("speaking", slot_name(*speaking)),
        EventKind::Delta {
            turn,
            generation,
            sequence,
            text,
        } => gst::Structure::builder("vita-delta")
            .field("turn", turn.0)
            .field("generation", generation.0)
            .field("sequence", *sequence)
            .field("delta", speakable(text)),
        EventKind::Answer(answer) => of_answer(answer),
        EventKind::Cancelled { turn, reason } => {
            let (reason, detail) = cancel_reason(reason);
            of_turn("vita-cancelled", turn)
                .field("reason", reason)
                .field_if_some("detail", detail.map(speakable))
        }
        EventKind::Reset => gst::Structure::builder("vita-reset"),
        EventKind::Drained | EventKind::Closed | EventKind::Failed(_) => return None,
    };
    Some(builder.field("stream-time", ns(event.stream_time)).build())
}

fn of_turn(name: &str, turn: &Turn) -> Builder {
    let Question {
        utterance_id,
        text,
        start,
        end,
        capture_time_ns,
    } = &turn.question;
    let kind = match utterance_id {
        Some(_) => "speech",
        None => "text",
    };
    gst::Structure::builder(name)
        .field("turn", turn.id.0)
        .field("question", kind)
        .field_if_some("text", text.as_deref().map(speakable))
        .field_if_some("utterance-id", *utterance_id)
        .field("start-stream-time", ns(*start))
        .field("end-stream-time", ns(*end))
        .field_if_some("capture-time", *capture_time_ns)
}

fn with_verdict(builder: Builder, verdict: &Verdict) -> Builder {
    let frames = verdict
        .frames
        .iter()
        .map(|frame| frame_seen(frame).to_send_value());
    builder
        .field("query-probability", verdict.states.query)
        .field("noise-probability", verdict.states.noise)
        .field("text-probability", verdict.states.text)
        .field("judging-time", ns(verdict.judging))
        .field("frames", gst::Array::from_values(frames))
        .field_if_some("staleness", verdict.staleness.map(ns))
}

fn frame_seen(frame: &FrameSeen) -> gst::Structure {
    gst::Structure::builder("frame")
        .field("stream-time", ns(frame.time))
        .field_if_some("capture-time", frame.capture_time_ns)
        .field("repeat", frame.repeat)
        .build()
}

fn of_answer(answer: &Answer) -> Builder {
    let (cut_off, by, detail) = match &answer.cut_off {
        None => (None, None, None),
        Some(CutOff::Interrupted { by }) => (Some("interrupted"), Some(by.0), None),
        Some(CutOff::MaxTokens) => (Some("max-tokens"), None, None),
        Some(CutOff::MaxDuration) => (Some("max-duration"), None, None),
        Some(CutOff::Reset) => (Some("reset"), None, None),
        Some(CutOff::Closed) => (Some("closed"), None, None),
        Some(CutOff::Failed(reason)) => (Some("failed"), None, Some(reason.as_str())),
    };
    let builder = of_turn("vita-answer", &answer.turn)
        .field("generation", answer.generation.0)
        .field("state", state_name(answer.state))
        .field("answer", speakable(&answer.text))
        .field_if_some("cut-off", cut_off)
        .field_if_some("by-turn", by)
        .field_if_some("detail", detail.map(speakable))
        .field("tokens", answer.tokens.answer as u64)
        .field("prompt-tokens", answer.tokens.prompt as u64)
        .field("cached-tokens", answer.tokens.cached as u64)
        .field_if_some("first-token-time", answer.timings.first_token.map(ns))
        .field_if_some("token-time", answer.timings.token.map(ns))
        .field("generation-time", ns(answer.timings.generation));
    with_verdict(builder, &answer.verdict)
}

fn cancel_reason(reason: &CancelReason) -> (&'static str, Option<&str>) {
    match reason {
        CancelReason::QueueFull => ("queue-full", None),
        CancelReason::Stale => ("stale", None),
        CancelReason::JudgingTimedOut => ("judging-timed-out", None),
        CancelReason::Failed(reason) => ("failed", Some(reason)),
        CancelReason::Reset => ("reset", None),
        CancelReason::Closed => ("closed", None),
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Query => "query",
        State::Noise => "noise",
        State::Text => "text",
    }
}

fn slot_name(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "a",
        Slot::B => "b",
    }
}

/// Strings of GStreamer hold no NUL, which a model may write: it becomes U+FFFD.
fn speakable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
