//! `vitamel` in a harness: what it computes, when, and what ends a run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gst_check::Harness;
use proptest::prelude::*;
use vita_model::fbank::{Fbank, WhaleConfig};
use vita_model::wav;

const BINS: usize = 80;
const S16: &str = "audio/x-raw,format=S16LE,rate=16000,channels=1,layout=interleaved";
const F32: &str = "audio/x-raw,format=F32LE,rate=16000,channels=1,layout=interleaved";

fn init() {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
}

fn element(properties: &[(&str, &str)]) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("vitamel").build().unwrap();
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

fn harness(properties: &[(&str, &str)], caps: &str) -> Harness {
    let mut harness = Harness::with_element(&element(properties), Some("sink"), Some("src"));
    harness.set_src_caps_str(caps);
    harness
}

fn media(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/media")
        .join(file)
}

/// A person's question, as 16-bit samples.
fn speech() -> Vec<i16> {
    hound::WavReader::open(media("q1.wav"))
        .unwrap()
        .into_samples()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn reference(samples: &[i16]) -> Vec<f32> {
    let samples: Vec<f32> = samples.iter().map(|x| f32::from(*x) / 32768.0).collect();
    let fbank = Fbank::whale(&WhaleConfig::default()).unwrap();
    fbank.compute(&samples).unwrap_or_default()
}

fn time(samples: usize) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(samples as u64 * 62_500)
}

fn buffer(samples: &[i16], pts: impl Into<Option<gst::ClockTime>>) -> gst::Buffer {
    let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let out = buffer.get_mut().unwrap();
    out.set_pts(pts);
    out.set_duration(time(samples.len()));
    buffer
}

fn flagged(mut buffer: gst::Buffer, flags: gst::BufferFlags) -> gst::Buffer {
    buffer.get_mut().unwrap().set_flags(flags);
    buffer
}

/// What came out so far.
fn pull_all(harness: &mut Harness) -> Vec<gst::Buffer> {
    std::iter::from_fn(|| harness.try_pull()).collect()
}

fn values(buffers: &[gst::Buffer]) -> Vec<f32> {
    let floats = |buffer: &gst::Buffer| -> Vec<f32> {
        let map = buffer.map_readable().unwrap();
        map.as_chunks()
            .0
            .iter()
            .map(|b| f32::from_ne_bytes(*b))
            .collect()
    };
    buffers.iter().flat_map(floats).collect()
}

/// Frames of one run that starts at `start`: numbered from 0, without a hole in time, a DISCONT flag on the first only.
#[track_caller]
fn assert_run(buffers: &[gst::Buffer], start: gst::ClockTime, expected: &[f32]) {
    assert!(!buffers.is_empty());
    let mut frame = 0;
    for buffer in buffers {
        let frames = buffer.size() / (BINS * 4);
        assert_eq!(buffer.pts(), Some(start + time(frame * 160)));
        assert_eq!(buffer.duration(), Some(time(frames * 160)));
        assert_eq!(buffer.offset(), frame as u64);
        assert_eq!(buffer.offset_end(), (frame + frames) as u64);
        assert_eq!(
            buffer.flags().contains(gst::BufferFlags::DISCONT),
            frame == 0
        );
        frame += frames;
    }
    assert!(values(buffers) == expected, "the values differ");
}

fn stat(harness: &Harness, name: &str) -> u64 {
    let stats: gst::Structure = harness.element().unwrap().property("stats");
    stats.get(name).unwrap()
}

#[test]
fn a_file_in_a_pipeline_gives_the_frames_of_the_model() {
    init();
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! wavparse ! vitamel ! appsink name=sink sync=false",
        media("q1.wav").display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let sink = pipeline
        .by_name("sink")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut buffers = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        assert_eq!(
            sample.caps().unwrap().to_string(),
            "other/tensors, format=(string)static, num_tensors=(int)1, types=(string)float32, \
             dimensions=(string)80:1:1:1, framerate=(fraction)100/1, frontend=(string)whale"
        );
        buffers.push(sample.buffer_owned().unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let expected = reference(&speech());
    assert_eq!(expected.len(), 352 * BINS);
    assert_run(&buffers, gst::ClockTime::ZERO, &expected);
}

#[test]
fn float_samples_give_the_same_frames() {
    let mut harness = harness(&[], F32);
    let samples = &speech()[..4_000];
    let bytes: Vec<u8> = samples
        .iter()
        .flat_map(|x| (f32::from(*x) / 32768.0).to_le_bytes())
        .collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::SECOND);
    harness.push(buffer).unwrap();
    assert_run(
        &pull_all(&mut harness),
        gst::ClockTime::SECOND,
        &reference(samples),
    );
}

