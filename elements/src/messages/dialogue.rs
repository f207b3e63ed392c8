//! What `vitallmsink` posts, as messages.

use vita_messages::kinds::{
    Answer, Body, CancelReason, Cancelled, CutOff, CutOffReason, Delta, Interrupted, Noise,
    NoiseReason, Query, Question, QuestionKind, Reset, RolesSwapped, SeenFrame, Slot, State,
    StateProbabilities, Timings, Tokens, Verdict,
};

use super::{Malformed, capture_time, field};

/// Where the dialogue's messages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    pub id: u64,
    /// The model, as the config or the property names it.
    pub model: Option<String>,
}

/// `None`: not one of the sink's.
pub fn parse(s: &gst::StructureRef, session: &Session) -> Option<Result<Body, Malformed>> {
    Some(match s.name().as_str() {
        "vita-query" => query(s, session.id),
        "vita-noise" => noise(s, session.id),
        "vita-delta" => delta(s, session.id),
        "vita-answer" => answer(s, session),
        "vita-interrupted" => interrupted(s, session.id),
        "vita-roles-swapped" => roles_swapped(s, session.id),
        "vita-cancelled" => cancelled(s, session.id),
        "vita-reset" => reset(s, session.id),
        _ => return None,
    })
}

fn query(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let query = Query {
        session_id,
        turn_id: field(s, "turn")?,
        generation_id: field(s, "generation")?,
        question: question(s)?,
        state: state(s)?,
        verdict: verdict(s)?,
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(query.into())
}

fn noise(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let reason: String = field(s, "reason")?;
    let reason = match reason.as_str() {
        "judged" => NoiseReason::Judged,
        "too-short" => NoiseReason::TooShort,
        _ => NoiseReason::Other,
    };
    let judged = (reason == NoiseReason::Judged).then(|| verdict(s));
    let noise = Noise {
        session_id,
        turn_id: field(s, "turn")?,
        question: question(s)?,
        reason,
        verdict: judged.transpose()?,
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(noise.into())
}

fn delta(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let delta = Delta {
        session_id,
        turn_id: field(s, "turn")?,
        generation_id: field(s, "generation")?,
        sequence: field(s, "sequence")?,
        text: field(s, "delta")?,
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(delta.into())
}

fn answer(s: &gst::StructureRef, session: &Session) -> Result<Body, Malformed> {
    let answer = Answer {
        session_id: session.id,
        turn_id: field(s, "turn")?,
        generation_id: field(s, "generation")?,
        question: question(s)?,
        state: state(s)?,
        verdict: verdict(s)?,
        text: field(s, "answer")?,
        cut_off: cut_off(s),
        timings: Timings {
            first_token_ns: s.get("first-token-time").ok(),
            token_ns: s.get("token-time").ok(),
            generation_ns: field(s, "generation-time")?,
        },
        tokens: Tokens {
            answer: field(s, "tokens")?,
            prompt: field(s, "prompt-tokens")?,
            cached: field(s, "cached-tokens")?,
        },
        model: session.model.clone(),
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(answer.into())
}

fn interrupted(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let interrupted = Interrupted {
        session_id,
        turn_id: field(s, "turn")?,
        generation_id: field(s, "generation")?,
        by_turn_id: field(s, "by-turn")?,
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(interrupted.into())
}

fn roles_swapped(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let speaking: String = field(s, "speaking")?;
    let swapped = RolesSwapped {
        session_id,
        turn_id: field(s, "turn")?,
        generation_id: field(s, "generation")?,
        speaking: match speaking.as_str() {
            "a" => Slot::A,
            "b" => Slot::B,
            _ => Slot::Other,
        },
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(swapped.into())
}

fn cancelled(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let reason: String = field(s, "reason")?;
    let cancelled = Cancelled {
        session_id,
        turn_id: field(s, "turn")?,
        question: question(s)?,
        reason: match reason.as_str() {
            "queue-full" => CancelReason::QueueFull,
            "stale" => CancelReason::Stale,
            "judging-timed-out" => CancelReason::JudgingTimedOut,
            "failed" => CancelReason::Failed,
            "reset" => CancelReason::Reset,
            "closed" => CancelReason::Closed,
            _ => CancelReason::Other,
        },
        text: s.get("detail").ok(),
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(cancelled.into())
}

fn reset(s: &gst::StructureRef, session_id: u64) -> Result<Body, Malformed> {
    let reset = Reset {
        session_id,
        stream_time_ns: field(s, "stream-time")?,
    };
    Ok(reset.into())
}

fn question(s: &gst::StructureRef) -> Result<Question, Malformed> {
    let kind: String = field(s, "question")?;
    Ok(Question {
        kind: match kind.as_str() {
            "speech" => QuestionKind::Speech,
            "text" => QuestionKind::Text,
            _ => QuestionKind::Other,
        },
        text: s.get("text").ok(),
        utterance_id: s.get("utterance-id").ok(),
        start_stream_time_ns: field(s, "start-stream-time")?,
        end_stream_time_ns: field(s, "end-stream-time")?,
        capture_time: capture_time(s),
    })
}

fn state(s: &gst::StructureRef) -> Result<State, Malformed> {
    let state: String = field(s, "state")?;
    Ok(match state.as_str() {
        "query" => State::Query,
        "noise" => State::Noise,
        "text" => State::Text,
        _ => State::Other,
    })
}

fn verdict(s: &gst::StructureRef) -> Result<Verdict, Malformed> {
    let frames: gst::Array = field(s, "frames")?;
    let frames = frames.iter().map(|frame| {
        let frame = frame
            .get::<gst::Structure>()
            .map_err(|_| Malformed::new(s, "frames"))?;
        Ok(SeenFrame {
            stream_time_ns: field(&frame, "stream-time")?,
            capture_time: capture_time(&frame),
            repeat: field(&frame, "repeat")?,
        })
    });
    Ok(Verdict {
        state_probabilities: StateProbabilities {
            query: field(s, "query-probability")?,
            noise: field(s, "noise-probability")?,
            text: field(s, "text-probability")?,
        },
        judging_ns: field(s, "judging-time")?,
        frames: frames.collect::<Result<_, _>>()?,
        staleness_ns: s.get("staleness").ok(),
    })
}

fn cut_off(s: &gst::StructureRef) -> Option<CutOff> {
    let reason: String = s.get("cut-off").ok()?;
    Some(CutOff {
        reason: match reason.as_str() {
            "interrupted" => CutOffReason::Interrupted,
            "max-tokens" => CutOffReason::MaxTokens,
            "max-duration" => CutOffReason::MaxDuration,
            "reset" => CutOffReason::Reset,
            "closed" => CutOffReason::Closed,
            "failed" => CutOffReason::Failed,
            _ => CutOffReason::Other,
        },
        by_turn_id: s.get("by-turn").ok(),
        text: s.get("detail").ok(),
    })
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;
    use vita_messages::WallTime;

    use super::*;

    fn session() -> Session {
        Session {
            id: 1_764_000_000_000,
            model: Some("nano".into()),
        }
    }

    fn of_turn(name: &str) -> gst::structure::Builder {
        gst::init().unwrap();
        gst::Structure::builder(name)
            .field("turn", 5_u64)
            .field("question", "speech")
            .field("text", "what is that")
            .field("utterance-id", 7_u64)
            .field("start-stream-time", 1_000_u64)
            .field("end-stream-time", 2_000_u64)
            .field("capture-time", 1_u64)
            .field("stream-time", 3_000_u64)
    }

    fn with_verdict(builder: gst::structure::Builder) -> gst::structure::Builder {
        let frame = gst::Structure::builder("frame")
            .field("stream-time", 1_500_u64)
            .field("repeat", 4_u32)
            .build();
        builder
            .field("query-probability", 0.75_f64)
            .field("noise-probability", 0.25_f64)
            .field("text-probability", 0.0_f64)
            .field("judging-time", 90_u64)
            .field("frames", gst::Array::from_values([frame.to_send_value()]))
            .field("staleness", 500_u64)
    }

    fn expected_verdict() -> Verdict {
        Verdict {
            state_probabilities: StateProbabilities {
                query: 0.75,
                noise: 0.25,
                text: 0.0,
            },
            judging_ns: 90,
            frames: vec![SeenFrame {
                stream_time_ns: 1_500,
                capture_time: None,
                repeat: 4,
            }],
            staleness_ns: Some(500),
        }
    }

    #[test]
    fn an_answer_is_read_in_full() {
        let structure = with_verdict(of_turn("vita-answer"))
            .field("generation", 3_u64)
            .field("state", "query")
            .field("answer", "A cup")
            .field("cut-off", "interrupted")
            .field("by-turn", 6_u64)
            .field("tokens", 2_u64)
            .field("prompt-tokens", 300_u64)
            .field("cached-tokens", 250_u64)
            .field("first-token-time", 110_u64)
            .field("generation-time", 60_u64)
            .build();
        let expected = Answer {
            session_id: session().id,
            turn_id: 5,
            generation_id: 3,
            question: Question {
                kind: QuestionKind::Speech,
                text: Some("what is that".into()),
                utterance_id: Some(7),
                start_stream_time_ns: 1_000,
                end_stream_time_ns: 2_000,
                capture_time: Some(WallTime::from_unix_ns(1)),
            },
            state: State::Query,
            verdict: expected_verdict(),
            text: "A cup".into(),
            cut_off: Some(CutOff {
                reason: CutOffReason::Interrupted,
                by_turn_id: Some(6),
                text: None,
            }),
            timings: Timings {
                first_token_ns: Some(110),
                token_ns: None,
                generation_ns: 60,
            },
            tokens: Tokens {
                answer: 2,
                prompt: 300,
                cached: 250,
            },
            model: Some("nano".into()),
            stream_time_ns: 3_000,
        };
        assert_eq!(parse(&structure, &session()), Some(Ok(expected.into())));
    }

    #[test]
    fn noise_has_a_verdict_only_when_it_was_judged() {
        let read = |structure: gst::Structure| match parse(&structure, &session()) {
            Some(Ok(Body::Noise(noise))) => noise.verdict,
            other => panic!("{other:?}"),
        };
        let judged = with_verdict(of_turn("vita-noise")).field("reason", "judged");
        assert_eq!(read(judged.build()), Some(expected_verdict()));
        let short = of_turn("vita-noise").field("reason", "too-short");
        assert_eq!(read(short.build()), None);
    }

    #[test]
    fn a_missing_field_is_named_and_others_are_passed_over() {
        let structure = of_turn("vita-query").field("generation", 1_u64).build();
        let error = parse(&structure, &session()).unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "vita-query: field `state` is not there or of another type"
        );
        let other = of_turn("vita-mood").build();
        assert_eq!(parse(&other, &session()), None);
    }
}
