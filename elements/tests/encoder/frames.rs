use gst::prelude::*;
use image::{Rgb, RgbImage};

use crate::{OwnModel, Rig, TOLERANCE, max_difference, ms, tests_folder};

pub const CAPS: &str = "video/x-raw,format=RGB,width=30,height=20,framerate=0/1";

/// Of the size in [`CAPS`], with something on it that no other number has.
pub fn picture(number: u8) -> RgbImage {
    RgbImage::from_fn(30, 20, |x, y| {
        Rgb([x as u8 * 8, y as u8 * 12, number.wrapping_mul(37)])
    })
}

/// The picture in a buffer, its lines padded to four bytes as GStreamer has them.
pub fn buffer(picture: &RgbImage, pts_ms: u64) -> gst::Buffer {
    let row_bytes = picture.width() as usize * 3;
    let mut bytes = Vec::new();
    for row in picture.chunks_exact(row_bytes) {
        bytes.extend_from_slice(row);
        bytes.resize(bytes.len().next_multiple_of(4), 255);
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let out = buffer.get_mut().unwrap();
    out.set_pts(ms(pts_ms));
    out.set_duration(ms(10));
    buffer
}

#[test]
fn a_frame_is_what_the_model_sees() {
    let own = OwnModel::open();
    for name in ["frame_0.png", "image_a.png", "image_b.png"] {
        let file = tests_folder().join("golden/inputs").join(name);
        let picture = image::open(file).unwrap().to_rgb8();
        let (width, height) = picture.dimensions();
        let caps = format!("video/x-raw,format=RGB,width={width},height={height},framerate=25/1");
        let mut rig = Rig::new(&own.element(""), &caps);
        let mut frame = buffer(&picture, 40);
        let clock = gst::Caps::new_empty_simple("timestamp/x-unix");
        let captured = gst::ClockTime::from_nseconds(1_700_000_000_000_000_001);
        let out = frame.get_mut().unwrap();
        gst::ReferenceTimestampMeta::add(out, &clock, captured, gst::ClockTime::NONE);
        rig.harness.push(frame).unwrap();

        let (buffer, medium, times) = rig.medium();
        let seen = own.model.vita().see_frames(&[picture]).unwrap();
        assert_eq!((medium.kind, medium.key), (seen[0].kind, seen[0].key));
        assert_eq!(max_difference(&medium.vectors, &seen[0].vectors), 0.0);
        assert_eq!(
            (buffer.pts(), buffer.duration()),
            (Some(ms(40)), Some(ms(10)))
        );
        assert_eq!((times.start, times.end), (Some(ms(40)), Some(ms(50))));
        assert_eq!(times.capture_time_ns, Some(captured.nseconds()));
        let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
        assert_eq!((meta.reference(), meta.timestamp()), (&*clock, captured));
    }
}

#[test]
fn caps_come_before_the_segment_and_say_what_buffers_hold() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    rig.harness.push(buffer(&picture(0), 0)).unwrap();
    let before = rig.pushed_until("0");
    assert_eq!(before, ["stream-start", "caps", "segment", "caps", "0"]);
    let (_, medium, _) = rig.medium();
    let (vectors, width) = medium.vectors.dims2().unwrap();
    assert_eq!(width, own.model.vita().lm().config().hidden_size);
    rig.harness.push(buffer(&picture(1), 10)).unwrap();
    assert_eq!(rig.pushed_until("10"), ["10"]);
    assert_eq!(rig.medium().1.vectors.dims(), [vectors, width]);
}

#[test]
fn events_and_the_end_keep_their_places_among_the_frames() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    let release = own.block();
    let group = gst::Structure::builder("vita-frames")
        .field("frames", 2u32)
        .build();
    rig.harness.push(buffer(&picture(0), 0)).unwrap();
    let group = gst::event::CustomDownstream::new(group);
    assert!(rig.harness.push_event(group));
    rig.harness.push(buffer(&picture(1), 10)).unwrap();
    rig.harness.push(buffer(&picture(2), 20)).unwrap();
    assert!(rig.harness.push_event(gst::event::Gap::new(ms(30), ms(5))));
    assert!(rig.harness.push_event(gst::event::Eos::new()));
    drop(release);
    let pushed = rig.pushed_until("eos");
    assert_eq!(
        pushed[3..],
        ["caps", "0", "vita-frames", "10", "20", "gap 30", "eos"]
    );
    rig.assert_accounted();
}

#[test]
fn streams_on_one_model_share_batches_and_what_was_encoded() {
    let own = OwnModel::open();
    let mut rigs = [(); 2].map(|()| Rig::new(&own.element("batch=4"), CAPS));
    let release = own.block();
    for (rig, first) in rigs.iter_mut().zip([0, 10]) {
        for number in [first, first + 1, 99] {
            let frame = buffer(&picture(number), u64::from(number));
            rig.harness.push(frame).unwrap();
        }
    }
    drop(release);
    for (rig, first) in rigs.iter_mut().zip([0, 10]) {
        for number in [first, first + 1, 99] {
            let (buffer, medium, _) = rig.medium();
            assert_eq!(buffer.pts(), Some(ms(u64::from(number))));
            let seen = own.model.vita().see_frames(&[picture(number)]).unwrap();
            assert!(max_difference(&medium.vectors, &seen[0].vectors) < TOLERANCE);
        }
        rig.wait_for_stat("encoded", 3);
        rig.assert_accounted();
    }
    // six frames, one of which both streams showed
    let stats = own.stats();
    assert_eq!((stats.frames, stats.cached, stats.batches), (5, 1, 2));
    let cached: u64 = rigs.iter().map(|rig| rig.stat("cached")).sum();
    assert_eq!(cached, 1);
}

#[test]
fn frames_that_are_not_to_be_shown_are_not_encoded() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(ms(1_000));
    rig.harness.push_event(gst::event::Segment::new(&segment));
    let mut hidden = buffer(&picture(1), 1_000);
    hidden
        .get_mut()
        .unwrap()
        .set_flags(gst::BufferFlags::DECODE_ONLY);
    rig.harness.push(buffer(&picture(0), 500)).unwrap();
    rig.harness.push(hidden).unwrap();
    rig.harness.push(buffer(&picture(2), 1_010)).unwrap();
    assert_eq!(rig.medium().0.pts(), Some(ms(1_010)));
    assert_eq!((rig.stat("skipped"), rig.stat("received")), (2, 1));
}

#[test]
fn a_pipeline_of_a_file_loses_nothing_when_it_may_block() {
    let own = OwnModel::open();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers=40 ! video/x-raw,width=64,height=48 ! videoconvert ! \
         video/x-raw,format=RGB ! vitaencoder model={} queue=block max-queued=2 ! \
         appsink name=sink sync=false",
        own.folder.path().display()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let times = std::iter::from_fn(|| sink.pull_sample().ok())
        .map(|sample| sample.buffer().unwrap().pts().unwrap());
    assert_eq!(times.count(), 40);
    pipeline.set_state(gst::State::Null).unwrap();
}
