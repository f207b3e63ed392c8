//! One line a message, for people.

use std::fmt::Write;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use vita_messages::kinds::{Frame, Lost, Media, Source, SourceStatus, Speech, SpeechEdge};
use vita_messages::{Body, Message};

use super::dialogue::{answer_line, cancelled_line, noise_line, one_line, query_line};

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]Z");

pub fn line(message: &Message) -> String {
    with_time(message, &body(&message.body))
}

/// The text behind the message's time and source.
pub fn with_time(message: &Message, text: &str) -> String {
    let time = time::OffsetDateTime::from(message.time)
        .format(TIME)
        .unwrap_or_default();
    format!("{time}  {}  {text}", message.source)
}

/// What is told, without when and where.
pub fn body(body: &Body) -> String {
    match body {
        Body::Speech(speech) => speech_line(speech),
        Body::Source(source) => source_line(source),
        Body::Lost(lost) => lost_line(lost),
        Body::Frame(frame) => frame_line(frame),
        Body::Query(query) => query_line(query),
        Body::Noise(noise) => noise_line(noise),
        Body::Delta(delta) => format!(
            "words {}.{}: {}",
            delta.generation_id,
            delta.sequence,
            one_line(&delta.text)
        ),
        Body::Answer(answer) => answer_line(answer, false),
        Body::Interrupted(interrupted) => format!(
            "answer {} is interrupted by question {}",
            interrupted.generation_id, interrupted.by_turn_id
        ),
        Body::RolesSwapped(swapped) => format!(
            "the roles swap: {} speaks",
            word(&swapped.speaking).to_uppercase()
        ),
        Body::Cancelled(cancelled) => cancelled_line(cancelled),
        Body::Reset(_) => "the dialogue begins anew".to_owned(),
    }
}

fn speech_line(speech: &Speech) -> String {
    let at = seconds(speech.stream_time_ns);
    match speech.edge {
        SpeechEdge::Start => format!(
            "speech {} starts at {at} (probability {:.2})",
            speech.utterance_id, speech.probability
        ),
        SpeechEdge::End => {
            let mut line = format!("speech {} ends at {at}", speech.utterance_id);
            if let Some(duration) = speech.duration_ns {
                let _ = write!(line, " after {}", seconds(duration));
            }
            if let Some(reason) = speech.reason {
                let _ = write!(line, ", {}", word(&reason));
            }
            if speech.accepted == Some(false) {
                line.push_str(", too short to count");
            }
            line
        }
    }
}

fn source_line(source: &Source) -> String {
    let mut line = match source.state {
        SourceStatus::Up => "up",
        SourceStatus::Stalled => "stalled",
        SourceStatus::Down => "down",
    }
    .to_owned();
    if !source.media.is_empty() {
        let media: Vec<String> = source.media.iter().map(media).collect();
        let _ = write!(line, ": {}", media.join(", "));
    }
    if let Some(reason) = &source.reason {
        let _ = write!(line, ": {} ({})", reason.text, word(&reason.kind));
    }
    if source.attempt > 1 {
        let _ = write!(line, ", attempt {}", source.attempt);
    }
    if let Some(time) = source.next_retry {
        let _ = write!(
            line,
            ", next try at {}",
            time::OffsetDateTime::from(time)
                .format(TIME)
                .unwrap_or_default()
        );
    }
    line
}

fn media(media: &Media) -> String {
    let mut text = format!("{} {}", word(&media.kind), media.codec);
    if let (Some(width), Some(height)) = (media.width, media.height) {
        let _ = write!(text, " {width}×{height}");
    }
    if let Some(rate) = media.frame_rate {
        let _ = write!(text, " {rate:.2} fps");
    }
    if let Some(rate) = media.sample_rate_hz {
        let _ = write!(text, " {rate} Hz");
    }
    if let Some(channels) = media.channels {
        let _ = write!(text, " {channels} ch");
    }
    text
}

fn lost_line(lost: &Lost) -> String {
    format!("{} messages lost here: {}", lost.count, word(&lost.cause))
}

fn frame_line(frame: &Frame) -> String {
    let kind = if frame.keyframe { "key frame" } else { "frame" };
    format!(
        "{kind} {} at {} ({})",
        frame.kept,
        seconds(frame.stream_time_ns),
        word(&frame.reason)
    )
}

/// To the millisecond.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

