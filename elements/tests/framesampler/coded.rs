//! Real streams of each codec, sampled before a real decoder. What is decoded after the sampler must be, bit for bit, what a decoder
//! makes of the whole stream: then no picture was missing that another refers to.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use gst_check::Harness;

use crate::{assert_accounted, init, ms, stat};

const FPS: u64 = 25;

/// Everything that a coded stream is.
struct Stream {
    caps: gst::Caps,
    /// As the encoder's; times of buffers are told by it.
    timeline: gst::Segment,
    /// As it is pushed.
    segment: gst::Segment,
    buffers: Vec<gst::Buffer>,
    decoder: &'static str,
}

/// What came through, in stream time.
struct Played {
    /// Milliseconds and flags of what the sampler passed on.
    passed: Vec<(u64, gst::BufferFlags)>,
    /// Milliseconds and hash of each decoded picture, before the end of the stream made the decoder give up the last ones.
    decoded: Vec<(u64, u64)>,
    decoded_at_end: Vec<(u64, u64)>,
    sampler: gst::Element,
}

fn source(frames: u64, size: &str) -> String {
    format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,{size},framerate={FPS}/1"
    )
}

fn h264(frames: u64, key_every: u64, options: &str, format: &str) -> Stream {
    Stream::encode(
        &format!(
            "{} ! x264enc speed-preset=ultrafast key-int-max={key_every} option-string=scenecut=0:keyint={key_every}:min-keyint={key_every} {options} \
             ! h264parse ! video/x-h264,stream-format={format},alignment=au",
            source(frames, "width=160,height=96")
        ),
        "avdec_h264 max-errors=0",
    )
}

fn h265(frames: u64, key_every: u64, options: &str) -> Stream {
    Stream::encode(
        &format!(
            "{} ! x265enc speed-preset=ultrafast key-int-max={key_every} option-string=\"scenecut=0:log-level=none:min-keyint={key_every}{options}\" \
             ! h265parse ! video/x-h265,stream-format=byte-stream,alignment=au",
            source(frames, "width=160,height=96")
        ),
        "avdec_h265 max-errors=0",
    )
}

fn vpx(codec: &str, frames: u64, key_every: u64, decoder: &'static str) -> Stream {
    let parse = if codec == "vp9" { "! vp9parse" } else { "" };
    Stream::encode(
        &format!(
            "{} ! {codec}enc deadline=1 cpu-used=8 keyframe-max-dist={key_every} {parse}",
            source(frames, "width=160,height=96")
        ),
        decoder,
    )
}

fn av1(frames: u64, key_every: u64) -> Stream {
    Stream::encode(
        &format!(
            "{} ! av1enc cpu-used=8 usage-profile=realtime lag-in-frames=0 keyframe-max-dist={key_every} ! av1parse \
             ! video/x-av1,stream-format=obu-stream,alignment=tu",
            source(frames, "width=160,height=96")
        ),
        "av1dec max-errors=0",
    )
}

impl Stream {
    #[track_caller]
    fn encode(launch: &str, decoder: &'static str) -> Self {
        init();
        let pipeline = gst::parse::launch(&format!("{launch} ! appsink name=out sync=false"))
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let out = pipeline
            .by_name("out")
            .and_downcast::<gst_app::AppSink>()
            .unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let samples: Vec<gst::Sample> = std::iter::from_fn(|| out.pull_sample().ok()).collect();
        pipeline.set_state(gst::State::Null).unwrap();
        let last = samples.last().expect("an encoder gives buffers");
        Self {
            caps: last.caps_owned().unwrap(),
            timeline: last.segment().unwrap().clone(),
            segment: last.segment().unwrap().clone(),
            buffers: samples
                .iter()
                .filter_map(|sample| sample.buffer_owned())
                .collect(),
            decoder,
        }
    }

    fn stream_ms(&self, pts: Option<gst::ClockTime>) -> u64 {
        let timeline = self.timeline.downcast_ref::<gst::ClockTime>().unwrap();
        timeline.to_stream_time(pts).unwrap().mseconds()
    }

    /// What the decoder makes of the whole stream.
    fn reference(&self) -> BTreeMap<u64, u64> {
        let mut harness = Harness::new_parse(self.decoder);
        self.begin(&mut harness);
        for buffer in &self.buffers {
            harness.push(buffer.clone()).unwrap();
        }
        harness.push_event(gst::event::Eos::new());
        self.pull(&mut harness).into_iter().collect()
    }

    fn begin(&self, harness: &mut Harness) {
        harness.set_src_caps(self.caps.clone());
        harness.push_event(gst::event::Segment::new(&self.segment));
    }

