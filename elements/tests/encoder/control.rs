use std::sync::mpsc::channel;

use gst::prelude::*;

use crate::frames::{CAPS, buffer, picture};
use crate::{OwnModel, PATIENCE, Rig, ms, speech, text, wait_until};

/// Frames 0 to 4, at 0 to 40 ms, while the model is busy; then what came of them.
#[track_caller]
fn assert_policy(properties: &str, expected: &[&str]) {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(properties), CAPS);
    let release = own.block();
    for number in 0..5 {
        let frame = buffer(&picture(number), 10 * u64::from(number));
        rig.harness.push(frame).unwrap();
    }
    assert_eq!(rig.stat("waiting"), 2);
    assert_eq!(rig.stat("dropped"), 3);
    drop(release);
    rig.harness.push_event(gst::event::Eos::new());
    let pushed = rig.pushed_until("eos");
    let pushed: Vec<_> = pushed[3..].iter().filter(|name| *name != "caps").collect();
    assert_eq!(pushed, expected);
    rig.assert_accounted();
    assert_eq!(own.stats().frames, 2);
}

#[test]
fn the_oldest_or_the_newest_frames_are_dropped() {
    let oldest = ["gap 0", "gap 10", "gap 20", "30", "40", "eos"];
    assert_policy("max-queued=2", &oldest);
    let newest = ["0", "10", "gap 20", "eos"];
    assert_policy("max-queued=2 queue=drop-newest", &newest);
}

#[test]
fn upstream_waits_for_room_when_the_queue_blocks() {
    let own = OwnModel::open();
    let rig = Rig::new(&own.element("max-queued=2 queue=block"), CAPS);
    let Rig { mut harness, .. } = rig;
    let element = harness.element().unwrap();
    let release = own.block();
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| {
            for number in 0..5 {
                let frame = buffer(&picture(number), 10 * u64::from(number));
                harness.push(frame).unwrap();
            }
        });
        let received = || crate::stat(&element, "received");
        // two wait, the third is at the door
        wait_until(|| received() == 3, || format!("{} received", received()));
        assert!(!pusher.is_finished());
        drop(release);
        pusher.join().unwrap();
    });
    let times: Vec<_> = (0..5)
        .map(|_| harness.pull().unwrap().pts().unwrap().mseconds())
        .collect();
    assert_eq!(times, [0, 10, 20, 30, 40]);
}

#[test]
fn an_utterance_that_is_dropped_is_told_of() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element("max-queued=1"), speech::CAPS);
    let release = own.block();
    speech::say(&mut rig, 1, 0, 50);
    speech::say(&mut rig, 2, 1_000, 50);
    let dropped = rig.posted("vita-dropped");
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].get::<u64>("utterance-id"), Ok(1));
    assert_eq!(dropped[0].get::<&str>("reason"), Ok("drop-oldest"));
    assert_eq!(dropped[0].get::<u64>("start-stream-time"), Ok(0));
    assert_eq!(dropped[0].get::<u64>("end-stream-time"), Ok(500_000_000));
    drop(release);
    assert_eq!(rig.medium().2.utterance_id, Some(2));
    let pushed = rig.pushed_until("1000");
    let events: Vec<_> = pushed[3..].iter().filter(|name| *name != "caps").collect();
    let (start, end) = ("vita-speech-start", "vita-speech-end");
    let dropped = "vita-dropped";
    assert_eq!(events, [start, dropped, "gap 0", end, start, "1000"]);
}

#[test]
fn an_utterance_that_waited_too_long_is_dropped_and_told_of() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element("max-wait=1"), speech::CAPS);
    let release = own.block();
    speech::say(&mut rig, 1, 0, 50);
    drop(release);
    let pushed = rig.pushed_until("vita-speech-end");
    let events: Vec<_> = pushed[3..].iter().filter(|name| *name != "caps").collect();
    let (start, end) = ("vita-speech-start", "vita-speech-end");
    assert_eq!(events, [start, "vita-dropped", "gap 0", end]);
    let dropped = rig.posted("vita-dropped");
    assert_eq!(dropped[0].get::<&str>("reason"), Ok("stale"));
    let warnings = rig.messages(gst::MessageType::Warning);
    assert!(
        warnings[0].contains("the model is overloaded"),
        "{warnings:?}"
    );
    assert_eq!((rig.stat("stale"), rig.stat("failed")), (1, 0));
    rig.assert_accounted();
}

#[test]
fn a_file_may_take_its_time() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element("max-wait=1 queue=block"), speech::CAPS);
    let release = own.block();
    speech::say(&mut rig, 1, 0, 50);
    drop(release);
    assert_eq!(rig.medium().2.utterance_id, Some(1));
}

