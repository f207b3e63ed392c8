//! Files to pictures and samples, by GStreamer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use gst::prelude::*;
use gst_app::AppSink;
use image::RgbImage;

use super::ClipFrame;

const SAMPLE_RATE_HZ: u64 = 16_000;

/// Longer sound is refused: an hour is 230 MB.
const MAX_SAMPLES: usize = 3600 * SAMPLE_RATE_HZ as usize;

/// How often the bus is looked at while nothing comes.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);

/// Sound as the model takes it.
#[derive(Clone, Debug, Default)]
pub struct Sound {
    /// In [−1, 1], 16 kHz.
    pub samples: Vec<f32>,
    /// Of `samples`, where speech is; empty when it was not looked for.
    pub utterances: Vec<std::ops::Range<usize>>,
}

/// The sound of a file. `finds_speech`: also where somebody speaks in it.
pub fn sound(path: &Path, finds_speech: bool) -> anyhow::Result<Sound> {
    let vad = if finds_speech { "! vitavad" } else { "" };
    let decoder = Decoder::new(
        path,
        Medium::Sound,
        &format!(
            "filesrc name=file ! decodebin name=decoder  audioconvert name=first ! audioresample ! audio/x-raw,format=F32LE,rate={SAMPLE_RATE_HZ},channels=1 \
             {vad} ! appsink name=out sync=false max-buffers=16"
        ),
    )?;
    let mut samples = Vec::new();
    let mut start = None;
    decoder.run(|sample| {
        let buffer = sample.buffer().context("a sample without a buffer")?;
        start = start.or_else(|| stream_time(sample));
        let map = buffer.map_readable()?;
        let values = map.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x));
        samples.extend(values);
        if samples.len() > MAX_SAMPLES {
            bail!(
                "{}: more than an hour of sound; cut it into parts",
                path.display()
            );
        }
        Ok(())
    })?;
    let start = start.unwrap_or_default();
    let utterances = decoder
        .speech
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|(from, to)| {
            let index = |time: u64| {
                let samples_in = time.saturating_sub(start).saturating_mul(SAMPLE_RATE_HZ);
                usize::try_from(samples_in / 1_000_000_000).unwrap_or(usize::MAX)
            };
            index(*from).min(samples.len())..index(*to).min(samples.len())
        })
        .filter(|range| !range.is_empty())
        .collect();
    Ok(Sound {
        samples,
        utterances,
    })
}

/// A still picture: the first frame of a file.
pub fn picture(path: &Path) -> anyhow::Result<RgbImage> {
    let decoder = Decoder::new(
        path,
        Medium::Video,
        "filesrc name=file ! decodebin name=decoder  videoconvert name=first ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=1",
    )?;
    let mut first = None;
    decoder.run(|sample| {
        if first.is_none() {
            first = Some(rgb(sample)?);
        }
        Ok(())
    })?;
    first.with_context(|| format!("{}: no frame in it", path.display()))
}

/// The frames of a file that the model's clip rule chooses. Up to a minute the candidates are those next to whole seconds,
/// as the rule has it; of longer files they are spread wider, so that they fit into memory.
pub fn clip(path: &Path) -> anyhow::Result<Vec<ClipFrame>> {
    let decoder = Decoder::new(
        path,
        Medium::Video,
        "filesrc name=file ! decodebin name=decoder \
         vitaframesampler name=first mode=clip history=64 post-messages=false \
         ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=4",
    )?;
    let mut frames: Vec<ClipFrame> = Vec::new();
    decoder.run(|sample| {
        frames.push(ClipFrame {
            picture: rgb(sample)?,
            stream_time_ns: stream_time(sample).unwrap_or_default(),
            repeat: 1,
        });
        Ok(())
    })?;
    if frames.is_empty() {
        bail!("{}: no frame in it", path.display());
    }
    let repeats = decoder
        .repeats
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for (frame, repeat) in frames.iter_mut().zip(repeats.iter()) {
        frame.repeat = *repeat;
    }
    Ok(frames)
}

fn stream_time(sample: &gst::Sample) -> Option<u64> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let time = segment.to_stream_time(sample.buffer()?.pts()?)?;
    Some(time.nseconds())
}

fn rgb(sample: &gst::Sample) -> anyhow::Result<RgbImage> {
    let caps = sample.caps().context("a frame without caps")?;
    let info = gst_video::VideoInfo::from_caps(caps)?;
    let buffer = sample.buffer().context("a frame without a buffer")?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
    gstvita::common::rgb_picture(&frame).context("a frame that is shorter than its caps say")
}

/// What is taken from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Sound,
    Video,
}

impl Medium {
    fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Video => "video",
        }
    }

    fn of(caps: &gst::CapsRef) -> Option<Self> {
        match caps.structure(0)?.name().split_once('/')?.0 {
            "audio" => Some(Self::Sound),
            "video" | "image" => Some(Self::Video),
            _ => None,
        }
    }
}

/// A pipeline from a file to an appsink. Stopped when dropped.
struct Decoder {
    pipeline: gst::Pipeline,
    file: String,
    medium: Medium,
    out: AppSink,
    /// The file has said which streams it has, and none is of the medium.
    has_none: Arc<AtomicBool>,
    /// Start and end of accepted utterances, nanoseconds of stream time.
    speech: Arc<Mutex<Vec<(u64, u64)>>>,
    /// How often the model sees each frame.
    repeats: Arc<Mutex<Vec<u32>>>,
}

