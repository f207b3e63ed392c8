//! State changes, pads that come and go, models that are not there.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use vita_engine::room::{Room, RoomSettings};

use crate::bench::*;

#[track_caller]
fn assert_fails(settings: &[(&str, &str)], expected: &str) {
    init();
    let element = gst::ElementFactory::make("vitallmsink").build().unwrap();
    for (name, value) in settings {
        element.set_property_from_str(name, value);
    }
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_state(gst::State::Ready).unwrap();
    assert!(element.set_state(gst::State::Paused).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        panic!("{message:?}")
    };
    let text = error.error().to_string();
    assert!(text.contains(expected), "{text}");
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_is_wrong_with_a_model_or_a_setting_is_said_when_going_to_paused() {
    assert_fails(&[], "the model has no name");
    assert_fails(
        &[("model", "/nowhere/at-all")],
        "/nowhere/at-all: no such model folder",
    );
    let broken = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(checkpoint().join(file), broken.path().join(file)).unwrap();
    }
    assert_fails(
        &[("model", broken.path().to_str().unwrap())],
        broken.path().to_str().unwrap(),
    );
    let golden = checkpoint();
    let model = ("model", golden.to_str().unwrap());
    assert_fails(&[model, ("device", "gpu")], "device gpu: expected cpu");
    assert_fails(
        &[model, ("noise-threshold", "0.9")],
        "noise threshold 0.9 and query threshold 0.6",
    );
    assert_fails(
        &[model, ("logit-bias", "<2>=5")],
        "logit-bias: <2>=5: expected token:value",
    );
    assert_fails(&[model, ("logit-bias", "<9>:5")], "<9>");
    let broker = ("nats-url", "nats://anna:s3cret@127.0.0.1:1");
    assert_fails(
        &[model, ("nats-url", "http://127.0.0.1:1")],
        "nats-url: \"http://127.0.0.1:1\" has scheme \"http\"",
    );
    assert_fails(&[model, broker, ("source-name", "a door")], "source-name: ");
    let no_folder = golden.join("config.json");
    let no_folder = ("spool-dir", no_folder.to_str().unwrap());
    assert_fails(&[model, broker, no_folder], "spool-dir: spool ");
}

#[test]
fn stopping_does_not_wait_for_an_answer() {
    let settings = format!("max-tokens=4000 logit-bias={QUERY_ENDLESS}");
    let mut bench = Bench::play(&["text", "audio"], &settings);
    for round in 0..3 {
        bench.ask("Tell me everything.");
        bench.until("vita-delta");
        bench.say(round, 2000);
        let started = Instant::now();
        bench.pipeline.set_state(gst::State::Null).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(bench.ask("Still there?"), 0);
        bench.pipeline.set_state(gst::State::Playing).unwrap();
    }
    bench.ask("Tell me everything.");
    bench.until("vita-delta");
    bench.pipeline.set_state(gst::State::Ready).unwrap();
    let answer = bench.until("vita-answer");
    assert_eq!(answer.get::<&str>("cut-off"), Ok("closed"));
}

/// A model that is at one step for as long as what this returns is there.
fn one_long_step() -> (Room, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let hold_up = Box::new(move |_| {
        if begin.send(()).is_ok() {
            let _ = released.recv();
        }
    });
    let room = model().open_room(RoomSettings::default(), hold_up).unwrap();
    room.ask("Hello?").unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    // what it tells later holds nobody up
    drop(begun);
    (room, release)
}

#[test]
fn going_to_null_does_not_wait_for_a_step_that_lasts() {
    let mut bench = Bench::play(&["text", "audio"], "max-tokens=5");
    bench.ask("Are you there?");
    bench.until("vita-answer");
    let (room, release) = one_long_step();
    assert_ne!(bench.ask("And now?"), 0);
    bench.say(1, 2000);
    let (done, is_done) = mpsc::channel();
    let pipeline = bench.pipeline.clone();
    let stopping = std::thread::spawn(move || {
        pipeline.set_state(gst::State::Null).unwrap();
        done.send(()).unwrap();
    });
    let stopped = is_done.recv_timeout(PATIENCE);
    drop((release, room));
    assert!(stopped.is_ok(), "it waits for the model");
    stopping.join().unwrap();
    // and the model serves those who come after
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    assert_ne!(bench.ask("Are you there again?"), 0);
    bench.until("vita-answer");
}

