//! What our elements post on the bus, as messages, and the dialogue behind them as the command service sees it: for the sink itself, where it
//! has a `nats-url`, and for a program around the pipeline. The structures are in `docs/architecture.md`.

mod dialogue;
mod room;

use gst::glib;
use vita_messages::WallTime;
use vita_messages::kinds::{Body, Frame, FrameReason, Speech, SpeechEdge, SpeechEndReason};

pub use dialogue::Session;
pub use room::SourceRoom;

/// A field that is not there or of another type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{structure}: field `{field}` is not there or of another type")]
pub struct Malformed {
    structure: String,
    field: &'static str,
}

impl Malformed {
    fn new(structure: &gst::StructureRef, field: &'static str) -> Self {
        Self {
            structure: structure.name().to_string(),
            field,
        }
    }
}

/// `None`: not one of ours.
pub fn parse(structure: &gst::StructureRef, session: &Session) -> Option<Result<Body, Malformed>> {
    match structure.name().as_str() {
        "vita-speech-start" => Some(speech(structure, SpeechEdge::Start)),
        "vita-speech-end" => Some(speech(structure, SpeechEdge::End)),
        "vita-frame" => Some(frame(structure)),
        _ => dialogue::parse(structure, session),
    }
}

fn speech(structure: &gst::StructureRef, edge: SpeechEdge) -> Result<Body, Malformed> {
    let mut speech = Speech {
        edge,
        utterance_id: field(structure, "utterance-id")?,
        stream_time_ns: field(structure, "stream-time")?,
        running_time_ns: field(structure, "running-time")?,
        capture_time: capture_time(structure),
        start_stream_time_ns: None,
        duration_ns: None,
        accepted: None,
        reason: None,
        probability: field(structure, "probability")?,
    };
    if edge == SpeechEdge::End {
        speech.start_stream_time_ns = Some(field(structure, "start-stream-time")?);
        speech.duration_ns = Some(field(structure, "duration")?);
        speech.accepted = Some(field(structure, "accepted")?);
        let reason: String = field(structure, "reason")?;
        speech.reason = Some(match reason.as_str() {
            "silence" => SpeechEndReason::Silence,
            "max-duration" => SpeechEndReason::MaxDuration,
            "eos" => SpeechEndReason::Eos,
            "flush" => SpeechEndReason::Flush,
            "gap" => SpeechEndReason::Gap,
            _ => SpeechEndReason::Other,
        });
    }
    Ok(speech.into())
}

fn frame(structure: &gst::StructureRef) -> Result<Body, Malformed> {
    let reason: String = field(structure, "reason")?;
    let frame = Frame {
        stream_time_ns: field(structure, "stream-time")?,
        running_time_ns: field(structure, "running-time")?,
        capture_time: capture_time(structure),
        reason: match reason.as_str() {
            "rate" => FrameReason::Rate,
            "clip" => FrameReason::Clip,
            "on-demand" => FrameReason::OnDemand,
            _ => FrameReason::Other,
        },
        kept: field(structure, "kept")?,
        keyframe: field(structure, "keyframe")?,
    };
    Ok(frame.into())
}

fn capture_time(structure: &gst::StructureRef) -> Option<WallTime> {
    structure
        .get::<u64>("capture-time")
        .ok()
        .map(WallTime::from_unix_ns)
}

fn field<T>(structure: &gst::StructureRef, field: &'static str) -> Result<T, Malformed>
where
    T: for<'value> glib::value::FromValue<'value>,
{
    structure
        .get(field)
        .map_err(|_| Malformed::new(structure, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speech_end() -> gst::structure::Builder {
        gst::init().unwrap();
        gst::Structure::builder("vita-speech-end")
            .field("utterance-id", 3_u64)
            .field("stream-time", 5_000_000_000_u64)
            .field("running-time", 5_100_000_000_u64)
            .field("probability", 0.25_f64)
            .field("start-stream-time", 2_000_000_000_u64)
            .field("duration", 3_000_000_000_u64)
            .field("accepted", true)
    }

    #[test]
    fn a_speech_end_is_read_in_full() {
        let structure = speech_end()
            .field("reason", "max-duration")
            .field("capture-time", 1_u64)
            .build();
        let expected = Speech {
            edge: SpeechEdge::End,
            utterance_id: 3,
            stream_time_ns: 5_000_000_000,
            running_time_ns: 5_100_000_000,
            capture_time: Some(WallTime::from_unix_ns(1)),
            start_stream_time_ns: Some(2_000_000_000),
            duration_ns: Some(3_000_000_000),
            accepted: Some(true),
            reason: Some(SpeechEndReason::MaxDuration),
            probability: 0.25,
        };
        assert_eq!(
            parse(&structure, &Session::default()),
            Some(Ok(expected.into()))
        );
    }

    #[test]
    fn a_frame_is_read() {
        gst::init().unwrap();
        let structure = gst::Structure::builder("vita-frame")
            .field("stream-time", 1_u64)
            .field("running-time", 2_u64)
            .field("reason", "rate")
            .field("kept", 9_u64)
            .field("keyframe", true)
            .build();
        let expected = Frame {
            stream_time_ns: 1,
            running_time_ns: 2,
            capture_time: None,
            reason: FrameReason::Rate,
            kept: 9,
            keyframe: true,
        };
        assert_eq!(
            parse(&structure, &Session::default()),
            Some(Ok(expected.into()))
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = parse(&speech_end().build(), &Session::default())
            .unwrap()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "vita-speech-end: field `reason` is not there or of another type"
        );
    }

    #[test]
    fn a_field_of_another_type_is_refused() {
        let structure = speech_end()
            .field("reason", "eos")
            .field("duration", 3_i32)
            .build();
        assert!(matches!(
            parse(&structure, &Session::default()),
            Some(Err(Malformed {
                field: "duration",
                ..
            }))
        ));
    }

    #[test]
    fn messages_of_others_are_passed_over() {
        gst::init().unwrap();
        assert_eq!(
            parse(
                &gst::Structure::new_empty("GstUDPSrcTimeout"),
                &Session::default()
            ),
            None
        );
    }
}
