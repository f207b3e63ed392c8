use std::{
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use vita_dialogue::utterance::EndReason;
use vita_model::vad::{self, SAMPLE_RATE, SileroVad};

use super::{
    delay::Output,
    settings::{SAMPLE_NS, Settings},
    stream::{SAMPLES_AT_ONCE, SampleFormat, Stream},
};
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "vitavad",
        gst::DebugColorFlags::empty(),
        Some("Voice activity detector"),
    )
});

pub struct Vad {
    sink_pad: gst::Pad,
    src_pad: gst::Pad,
    settings: Mutex<Settings>,
    /// From READY on.
    network: Mutex<Option<Arc<SileroVad>>>,
    /// From PAUSED on.
    stream: Mutex<Option<Stream>>,
}

impl Vad {
    /// Runs `work` on the stream with the current settings, then sends what came of it, without the lock.
    fn with_stream(
        &self,
        work: impl FnOnce(&mut Stream, &mut Vec<Output>),
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = lock(&self.settings).clone();
        let mut out = Vec::new();
        {
            let mut stream = lock(&self.stream);
            let stream = stream.as_mut().ok_or(gst::FlowError::Flushing)?;
            stream.set_settings(&settings);
            work(stream, &mut out);
        }
        self.send(out)
    }

    /// Messages are posted also where downstream takes nothing any more.
    fn send(&self, out: Vec<Output>) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut flow = Ok(gst::FlowSuccess::Ok);
        for output in out {
            match output {
                Output::Message(structure) => {
                    gst::debug!(CAT, imp = self, "{structure}");
                    common::post(&*self.obj(), structure);
                }
                Output::Buffer(buffer) if flow.is_ok() => flow = self.src_pad.push(buffer),
                Output::Event(event) if flow.is_ok() => {
                    self.src_pad.push_event(event);
                }
                Output::Buffer(_) | Output::Event(_) => (),
            }
        }
        flow
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        if !self.sink_pad.has_current_caps() {
            gst::element_imp_error!(
                self,
                gst::CoreError::Negotiation,
                ("audio came before its caps")
            );
            return Err(gst::FlowError::NotNegotiated);
        }
        let bytes_per_sample = lock(&self.stream)
            .as_ref()
            .ok_or(gst::FlowError::Flushing)?
            .format()
            .bytes();
        if !buffer.size().is_multiple_of(bytes_per_sample) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                (
                    "a buffer of {} bytes is no whole number of samples of {bytes_per_sample} bytes",
                    buffer.size()
                )
            );
            return Err(gst::FlowError::Error);
        }
        let is_silence = buffer.flags().contains(gst::BufferFlags::GAP);
        let samples = buffer.size() / bytes_per_sample;
        let heard = buffer.clone();
        let map = match heard.map_readable() {
            Ok(map) => map,
            Err(error) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Read,
                    ("cannot map a buffer: {error}")
                );
                return Err(gst::FlowError::Error);
            }
        };

        // A buffer is heard to its end even where downstream takes nothing: the messages go on, and positions stay
        // true. A flush forgets both.
        let mut flow = self.with_stream(|stream, out| stream.take(buffer, out));
        for at in (0..samples).step_by(SAMPLES_AT_ONCE) {
            if flow == Err(gst::FlowError::Flushing) {
                break;
            }
            let count = SAMPLES_AT_ONCE.min(samples - at);
            let range = at * bytes_per_sample..(at + count) * bytes_per_sample;
            let bytes = (!is_silence).then(|| &map[range]);
            flow = flow.and(self.with_stream(|stream, out| stream.hear(count, bytes, out)));
        }
        flow
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        use gst::EventView;

        gst::trace!(CAT, obj = pad, "{event:?}");
        let flow = match event.view() {
            EventView::Caps(caps) => match sample_format(caps.caps()) {
                Some(format) => self.with_stream(|stream, out| {
                    stream.pass(event.clone(), out);
                    stream.set_format(format);
                }),
                None => return false,
            },
            EventView::Segment(segment) => {
                let Some(time) = common::time_segment(&*self.obj(), segment) else {
                    return false;
                };
                self.with_stream(|stream, out| {
                    stream.set_segment(time.clone(), out);
                    stream.pass(event.clone(), out);
                })
            }
            EventView::Gap(gap) => {
                let (from, duration) = gap.get();
                self.with_stream(|stream, out| {
                    stream.gap_until(duration.map(|duration| from.saturating_add(duration)), out);
                    stream.pass(event.clone(), out);
                })
            }
            EventView::StreamStart(_) => self.with_stream(|stream, out| {
                stream.finish(EndReason::Gap, out);
                stream.pass(event.clone(), out);
            }),
            // The end of a segment seek is the last that comes, as EOS is.
            EventView::Eos(_) | EventView::SegmentDone(_) => self.with_stream(|stream, out| {
                stream.finish(EndReason::Eos, out);
                stream.pass(event.clone(), out);
            }),
            EventView::FlushStop(_) => {
                self.end_by_flush();
                return gst::Pad::event_default(pad, Some(&*self.obj()), event);
            }
            _ if event.is_serialized() => {
                self.with_stream(|stream, out| stream.pass(event.clone(), out))
            }
            _ => return gst::Pad::event_default(pad, Some(&*self.obj()), event),
        };
        // Downstream that is at its end has no complaint.
        matches!(flow, Ok(_) | Err(gst::FlowError::Eos))
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(query) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let own = lock(&self.settings).latency();
        common::add_latency(&self.sink_pad, query, own)
    }

    /// What is held is thrown away; who waits for the end of the utterance hears it from the bus.
    fn end_by_flush(&self) {
        let message = lock(&self.stream).as_mut().and_then(Stream::flush);
        if let Some(structure) = message {
            common::post(&*self.obj(), structure);
        }
    }

    fn load(&self) -> Result<(), gst::StateChangeError> {
        let model = lock(&self.settings).model.clone();
        match vad::shared(model.as_deref().map(Path::new)) {
            Ok(network) => {
                *lock(&self.network) = Some(network);
                Ok(())
            }
            Err(error) => {
                gst::element_imp_error!(self, gst::ResourceError::OpenRead, ("{error}"));
                Err(gst::StateChangeError)
            }
        }
    }

    fn stats(&self) -> gst::Structure {
        let stats = lock(&self.stream)
            .as_ref()
            .map(|stream| stream.stats().clone())
            .unwrap_or_default();
        gst::Structure::builder("vitavad-stats")
            .field("samples", stats.samples)
            .field("blocks", stats.blocks)
            .field("utterances", stats.utterances)
            .field("rejected", stats.rejected)
            .field("gaps", stats.gaps)
            .field(
                "speech-time",
                gst::ClockTime::from_nseconds(stats.speech * SAMPLE_NS),
            )
            .field("probability", f64::from(stats.probability))
            .build()
    }
}

