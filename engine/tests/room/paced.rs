//! Rooms that go by the media's time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vita_dialogue::duplex::CutOff;
use vita_engine::room::event::EventKind;
use vita_engine::room::{Event, Pacing, RoomSettings};

use crate::bench::*;

const STEP: Duration = Duration::from_millis(20);

fn paced(max_tokens: usize) -> RoomSettings {
    RoomSettings {
        pacing: Pacing::Stream { step: STEP },
        logit_bias: bias(true, true),
        ..settings(max_tokens)
    }
}

/// Ten seconds of media, told in stretches of `stretch`.
fn play(stretch: Duration) -> Vec<Event> {
    let mut bench = Bench::open(&engine(), paced(60));
    let pictures = pictures();
    bench.room.advance(Duration::ZERO);
    let mut time = Duration::ZERO;
    let mut given = 0;
    while time < ms(10_000) {
        time += stretch;
        while ms(500 * given) < time {
            let media = &pictures[given as usize % 4];
            bench.room.frame(frame(media, ms(500 * given)));
            given += 1;
        }
        for (id, end) in [(1, ms(3000)), (2, ms(3700)), (3, ms(9000))] {
            if (time - stretch..time).contains(&end) {
                bench.room.utterance(utterance(id, end)).unwrap();
            }
        }
        if (time - stretch..time).contains(&ms(6000)) {
            bench.room.ask_at("What now?", ms(6000)).unwrap();
        }
        bench.room.advance(time);
        assert!(bench.room.wait(time, || false));
        assert!(bench.room.status().position >= time);
    }
    bench.room.finish();
    bench.until(|event| (*event == EventKind::Drained).then_some(()));
    bench.told
}

#[test]
fn the_same_media_tell_the_same_at_the_same_times() {
    let told = play(ms(100));
    let again = play(ms(100));
    assert_eq!(told, again);
    assert_eq!(told, play(ms(730)), "however they are cut");

    let answers: Vec<_> = told
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Answer(answer) => Some((event.stream_time, answer)),
            _ => None,
        })
        .collect();
    let ends: Vec<_> = answers.iter().map(|(time, _)| *time).collect();
    // A step for the verdict, one for each token.
    let whole = STEP * 61;
    assert_eq!(
        ends,
        [
            ms(3700) + STEP,
            ms(3700) + whole,
            ms(6000) + whole,
            ms(9000) + whole
        ]
    );
    let interrupted = answers[0].1;
    assert!(matches!(
        interrupted.cut_off,
        Some(CutOff::Interrupted { .. })
    ));
    assert_eq!(interrupted.verdict.judging, STEP);
    assert_eq!(interrupted.timings.first_token, Some(STEP * 2));
    let full = answers[1].1;
    assert_eq!(full.timings.token, Some(STEP));
    assert_eq!(full.timings.generation, STEP * 60);
    // One frame a second from the first of the interval on.
    assert_eq!(full.verdict.frames.last().unwrap().time, ms(3000));
}

#[test]
fn nothing_happens_before_its_time() {
    let mut bench = Bench::open(&engine(), paced(4));
    bench.room.advance(ms(1000));
    bench.room.utterance(utterance(1, ms(2000))).unwrap();
    bench.room.advance(ms(2000));
    assert!(bench.room.wait(ms(2000), || false));
    assert_eq!(bench.room.status().requests, 1, "due, but not over");
    bench.room.advance(ms(2000) + STEP * 2);
    let EventKind::Query { .. } = bench.next() else {
        panic!("{:?}", bench.told)
    };
    assert_eq!(bench.told[0].stream_time, ms(2000) + STEP);
}

#[test]
fn a_flush_lets_go_of_those_who_wait_and_of_what_was_to_come() {
    let mut bench = Bench::open(&engine(), paced(4));
    bench.room.advance(ms(1000));
    bench.room.utterance(utterance(1, ms(5000))).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bench.room.wait(ms(5000), || false));
        bench.room.flush();
        assert!(!waits.join().unwrap());
    });
    bench.room.advance(ms(200));
    bench.room.ask_at("Back again?", ms(300)).unwrap();
    bench.room.advance(ms(2000));
    let answer = bench.answer();
    assert_eq!(answer.turn.question.end, ms(300));
    assert_eq!(bench.told[0].stream_time, ms(300) + STEP);
    bench.room.finish();
    assert_eq!(bench.next(), EventKind::Drained);
}

#[test]
fn a_room_that_stands_still_holds_up_no_other() {
    let engine = engine();
    let still = Bench::open(&engine, paced(1000));
    still.room.advance(ms(1000));
    still.room.ask("Are you there?").unwrap();
    let mut free = Bench::open(&engine, settings(50));
    free.room.ask("And you?").unwrap();
    assert_ne!(free.answer().text, "");
    let gives_up = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let gives_up = || gives_up.load(Ordering::SeqCst);
            still.room.wait(ms(9000), gives_up)
        });
        gives_up.store(true, Ordering::SeqCst);
        still.room.wake_waiting();
        assert!(!waits.join().unwrap());
    });
    let told = still.close();
    assert_eq!(told.last().unwrap().kind, EventKind::Closed);
}
