//! Audio passes unchanged, marks stand at their sample, and buffer sizes do not matter.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::bench::*;

#[test]
fn the_start_stands_right_before_its_first_sample_and_the_end_not_before_its_last() {
    let mut bench = Bench::new("F32LE");
    let samples = [silence(1000), q1(), silence(1000)].concat();
    bench.push(&samples, &[333, 47, 1000]);
    bench.eos();
    let mut now = gst::ClockTime::ZERO;
    let (mut marks, mut pause) = (0, None);
    for seen in bench.seen() {
        match seen {
            Seen::Buffer {
                pts,
                duration,
                bytes,
                ..
            } => {
                assert_eq!(pts, Some(now), "no sample is missing or late");
                assert_eq!(
                    duration.unwrap().nseconds(),
                    bytes.len() as u64 / 4 * SAMPLE_NS
                );
                now += duration.unwrap();
            }
            Seen::Mark(mark) if mark.name() == "vita-speech-start" => {
                assert_eq!(time(&mark, "stream-time"), now);
                marks += 1;
            }
            Seen::Mark(mark) => {
                assert!(time(&mark, "stream-time") <= now, "{mark} at {now}");
                assert_eq!(pause, Some(time(&mark, "stream-time")), "told before");
                let duration = time(&mark, "stream-time") - time(&mark, "start-stream-time");
                assert_eq!(time(&mark, "duration"), duration);
                marks += 1;
            }
            Seen::Pause(told) => pause = Some(time(&told, "stream-time")),
            Seen::Event(_) => (),
        }
    }
    assert_eq!(marks, 2);
    assert_eq!(bench.audio(), floats(&samples));
}

#[test]
fn messages_come_as_soon_as_the_block_is_heard() {
    let mut bench = Bench::new("F32LE");
    bench.push(&[silence(1000), q1()[..45_000].to_vec()].concat(), &[160]);
    // The audio is still held back, and the end has not been heard.
    let [start] = &bench.messages()[..] else {
        panic!("expected a start")
    };
    assert!(time(start, "stream-time") > gst::ClockTime::SECOND);
    assert!(start.get::<f64>("probability").unwrap() >= 0.7);
    assert_eq!(time(start, "running-time"), time(start, "stream-time"));
}

/// The marks of two utterances that come in buffers of these sizes; the audio passes unchanged.
fn heard_in(sizes: &[usize]) -> Vec<gst::Structure> {
    let samples = two_utterances();
    let mut bench = Bench::new("F32LE");
    bench.push(&samples, sizes);
    bench.eos();
    let marks = bench.marks();
    assert_eq!(ends(&marks), [accepted("silence"), accepted("eos")]);
    assert!(bench.audio() == floats(&samples), "the samples differ");
    marks
}

#[track_caller]
fn assert_same_whatever_the_sizes(sizes: &[usize]) {
    static IN_ONE_BUFFER: LazyLock<Vec<gst::Structure>> = LazyLock::new(|| heard_in(&[usize::MAX]));
    assert_eq!(heard_in(sizes), *IN_ONE_BUFFER);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buffer_sizes_change_nothing(sizes in proptest::collection::vec(prop_oneof![1..20_usize, 1..3000_usize, 1..60_000_usize], 1..40)) {
        assert_same_whatever_the_sizes(&sizes);
    }
}

#[test]
fn buffers_of_one_sample_change_nothing() {
    let samples = q1();
    let mut bench = Bench::new("F32LE");
    bench.push(&samples, &[1]);
    bench.eos();
    assert_eq!(ends(&bench.marks()), [accepted("silence")]);
    assert_eq!(bench.audio(), floats(&samples));
}

#[test]
fn a_buffer_of_minutes_is_heard_to_its_end() {
    let scene = two_utterances();
    let repeats = 3 * 60 * RATE as usize / scene.len();
    let mut samples = scene.repeat(repeats);
    samples.extend(silence(1000));
    let mut bench = Bench::new("F32LE");
    bench.push(&samples, &[usize::MAX]);
    bench.eos();
    assert!(ends(&bench.marks()).len() >= repeats);
    assert_eq!(bench.audio().len(), samples.len() * 4);
}

#[test]
fn sixteen_bit_audio_is_heard_as_float_is_and_the_format_may_change() {
    let samples = [silence(500), q1(), silence(1000)].concat();
    let mut float = Bench::new("F32LE");
    float.push(&samples, &[320]);
    float.eos();

    let mut short = Bench::new("S16LE");
    for (index, samples) in samples.chunks(320).enumerate() {
        // In the middle of the utterance.
        if index == 100 {
            short.push_event(gst::event::Caps::new(&caps("F32LE")));
        }
        let bytes = if index < 100 {
            shorts(samples)
        } else {
            floats(samples)
        };
        let buffer = short.buffer(bytes, samples.len());
        short.push_buffer(buffer);
    }
    short.eos();
    assert_eq!(short.marks(), float.marks());
    let (before, after) = samples.split_at(100 * 320);
    assert_eq!(short.audio(), [shorts(before), floats(after)].concat());
    // The caps stand where the format changes.
    let seen = short.seen();
    let change = seen
        .iter()
        .rposition(|seen| *seen == Seen::Event(gst::EventType::Caps))
        .unwrap();
    let Seen::Buffer { pts, .. } = seen[change + 1] else {
        panic!("{:?}", seen[change + 1])
    };
    assert_eq!(
        pts,
        Some(gst::ClockTime::from_nseconds(100 * 320 * SAMPLE_NS))
    );
}

#[test]
fn the_capture_time_is_that_of_the_sample() {
    let mut bench = Bench::new("F32LE");
    let captured = |pts: gst::ClockTime| 1_700_000_000_000_000_000 + pts.nseconds();
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    for samples in [silence(1000), q1(), silence(1000)].concat().chunks(320) {
        let mut buffer = bench.buffer(floats(samples), samples.len());
        let time = gst::ClockTime::from_nseconds(captured(buffer.pts().unwrap()));
        gst::ReferenceTimestampMeta::add(
            buffer.get_mut().unwrap(),
            &unix,
            time,
            gst::ClockTime::NONE,
        );
        bench.push_buffer(buffer);
    }
    bench.eos();
    assert_eq!(bench.marks().len(), 2);
    for seen in bench.seen() {
        match seen {
            Seen::Mark(mark) => assert_eq!(
                mark.get::<u64>("capture-time"),
                Ok(captured(time(&mark, "stream-time")))
            ),
            Seen::Buffer {
                pts, capture_ns, ..
            } => assert_eq!(capture_ns, Some(captured(pts.unwrap()))),
            Seen::Pause(_) | Seen::Event(_) => (),
        }
    }
}

#[test]
fn events_of_others_keep_their_place_in_the_audio() {
    let mut bench = Bench::new("F32LE");
    bench.push(&silence(1000), &[320]);
    let place = bench.pts;
    bench.push_event(gst::event::CustomDownstream::new(
        gst::Structure::new_empty("of-others"),
    ));
    bench.push(&silence(1000), &[320]);
    bench.eos();
    let seen = bench.seen();
    let at = seen
        .iter()
        .position(|seen| *seen == Seen::Event(gst::EventType::CustomDownstream))
        .unwrap();
    let Seen::Buffer { pts, .. } = seen[at + 1] else {
        panic!("{:?}", seen[at + 1])
    };
    assert_eq!(pts, Some(place));
}
