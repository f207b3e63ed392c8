//! Latency, properties, model files and errors.

use gst::prelude::*;

use crate::bench::*;

#[test]
fn latency_is_the_padding_and_a_block() {
    let mut bench = Bench::new("F32LE");
    bench
        .harness
        .set_upstream_latency(gst::ClockTime::from_mseconds(20));
    assert_eq!(
        bench.harness.query_latency(),
        Some(LATENCY + gst::ClockTime::from_mseconds(20))
    );
    bench
        .element()
        .set_property("pre-padding", gst::ClockTime::from_mseconds(300).nseconds());
    assert_eq!(
        bench.harness.query_latency(),
        Some(gst::ClockTime::from_mseconds(352))
    );
    assert!(
        bench
            .bus
            .iter_filtered(&[gst::MessageType::Latency])
            .next()
            .is_some(),
        "the pipeline is told"
    );
}

#[test]
fn no_sample_stays_longer_than_the_latency() {
    let mut bench = Bench::new("F32LE");
    for samples in two_utterances().chunks(320) {
        let buffer = bench.buffer(floats(samples), samples.len());
        bench.push_buffer(buffer);
        let held = bench.pts.nseconds() / SAMPLE_NS - bench.audio().len() as u64 / 4;
        assert!(
            held * SAMPLE_NS <= LATENCY.nseconds(),
            "{held} samples are held at {}",
            bench.pts
        );
    }
}

#[test]
fn properties_change_while_playing() {
    let mut bench = Bench::new("F32LE");
    let speech = [q1(), silence(1000)].concat();
    bench.element().set_property("threshold", 1.0);
    bench.push(&speech, &[320]);
    assert_eq!(bench.messages(), Vec::<gst::Structure>::new());

    bench.element().set_property("threshold", 0.5);
    bench
        .element()
        .set_property("min-speech", gst::ClockTime::from_seconds(10).nseconds());
    bench.push(&speech, &[320]);
    assert_eq!(ends(&bench.messages()), [("silence".to_owned(), false)]);

    bench.element().set_property("min-speech", 0_u64);
    bench
        .element()
        .set_property("max-utterance", gst::ClockTime::from_seconds(1).nseconds());
    bench.push(&speech, &[320]);
    let ends = ends(&bench.messages());
    assert_eq!(ends.first(), Some(&accepted("max-duration")));
    assert_eq!(ends.last(), Some(&accepted("silence")));
    assert_eq!(
        (
            bench.stat::<u64>("utterances"),
            bench.stat::<u64>("rejected")
        ),
        (1 + ends.len() as u64, 1)
    );
    assert!(bench.stat::<u64>("speech-time") > 3_000_000_000);
}

#[test]
fn another_model_file_is_used_and_a_bad_one_is_named() {
    let weights = repository().join("models/silero-vad/silero_vad_16k.safetensors");
    let mut bench =
        Bench::with_properties("F32LE", &[("model", weights.to_str().unwrap().to_value())]);
    bench.push(&q1(), &[320]);
    bench.eos();
    assert_eq!(ends(&bench.marks()), [accepted("silence")]);

    let element = gst::ElementFactory::make("vitavad")
        .property("model", "/nowhere/vad.safetensors")
        .build()
        .unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Paused).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        panic!("{message:?}")
    };
    assert!(
        error
            .error()
            .to_string()
            .starts_with("cannot read /nowhere/vad.safetensors: No such file"),
        "{error:?}"
    );
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn half_a_sample_is_an_error() {
    let mut bench = Bench::new("F32LE");
    assert_eq!(
        bench.harness.push(gst::Buffer::from_mut_slice(vec![0; 7])),
        Err(gst::FlowError::Error)
    );
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Error]).is_some());
}