    fn pull(&self, harness: &mut Harness) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| harness.try_pull())
            .map(|buffer| {
                assert!(!buffer.flags().contains(gst::BufferFlags::CORRUPTED));
                let mut hasher = DefaultHasher::new();
                buffer.map_readable().unwrap().hash(&mut hasher);
                (self.stream_ms(buffer.pts()), hasher.finish())
            })
            .collect()
    }

    /// Plays the stream through a sampler and its decoder, and whatever is given after that.
    fn play(&self, sampler: &str, after: &str) -> Played {
        let mut harness = Harness::new_parse(&format!(
            "vitaframesampler name=s {sampler} ! {} {after}",
            self.decoder
        ));
        let element = sampler_of(&harness);
        let passed = Arc::new(Mutex::new(Vec::new()));
        let seen = passed.clone();
        element
            .static_pad("src")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let buffer = info.buffer().unwrap();
                seen.lock().unwrap().push((buffer.pts(), buffer.flags()));
                gst::PadProbeReturn::Ok
            });
        self.begin(&mut harness);
        for buffer in &self.buffers {
            harness.push(buffer.clone()).unwrap();
        }
        let decoded = self.pull(&mut harness);
        harness.push_event(gst::event::Eos::new());
        let decoded_at_end = self.pull(&mut harness);
        assert_accounted(&element);
        let passed = passed
            .lock()
            .unwrap()
            .iter()
            .map(|&(pts, flags)| (self.stream_ms(pts), flags))
            .collect();
        Played {
            passed,
            decoded,
            decoded_at_end,
            sampler: element,
        }
    }
}

impl Played {
    fn all_decoded(&self) -> Vec<(u64, u64)> {
        [self.decoded.clone(), self.decoded_at_end.clone()].concat()
    }

    #[track_caller]
    fn assert_equal_to(&self, reference: &BTreeMap<u64, u64>) {
        for (time, hash) in self.all_decoded() {
            assert_eq!(
                Some(&hash),
                reference.get(&time),
                "the picture at {time} ms differs from the whole stream's"
            );
        }
    }
}

/// The first sampler of a parsed harness, named `s`.
fn sampler_of(harness: &Harness) -> gst::Element {
    let bin = harness.element().and_downcast::<gst::Bin>().unwrap();
    bin.by_name("s").unwrap()
}

fn times(pictures: &[(u64, u64)]) -> Vec<u64> {
    pictures.iter().map(|(time, _)| *time).collect()
}

/// Key frames every second, one frame per second: nothing else is passed on, and each is decoded when it comes.
#[track_caller]
fn assert_only_key_frames(stream: &Stream) {
    let played = stream.play("rate=1", "");
    let whole_seconds: Vec<u64> = (0..6).map(|second| second * 1000).collect();
    let passed: Vec<u64> = played.passed.iter().map(|(time, _)| *time).collect();
    assert_eq!(passed, whole_seconds, "passed on");
    assert!(
        played
            .passed
            .iter()
            .all(|(_, flags)| !flags.contains(gst::BufferFlags::DELTA_UNIT))
    );
    assert_eq!(times(&played.decoded), whole_seconds, "decoded at once");
    assert!(played.decoded_at_end.is_empty());
    played.assert_equal_to(&stream.reference());
    assert_eq!(stat(&played.sampler, "decode-only"), 0);
}

#[test]
fn h264_avc_by_key_frames() {
    assert_only_key_frames(&h264(150, 25, "bframes=2 b-adapt=false", "avc"));
}

#[test]
fn h264_byte_stream_by_key_frames() {
    assert_only_key_frames(&h264(150, 25, "tune=zerolatency", "byte-stream"));
}

#[test]
fn h265_by_key_frames() {
    assert_only_key_frames(&h265(150, 25, ""));
}

#[test]
fn vp8_by_key_frames() {
    assert_only_key_frames(&vpx("vp8", 150, 25, "vp8dec max-errors=0"));
}

#[test]
fn vp9_by_key_frames() {
    assert_only_key_frames(&vpx("vp9", 150, 25, "vp9dec max-errors=0"));
}

#[test]
fn av1_by_key_frames() {
    assert_only_key_frames(&av1(150, 25));
}

/// Key frames every third second, one frame per second: groups are decoded up to the wanted pictures, and a second sampler
/// keeps these.
#[track_caller]
fn assert_wanted_from_longer_groups(stream: &Stream, latest_ms: u64) {
    let played = stream.play("rate=1", "! vitaframesampler rate=1");
    let kept = times(&played.all_decoded());
    assert_eq!(kept.len(), 6, "{kept:?}");
    for (second, time) in kept.iter().enumerate() {
        let point = second as u64 * 1000;
        assert!((point..=point + latest_ms).contains(time), "{kept:?}");
    }
    played.assert_equal_to(&stream.reference());
    assert!(stat(&played.sampler, "decode-only") > 0);

    let unsampled = stream.play("rate=1", "");
    unsampled.assert_equal_to(&stream.reference());

    let keys = stream.play("rate=1 keyframes-only=true", "");
    assert_eq!(times(&keys.decoded), [0, 3000]);
}

