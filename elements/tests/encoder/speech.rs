use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstvita::common::media;
use vita_model::prompt::MediaKind;

use crate::{OwnModel, Rig, max_difference, ms, tests_folder};

const BINS: usize = 80;

pub const CAPS: &str = "other/tensors,format=static,num_tensors=1,types=float32,\
                        dimensions=(string)80:1:1:1,framerate=100/1,frontend=whale";

/// One frame of 10 ms that differs from any other.
pub fn frame(pts_ms: u64) -> gst::Buffer {
    let values = (0..BINS).map(|bin| (pts_ms as f32 / 70.0 + bin as f32).sin());
    let bytes: Vec<u8> = values.flat_map(|x: f32| x.to_ne_bytes()).collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let out = buffer.get_mut().unwrap();
    out.set_pts(ms(pts_ms));
    out.set_duration(ms(10));
    buffer
}

pub fn start(id: u64, at_ms: u64) -> gst::Event {
    let structure = gst::Structure::builder("vita-speech-start")
        .field("utterance-id", id)
        .field("stream-time", ms(at_ms))
        .field("capture-time", 1_700_000_000_000_000_000 + at_ms);
    gst::event::CustomDownstream::new(structure.build())
}

pub fn end(id: u64, at_ms: u64, accepted: bool) -> gst::Event {
    let structure = gst::Structure::builder("vita-speech-end")
        .field("utterance-id", id)
        .field("stream-time", ms(at_ms))
        .field("accepted", accepted);
    gst::event::CustomDownstream::new(structure.build())
}

/// An utterance of so many frames.
pub fn say(rig: &mut Rig, id: u64, from_ms: u64, frames: u64) {
    let end_ms = from_ms + 10 * frames;
    assert!(rig.harness.push_event(start(id, from_ms)));
    for pts in (from_ms..end_ms).step_by(10) {
        rig.harness.push(frame(pts)).unwrap();
    }
    assert!(rig.harness.push_event(end(id, end_ms, true)));
}

