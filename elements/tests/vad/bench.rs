//! The element with eyes on its source pad and its bus, and the recordings that it hears.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once},
};

use gst::{glib, prelude::*};
use gst_check::Harness;

pub const RATE: u64 = 16_000;
pub const SAMPLE_NS: u64 = 62_500;
/// Default pre-padding and a block.
pub const LATENCY: gst::ClockTime = gst::ClockTime::from_mseconds(150 + 32);
/// How far a mark may be from the truth, its padding included.
pub const TOLERANCE_MS: i64 = 300;

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub fn librivox(number: &str) -> PathBuf {
    let folder = Path::new("/usr/share/pocketsphinx/test/data/librivox");
    folder.join(format!("sense_and_sensibility_01_austen_64kb-{number}.wav"))
}

/// A mono recording at 16 kHz, ±1.
pub fn recording(path: &Path) -> Vec<f32> {
    let mut wav =
        hound::WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        (wav.spec().sample_rate, wav.spec().channels),
        (RATE as u32, 1)
    );
    wav.samples::<i16>()
        .map(|sample| f32::from(sample.unwrap()) / 32768.0)
        .collect()
}

pub fn q1() -> Vec<f32> {
    recording(&repository().join("tests/media/q1.wav"))
}

pub fn silence(ms: u64) -> Vec<f32> {
    vec![0.0; (ms * RATE / 1000) as usize]
}

/// Two utterances with a pause between them.
pub fn two_utterances() -> Vec<f32> {
    // The second is cut short while something is being said.
    [silence(300), q1(), silence(1200), q1()[..45_000].to_vec()].concat()
}

/// What leaves the source pad, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Buffer {
        pts: Option<gst::ClockTime>,
        duration: Option<gst::ClockTime>,
        bytes: Vec<u8>,
        capture_ns: Option<u64>,
        discont: bool,
    },
    /// `vita-speech-start` or `-end`, with its fields.
    Mark(gst::Structure),
    /// `vita-speech-pause`.
    Pause(gst::Structure),
    Event(gst::EventType),
}

/// The element with a segment that begins at 0, and with eyes on its source pad and on its bus.
pub struct Bench {
    pub harness: Harness,
    pub bus: gst::Bus,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// PTS of the next buffer.
    pub pts: gst::ClockTime,
}

impl Bench {
    pub fn new(format: &str) -> Self {
        Self::with_properties(format, &[])
    }

    pub fn with_properties(format: &str, properties: &[(&str, glib::Value)]) -> Self {
        init();
        let element = gst::ElementFactory::make("vitavad").build().unwrap();
        for (name, value) in properties {
            element.set_property_from_value(name, value);
        }
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        element
            .static_pad("src")
            .unwrap()
            .add_probe(types, move |_, info| {
                let seen = match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => see(buffer),
                    Some(gst::PadProbeData::Event(event)) => match event.structure() {
                        Some(structure) if structure.name() == "vita-speech-pause" => {
                            Seen::Pause(structure.to_owned())
                        }
                        Some(structure) if structure.name().starts_with("vita-speech") => {
                            Seen::Mark(structure.to_owned())
                        }
                        _ => Seen::Event(event.type_()),
                    },
                    _ => return gst::PadProbeReturn::Ok,
                };
                into.lock().unwrap().push(seen);
                gst::PadProbeReturn::Ok
            });
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        harness.set_src_caps(caps(format));
        harness.play();
        Self {
            harness,
            bus,
            seen,
            pts: gst::ClockTime::ZERO,
        }
    }

    pub fn element(&self) -> gst::Element {
        self.harness.element().unwrap()
    }

    pub fn push_buffer(&mut self, buffer: gst::Buffer) {
        assert_eq!(self.harness.push(buffer), Ok(gst::FlowSuccess::Ok));
        // What the probe saw is enough.
        while self.harness.try_pull().is_some() {}
    }

    /// Pushes float samples in buffers of the given numbers of samples, over and over, with times that follow each
    /// other.
    pub fn push(&mut self, samples: &[f32], sizes: &[usize]) {
        let mut rest = samples;
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                return;
            }
            let (now, later) = rest.split_at(size.min(rest.len()));
            let buffer = self.buffer(floats(now), now.len());
            self.push_buffer(buffer);
            rest = later;
        }
    }

    /// A buffer at the time after the one before.
    pub fn buffer(&mut self, bytes: Vec<u8>, samples: usize) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let duration = gst::ClockTime::from_nseconds(samples as u64 * SAMPLE_NS);
        let buffer_ref = buffer.get_mut().unwrap();
        buffer_ref.set_pts(self.pts);
        buffer_ref.set_duration(duration);
        self.pts += duration;
        buffer
    }

    pub fn push_event(&mut self, event: gst::Event) {
        assert!(self.harness.push_event(event));
    }

    pub fn eos(&mut self) {
        self.push_event(gst::event::Eos::new());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn marks(&self) -> Vec<gst::Structure> {
        let mark = |seen| match seen {
            Seen::Mark(structure) => Some(structure),
            _ => None,
        };
        self.seen().into_iter().filter_map(mark).collect()
    }

    pub fn messages(&self) -> Vec<gst::Structure> {
        self.bus
            .iter_filtered(&[gst::MessageType::Element])
            .map(|message| message.structure().unwrap().to_owned())
            .collect()
    }

    /// All samples that left.
    pub fn audio(&self) -> Vec<u8> {
        let bytes = |seen| match seen {
            Seen::Buffer { bytes, .. } => bytes,
            _ => Vec::new(),
        };
        self.seen().into_iter().flat_map(bytes).collect()
    }

    pub fn stat<T: for<'a> glib::value::FromValue<'a> + 'static>(&self, name: &str) -> T {
        self.element()
            .property::<gst::Structure>("stats")
            .get(name)
            .unwrap()
    }
}

fn see(buffer: &gst::Buffer) -> Seen {
    Seen::Buffer {
        pts: buffer.pts(),
        duration: buffer.duration(),
        bytes: buffer.map_readable().unwrap().to_vec(),
        capture_ns: gstvita::common::capture_time_ns(buffer),
        discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
    }
}

pub fn caps(format: &str) -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", format)
        .field("rate", RATE as i32)
        .field("channels", 1)
        .field("layout", "interleaved")
        .build()
}

pub fn floats(samples: &[f32]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

pub fn shorts(samples: &[f32]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| ((sample * 32768.0) as i16).to_le_bytes())
        .collect()
}

pub fn time(structure: &gst::Structure, field: &str) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(
        structure
            .get::<u64>(field)
            .unwrap_or_else(|error| panic!("{structure}: {error}")),
    )
}

/// Reason and acceptance of the ends among `structures`, each after its start with the same number.
#[track_caller]
pub fn ends(structures: &[gst::Structure]) -> Vec<(String, bool)> {
    let (pairs, rest) = structures.as_chunks::<2>();
    assert!(rest.is_empty(), "starts and ends: {structures:?}");
    let end = |[start, end]: &[gst::Structure; 2]| {
        assert_eq!(
            (start.name().as_str(), end.name().as_str()),
            ("vita-speech-start", "vita-speech-end")
        );
        assert_eq!(
            start.get::<u64>("utterance-id"),
            end.get::<u64>("utterance-id")
        );
        assert_eq!(
            start.get::<u64>("stream-time").ok(),
            end.get::<u64>("start-stream-time").ok()
        );
        (end.get("reason").unwrap(), end.get("accepted").unwrap())
    };
    pairs.iter().map(end).collect()
}

pub fn accepted(reason: &str) -> (String, bool) {
    (reason.to_owned(), true)
}
