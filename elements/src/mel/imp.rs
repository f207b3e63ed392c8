use std::sync::{LazyLock, Mutex, MutexGuard};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use vita_model::fbank::{self, Fbank, WhaleConfig};

use super::Frontend;
use super::framer::{Block, Framer, SampleFormat, Stats};
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "vitamel",
        gst::DebugColorFlags::empty(),
        Some("Streaming log-mel filterbank"),
    )
});

const SAMPLE_RATE_HZ: i32 = 16_000;

/// Ten seconds: more in a buffer is not streaming.
const MAX_FRAMES_PER_BUFFER: u32 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Settings {
    frontend: Frontend,
    frames_per_buffer: u32,
    dither: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frontend: Frontend::default(),
            frames_per_buffer: 1,
            dither: 0.0,
        }
    }
}

impl Settings {
    fn framer(&self) -> Result<Framer, fbank::Error> {
        let fbank = match self.frontend {
            Frontend::Whale => Fbank::whale(&WhaleConfig {
                dither: self.dither,
                ..WhaleConfig::default()
            })?,
            Frontend::Whisper => Fbank::whisper(),
        };
        Ok(Framer::new(fbank, self.frames_per_buffer as usize))
    }
}

pub struct Mel {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    /// Made when the element starts; kept after it stops for its `stats`.
    framer: Mutex<Option<Framer>>,
}

impl Mel {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// Runs `f` on the framer, under its lock: nothing is pushed from there.
    fn with_framer<T>(&self, f: impl FnOnce(&mut Framer) -> T) -> Option<T> {
        lock(&self.framer).as_mut().map(f)
    }

