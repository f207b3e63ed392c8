//! The whole way from files: a film's pictures and two recordings of speech, decoded, sampled, cut at pauses, encoded and asked.

use std::path::Path;

use gst::prelude::*;

use crate::bench::*;

/// Silence between the recordings.
const PAUSE_SAMPLES: usize = 2 * 16_000;

/// Both recordings in one, as somebody with a recorder would have them.
fn recording(to: &Path) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut joined = hound::WavWriter::create(to, spec).unwrap();
    for name in ["q1.wav", "q2.wav"] {
        let file = repository().join("tests/media").join(name);
        let mut file = hound::WavReader::open(file).unwrap();
        let samples = file.samples::<i16>().map(Result::unwrap);
        samples
            .chain(std::iter::repeat_n(0, PAUSE_SAMPLES))
            .for_each(|sample| joined.write_sample(sample).unwrap());
    }
    joined.finalize().unwrap();
}

fn play() -> Vec<gst::Structure> {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound.wav");
    recording(&sound);
    let film = repository().join("tests/media/demo_1.mp4");
    let model = checkpoint().display().to_string();
    let launch = format!(
        "vitallmsink name=sink model={model} max-tokens=6 step-time=40000000 logit-bias={QUERY_ENDLESS} \
         filesrc location={} ! qtdemux ! h264parse ! vitaframesampler rate=1 ! avdec_h264 ! videoconvert \
         ! vitaencoder model={model} queue=block ! sink.video_0 \
         uridecodebin uri=file://{} ! audioconvert ! audioresample ! audio/x-raw,format=F32LE,rate=16000,channels=1 \
         ! vitavad ! vitamel ! vitaencoder model={model} queue=block ! sink.audio_0",
        film.display(),
        sound.display()
    );
    let mut bench = Bench::of(&launch);
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    bench.until_end()
}

fn of<'s>(told: &'s [gst::Structure], name: &str) -> Vec<&'s gst::Structure> {
    told.iter().filter(|s| s.name() == name).collect()
}

fn time(structure: &gst::StructureRef, field: &str) -> u64 {
    structure.get(field).unwrap()
}

#[test]
fn what_is_said_in_files_is_asked_with_the_pictures_of_its_moment() {
    let told = play();
    let (mut ends, queries) = (of(&told, "vita-speech-end"), of(&told, "vita-query"));
    ends.retain(|end| end.get("accepted") == Ok(true));
    let sampled: Vec<u64> = of(&told, "vita-frame")
        .iter()
        .map(|frame| time(frame, "stream-time"))
        .collect();
    // The film has 31.77 s.
    assert_eq!(sampled.len(), 32);
    assert_eq!((ends.len(), queries.len()), (2, 2), "{:#?}", names(&told));
    for (end, query) in ends.iter().zip(&queries) {
        assert_eq!(time(query, "utterance-id"), time(end, "utterance-id"));
        let from = time(query, "start-stream-time");
        let to = time(query, "end-stream-time");
        assert_eq!(from, time(end, "start-stream-time"));
        assert_eq!(to, time(end, "stream-time"));
        // Those of the utterance and of two seconds before it.
        let expected: Vec<u64> = sampled
            .iter()
            .copied()
            .filter(|at| (from.saturating_sub(2_000_000_000)..=to).contains(at))
            .collect();
        let shown = query.get::<gst::Array>("frames").unwrap();
        let shown: Vec<u64> = shown
            .iter()
            .map(|frame| time(&frame.get::<gst::Structure>().unwrap(), "stream-time"))
            .collect();
        assert_eq!(shown, expected, "{from} to {to}");
        assert!(shown.len() >= 3);
    }
    // As the recordings lie in the stream: 3.54 s, two seconds of silence, 4.54 s.
    let [first, second] = [ends[0], ends[1]].map(|end| time(end, "start-stream-time") as f64 / 1e9);
    assert!(
        first < 1.0 && (5.5..7.0).contains(&second),
        "{first} {second}"
    );
    let answers = of(&told, "vita-answer");
    let [first, second] = answers[..] else {
        panic!("{answers:#?}")
    };
    for answer in [first, second] {
        assert_eq!(answer.get::<&str>("state"), Ok("query"));
        assert_eq!(answer.get("tokens"), Ok(6u64));
        assert_eq!(answer.get::<&str>("cut-off"), Ok("max-tokens"));
    }
    assert_eq!(first.get("turn"), Ok(1u64));
    assert_eq!(second.get("turn"), Ok(2u64));

    // By the media's time, the same files tell the same.
    let again = play();
    for name in ["vita-query", "vita-delta", "vita-answer"] {
        let lines = |told| of(told, name).into_iter().map(|s| s.to_string());
        assert!(lines(&told).eq(lines(&again)), "{name}");
    }
}