#[test]
fn whisper_completes_its_frames_at_the_end() {
    let mut harness = harness(&[("frontend", "whisper")], S16);
    let file = wav::read(&media("q2.wav")).unwrap();
    let samples: Vec<i16> = file.samples.iter().map(|x| (x * 32768.0) as i16).collect();
    harness
        .push(buffer(&samples, gst::ClockTime::ZERO))
        .unwrap();
    harness.push_event(gst::event::Eos::new());
    let expected = Fbank::whisper().compute(&file.samples).unwrap();
    assert_eq!(expected.len(), samples.len() / 160 * BINS);
    assert_run(&pull_all(&mut harness), gst::ClockTime::ZERO, &expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_buffer_sizes_give_the_same_frames(
        cuts in prop::collection::vec(0usize..5_000, 0..12),
        group in 1usize..20,
        start in 0usize..100_000,
    ) {
        let mut harness = harness(&[("frames-per-buffer", &group.to_string())], S16);
        let speech = &speech()[..16_000];
        let mut at = 0;
        for cut in cuts.into_iter().chain([speech.len()]) {
            let end = (at + cut).min(speech.len());
            harness.push(buffer(&speech[at..end], time(start + at))).unwrap();
            at = end;
        }
        harness.push_event(gst::event::Eos::new());
        let buffers = pull_all(&mut harness);
        let expected = reference(speech);
        prop_assert_eq!(buffers.len(), (expected.len() / BINS).div_ceil(group));
        assert_run(&buffers, time(start), &expected);
    }
}

/// Pushes two stretches of audio with `between` to be done between them, and checks that the second is a run of its
/// own that starts at `start`.
#[track_caller]
fn assert_cut(start: gst::ClockTime, between: impl FnOnce(&mut Harness, gst::Buffer)) {
    let mut harness = harness(&[], S16);
    let speech = speech();
    let (first, second) = (&speech[20_000..21_000], &speech[21_000..23_000]);
    harness.push(buffer(first, gst::ClockTime::ZERO)).unwrap();
    assert_run(
        &pull_all(&mut harness),
        gst::ClockTime::ZERO,
        &reference(first),
    );
    between(&mut harness, buffer(second, time(1_000)));
    assert_run(&pull_all(&mut harness), start, &reference(second));
    assert_eq!(stat(&harness, "runs"), 2);
    assert_eq!(stat(&harness, "samples"), 3_000);
    assert_eq!(stat(&harness, "frames"), 4 + 11);
}

#[test]
fn a_discont_buffer_ends_the_run() {
    assert_cut(time(1_000), |harness, next| {
        harness
            .push(flagged(next, gst::BufferFlags::DISCONT))
            .unwrap();
    });
}

#[test]
fn a_jump_in_time_ends_the_run() {
    for at in [1_000 + 641, 1_000 - 641, 160_000] {
        assert_cut(time(at), |harness, mut next| {
            next.get_mut().unwrap().set_pts(time(at));
            harness.push(next).unwrap();
        });
    }
}

#[test]
fn a_gap_event_ends_the_run() {
    assert_cut(time(17_000), |harness, mut next| {
        let gap = gst::event::Gap::builder(time(1_000))
            .duration(gst::ClockTime::SECOND)
            .build();
        harness.push_event(gap);
        next.get_mut().unwrap().set_pts(time(17_000));
        harness.push(next).unwrap();
    });
}

#[test]
fn a_new_segment_ends_the_run() {
    assert_cut(time(1_000), |harness, next| {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_base(gst::ClockTime::SECOND);
        harness.push_event(gst::event::Segment::new(&segment));
        harness.push(next).unwrap();
    });
}

#[test]
fn a_flush_drops_what_is_pending() {
    assert_cut(gst::ClockTime::from_seconds(3), |harness, next| {
        harness.push_event(gst::event::FlushStart::new());
        harness.push_event(gst::event::FlushStop::new(true));
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(3));
        harness.push_event(gst::event::Segment::new(&segment));
        // A first buffer without PTS starts with its segment.
        let mut next = next;
        next.get_mut().unwrap().set_pts(gst::ClockTime::NONE);
        harness.push(next).unwrap();
    });
}