    fn push(&self, blocks: Vec<Block>) -> Result<gst::FlowSuccess, gst::FlowError> {
        for block in blocks {
            if let Some(caps) = block.caps {
                if block.tail && !self.srcpad.peer_query_accept_caps(&caps) {
                    gst::warning!(
                        CAT,
                        imp = self,
                        "downstream does not accept {caps}: dropped {} frames at the end of a run",
                        block.frames
                    );
                    self.with_framer(|framer| framer.stats.dropped_frames += block.frames);
                    continue;
                }
                self.srcpad.push_event(gst::event::Caps::new(&caps));
            }
            self.srcpad.push_list(block.buffers)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Pushes what an event lets out; the event itself goes on whatever downstream says to that.
    fn push_before_event(&self, blocks: Option<Vec<Block>>) {
        if let Err(error) = self.push(blocks.unwrap_or_default()) {
            gst::debug!(CAT, imp = self, "pushing before an event: {error}");
        }
    }

    fn end_run(&self) {
        self.push_before_event(self.with_framer(Framer::end));
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let blocks = self
            .with_framer(|framer| framer.process(&buffer))
            .ok_or(gst::FlowError::Flushing)?
            .inspect_err(|error| gst::error!(CAT, imp = self, "{buffer:?}: {error}"))?;
        self.push(blocks)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;

        gst::log!(CAT, obj = self.sinkpad, "{event:?}");
        match event.view() {
            EventView::Caps(caps) => return self.sink_caps(caps.caps()),
            EventView::Segment(segment) => {
                let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() else {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        [
                            "a segment in {:?}, expected time",
                            segment.segment().format()
                        ]
                    );
                    return false;
                };
                if self.with_framer(|framer| framer.segment() != Some(segment)) == Some(true) {
                    self.end_run();
                    self.with_framer(|framer| framer.set_segment(segment.clone()));
                }
            }
            EventView::FlushStop(_) => {
                self.with_framer(Framer::flush);
            }
            EventView::StreamStart(_)
            | EventView::Gap(_)
            | EventView::Eos(_)
            | EventView::SegmentDone(_) => {
                self.end_run();
            }
            EventView::CustomDownstream(custom)
                if custom
                    .structure()
                    .is_some_and(|s| s.name().starts_with("vita-")) =>
            {
                self.push_before_event(self.with_framer(Framer::take_pending));
            }
            _ => {}
        }
        gst::Pad::event_default(&self.sinkpad, Some(&*self.obj()), event)
    }

    fn sink_caps(&self, caps: &gst::CapsRef) -> bool {
        let name = caps.structure(0).and_then(|s| s.get::<&str>("format").ok());
        let format = match name {
            Some("F32LE") => SampleFormat::F32Le,
            Some("S16LE") => SampleFormat::S16Le,
            _ => {
                gst::error!(CAT, imp = self, "{caps}: expected format F32LE or S16LE");
                return false;
            }
        };
        if self.with_framer(|framer| framer.format()) == Some(Some(format)) {
            return true;
        }
        self.end_run();
        match self.with_framer(|framer| framer.configure(format)) {
            Some(caps) => self.srcpad.push_event(gst::event::Caps::new(&caps)),
            None => false,
        }
    }

    fn src_query(&self, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(latency) = query.view_mut() else {
            return gst::Pad::query_default(&self.srcpad, Some(&*self.obj()), query);
        };
        let Some(own) = self.with_framer(|framer| framer.latency()) else {
            return false;
        };
        common::add_latency(&self.sinkpad, latency, own)
    }

    fn stats(&self) -> gst::Structure {
        let stats = self.with_framer(|framer| framer.stats).unwrap_or_default();
        let Stats {
            samples,
            frames,
            buffers,
            runs,
            dropped_frames,
        } = stats;
        gst::Structure::builder("vitamel-stats")
            .field("samples", samples)
            .field("frames", frames)
            .field("buffers", buffers)
            .field("runs", runs)
            .field("dropped-frames", dropped_frames)
            .build()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Mel {
    const NAME: &'static str = "GstVitaMel";
    type Type = super::Mel;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let template = klass.pad_template("sink").expect("it is registered below");
        let sinkpad = gst::Pad::builder_from_template(&template)
            .chain_function(|_, parent, buffer| {
                Mel::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |mel| mel.chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Mel::catch_panic_pad_function(parent, || false, |mel| mel.sink_event(event))
            })
            .build();
        let template = klass.pad_template("src").expect("it is registered below");
        let srcpad = gst::Pad::builder_from_template(&template)
            .query_function(|_, parent, query| {
                Mel::catch_panic_pad_function(parent, || false, |mel| mel.src_query(query))
            })
            .flags(gst::PadFlags::FIXED_CAPS)
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            framer: Mutex::default(),
        }
    }
}

impl ObjectImpl for Mel {
    fn constructed(&self) {
        self.parent_constructed();
        common::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let default = Settings::default();
            vec![
                glib::ParamSpecEnum::builder_with_default("frontend", default.frontend)
                    .nick("Front end")
                    .blurb("Which features are computed")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("frames-per-buffer")
                    .nick("Frames per buffer")
                    .blurb("Frames of 10 ms in an output buffer; each but the first adds 10 ms of latency")
                    .minimum(1)
                    .maximum(MAX_FRAMES_PER_BUFFER)
                    .default_value(default.frames_per_buffer)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecFloat::builder("dither")
                    .nick("Dither")
                    .blurb(
                        "Standard deviation of the noise added to each frame, in 16-bit sample steps \
                         (frontend=whale; the same noise in each run)",
                    )
                    .minimum(0.0)
                    .maximum(32_768.0)
                    .default_value(default.dither)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Since the element started: samples taken, frames and buffers made, runs of contiguous audio, \
                         frames that downstream did not accept",
                    )
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings();
        match pspec.name() {
            "frontend" => settings.frontend = value.get().expect("checked by glib"),
            "frames-per-buffer" => {
                settings.frames_per_buffer = value.get().expect("checked by glib")
            }
            "dither" => settings.dither = value.get().expect("checked by glib"),
            _ => unreachable!("no such property is registered"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "frontend" => self.settings().frontend.to_value(),
            "frames-per-buffer" => self.settings().frames_per_buffer.to_value(),
            "dither" => self.settings().dither.to_value(),
            "stats" => self.stats().to_value(),
            _ => unreachable!("no such property is registered"),
        }
    }
}

impl GstObjectImpl for Mel {}

impl ElementImpl for Mel {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "VITA mel filterbank",
                "Filter/Analyzer/Audio",
                "Turns 16 kHz mono audio into log-mel filterbank frames while it streams",
                "vita-stream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let audio = gst_audio::AudioCapsBuilder::new_interleaved()
                .format_list([gst_audio::AudioFormat::F32le, gst_audio::AudioFormat::S16le])
                .rate(SAMPLE_RATE_HZ)
                .channels(1)
                .build();
            let tensors = gst::Caps::builder("other/tensors")
                .field("format", "static")
                .field("num_tensors", 1i32)
                .field("types", "float32")
                .build();
            common::always_pads(&audio, &tensors)
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            let settings = *self.settings();
            let framer = settings.framer().map_err(|error| {
                gst::element_imp_error!(self, gst::LibraryError::Settings, ["{error}"]);
                gst::StateChangeError
            })?;
            *lock(&self.framer) = Some(framer);
        }
        self.parent_change_state(transition)
    }
}
