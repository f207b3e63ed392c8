//! What ends an utterance, what does not, and that nothing of it is left.

use gst::prelude::*;

use crate::bench::*;

#[test]
fn the_end_of_the_stream_ends_an_utterance_before_eos() {
    let mut bench = Bench::new("F32LE");
    let speech = &q1()[16_000..30_000];
    bench.push(speech, &[320]);
    bench.eos();
    assert_eq!(ends(&bench.marks()), [accepted("eos")]);
    // Speech in the first block begins with the stream.
    assert_eq!(time(&bench.marks()[0], "stream-time"), gst::ClockTime::ZERO);
    assert_eq!(
        time(&bench.marks()[1], "stream-time").nseconds(),
        14_000 * SAMPLE_NS
    );
    assert_eq!(bench.audio(), floats(speech));
    let seen = bench.seen();
    assert!(
        matches!(
            seen[seen.len() - 2..],
            [Seen::Mark(_), Seen::Event(gst::EventType::Eos)]
        ),
        "{:?}",
        seen.last()
    );
}

#[test]
fn the_end_of_a_segment_seek_ends_an_utterance_and_holds_nothing_back() {
    let mut bench = Bench::new("F32LE");
    let speech = &q1()[16_000..30_000];
    bench.push(speech, &[320]);
    // What waits for it, to seek again, gets it although no audio follows.
    bench.push_event(gst::event::SegmentDone::new(bench.pts));
    assert_eq!(ends(&bench.marks()), [accepted("eos")]);
    assert_eq!(bench.audio(), floats(speech));
    let last = bench.seen().pop();
    assert_eq!(last, Some(Seen::Event(gst::EventType::SegmentDone)));
}

/// Speech, something that interrupts it, speech again: one utterance on either side, and nothing of the first in what
/// is heard of the second.
#[track_caller]
fn assert_gap(interrupt: impl FnOnce(&mut Bench)) {
    let speech = &q1()[16_000..30_000];
    let mut bench = Bench::new("F32LE");
    bench.push(speech, &[320]);
    interrupt(&mut bench);
    let resumed = bench.pts;
    bench.push(speech, &[320]);
    bench.eos();
    let marks = bench.marks();
    assert_eq!(ends(&marks), [accepted("gap"), accepted("eos")]);
    assert_eq!(
        marks[0].get::<f64>("probability"),
        marks[2].get::<f64>("probability"),
        "no state survives"
    );
    assert_eq!(time(&marks[1], "duration"), time(&marks[3], "duration"));
    assert_eq!(
        time(&marks[2], "running-time"),
        resumed,
        "no stale pre-roll"
    );
    assert_eq!(bench.audio(), floats(speech).repeat(2));
    assert_eq!(bench.stat::<u64>("gaps"), 1);
}

#[test]
fn a_jump_of_time_ends_an_utterance() {
    assert_gap(|bench| bench.pts += gst::ClockTime::from_mseconds(101));
    assert_gap(|bench| bench.pts += gst::ClockTime::from_seconds(3600));
    assert_gap(|bench| bench.pts -= gst::ClockTime::from_mseconds(101));
}

#[test]
fn a_long_gap_event_ends_an_utterance() {
    assert_gap(|bench| {
        let duration = gst::ClockTime::from_seconds(2);
        bench.push_event(
            gst::event::Gap::builder(bench.pts)
                .duration(duration)
                .build(),
        );
        assert_eq!(ends(&bench.marks()), [accepted("gap")], "at once");
        bench.pts += duration;
    });
    assert_gap(|bench| {
        // A source that is silent in small steps.
        let step = gst::ClockTime::from_mseconds(20);
        for _ in 0..10 {
            bench.push_event(gst::event::Gap::builder(bench.pts).duration(step).build());
            bench.pts += step;
        }
        assert_eq!(ends(&bench.marks()), [accepted("gap")], "once it is long");
    });
}

#[test]
fn a_new_segment_ends_an_utterance() {
    let speech = &q1()[16_000..30_000];
    let mut bench = Bench::new("F32LE");
    bench.push(speech, &[320]);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_base(bench.pts);
    segment.set_time(gst::ClockTime::from_seconds(60));
    bench.push_event(gst::event::Segment::new(&segment));
    bench.pts = gst::ClockTime::ZERO;
    bench.push(speech, &[320]);
    bench.eos();
    let marks = bench.marks();
    assert_eq!(ends(&marks), [accepted("gap"), accepted("eos")]);
    assert_eq!(
        time(&marks[2], "stream-time"),
        gst::ClockTime::from_seconds(60)
    );
    assert_eq!(
        time(&marks[2], "running-time"),
        time(&marks[1], "running-time")
    );
}

