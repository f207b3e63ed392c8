//! The media's time: the same media tell the same.

use gst::prelude::*;

use crate::bench::*;

/// Frames, two spoken questions, of which the second interrupts, and a typed one.
fn play() -> Vec<String> {
    let settings = format!("step-time=20000000 max-tokens=50 logit-bias={QUERY_ENDLESS}");
    let mut bench = Bench::play(&["video", "audio", "text"], &settings);
    std::thread::scope(|scope| {
        let bench = &bench;
        scope.spawn(move || {
            for i in 0..12 {
                bench.show(5 * i, 500 * u64::from(i));
            }
            bench.end(&["video"]);
        });
        scope.spawn(move || {
            bench.say(1, 2500);
            bench.say(2, 3100);
            bench.end(&["audio"]);
        });
        bench.write("And now?", 5000);
        bench.end(&["text"]);
    });
    bench.until_end().iter().map(ToString::to_string).collect()
}

#[test]
fn the_same_media_tell_the_same_at_the_same_times() {
    let told = play();
    for _ in 0..3 {
        assert_eq!(play(), told);
    }
    let answers: Vec<gst::Structure> = told
        .iter()
        .filter(|text| text.starts_with("vita-answer"))
        .map(|text| text.parse().unwrap())
        .collect();
    let ends: Vec<u64> = answers
        .iter()
        .map(|answer| answer.get("stream-time").unwrap())
        .collect();
    // A verdict takes one step, each of the 50 tokens another.
    assert_eq!(
        ends,
        [
            3_120_000_000,
            3_120_000_000 + 1_000_000_000,
            5_000_000_000 + 1_020_000_000
        ]
    );
    assert_eq!(answers[0].get::<&str>("cut-off"), Ok("interrupted"));
    assert_eq!(answers[1].get("judging-time"), Ok(20_000_000u64));
    // One frame a second from the first of the interval on, at 1.5 s.
    assert_eq!(answers[1].get("staleness"), Ok(600_000_000u64));
}

#[test]
fn stopping_does_not_wait_for_media_that_stand_still() {
    let bench = Bench::play(&["video", "audio"], "step-time=20000000");
    for i in 0..5 {
        bench.show(10, 500 * i);
    }
    while bench.stat("frames") < 5 {
        std::thread::yield_now();
    }
    assert_eq!(bench.stat("position"), 0, "no audio has come");
    bench.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn with_sync_media_are_taken_at_their_running_time() {
    let mut bench = Bench::play(&["text"], "sync=true max-tokens=5");
    bench.write("Now?", 0);
    bench.write("And in an hour?", 3_600_000);
    bench.until("vita-answer");
    let clock = bench.pipeline.clock().unwrap();
    assert!(clock.time() > gst::ClockTime::ZERO);
    assert_eq!(bench.stat("requests"), 0, "the second is not due");
    bench.pipeline.set_state(gst::State::Null).unwrap();
}
