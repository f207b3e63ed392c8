//! Pipelines that end in the sink, with media that the golden checkpoint's own ears and eyes have made.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Once};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use gst::prelude::*;
use gstvita::common::media::{self, MediaTimes};
use vita_engine::models::{self, Model, ModelSpec};
use vita_model::prompt::Media;

/// No test waits longer for anything, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Verdicts are forced: a random model has no opinion. The end token never comes with `</s>` held down.
pub const QUERY: &str = "<2>:-50";
pub const QUERY_ENDLESS: &str = "<2>:-50,</s>:-1000";
pub const NOISE_ENDLESS: &str = "<2>:50,</s>:-1000";

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub fn checkpoint() -> PathBuf {
    repository().join("tests/golden/checkpoint")
}

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
}

pub fn model() -> Arc<Model> {
    let spec = ModelSpec::named(checkpoint().to_str().unwrap()).unwrap();
    models::open(&spec, None).unwrap()
}

/// What is said in the release's first example.
pub fn speech() -> Media {
    static SPEECH: LazyLock<Media> = LazyLock::new(|| {
        let wav = repository().join("tests/golden/inputs/wave_a.wav");
        let samples = vita_model::wav::read(&wav).unwrap().samples;
        model().vita().hear(&samples).unwrap()
    });
    SPEECH.clone()
}

/// A grey picture, the lighter the higher `tone`.
pub fn picture(tone: u32) -> Media {
    let model = model();
    let pixels = Tensor::full(tone as f32 / 100.0, (1, 3, 112, 112), &Device::Cpu).unwrap();
    model.vita().see_pixels(&pixels.into()).unwrap().remove(0)
}

pub fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

/// A pipeline of application sources `video`, `audio`, `text` and the sink.
pub struct Bench {
    pub pipeline: gst::Pipeline,
    pub sink: gst::Element,
    bus: gst::Bus,
    pub told: Vec<gst::Structure>,
}

impl Bench {
    /// `sources`: which there are; `settings`: properties of the sink as in a launch line.
    pub fn new(sources: &[&str], settings: &str) -> Self {
        let mut launch = format!(
            "vitallmsink name=sink model={} {settings} ",
            checkpoint().display()
        );
        for source in sources {
            launch += &format!("appsrc name={source} format=time max-bytes=0 ! sink.{source}_0 ");
        }
        Self::of(&launch)
    }

    /// A pipeline with a sink called `sink`.
    pub fn of(launch: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(launch).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        Self {
            sink: pipeline.by_name("sink").unwrap(),
            bus: pipeline.bus().unwrap(),
            pipeline,
            told: Vec::new(),
        }
    }

    pub fn play(sources: &[&str], settings: &str) -> Self {
        let bench = Self::new(sources, settings);
        bench.pipeline.set_state(gst::State::Playing).unwrap();
        bench
    }

    pub fn source(&self, name: &str) -> gst_app::AppSrc {
        let source = self.pipeline.by_name(name).unwrap();
        source.downcast().unwrap()
    }

    /// An utterance of a second that ended at `end_ms`.
    pub fn say(&self, id: u64, end_ms: u64) {
        let times = MediaTimes {
            utterance_id: Some(id),
            start: Some(ms(end_ms - 1000)),
            end: Some(ms(end_ms)),
            capture_time_ns: Some(1_700_000_000_000_000_000 + id),
        };
        self.push("audio", &speech(), &times);
    }

    pub fn show(&self, tone: u32, at_ms: u64) {
        let times = MediaTimes {
            start: Some(ms(at_ms)),
            ..MediaTimes::default()
        };
        self.push("video", &picture(tone), &times);
    }

    fn push(&self, source: &str, medium: &Media, times: &MediaTimes) {
        let (mut buffer, caps) = media::write(medium, times).unwrap();
        let out = buffer.get_mut().unwrap();
        out.set_pts(times.start);
        out.set_duration(times.end.zip(times.start).map(|(end, start)| end - start));
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        self.source(source).push_sample(&sample).unwrap();
    }

    pub fn write(&self, text: &str, at_ms: u64) {
        let mut buffer = gst::Buffer::from_slice(text.to_owned());
        buffer.get_mut().unwrap().set_pts(ms(at_ms));
        let caps = gst::Caps::builder("text/x-raw")
            .field("format", "utf8")
            .build();
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        self.source("text").push_sample(&sample).unwrap();
    }

    pub fn ask(&self, text: &str) -> u64 {
        self.sink.emit_by_name("ask", &[&text])
    }

    pub fn end(&self, sources: &[&str]) {
        for source in sources {
            self.source(source).end_of_stream().unwrap();
        }
    }

    /// The next message of the sink; `None` at the end of the pipeline.
    #[track_caller]
    pub fn next(&mut self) -> Option<gst::Structure> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = [
            gst::MessageType::Element,
            gst::MessageType::Error,
            gst::MessageType::Eos,
        ];
        while Instant::now() < deadline {
            let patience = gst::ClockTime::from_seconds(1);
            let Some(message) = self.bus.timed_pop_filtered(patience, &wanted) else {
                continue;
            };
            match message.view() {
                gst::MessageView::Eos(_) => return None,
                gst::MessageView::Error(error) => panic!("{error:?}"),
                _ => {
                    let structure = message.structure().unwrap().to_owned();
                    if structure.name().starts_with("vita-") {
                        self.told.push(structure.clone());
                        return Some(structure);
                    }
                }
            }
        }
        panic!("nothing more after {:#?}", self.told);
    }

    /// The text of the next warning on the bus; other messages are passed over.
    #[track_caller]
    pub fn warning(&self) -> String {
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let kind = [gst::MessageType::Warning];
        let message = self.bus.timed_pop_filtered(patience, &kind);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Warning(warning)) => warning.error().to_string(),
            _ => panic!("no warning"),
        }
    }

    /// The next message of that name; those before are in `told`.
    #[track_caller]
    pub fn until(&mut self, name: &str) -> gst::Structure {
        loop {
            let found = self.next();
            let found = found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.told));
            if found.name() == name {
                return found;
            }
        }
    }

    /// All messages up to the end of the pipeline.
    #[track_caller]
    pub fn until_end(&mut self) -> Vec<gst::Structure> {
        while self.next().is_some() {}
        self.told.clone()
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.sink.property::<gst::Structure>("stats");
        stats.get(name).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

pub fn names(told: &[gst::Structure]) -> Vec<&str> {
    told.iter().map(|s| s.name().as_str()).collect()
}

/// The words of a generation, put together from its deltas.
pub fn words(told: &[gst::Structure], generation: u64) -> String {
    told.iter()
        .filter(|s| s.name() == "vita-delta" && s.get("generation") == Ok(generation))
        .map(|s| s.get::<String>("delta").unwrap())
        .collect()
}