#[test]
fn short_jumps_and_gaps_and_a_mere_discont_flag_end_nothing() {
    let speech = &q1()[16_000..48_000];
    let mut bench = Bench::new("F32LE");
    bench.push(&speech[..16_000], &[320]);
    let lost = gst::ClockTime::from_mseconds(60);
    bench.push_event(gst::event::Gap::builder(bench.pts).duration(lost).build());
    bench.pts += lost;
    let mut buffer = bench.buffer(floats(&speech[16_000..16_320]), 320);
    buffer
        .get_mut()
        .unwrap()
        .set_flags(gst::BufferFlags::DISCONT);
    bench.push_buffer(buffer);
    bench.push(&speech[16_320..], &[320]);
    bench.eos();
    let marks = bench.marks();
    assert_eq!(ends(&marks), [accepted("eos")]);
    // Times are the buffers' own, also behind the jump.
    assert_eq!(time(&marks[1], "stream-time"), bench.pts);
    let discont = bench
        .seen()
        .iter()
        .filter(|seen| matches!(seen, Seen::Buffer { discont: true, .. }))
        .count();
    assert_eq!(discont, 1, "the flag is passed on, on the first part only");
}

#[test]
fn without_times_a_discont_flag_is_a_gap_and_the_rest_follows_on() {
    let speech = &q1()[16_000..30_000];
    let mut bench = Bench::new("F32LE");
    for part in 0..2 {
        for (index, samples) in speech.chunks(320).enumerate() {
            let mut buffer = gst::Buffer::from_mut_slice(floats(samples));
            if part == 1 && index == 0 {
                buffer
                    .get_mut()
                    .unwrap()
                    .set_flags(gst::BufferFlags::DISCONT);
            }
            bench.push_buffer(buffer);
        }
    }
    bench.eos();
    let marks = bench.marks();
    assert_eq!(ends(&marks), [accepted("gap"), accepted("eos")]);
    assert_eq!(
        time(&marks[1], "stream-time").nseconds(),
        14_000 * SAMPLE_NS
    );
    assert_eq!(
        time(&marks[3], "stream-time").nseconds(),
        28_000 * SAMPLE_NS
    );
}

#[test]
fn a_flush_throws_away_what_is_held_and_ends_an_utterance_on_the_bus() {
    let speech = &q1()[16_000..30_000];
    let mut bench = Bench::new("F32LE");
    bench.push(speech, &[320]);
    let before = bench.audio().len();
    bench.push_event(gst::event::FlushStart::new());
    bench.push_event(gst::event::FlushStop::new(true));
    bench.push_event(gst::event::Segment::new(&gst::FormattedSegment::<
        gst::ClockTime,
    >::new()));
    bench.pts = gst::ClockTime::ZERO;
    bench.push(speech, &[320]);
    bench.eos();
    assert_eq!(
        ends(&bench.messages()),
        [accepted("flush"), accepted("eos")]
    );
    assert_eq!(bench.audio().len(), before + speech.len() * 4);
    let marks = bench.marks();
    assert_eq!(
        marks.len(),
        3,
        "the flush itself tells downstream: {marks:?}"
    );
    assert_eq!(
        marks[1].get::<f64>("probability"),
        marks[0].get::<f64>("probability")
    );
}

#[test]
fn stopping_ends_an_utterance_on_the_bus() {
    let mut bench = Bench::new("F32LE");
    bench.push(&q1()[16_000..30_000], &[320]);
    bench.element().set_state(gst::State::Null).unwrap();
    assert_eq!(ends(&bench.messages()), [accepted("flush")]);
}

#[test]
fn buffers_flagged_as_gap_are_silence_whatever_they_hold() {
    let speech = &q1()[16_000..30_000];
    let mut bench = Bench::new("F32LE");
    bench.push(speech, &[320]);
    let end_of_speech = bench.pts;
    for samples in speech.chunks(320) {
        let mut buffer = bench.buffer(floats(samples), samples.len());
        buffer.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
        bench.push_buffer(buffer);
    }
    let marks = bench.messages();
    assert_eq!(ends(&marks), [accepted("silence")]);
    let end = time(&marks[1], "stream-time");
    assert!(
        end >= end_of_speech
            && end - end_of_speech < gst::ClockTime::from_mseconds(TOLERANCE_MS as u64),
        "{end}"
    );
}

#[test]
fn utterances_that_are_cut_have_no_hole_between_them() {
    let max = gst::ClockTime::from_mseconds(700);
    let mut bench =
        Bench::with_properties("F32LE", &[("max-utterance", max.nseconds().to_value())]);
    bench.push(&q1()[16_000..46_000], &[320]);
    bench.eos();
    let marks = bench.marks();
    let ends = ends(&marks);
    assert!(ends.len() >= 3, "{ends:?}");
    for (index, (reason, _)) in ends.iter().enumerate().take(ends.len() - 1) {
        assert_eq!(reason, "max-duration");
        assert!(time(&marks[2 * index + 1], "duration") <= max);
        assert_eq!(
            time(&marks[2 * index + 1], "stream-time"),
            time(&marks[2 * index + 2], "stream-time")
        );
    }
}