/// The word that stands for it in JSON, with spaces.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use vita_messages::kinds::{
        Answer, CancelReason, Cancelled, CutOff, CutOffReason, FrameReason, Interrupted, LostCause,
        MediaKind, Noise, NoiseReason, Query, Question, QuestionKind, RolesSwapped, SeenFrame,
        Slot, SourceReason, SourceReasonKind, SpeechEndReason, State, StateProbabilities, Timings,
        Tokens, Verdict,
    };
    use vita_messages::{SourceName, WallTime};

    use super::*;

    #[track_caller]
    fn assert_line(body: impl Into<Body>, expected: &str) {
        let door = SourceName::new("door").unwrap();
        let message = Message::new(
            &door,
            WallTime::from_unix_ns(1_764_000_000_123_456_789),
            body,
        );
        assert_eq!(
            line(&message),
            format!("2025-11-24 16:00:00.123Z  door  {expected}")
        );
    }

    #[test]
    fn each_kind_has_its_line() {
        let start = Speech {
            edge: SpeechEdge::Start,
            utterance_id: 7,
            stream_time_ns: 3_200_400_000,
            running_time_ns: 0,
            capture_time: None,
            start_stream_time_ns: None,
            duration_ns: None,
            accepted: None,
            reason: None,
            probability: 0.914,
        };
        assert_line(
            start.clone(),
            "speech 7 starts at 3.200 s (probability 0.91)",
        );
        let end = Speech {
            edge: SpeechEdge::End,
            duration_ns: Some(90_000_000),
            accepted: Some(false),
            reason: Some(SpeechEndReason::MaxDuration),
            ..start
        };
        assert_line(
            end,
            "speech 7 ends at 3.200 s after 0.090 s, max duration, too short to count",
        );
        let video = Media {
            width: Some(1920),
            height: Some(1080),
            frame_rate: Some(25.0),
            ..Media::new(MediaKind::Video, "h264")
        };
        let audio = Media {
            sample_rate_hz: Some(8000),
            channels: Some(1),
            ..Media::new(MediaKind::Audio, "pcmu")
        };
        let up = Source {
            state: SourceStatus::Up,
            reason: None,
            attempt: 1,
            next_retry: None,
            media: vec![video, audio],
        };
        assert_line(
            up,
            "up: video h264 1920×1080 25.00 fps, audio pcmu 8000 Hz 1 ch",
        );
        let reason = Some(SourceReason {
            kind: SourceReasonKind::TimedOut,
            text: "no answer".into(),
        });
        let next_retry = Some(WallTime::from_unix_ns(1_764_000_002_000_000_000));
        let down = Source {
            state: SourceStatus::Down,
            reason,
            attempt: 2,
            next_retry,
            media: Vec::new(),
        };
        assert_line(
            down,
            "down: no answer (timed out), attempt 2, next try at 2025-11-24 16:00:02.000Z",
        );
        let time = WallTime::from_unix_ns(0);
        let lost = Lost {
            count: 12,
            cause: LostCause::SpoolFull,
            first_time: time,
            last_time: time,
        };
        assert_line(lost, "12 messages lost here: spool full");
        let frame = Frame {
            stream_time_ns: 1_000_000_000,
            running_time_ns: 0,
            capture_time: None,
            reason: FrameReason::OnDemand,
            kept: 3,
            keyframe: true,
        };
        assert_line(frame, "key frame 3 at 1.000 s (on demand)");
    }

    #[test]
    fn questions_and_answers_have_their_lines() {
        let spoken = Question {
            kind: QuestionKind::Speech,
            text: Some("what is\nthat".into()),
            utterance_id: Some(7),
            start_stream_time_ns: 1_000_000_000,
            end_stream_time_ns: 2_500_000_000,
            capture_time: None,
        };
        let frame = SeenFrame {
            stream_time_ns: 2_000_000_000,
            capture_time: None,
            repeat: 1,
        };
        let verdict = Verdict {
            state_probabilities: StateProbabilities {
                query: 0.875,
                noise: 0.125,
                text: 0.0,
            },
            judging_ns: 0,
            frames: vec![frame; 4],
            staleness_ns: Some(500_000_000),
        };
        let query = Query {
            session_id: 1,
            turn_id: 5,
            generation_id: 3,
            question: spoken.clone(),
            state: State::Query,
            verdict: verdict.clone(),
            stream_time_ns: 0,
        };
        assert_line(
            query,
            "question 5: speech “what is that” from 1.000 s to 2.500 s (query 0.88, noise 0.12, text 0.00)",
        );
        let noise = Noise {
            session_id: 1,
            turn_id: 5,
            question: Question {
                text: None,
                ..spoken.clone()
            },
            reason: NoiseReason::TooShort,
            verdict: None,
            stream_time_ns: 0,
        };
        assert_line(
            noise,
            "not answered: speech from 1.000 s to 2.500 s (too short)",
        );
        let answer = Answer {
            session_id: 1,
            turn_id: 5,
            generation_id: 3,
            question: spoken.clone(),
            state: State::Query,
            verdict,
            text: "A cup".into(),
            cut_off: Some(CutOff {
                reason: CutOffReason::Interrupted,
                by_turn_id: Some(6),
                text: None,
            }),
            timings: Timings {
                first_token_ns: Some(300_000_000),
                ..Timings::default()
            },
            tokens: Tokens {
                answer: 2,
                ..Tokens::default()
            },
            model: None,
            stream_time_ns: 0,
        };
        assert_line(
            answer,
            "answer 3: A cup (cut off: interrupted by question 6, first words after 0.300 s, 2 tokens, 4 frames, the newest 0.500 s old)",
        );
        let interrupted = Interrupted {
            session_id: 1,
            turn_id: 5,
            generation_id: 3,
            by_turn_id: 6,
            stream_time_ns: 0,
        };
        assert_line(interrupted, "answer 3 is interrupted by question 6");
        let swapped = RolesSwapped {
            session_id: 1,
            turn_id: 6,
            generation_id: 4,
            speaking: Slot::B,
            stream_time_ns: 0,
        };
        assert_line(swapped, "the roles swap: B speaks");
        let cancelled = Cancelled {
            session_id: 1,
            turn_id: 5,
            question: spoken,
            reason: CancelReason::Failed,
            text: Some("too long".into()),
            stream_time_ns: 0,
        };
        assert_line(cancelled, "question 5 dropped: failed (too long)");
    }
}
