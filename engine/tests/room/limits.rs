//! What does not fit, and what breaks.

use std::sync::mpsc::channel;
use std::time::Duration;

use vita_dialogue::duplex::CancelReason;
use vita_engine::ErrorKind;
use vita_engine::room::event::EventKind;
use vita_engine::room::{Pacing, RoomSettings};
use vita_model::video::FrameSelection;

use crate::bench::*;

#[test]
fn settings_without_a_meaning_are_refused() {
    let engine = engine();
    let wrong = |change: fn(&mut RoomSettings)| {
        let mut settings = RoomSettings::default();
        change(&mut settings);
        let error = Bench::try_open(&engine, settings).err().expect("refused");
        (error.kind(), error.to_string())
    };
    let (kind, text) = wrong(|s| s.dialogue.state_rule.noise_threshold = 0.7);
    assert_eq!(kind, ErrorKind::Settings);
    assert!(text.contains("noise threshold 0.7"), "{text}");
    let (kind, text) = wrong(|s| s.sampling.temperature = -1.0);
    assert_eq!(kind, ErrorKind::Model);
    assert!(text.contains("temperature -1"), "{text}");
    let (_, text) = wrong(|s| s.logit_bias = vec![(768, 1.0)]);
    assert_eq!(text, "logit bias: token 768 of a vocabulary of 768");
    let (_, text) = wrong(|s| s.max_tokens = 0);
    assert!(text.contains("max tokens 0"), "{text}");
    let (_, text) = wrong(|s| {
        s.pacing = Pacing::Stream {
            step: Duration::ZERO,
        }
    });
    assert!(text.contains("a step of no time"), "{text}");
    let (_, text) = wrong(|s| {
        s.frame_selection = FrameSelection {
            min_frames: 0,
            ..FrameSelection::default()
        }
    });
    assert!(text.starts_with("0 to 16 frames"), "{text}");
    assert_eq!(engine.rooms(), 0);
}

#[test]
fn a_panic_in_one_room_ends_that_room_alone() {
    let engine = engine();
    let mut other = Bench::open(&engine, settings(200));
    other.room.ask("Who is there?").unwrap();
    let (sender, failed) = channel();
    let on_event = Box::new(move |event: vita_engine::room::Event| match event.kind {
        EventKind::Failed(reason) => sender.send(reason).unwrap(),
        EventKind::Delta { .. } => panic!("this callback is broken"),
        _ => (),
    });
    let broken = engine.open_room(settings(50), on_event).unwrap();
    broken.ask("Who is there?").unwrap();
    let reason = failed.recv_timeout(Duration::from_secs(120)).unwrap();
    assert_eq!(reason, "this callback is broken");
    let error = broken.ask("Still there?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        error.to_string(),
        "the room failed: this callback is broken"
    );
    assert_eq!(broken.status().failed.as_deref(), Some(reason.as_str()));

    assert_ne!(other.answer().text, "");
    other.room.ask("And now?").unwrap();
    assert_ne!(other.answer().text, "");
}

#[test]
fn a_full_queue_refuses_and_counts() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            queue: 0,
            ..settings(10)
        },
    );
    let error = bench.room.ask("Anybody?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(bench.room.status().requests_refused, 1);
    bench.room.finish();
    assert_eq!(bench.next(), EventKind::Drained);
}

#[test]
fn a_question_that_cannot_fit_is_cancelled_with_the_reason() {
    let mut bench = Bench::open(&engine(), settings(10));
    bench.room.ask("animal ".repeat(10_000)).unwrap();
    let EventKind::Cancelled { turn, reason } = bench.next() else {
        panic!("{:?}", bench.told)
    };
    assert_eq!(turn.id.0, 1);
    let CancelReason::Failed(reason) = reason else {
        panic!("{reason:?}")
    };
    assert!(reason.contains("positions, the model has 4600"), "{reason}");
    bench.room.ask("Shorter?").unwrap();
    assert_ne!(bench.answer().text, "");
}

#[test]
fn old_turns_are_forgotten_where_the_context_ends() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            dialogue: vita_dialogue::duplex::Settings {
                history_tokens: 100_000,
                ..Default::default()
            },
            ..settings(10)
        },
    );
    for _ in 0..3 {
        bench.room.ask("animal ".repeat(1500)).unwrap();
        let answer = bench.answer();
        assert!(answer.tokens.prompt < 4600);
        assert_ne!(answer.text, "");
    }
}

#[test]
fn frames_that_are_too_many_are_counted() {
    let bench = Bench::open(
        &engine(),
        RoomSettings {
            frames: 3,
            ..settings(10)
        },
    );
    for i in 0..5 {
        bench.room.frame(frame(&pictures()[0], ms(100 * i)));
    }
    let status = bench.room.status();
    assert_eq!((status.frames, status.frames_dropped), (3, 2));
    assert_eq!(status.position, ms(400));
}

#[test]
fn the_thread_ends_with_the_last_room() {
    let bench = {
        let engine = engine();
        Bench::open(&engine, settings(10))
    };
    bench.room.ask("Is the engine still there?").unwrap();
    let told = bench.close();
    assert_eq!(told.last().unwrap().kind, EventKind::Closed);
}