#[test]
fn a_flush_forgets_what_waits_and_what_comes_after_it_is_encoded() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    let release = own.block();
    for number in 0..3 {
        let frame = buffer(&picture(number), 10 * u64::from(number));
        rig.harness.push(frame).unwrap();
    }
    // returns while the model is still busy
    assert!(rig.harness.push_event(gst::event::FlushStart::new()));
    assert_eq!(
        rig.harness.push(buffer(&picture(3), 30)),
        Err(gst::FlowError::Flushing)
    );
    assert!(rig.harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(rig.harness.push_event(gst::event::Segment::new(&segment)));
    rig.harness.push(buffer(&picture(4), 40)).unwrap();
    drop(release);
    assert_eq!(rig.medium().0.pts(), Some(ms(40)));
    let pushed = rig.pushed_until("40");
    assert!(!pushed.contains(&"0".to_owned()), "{pushed:?}");
    rig.wait_for_stat("encoded", 1);
    assert_eq!((rig.stat("discarded"), rig.stat("received")), (3, 4));
    rig.assert_accounted();
}

#[test]
fn an_utterance_cut_by_a_flush_is_not_encoded() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), speech::CAPS);
    assert!(rig.harness.push_event(speech::start(1, 0)));
    rig.harness.push(speech::frame(0)).unwrap();
    assert!(rig.harness.push_event(gst::event::FlushStart::new()));
    assert!(rig.harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(rig.harness.push_event(gst::event::Segment::new(&segment)));
    speech::say(&mut rig, 2, 0, 50);
    assert_eq!(rig.medium().2.utterance_id, Some(2));
    assert_eq!(rig.stat("unfinished"), 1);
}

/// Runs what must return although the model is busy.
#[track_caller]
fn assert_returns(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    assert!(is_done.recv_timeout(PATIENCE).is_ok(), "it hangs");
}

#[test]
fn going_to_null_does_not_wait_for_a_busy_model() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    let release = own.block();
    rig.harness.push(buffer(&picture(0), 0)).unwrap();
    rig.harness.push_event(gst::event::Eos::new());
    let element = rig.element();
    let stopped = element.clone();
    assert_returns(move || {
        stopped.set_state(gst::State::Null).unwrap();
    });
    assert_eq!(element.current_state(), gst::State::Null);
    drop(release);
}

#[test]
fn going_to_null_wakes_an_upstream_that_waits_for_room() {
    let own = OwnModel::open();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc ! video/x-raw,width=64,height=48 ! videoconvert ! video/x-raw,format=RGB ! \
         vitaencoder name=encoder model={} queue=block max-queued=1 ! fakesink",
        own.folder.path().display()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let release = own.block();
    pipeline.set_state(gst::State::Playing).unwrap();
    let encoder = pipeline.by_name("encoder").unwrap();
    let received = || crate::stat(&encoder, "received");
    wait_until(|| received() == 2, || format!("{} received", received()));
    let stopped = pipeline.clone();
    assert_returns(move || {
        stopped.set_state(gst::State::Null).unwrap();
    });
    drop(release);

    // and it runs again
    pipeline.set_state(gst::State::Playing).unwrap();
    let encoded = || crate::stat(&encoder, "encoded");
    wait_until(|| encoded() > 3, || format!("{} encoded", encoded()));
    pipeline.set_state(gst::State::Null).unwrap();
}

/// The text of the error when an element of these properties is to go to PAUSED.
#[track_caller]
fn error_of(properties: &str) -> String {
    crate::init();
    let element = gst::parse::launch(&format!("vitaencoder {properties}")).unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_ok());
    assert!(element.set_state(gst::State::Paused).is_err());
    element.set_state(gst::State::Null).unwrap();
    text(&bus.pop_filtered(&[gst::MessageType::Error]).unwrap())
}

#[test]
fn a_model_that_cannot_be_opened_says_why() {
    assert_eq!(
        error_of(""),
        "the model has no name: give the path of its folder, or a name such as nano"
    );
    assert!(error_of("model=/nowhere/at-all").starts_with("/nowhere/at-all: no such model folder"));
    assert_eq!(
        error_of("model=. device=gpu"),
        "device gpu: expected cpu, cuda or cuda:N"
    );
    let broken = OwnModel::open().folder;
    let weights = broken.path().join("model.safetensors");
    std::fs::write(&weights, "no tensors").unwrap();
    let error = error_of(&format!("model={}", broken.path().display()));
    assert!(error.starts_with(weights.to_str().unwrap()), "{error}");
}

#[test]
fn latency_is_what_encoding_is_allowed_to_take() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element("latency=250000000"), CAPS);
    rig.harness.set_upstream_latency(ms(40));
    assert_eq!(rig.harness.query_latency(), Some(ms(290)));
    rig.element().set_property("latency", 0u64);
    rig.harness.push(buffer(&picture(0), 0)).unwrap();
    rig.wait_for_stat("late", 1);
    assert!(!rig.messages(gst::MessageType::Latency).is_empty());
}

#[test]
fn a_downstream_that_takes_nothing_stops_upstream() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    let pad = rig.element().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.flow_res = Err(gst::FlowError::Error);
        gst::PadProbeReturn::Handled
    });
    rig.harness.push(buffer(&picture(0), 0)).unwrap();
    let mut next = 1u64;
    let deadline = std::time::Instant::now() + PATIENCE;
    let flow = loop {
        let flow = rig.harness.push(buffer(&picture(0), 10 * next));
        next += 1;
        if flow.is_err() || std::time::Instant::now() > deadline {
            break flow;
        }
        std::thread::yield_now();
    };
    assert_eq!(flow, Err(gst::FlowError::Error));
    rig.assert_accounted();
}