#[test]
fn new_caps_end_the_run() {
    assert_cut(time(1_000), |harness, next| {
        harness.set_src_caps_str(F32);
        harness.set_src_caps_str(S16);
        harness.push(next).unwrap();
    });
}

#[test]
fn jitter_and_missing_times_do_not_end_the_run() {
    let mut harness = harness(&[], S16);
    let speech = &speech()[..8_000];
    let start = gst::ClockTime::from_seconds(5);
    for (n, part) in speech.chunks(1_000).enumerate() {
        let pts = match n % 4 {
            1 => Some(start + time(n * 1_000 + 640)),
            2 => Some(start + time(n * 1_000 - 640)),
            3 => None,
            _ => Some(start + time(n * 1_000)),
        };
        harness.push(buffer(part, pts)).unwrap();
    }
    assert_run(&pull_all(&mut harness), start, &reference(speech));
}

#[test]
fn frames_of_gap_buffers_only_are_flagged() {
    let mut harness = harness(&[], S16);
    let silence = [0; 1_600];
    harness.push(buffer(&silence, time(0))).unwrap();
    harness
        .push(flagged(
            buffer(&silence, time(1_600)),
            gst::BufferFlags::GAP,
        ))
        .unwrap();
    harness.push(buffer(&silence, time(3_200))).unwrap();
    let buffers = pull_all(&mut harness);
    let gaps: Vec<u64> = buffers
        .iter()
        .filter(|buffer| buffer.flags().contains(gst::BufferFlags::GAP))
        .map(|buffer| buffer.offset())
        .collect();
    // Frames that lie within samples 1600..3200.
    assert_eq!(gaps, (10..=17).collect::<Vec<_>>());
    assert_run(&buffers, gst::ClockTime::ZERO, &reference(&[0; 4_800]));
}

#[test]
fn capture_times_go_along() {
    let mut harness = harness(&[], S16);
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    let capture = gst::ClockTime::from_seconds(1_700_000_000);
    for n in 0..4 {
        let mut buffer = buffer(&[0; 700], time(700 * n));
        // The first buffer has none, so its frames are dated from the second.
        if n != 0 {
            let at = capture + time(700 * n);
            gst::ReferenceTimestampMeta::add(
                buffer.get_mut().unwrap(),
                &unix,
                at,
                gst::ClockTime::NONE,
            );
        }
        harness.push(buffer).unwrap();
    }
    let buffers = pull_all(&mut harness);
    let capture_time = |buffer: &gst::Buffer| gstvita::common::capture_time_ns(buffer);
    assert_eq!(buffers.len(), 16);
    // Frames 0 and 1 are complete before any reading has come.
    assert!(
        buffers[..2]
            .iter()
            .all(|buffer| capture_time(buffer).is_none())
    );
    for buffer in &buffers[2..] {
        assert_eq!(
            capture_time(buffer),
            Some((capture + buffer.pts().unwrap()).nseconds())
        );
    }
}

/// What leaves the element, in order: frames of buffers, names of events.
fn record(harness: &Harness) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let into = log.clone();
    let pad = harness.element().unwrap().static_pad("src").unwrap();
    let mask = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let frames = |buffer: &gst::BufferRef| format!("{} frames", buffer.size() / (BINS * 4));
        let mut log = into.lock().unwrap();
        match info.data.as_ref().unwrap() {
            gst::PadProbeData::Buffer(buffer) => log.push(frames(buffer)),
            gst::PadProbeData::BufferList(list) => log.extend(list.iter().map(frames)),
            gst::PadProbeData::Event(event) => match event.view() {
                gst::EventView::Caps(caps) => {
                    let caps = caps.caps().structure(0).unwrap();
                    let framerate: gst::Fraction = caps.get("framerate").unwrap();
                    log.push(format!(
                        "{} at {framerate}",
                        caps.get::<&str>("dimensions").unwrap()
                    ));
                }
                gst::EventView::CustomDownstream(custom) => {
                    log.push(custom.structure().unwrap().name().to_string())
                }
                _ => log.push(format!("{:?}", event.type_())),
            },
            other => panic!("{other:?}"),
        }
        gst::PadProbeReturn::Ok
    });
    log
}

fn custom(name: &str) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::new_empty(name))
}

