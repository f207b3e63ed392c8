use gst::prelude::*;

use crate::{FRAME, Sampler, ms};

fn structure(name: &str) -> gst::structure::Builder {
    gst::Structure::builder(name)
}

fn speech_start(at: gst::ClockTime) -> gst::Event {
    gst::event::CustomDownstream::new(
        structure("vita-speech-start")
            .field("stream-time", at)
            .build(),
    )
}

fn speech_end(at: gst::ClockTime, accepted: bool) -> gst::Event {
    let end = structure("vita-speech-end")
        .field("stream-time", at)
        .field("accepted", accepted);
    gst::event::CustomDownstream::new(end.build())
}

#[track_caller]
fn announced(sampler: &mut Sampler) -> Vec<(u32, Vec<u32>)> {
    sampler
        .custom_events("vita-frames")
        .iter()
        .map(|frames| {
            let repeat: gst::Array = frames.get("repeat").unwrap();
            let repeat = repeat.iter().map(|value| value.get().unwrap()).collect();
            (frames.get("frames").unwrap(), repeat)
        })
        .collect()
}

#[test]
fn a_clip_is_an_utterance() {
    let mut sampler = Sampler::new("mode=clip history=256");
    sampler.push_range(ms(0), ms(1000));
    // The detector is late: speech began at 0.4 s and ended at 6 s.
    sampler.harness.push_event(speech_start(ms(400)));
    sampler.push_range(ms(1000), ms(6400));
    assert!(sampler.pulled_ms().is_empty());
    sampler.harness.push_event(speech_end(ms(6000), true));
    assert_eq!(sampler.pulled_ms(), [400, 1400, 2400, 3400, 4400, 5400]);
    assert_eq!(announced(&mut sampler), [(6, vec![1; 6])]);

    // What comes after belongs to nobody.
    sampler.push_range(ms(6400), ms(8000));
    sampler.harness.push_event(gst::event::Eos::new());
    assert!(sampler.pulled_ms().is_empty());
    sampler.assert_accounted();
    assert_eq!(sampler.stat("held"), 0);
}

#[test]
fn a_rejected_utterance_releases_nothing() {
    let mut sampler = Sampler::new("mode=clip");
    sampler.harness.push_event(speech_start(ms(0)));
    sampler.push_range(ms(0), ms(800));
    sampler.harness.push_event(speech_end(ms(800), false));
    sampler.harness.push_event(gst::event::Eos::new());
    assert!(sampler.pulled_ms().is_empty());
    assert_eq!(sampler.stat("dropped-discarded"), 20);
    sampler.assert_accounted();
}

#[test]
fn a_short_clip_says_how_often_the_model_sees_each_frame() {
    let mut sampler = Sampler::new("mode=clip history=64");
    sampler.push_range(ms(0), ms(1600));
    sampler.harness.push_event(gst::event::Eos::new());
    assert_eq!(sampler.pulled_ms(), [0, 1000]);
    assert_eq!(announced(&mut sampler), [(2, vec![3, 1])]);
    assert_eq!(sampler.frame_messages()[0].get("reason"), Ok("clip"));
}

#[test]
fn the_papers_rule_spreads_a_short_clip() {
    let mut sampler = Sampler::new("mode=clip clip-rule=paper history=64");
    sampler.push_range(ms(0), ms(1600));
    sampler.harness.push_event(gst::event::Eos::new());
    // 40 frames: numbers 0, 13, 26, 39.
    assert_eq!(sampler.pulled_ms(), [0, 520, 1040, 1560]);
}

#[test]
fn limits_change_while_playing() {
    let mut sampler = Sampler::new("mode=clip");
    sampler.push_range(ms(0), ms(8000));
    sampler.element().set_property("max-frames", 4u32);
    sampler.harness.push_event(gst::event::Eos::new());
    assert_eq!(sampler.pulled_ms().len(), 4);
}

#[test]
fn a_clip_holds_no_more_than_its_history() {
    let mut sampler = Sampler::new("mode=clip history=20");
    sampler.push_range(ms(0), ms(60_000));
    assert_eq!(sampler.stat("in"), 1500);
    assert!(sampler.stat("held") <= 20);
    sampler.harness.push_event(gst::event::Eos::new());
    let kept = sampler.pulled_ms();
    assert_eq!(kept.len(), 16);
    assert!(kept.is_sorted());
    sampler.assert_accounted();
}