#[test]
fn h264_with_long_groups() {
    assert_wanted_from_longer_groups(&h264(150, 75, "tune=zerolatency", "avc"), 0);
}

#[test]
fn h264_with_long_groups_and_b_frames() {
    let stream = h264(
        150,
        75,
        "bframes=3 b-adapt=false b-pyramid=true",
        "byte-stream",
    );
    // The first in decoding order can be a few frames late.
    assert_wanted_from_longer_groups(&stream, 160);
    let played = stream.play("rate=1", "");
    assert!(
        stat(&played.sampler, "dropped-not-due") > 40,
        "B frames that no other refers to are not decoded"
    );
}

#[test]
fn h265_with_long_groups_and_b_frames() {
    assert_wanted_from_longer_groups(&h265(150, 75, ":bframes=3:open-gop=0"), 160);
}

#[test]
fn h265_with_open_groups() {
    let stream = h265(150, 25, ":bframes=3:open-gop=1");
    let played = stream.play("rate=1", "");
    assert_eq!(times(&played.all_decoded()).len(), 6);
    played.assert_equal_to(&stream.reference());
}

#[test]
fn vp8_with_long_groups() {
    assert_wanted_from_longer_groups(&vpx("vp8", 150, 75, "vp8dec max-errors=0"), 0);
}

#[test]
fn vp9_with_long_groups() {
    assert_wanted_from_longer_groups(&vpx("vp9", 150, 75, "vp9dec max-errors=0"), 0);
}

#[test]
fn av1_with_long_groups() {
    assert_wanted_from_longer_groups(&av1(150, 75), 0);
}

#[test]
fn a_stream_that_begins_in_mid_group_waits_for_its_key_frame() {
    let mut stream = h264(100, 25, "tune=zerolatency", "avc");
    let reference = stream.reference();
    stream.buffers.drain(..10);
    let played = stream.play("rate=5", "");
    assert_eq!(played.passed[0].0, 1000);
    assert_eq!(stat(&played.sampler, "dropped-no-keyframe"), 15);
    played.assert_equal_to(&reference);
}

#[test]
fn after_a_loss_nothing_is_decoded_before_the_next_key_frame() {
    let mut stream = h264(100, 50, "tune=zerolatency", "avc");
    let reference = stream.reference();
    stream.buffers.drain(20..23);
    stream.buffers[20]
        .make_mut()
        .set_flags(gst::BufferFlags::DISCONT);
    let played = stream.play("rate=25", "");
    played.assert_equal_to(&reference);
    let decoded = times(&played.all_decoded());
    assert_eq!(decoded.len(), 20 + 50, "{decoded:?}");
    assert_eq!(decoded[20], 2000);
}

#[test]
fn a_corrupted_picture_ends_its_group() {
    let mut stream = h264(100, 50, "tune=zerolatency", "avc");
    let reference = stream.reference();
    stream.buffers[30]
        .make_mut()
        .set_flags(gst::BufferFlags::CORRUPTED);
    let played = stream.play("rate=25", "");
    played.assert_equal_to(&reference);
    assert_eq!(played.all_decoded().len(), 30 + 50);
    assert_eq!(stat(&played.sampler, "dropped-corrupted"), 1);
}

