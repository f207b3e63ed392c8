use gst::prelude::*;

use crate::{RAW_CAPS, Sampler, ms, raw_frame};

fn seconds(seconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_seconds(seconds)
}

#[test]
fn keeps_the_first_frame_of_each_period_though_caps_know_no_rate() {
    let mut sampler = Sampler::new("rate=2");
    sampler.push_range(ms(130), ms(3000));
    assert_eq!(sampler.pulled_ms(), [130, 530, 1010, 1530, 2010, 2530]);
    assert_eq!(sampler.stat("kept"), 6);
    assert_eq!(sampler.stat("dropped-not-due"), sampler.stat("in") - 6);
    sampler.assert_accounted();
}

#[test]
fn outgoing_caps_say_that_the_rate_varies() {
    let mut sampler = Sampler::without_caps("rate=2/3");
    sampler
        .harness
        .set_src_caps_str("video/x-raw,format=GRAY8,width=4,height=4,framerate=30/1");
    sampler.push(ms(0));
    let caps = |sampler: &Sampler| sampler.harness.sinkpad().unwrap().current_caps().unwrap();
    let structure = caps(&sampler).structure(0).unwrap().to_owned();
    assert_eq!(structure.get("framerate"), Ok(gst::Fraction::new(0, 1)));
    assert_eq!(structure.get("max-framerate"), Ok(gst::Fraction::new(2, 3)));

    // A new rate while playing shows with the next buffer.
    sampler
        .element()
        .set_property("rate", gst::Fraction::new(5, 1));
    sampler.push(ms(40));
    let structure = caps(&sampler).structure(0).unwrap().to_owned();
    assert_eq!(structure.get("max-framerate"), Ok(gst::Fraction::new(5, 1)));
}

#[test]
fn a_caps_filter_that_wants_the_fixed_rate_gets_it() {
    let mut sampler = Sampler::without_caps("rate=2");
    sampler
        .harness
        .set_sink_caps_str("video/x-raw,framerate=2/1");
    sampler.harness.set_src_caps_str(RAW_CAPS);
    sampler.push(ms(0));
    assert_eq!(sampler.pulled_ms(), [0]);
    let caps = sampler.harness.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(
        caps.structure(0).unwrap().get("framerate"),
        Ok(gst::Fraction::new(2, 1))
    );
}

#[test]
fn rate_changes_while_playing() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push_range(ms(0), ms(2000));
    assert_eq!(sampler.pulled_ms(), [0, 1000]);
    sampler
        .element()
        .set_property("rate", gst::Fraction::new(5, 1));
    sampler.push_range(ms(2000), ms(3000));
    assert_eq!(sampler.pulled_ms(), [2000, 2200, 2400, 2600, 2800]);
}

#[test]
fn jumps_and_gaps_cost_no_more_than_themselves() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push_range(ms(0), ms(1500));
    sampler.push_range(ms(90_200), ms(91_500));
    sampler.push_range(ms(20_500), ms(21_500));
    assert_eq!(
        sampler.pulled_ms(),
        [0, 1000, 90_200, 91_000, 20_500, 21_020]
    );
}

#[test]
fn a_frame_without_pts_goes_by_dts_and_without_both_is_counted() {
    let mut sampler = Sampler::new("rate=1");
    let mut buffer = raw_frame(None);
    buffer.get_mut().unwrap().set_dts(ms(70));
    sampler.harness.push(buffer).unwrap();
    assert_eq!(sampler.stat("kept"), 1);

    for _ in 0..3 {
        sampler.push(None);
    }
    assert_eq!(sampler.stat("dropped-no-timestamp"), 3);
    assert_eq!(sampler.messages(gst::MessageType::Warning).len(), 1);
    sampler.assert_accounted();
}

#[test]
fn the_grid_is_that_of_stream_time() {
    let mut sampler = Sampler::new("rate=1");
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(seconds(100));
    segment.set_time(ms(500));
    sampler
        .harness
        .push_event(gst::event::Segment::new(&segment));
    sampler.push_range(ms(99_000), ms(102_000));
    // Stream times 0.5 s, 1.02 s (100.5 s is no frame's), 2.02 s.
    assert_eq!(sampler.pulled_ms(), [100_000, 100_520, 101_520]);
    assert_eq!(sampler.stat("dropped-outside-segment"), 25);
    let times: Vec<(u64, u64)> = sampler
        .frame_messages()
        .iter()
        .map(|message| {
            (
                message.get::<u64>("stream-time").unwrap() / 1_000_000,
                message.get::<u64>("running-time").unwrap() / 1_000_000,
            )
        })
        .collect();
    assert_eq!(times, [(500, 0), (1020, 520), (2020, 1520)]);
}