#[test]
fn on_demand_gives_the_newest_frames_with_the_next_buffer() {
    let mut sampler = Sampler::new("mode=on-demand history=3");
    sampler.push_range(ms(0), ms(1000));
    assert!(sampler.pulled_ms().is_empty());
    assert_eq!(sampler.stat("held"), 3);

    let request = gst::event::CustomUpstream::new(structure("vita-frames-request").build());
    assert!(sampler.harness.push_upstream_event(request));
    sampler.push(ms(1000));
    assert_eq!(sampler.pulled_ms(), [880, 920, 960]);
    assert_eq!(announced(&mut sampler), [(3, vec![1; 3])]);
    assert_eq!(sampler.frame_messages()[0].get("reason"), Ok("on-demand"));
    sampler.assert_accounted();
}

#[test]
fn a_serialised_request_acts_at_its_place_and_passes_on() {
    let mut sampler = Sampler::new("mode=on-demand history=8");
    sampler.push_range(ms(0), ms(1000));
    let request = structure("vita-frames-request")
        .field("count", 2u32)
        .field("end-stream-time", ms(800))
        .build();
    sampler.events();
    sampler
        .harness
        .push_event(gst::event::CustomDownstream::new(request));
    assert_eq!(sampler.pulled_ms(), [760, 800]);
    let names: Vec<_> = sampler
        .events()
        .iter()
        .filter_map(|event| event.structure().map(|s| s.name().to_string()))
        .collect();
    assert_eq!(names, ["vita-frames", "vita-frames-request"]);
}

#[test]
fn the_application_asks_by_send_event() {
    let mut sampler = Sampler::new("mode=on-demand history=1");
    sampler.push(ms(0));
    let request = gst::event::CustomDownstreamOob::new(structure("vita-frames-request").build());
    assert!(sampler.element().send_event(request));
    // Any serialised event serves it: the source may be silent.
    sampler
        .harness
        .push_event(gst::event::Gap::builder(ms(40)).duration(FRAME).build());
    assert_eq!(sampler.pulled_ms(), [0]);
    assert_eq!(sampler.stat("requests"), 1);
}

#[test]
fn a_flush_forgets_what_is_held() {
    let mut sampler = Sampler::new("mode=on-demand");
    sampler.push_range(ms(0), ms(400));
    sampler.harness.push_event(gst::event::FlushStart::new());
    sampler.harness.push_event(gst::event::FlushStop::new(true));
    assert_eq!(sampler.stat("held"), 0);
    assert_eq!(sampler.stat("dropped-discarded"), 10);
    sampler.assert_accounted();
}

#[test]
fn a_pool_upstream_gets_buffers_to_spare() {
    let mut sampler = Sampler::without_caps("mode=on-demand history=7");
    let caps: gst::Caps = crate::RAW_CAPS.parse().unwrap();
    sampler.harness.set_src_caps(caps.clone());
    let sink = sampler.harness.sinkpad().unwrap();
    sink.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(gst::QueryViewMut::Allocation(allocation)) =
            info.query_mut().map(gst::QueryRef::view_mut)
        {
            allocation.add_allocation_pool(gst::BufferPool::NONE, 16, 2, 4);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(
        sampler
            .harness
            .srcpad()
            .unwrap()
            .peer_query(query.query_mut())
    );
    let (_, size, min, max) = query.allocation_pools().next().unwrap();
    assert_eq!((size, min, max), (16, 9, 11));
}

#[test]
fn coded_video_is_refused_with_a_remedy() {
    let mut sampler = Sampler::without_caps("mode=clip");
    let caps: gst::Caps = "video/x-h264,stream-format=byte-stream,alignment=au"
        .parse()
        .unwrap();
    sampler
        .harness
        .push_event(gst::event::StreamStart::new("test"));
    sampler.harness.push_event(gst::event::Caps::new(&caps));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    sampler
        .harness
        .push_event(gst::event::Segment::new(&segment));
    assert_eq!(
        sampler.harness.push(crate::raw_frame(None)),
        Err(gst::FlowError::NotNegotiated)
    );
    let errors = sampler.messages(gst::MessageType::Error);
    let gst::MessageView::Error(error) = errors[0].view() else {
        panic!("{errors:?}");
    };
    let text = format!("{} {:?}", error.error(), error.debug());
    assert!(text.contains("behind the decoder"), "{text}");
}