#[test]
fn other_parameters_wait_for_their_key_frame() {
    let small = h264(50, 25, "tune=zerolatency", "avc");
    let mut large = Stream::encode(
        &format!(
            "{} ! x264enc tune=zerolatency key-int-max=25 ! h264parse ! video/x-h264,stream-format=avc,alignment=au",
            source(50, "width=320,height=192")
        ),
        "avdec_h264 max-errors=0",
    );
    // The new parameters come, then the rest of a group whose key frame did not.
    large.buffers.remove(0);
    let mut harness =
        Harness::new_parse("vitaframesampler name=s rate=25 ! avdec_h264 max-errors=0");
    small.begin(&mut harness);
    for buffer in &small.buffers {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::Caps::new(&large.caps));
    for buffer in &large.buffers {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    let sampler = sampler_of(&harness);
    assert_eq!(stat(&sampler, "dropped-no-keyframe"), 24);
    assert_accounted(&sampler);
}

#[test]
fn before_the_segment_pictures_are_decoded_and_not_wanted() {
    let mut stream = h264(150, 75, "tune=zerolatency", "avc");
    let reference = stream.reference();
    let segment = stream.segment.downcast_mut::<gst::ClockTime>().unwrap();
    let (start, time) = (segment.start().unwrap(), segment.time().unwrap());
    // An accurate seek to 4.2 s.
    segment.set_start(start + ms(4200));
    segment.set_time(time + ms(4200));
    stream.buffers.drain(..75);
    let played = stream.play("rate=1", "! vitaframesampler rate=1");
    assert_eq!(times(&played.all_decoded()), [4200, 5000]);
    played.assert_equal_to(&reference);
}

#[test]
fn parameter_sets_of_pictures_left_out_reach_the_next_key_frame() {
    let mut stream = h264(75, 25, "tune=zerolatency", "byte-stream");
    // An encoder that sends its parameter sets once, with a key frame that is not wanted.
    for key in [25, 50] {
        let bare = without_parameter_sets(&stream.buffers[key]);
        assert!(bare.size() < stream.buffers[key].size());
        stream.buffers[key] = bare;
    }
    let segment = stream.segment.downcast_mut::<gst::ClockTime>().unwrap();
    let (start, time) = (segment.start().unwrap(), segment.time().unwrap());
    segment.set_start(start + ms(1000));
    segment.set_time(time + ms(1000));
    let played = stream.play("rate=1", "");
    assert_eq!(times(&played.all_decoded()), [1000, 2000]);
    assert_eq!(played.passed[0].0, 1000);
}

/// Leaves the slices of a byte-stream access unit.
fn without_parameter_sets(buffer: &gst::Buffer) -> gst::Buffer {
    let data = buffer.map_readable().unwrap();
    let slice = data
        .windows(5)
        .position(|bytes| {
            bytes[..4] == [0, 0, 0, 1] && bytes[4] & 0x1f == 5
                || bytes[..3] == [0, 0, 1] && bytes[3] & 0x1f == 5
        })
        .unwrap();
    let mut bare = gst::Buffer::from_slice(data[slice..].to_vec());
    buffer
        .copy_into(
            bare.get_mut().unwrap(),
            gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS,
            ..,
        )
        .unwrap();
    bare
}

#[test]
fn backwards_everything_passes() {
    let mut stream = h264(50, 25, "tune=zerolatency", "avc");
    let segment = stream.segment.downcast_mut::<gst::ClockTime>().unwrap();
    let end = segment.start().unwrap() + ms(2000);
    segment.set_stop(end);
    segment.set_rate(-1.0);
    let played = stream.play("rate=1", "");
    assert_eq!(played.passed.len(), 50);
}

#[test]
fn a_flush_in_mid_group_starts_from_a_key_frame() {
    let stream = h264(100, 50, "tune=zerolatency", "avc");
    let reference = stream.reference();
    let mut harness =
        Harness::new_parse("vitaframesampler name=s rate=25 ! avdec_h264 max-errors=0");
    stream.begin(&mut harness);
    for buffer in &stream.buffers[..30] {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    while harness.try_pull().is_some() {}
    harness.push_event(gst::event::Segment::new(&stream.segment));
    for buffer in &stream.buffers[30..] {
        harness.push(buffer.clone()).unwrap();
    }
    harness.push_event(gst::event::Eos::new());
    let decoded = stream.pull(&mut harness);
    assert_eq!(decoded.len(), 50);
    assert!(
        decoded
            .iter()
            .all(|(time, hash)| reference.get(time) == Some(hash))
    );
}

/// A file of the wild: B frames, and key frames where the encoder found scenes to change.
#[test]
fn a_real_recording() {
    let media = media("bikes.mp4");
    let stream = Stream::encode(
        &format!("filesrc location={media} ! qtdemux ! h264parse"),
        "avdec_h264 max-errors=0",
    );
    let played = stream.play("rate=1", "! vitaframesampler rate=1");
    let kept = times(&played.all_decoded());
    assert_eq!(kept.len(), 10, "{kept:?}");
    for (second, time) in kept.iter().enumerate() {
        assert!(time.abs_diff(second as u64 * 1000) <= 200, "{kept:?}");
    }
    played.assert_equal_to(&stream.reference());
}

fn media(name: &str) -> String {
    let cache = std::env::var_os("VITA_CACHE").map_or_else(
        || {
            let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
                Into::into,
            );
            base.join("vita-stream")
        },
        std::path::PathBuf::from,
    );
    let file = cache.join("media").join(name);
    assert!(
        file.exists(),
        "{} is missing: run make setup",
        file.display()
    );
    file.display().to_string()
}