#[test]
fn complete_frames_leave_before_an_event_of_speech() {
    let mut harness = harness(&[("frames-per-buffer", "10")], S16);
    let log = record(&harness);
    let samples = [0; 400 + 12 * 160];
    harness.push(buffer(&samples, time(0))).unwrap();
    harness.push_event(custom("vita-speech-start"));
    harness.push(buffer(&samples, time(samples.len()))).unwrap();
    harness.push_event(custom("someone-elses"));
    harness.push_event(gst::event::Eos::new());
    let log = log.lock().unwrap();
    // 13 frames, and 14 more, as the second buffer continues the first.
    assert_eq!(
        *log,
        [
            "10 frames",
            "80:3:1:1 at 100/3",
            "3 frames",
            "vita-speech-start",
            "80:10:1:1 at 10",
            "10 frames",
            "someone-elses",
            "80:4:1:1 at 25",
            "4 frames",
            "Eos",
        ]
    );
}

#[test]
fn one_frame_a_buffer_needs_no_other_caps() {
    let mut harness = harness(&[], S16);
    let log = record(&harness);
    harness.push(buffer(&[0; 720], time(0))).unwrap();
    harness.push_event(custom("vita-speech-end"));
    harness.push_event(gst::event::Eos::new());
    let log = log.lock().unwrap();
    assert_eq!(
        *log,
        ["1 frames", "1 frames", "1 frames", "vita-speech-end", "Eos"]
    );
}

#[test]
fn who_wants_whole_blocks_gets_no_tail() {
    let mut harness = harness(&[("frames-per-buffer", "10")], S16);
    harness.set_sink_caps_str("other/tensors,dimensions=(string)80:10:1:1");
    harness.push(buffer(&[0; 400 + 12 * 160], time(0))).unwrap();
    harness.push_event(gst::event::Eos::new());
    assert_eq!(pull_all(&mut harness).len(), 1);
    assert_eq!(stat(&harness, "dropped-frames"), 3);
}

#[test]
fn the_latency_is_that_of_the_last_sample_of_a_buffer() {
    for (properties, own_us) in [
        (&[][..], 25_000),
        (&[("frames-per-buffer", "10")], 25_000 + 90_000),
        (&[("frontend", "whisper")], 12_500),
    ] {
        let mut harness = harness(properties, S16);
        harness.set_live(true);
        harness.set_upstream_latency(gst::ClockTime::from_mseconds(7));
        let expected = gst::ClockTime::from_useconds(7_000 + own_us);
        assert_eq!(harness.query_latency(), Some(expected), "{properties:?}");
    }
}

#[test]
fn other_audio_is_refused() {
    for caps in [
        "audio/x-raw,format=S16LE,rate=8000,channels=1,layout=interleaved",
        "audio/x-raw,format=S16LE,rate=16000,channels=2,layout=interleaved",
    ] {
        let mut harness = harness(&[], caps);
        assert_eq!(
            harness.push(buffer(&[0; 400], time(0))),
            Err(gst::FlowError::NotNegotiated)
        );
    }
}

#[test]
fn a_time_at_the_end_of_all_times_is_survived() {
    let mut harness = harness(&[], S16);
    harness
        .push(buffer(&[0; 4_000], gst::ClockTime::MAX - time(100)))
        .unwrap();
    harness
        .push(buffer(&[0; 4_000], gst::ClockTime::MAX))
        .unwrap();
    assert_eq!(stat(&harness, "frames"), 48);
}

#[test]
fn the_documented_pipeline_runs() {
    init();
    let lines: Vec<&str> = include_str!("../src/mel/mod.rs")
        .lines()
        .filter_map(|line| {
            line.trim_start_matches(" *")
                .trim()
                .strip_prefix("gst-launch-1.0 ")
        })
        .collect();
    assert!(!lines.is_empty());
    for line in lines {
        let pipeline = gst::parse::launch(line).unwrap();
        let bus = pipeline.bus().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &types);
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(
            end.map(|message| message.type_()),
            Some(gst::MessageType::Eos),
            "{line}"
        );
    }
}

#[test]
fn it_starts_anew_after_a_stop() {
    let mut harness = harness(&[], S16);
    harness.push(buffer(&[0; 500], time(0))).unwrap();
    let element = harness.element().unwrap();
    element.set_state(gst::State::Ready).unwrap();
    assert_eq!(stat(&harness, "samples"), 500);
    element.set_property_from_str("frontend", "whisper");
    element.set_state(gst::State::Playing).unwrap();
    assert_eq!(stat(&harness, "samples"), 0);
}