impl Decoder {
    fn new(path: &Path, medium: Medium, launch: &str) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        std::fs::File::open(path).with_context(|| format!("cannot read {file}"))?;
        let pipeline = gst::parse::launch(launch).context("GStreamer lacks an element")?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow::anyhow!("not a pipeline: {launch}"))?;
        let element = |name: &str| {
            let found = pipeline.by_name(name);
            found.with_context(|| format!("no element {name} in {launch}"))
        };
        element("file")?.set_property("location", path);
        let out = element("out")?
            .downcast::<AppSink>()
            .map_err(|_| anyhow::anyhow!("no appsink in {launch}"))?;
        let has_none = choose_stream(&pipeline, &element("decoder")?, &element("first")?, medium);
        let decoder = Self {
            pipeline,
            file,
            medium,
            out,
            has_none,
            speech: Arc::default(),
            repeats: Arc::default(),
        };
        decoder.listen()?;
        Ok(decoder)
    }

    /// Gathers what our elements say beside the media.
    fn listen(&self) -> anyhow::Result<()> {
        let repeats = self.repeats.clone();
        let pad = self.out.static_pad("sink").context("an appsink's pad")?;
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && let Some(structure) = event.structure()
                && structure.name() == "vita-frames"
                && let Ok(array) = structure.get::<gst::Array>("repeat")
            {
                let counts = array.iter().filter_map(|value| value.get::<u32>().ok());
                let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
                repeats.extend(counts);
            }
            gst::PadProbeReturn::Ok
        });
        let speech = self.speech.clone();
        let bus = self.pipeline.bus().context("a pipeline's bus")?;
        bus.set_sync_handler(move |_, message| {
            let gst::MessageView::Element(element) = message.view() else {
                return gst::BusSyncReply::Pass;
            };
            if let Some(utterance) = element.structure().and_then(accepted) {
                let mut speech = speech.lock().unwrap_or_else(PoisonError::into_inner);
                speech.push(utterance);
            }
            gst::BusSyncReply::Drop
        });
        Ok(())
    }

    /// Hands out the samples until the file ends.
    fn run(&self, mut each: impl FnMut(&gst::Sample) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let bus = self.pipeline.bus().context("a pipeline's bus")?;
        // An error of the change is on the bus, and says more there.
        let _ = self.pipeline.set_state(gst::State::Playing);
        loop {
            if let Some(sample) = self.out.try_pull_sample(POLL) {
                each(&sample)?;
                continue;
            }
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                return Err(self.failure(&message));
            }
            if self.out.is_eos() {
                return Ok(());
            }
            if self.has_none.load(Ordering::Acquire) {
                bail!("{}: no {} in it", self.file, self.medium.name());
            }
        }
    }

    fn failure(&self, message: &gst::Message) -> anyhow::Error {
        let gst::MessageView::Error(error) = message.view() else {
            return anyhow::anyhow!("{}: no {} in it", self.file, self.medium.name());
        };
        anyhow::anyhow!(
            "{}: no {} that can be decoded: {}; `vita doctor` shows which decoders are missing",
            self.file,
            self.medium.name(),
            error.error().message()
        )
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // A pipeline on its way down has nothing left to tell.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Links the first stream of the medium to `first`; the others are not decoded. What is returned turns true when there
/// is none.
fn choose_stream(
    pipeline: &gst::Pipeline,
    decoder: &gst::Element,
    first: &gst::Element,
    medium: Medium,
) -> Arc<AtomicBool> {
    let decoders = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER,
        gst::Rank::MARGINAL,
    );
    decoder.connect("autoplug-continue", false, move |values| {
        let caps = values.get(2)?.get::<gst::Caps>().ok()?;
        let is_other = Medium::of(&caps).is_some_and(|other| other != medium);
        // Containers are called video, too.
        let goes_on = !is_other || !decoders.iter().any(|d| d.can_sink_any_caps(&caps));
        Some(goes_on.to_value())
    });
    let sink = first.static_pad("sink");
    let target = sink.clone();
    let pipeline = pipeline.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let wanted = target.as_ref().filter(|target| !target.is_linked());
        match wanted.filter(|_| Medium::of(&caps) == Some(medium)) {
            // What does not fit is told by its element.
            Some(target) => drop(pad.link(target)),
            None => throw_away(&pipeline, pad),
        }
    });
    let has_none = Arc::new(AtomicBool::new(false));
    let none = has_none.clone();
    decoder.connect("no-more-pads", false, move |_| {
        let is_linked = sink.as_ref().is_some_and(|sink| sink.is_linked());
        none.store(!is_linked, Ordering::Release);
        None
    });
    has_none
}

/// A stream that goes nowhere would stop the others of its file.
fn throw_away(pipeline: &gst::glib::WeakRef<gst::Pipeline>, pad: &gst::Pad) {
    let made = gst::ElementFactory::make("fakesink")
        .property("async", false)
        .build();
    let (Some(pipeline), Ok(sink)) = (pipeline.upgrade(), made) else {
        return;
    };
    if pipeline.add(&sink).is_ok()
        && let Some(target) = sink.static_pad("sink")
    {
        let _ = pad.link(&target);
        let _ = sink.sync_state_with_parent();
    }
}

/// Start and end of an utterance that is long enough.
fn accepted(structure: &gst::StructureRef) -> Option<(u64, u64)> {
    let is_end = structure.name() == "vita-speech-end";
    if !is_end || !structure.get::<bool>("accepted").unwrap_or(false) {
        return None;
    }
    let start = structure.get::<u64>("start-stream-time").ok()?;
    let duration = structure.get::<u64>("duration").ok()?;
    Some((start, start.saturating_add(duration)))
}