#[test]
fn a_flush_and_a_seek_begin_anew() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push_range(ms(0), ms(500));
    sampler.harness.push_event(gst::event::FlushStart::new());
    sampler.harness.push_event(gst::event::FlushStop::new(true));
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(ms(200));
    segment.set_time(ms(200));
    sampler
        .harness
        .push_event(gst::event::Segment::new(&segment));
    sampler.pulled_ms();
    sampler.push_range(ms(200), ms(1100));
    assert_eq!(sampler.pulled_ms(), [200, 1000]);

    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        seconds(1),
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    assert!(sampler.harness.push_upstream_event(seek));
    let upstream: Vec<_> = std::iter::from_fn(|| sampler.harness.try_pull_upstream_event())
        .map(|event| event.type_())
        .collect();
    assert!(upstream.contains(&gst::EventType::Seek), "{upstream:?}");
}

#[test]
fn caps_change_in_mid_stream() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push_range(ms(0), ms(500));
    sampler
        .harness
        .set_src_caps_str("video/x-raw,format=GRAY8,width=2,height=8,framerate=0/1");
    sampler.push_range(ms(500), ms(1100));
    assert_eq!(sampler.pulled_ms(), [0, 1020]);
    let caps = sampler.harness.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get("width"), Ok(2));
}

#[test]
fn gaps_pass_and_qos_does_not() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push(ms(0));
    sampler.events();
    let gap = gst::event::Gap::builder(ms(40))
        .duration(seconds(3))
        .build();
    assert!(sampler.harness.push_event(gap));
    let events: Vec<_> = sampler.events().iter().map(|event| event.type_()).collect();
    assert_eq!(events, [gst::EventType::Gap]);

    let qos = gst::event::Qos::new(gst::QOSType::Underflow, 2.0, 900_000_000, ms(40));
    assert!(sampler.harness.push_upstream_event(qos));
    let upstream: Vec<_> = std::iter::from_fn(|| sampler.harness.try_pull_upstream_event())
        .map(|event| event.type_())
        .collect();
    assert!(!upstream.contains(&gst::EventType::Qos), "{upstream:?}");
}

#[test]
fn adds_no_latency() {
    let mut sampler = Sampler::new("rate=1");
    sampler.harness.set_upstream_latency(ms(123));
    assert_eq!(sampler.harness.query_latency(), Some(ms(123)));
}

#[test]
fn messages_tell_the_capture_time() {
    let mut sampler = Sampler::new("rate=1");
    let mut buffer = raw_frame(Some(ms(0)));
    let captured = 1_700_000_000_000_000_000u64;
    gst::ReferenceTimestampMeta::add(
        buffer.get_mut().unwrap(),
        &gst::Caps::new_empty_simple("timestamp/x-unix"),
        gst::ClockTime::from_nseconds(captured),
        gst::ClockTime::NONE,
    );
    sampler.harness.push(buffer).unwrap();
    sampler.push(ms(1000));
    let messages = sampler.frame_messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].get("capture-time"), Ok(captured));
    assert_eq!(messages[0].get("reason"), Ok("rate"));
    assert_eq!(messages[0].get("kept"), Ok(1u64));
    assert!(!messages[1].has_field("capture-time"));

    sampler.element().set_property("post-messages", false);
    sampler.push(ms(2000));
    assert!(sampler.frame_messages().is_empty());
    assert_eq!(sampler.pulled_ms().len(), 3);
}

#[test]
fn states_go_down_and_up_again() {
    let mut sampler = Sampler::new("rate=1");
    sampler.push_range(ms(0), ms(500));
    let element = sampler.element();
    element.set_state(gst::State::Ready).unwrap();
    assert_eq!(sampler.stat("in"), 13, "counters stay readable");
    element.set_state(gst::State::Playing).unwrap();
    assert_eq!(sampler.stat("in"), 0);
    assert_eq!(sampler.stat("kept"), 0);
}