fn values(buffer: &gst::BufferRef) -> Vec<f32> {
    let map = buffer.map_readable().unwrap();
    let chunks = map.as_chunks().0.iter();
    chunks.map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

/// What goes into the encoder: frames by PTS, and the bounds of utterances that were accepted.
#[derive(Default)]
struct Heard {
    frames: Vec<(gst::ClockTime, Vec<f32>)>,
    starts: Vec<(u64, gst::ClockTime)>,
    utterances: Vec<(u64, gst::ClockTime, gst::ClockTime)>,
}

impl Heard {
    fn note(&mut self, data: &gst::PadProbeData) {
        match data {
            gst::PadProbeData::Buffer(buffer) => {
                self.frames.push((buffer.pts().unwrap(), values(buffer)));
            }
            gst::PadProbeData::Event(event) => {
                let Some(structure) = event.structure() else {
                    return;
                };
                let id = structure.get::<u64>("utterance-id");
                let time = structure.get::<u64>("stream-time");
                let (Ok(id), Ok(time)) = (id, time) else {
                    return;
                };
                let time = gst::ClockTime::from_nseconds(time);
                if structure.name() == "vita-speech-start" {
                    self.starts.push((id, time));
                } else if structure.get("accepted") == Ok(true) {
                    let (_, start) = self.starts.iter().find(|(own, _)| *own == id).unwrap();
                    self.utterances.push((id, *start, time));
                }
            }
            _ => (),
        }
    }

    /// The frames of an utterance, chosen by their times.
    fn frames_of(&self, start: gst::ClockTime, end: gst::ClockTime) -> Vec<f32> {
        let is_inside = |pts: gst::ClockTime| pts >= start && pts + ms(10) <= end;
        let frames = self.frames.iter().filter(|(pts, _)| is_inside(*pts));
        frames.flat_map(|(_, values)| values.clone()).collect()
    }
}

/// Both questions of people, with two seconds of silence behind each.
fn two_questions(folder: &std::path::Path) -> std::path::PathBuf {
    let file = folder.join("questions.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&file, spec).unwrap();
    for name in ["q1.wav", "q2.wav"] {
        let question = vita_model::wav::read(&tests_folder().join("media").join(name)).unwrap();
        assert_eq!(question.sample_rate_hz, 16_000);
        for sample in question.samples.iter().chain([0.0; 32_000].iter()) {
            writer.write_sample((sample * 32_767.0) as i16).unwrap();
        }
    }
    writer.finalize().unwrap();
    file
}

#[test]
fn each_spoken_question_is_one_medium_of_what_the_model_hears() {
    let own = OwnModel::open();
    let file = two_questions(own.folder.path());
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! wavparse ! vitavad ! vitamel ! \
         vitaencoder name=encoder model={} queue=block ! appsink name=sink sync=false",
        file.display(),
        own.folder.path().display()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let encoder = pipeline.by_name("encoder").unwrap();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let note = heard.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    let sink_pad = encoder.static_pad("sink").unwrap();
    sink_pad.add_probe(kinds, move |_, info| {
        if let Some(data) = &info.data {
            note.lock().unwrap().note(data);
        }
        gst::PadProbeReturn::Ok
    });
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let samples: Vec<_> = std::iter::from_fn(|| sink.pull_sample().ok()).collect();
    let stats: gst::Structure = encoder.property("stats");
    pipeline.set_state(gst::State::Null).unwrap();

    let heard = heard.lock().unwrap();
    assert!(heard.utterances.len() >= 2, "{:?}", heard.starts);
    assert_eq!(samples.len(), heard.utterances.len(), "{stats}");
    let vita = own.model.vita();
    for (sample, (id, start, end)) in samples.iter().zip(&heard.utterances) {
        let buffer = sample.buffer().unwrap();
        let (medium, times) = media::read(buffer, sample.caps().unwrap()).unwrap();
        assert_eq!((times.start, times.end), (Some(*start), Some(*end)));
        assert_eq!(
            (medium.kind, times.utterance_id),
            (MediaKind::Audio, Some(*id))
        );
        let pts = buffer.pts().unwrap();
        assert!(pts >= *start && pts < *start + ms(10), "{pts} {start}");

        let frames = heard.frames_of(*start, *end);
        assert_eq!(
            buffer.duration(),
            Some(ms(10) * (frames.len() / BINS) as u64)
        );
        let features = vita.ears().unwrap().features_of_frames(frames).unwrap();
        let expected = vita.hear_frames(&features).unwrap();
        assert_eq!(medium.key, expected.key);
        assert_eq!(max_difference(&medium.vectors, &expected.vectors), 0.0);
    }
}

#[test]
fn an_utterance_leaves_between_its_events() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    for pts in [0, 10] {
        rig.harness.push(frame(pts)).unwrap();
    }
    say(&mut rig, 7, 20, 40);
    rig.harness.push(frame(420)).unwrap();
    rig.harness.push_event(gst::event::Eos::new());
    let pushed = rig.pushed_until("eos");
    let speech = ["vita-speech-start", "caps", "20", "vita-speech-end"];
    assert_eq!(pushed[..4], ["stream-start", "caps", "segment", "gap 0"]);
    assert_eq!(pushed[4..8], speech);
    assert_eq!(pushed[8..], ["gap 420", "eos"]);

    let (buffer, _, times) = rig.medium();
    assert_eq!(
        (buffer.pts(), buffer.duration()),
        (Some(ms(20)), Some(ms(400)))
    );
    assert_eq!((times.start, times.end), (Some(ms(20)), Some(ms(420))));
    assert_eq!(times.utterance_id, Some(7));
    assert_eq!(times.capture_time_ns, Some(1_700_000_000_000_000_020));
}

#[test]
fn what_was_not_accepted_is_not_encoded_and_its_events_go_on() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    assert!(rig.harness.push_event(start(1, 0)));
    for pts in (0..300).step_by(10) {
        rig.harness.push(frame(pts)).unwrap();
    }
    assert!(rig.harness.push_event(end(1, 300, false)));
    rig.harness.push_event(gst::event::Eos::new());
    let pushed = rig.pushed_until("eos");
    assert_eq!(pushed[3..], ["vita-speech-start", "vita-speech-end", "eos"]);
    assert_eq!((rig.stat("rejected"), rig.stat("received")), (1, 0));
    assert_eq!(own.stats().utterances, 0);
}

#[test]
fn an_utterance_too_short_for_the_model_fails_alone() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    say(&mut rig, 1, 0, 1);
    say(&mut rig, 2, 100, 60);
    assert_eq!(rig.medium().2.utterance_id, Some(2));
    rig.wait_for_stat("encoded", 1);
    assert_eq!(rig.stat("failed"), 1);
    rig.assert_accounted();
    let warnings = rig.messages(gst::MessageType::Warning);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let dropped = rig.posted("vita-dropped");
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].get::<u64>("utterance-id"), Ok(1));
    assert_eq!(dropped[0].get::<&str>("reason"), Ok("failed"));
}

#[test]
fn features_of_another_front_end_are_refused_with_what_to_set() {
    let own = OwnModel::open();
    let element = own.element("");
    let rig = Rig::new(&element, &CAPS.replace("whale", "whisper"));
    let errors = rig.messages(gst::MessageType::Error);
    assert_eq!(
        errors[..1],
        [
            "the model's ears want the features of vitamel frontend=whale, these are frontend=whisper: set it on vitamel"
        ]
    );
    let rig = Rig::new(&own.element(""), &CAPS.replace("80:", "40:"));
    let errors = rig.messages(gst::MessageType::Error);
    // core tries sticky events again
    assert_eq!(
        errors[..1],
        ["the model's ears want frames of 80 mel bins, these have 40"]
    );
}

#[test]
fn frames_that_nobody_marked_as_speech_are_warned_of() {
    let own = OwnModel::open();
    let mut rig = Rig::new(&own.element(""), CAPS);
    rig.harness.push(frame(0)).unwrap();
    rig.harness.push_event(gst::event::Eos::new());
    rig.pushed_until("eos");
    let warnings = rig.messages(gst::MessageType::Warning);
    assert_eq!(
        warnings,
        ["1 frames came without any vita-speech-start: put vitavad before vitamel"]
    );
}