/// `None` where caps are not what the pad template says; core refuses these before.
fn sample_format(caps: &gst::CapsRef) -> Option<SampleFormat> {
    match caps.structure(0)?.get("format").ok()? {
        "F32LE" => Some(SampleFormat::F32Le),
        "S16LE" => Some(SampleFormat::S16Le),
        _ => None,
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Vad {
    const NAME: &'static str = "GstVitaVad";
    type Type = super::Vad;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = |name| class.pad_template(name).expect("pad_templates() has it");
        let sink_pad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.chain(buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        let src_pad = gst::Pad::builder_from_template(&template("src"))
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self {
            sink_pad,
            src_pad,
            settings: Mutex::default(),
            network: Mutex::default(),
            stream: Mutex::default(),
        }
    }
}

impl ObjectImpl for Vad {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Since PAUSED: samples, blocks of 32 ms, utterances, those of them rejected as too short, gaps, \
                     speech-time (ns, without padding), and the last block's probability",
                )
                .read_only()
                .build();
            Settings::properties().into_iter().chain([stats]).collect()
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        let latency = settings.latency();
        settings.set(pspec.name(), value);
        let is_other_latency = settings.latency() != latency;
        drop(settings);
        if is_other_latency {
            common::post_latency(&*self.obj());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            name => lock(&self.settings).get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        common::add_pads(&*self.obj(), [&self.sink_pad, &self.src_pad]);
    }
}

impl GstObjectImpl for Vad {}

impl ElementImpl for Vad {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "VITA voice activity detector",
                "Filter/Analyzer/Audio",
                "Finds utterances with Silero VAD and marks their start and end in the stream and on the bus",
                "vita-stream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::builder("audio/x-raw")
                .field("format", gst::List::new(["F32LE", "S16LE"]))
                .field("rate", SAMPLE_RATE as i32)
                .field("channels", 1)
                .field("layout", "interleaved")
                .build();
            common::always_pads(&caps, &caps)
        });
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => self.load()?,
            gst::StateChange::ReadyToPaused => {
                let network = lock(&self.network).clone().ok_or(gst::StateChangeError)?;
                *lock(&self.stream) = Some(Stream::new(network, lock(&self.settings).clone()));
            }
            _ => (),
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => {
                self.end_by_flush();
                *lock(&self.stream) = None;
            }
            gst::StateChange::ReadyToNull => *lock(&self.network) = None,
            _ => (),
        }
        Ok(success)
    }
}