#[test]
fn a_paused_sink_takes_nothing_until_it_plays() {
    let mut bench = Bench::new(&["text"], "max-tokens=5");
    bench.pipeline.set_state(gst::State::Paused).unwrap();
    bench.write("Hello?", 0);
    bench.end(&["text"]);
    // The buffer waits at the sink or before it.
    assert_eq!(bench.stat("requests"), 0);
    assert_eq!(bench.stat("generation"), 0);
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(bench.until_end().last().unwrap().name(), "vita-answer");
    // And from PAUSED to NULL with a buffer that waits.
    let bench = Bench::new(&["text"], "max-tokens=5");
    bench.pipeline.set_state(gst::State::Paused).unwrap();
    bench.write("Hello?", 0);
    bench.pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_pad_that_goes_is_no_longer_waited_for() {
    let mut bench = Bench::play(&["text", "audio"], "max-tokens=5");
    bench.write("Hello?", 0);
    bench.end(&["text"]);
    bench.until("vita-answer");
    let source = bench.source("audio");
    let pad = bench.sink.static_pad("audio_0").unwrap();
    source.set_locked_state(true);
    source.set_state(gst::State::Null).unwrap();
    bench.sink.release_request_pad(&pad);
    assert_eq!(bench.next(), None, "the end");
    assert!(bench.sink.static_pad("audio_0").is_none());
}

#[test]
fn the_end_of_all_pads_is_the_end_with_its_seqnum() {
    let bench = Bench::play(&["text", "audio"], "max-tokens=5");
    let bus = bench.pipeline.bus().unwrap();
    let eos = gst::event::Eos::new();
    let seqnum = eos.seqnum();
    bench.write("Hello?", 0);
    for source in ["audio", "text"] {
        bench.source(source).send_event(eos.clone());
    }
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Eos]);
    // A bin makes one message of those of its sinks and keeps the number.
    assert_eq!(message.unwrap().seqnum(), seqnum);
}

#[test]
fn a_flush_forgets_frames_and_the_end() {
    let mut bench = Bench::play(&["text", "video"], "max-tokens=5");
    bench.show(30, 1000);
    bench.end(&["video"]);
    while bench.stat("frames") < 1 {
        std::thread::yield_now();
    }
    let pad = bench.sink.static_pad("video_0").unwrap();
    let peer = pad.peer().unwrap();
    assert!(peer.push_event(gst::event::FlushStart::new()));
    assert!(peer.push_event(gst::event::FlushStop::new(true)));
    assert_eq!(bench.stat("frames"), 0);
    bench.write("What do you see?", 2000);
    let answer = bench.until("vita-answer");
    assert!(answer.get::<gst::Array>("frames").unwrap().is_empty());
    bench.end(&["text"]);
    let bus = bench.pipeline.bus().unwrap();
    let quiet = bus.timed_pop_filtered(ms(300), &[gst::MessageType::Eos]);
    assert!(quiet.is_none(), "the video goes on");
}

#[test]
fn latency_is_that_of_the_slowest_live_stream() {
    init();
    let text = format!(
        "vitallmsink name=sink model={} audiotestsrc is-live=true ! fakesink",
        checkpoint().display()
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink");
    let mut query = gst::query::Latency::new();
    assert!(sink.unwrap().query(&mut query));
    assert_eq!(query.result(), (false, gst::ClockTime::ZERO, None));

    let bench = Bench::new(&["text", "audio"], "");
    for (name, latency) in [("text", 20), ("audio", 70)] {
        let source = bench.source(name);
        source.set_is_live(true);
        source.set_latency(ms(latency), None);
    }
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    let mut query = gst::query::Latency::new();
    assert!(bench.sink.query(&mut query));
    let (is_live, min, _) = query.result();
    assert_eq!((is_live, min), (true, ms(70)));
}
