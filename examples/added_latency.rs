//! What our elements add to the latency of a stream, beside the model's own time.
//!
//! ```sh
//! cargo run --release --example added_latency -- talk.wav --model nano
//! ```
//!
//! Pushes buffers through each element alone and prints a row of JSON for each: how many were measured, median and 95th percentile in
//! microseconds from a buffer going in to what it lets out. `vitaencoder` is shown the same picture and told the same words again and
//! again, so the model encodes them once and is found done after that; the picture's copying and scaling count. `vitallmsink` hears
//! utterances that are too short to be judged: from the buffer to the message on the bus, by way of the model's thread.
//! The file is speech, 16 kHz, mono, 16 bits. What `vitavad` holds back to know of a start in time is in the latency query, and not in here.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use gst::prelude::*;

#[derive(Parser)]
#[command(about = "Measure what our elements add to the latency of a stream")]
struct Args {
    /// Speech: WAV, 16 kHz, mono, 16 bits
    file: PathBuf,
    #[arg(long, default_value = "nano")]
    model: String,
    /// The features that its ears want
    #[arg(long, default_value = "whisper")]
    frontend: String,
    /// Frames and utterances through encoder and sink
    #[arg(long, default_value_t = 200)]
    count: u64,
}

const PATIENCE: Duration = Duration::from_secs(60);
const FRAME: (u64, u64) = (320, 240);

fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

/// A pad that pushes into an element.
fn feed(element: &gst::Element, caps: &str) -> anyhow::Result<gst::Pad> {
    let pad = gst::Pad::builder(gst::PadDirection::Src)
        .name("feed")
        .build();
    let sink = element.static_pad("sink").context("a sink pad")?;
    pad.link(&sink)?;
    pad.set_active(true)?;
    let caps: gst::Caps = caps.parse()?;
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    pad.push_event(gst::event::StreamStart::new("measured"));
    pad.push_event(gst::event::Caps::new(&caps));
    pad.push_event(gst::event::Segment::new(&segment));
    Ok(pad)
}

fn buffer(bytes: Vec<u8>, pts: gst::ClockTime, duration: gst::ClockTime) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(pts);
        buffer.set_duration(duration);
    }
    buffer
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |share: f64| match times.len() {
        0 => 0.0,
        count => times[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e6,
    };
    let (count, median, p95, longest) = (times.len(), us(0.5), us(0.95), us(1.0));
    println!(
        "{{\"element\":\"{name}\",\"count\":{count},\"median_us\":{median:.1},\"p95_us\":{p95:.1},\"longest_us\":{longest:.1}}}"
    );
}

/// Elements that let out in the call in which something comes in: until the first that it lets out.
fn measure_through(
    launch: &str,
    caps: &str,
    buffers: impl Iterator<Item = gst::Buffer>,
) -> anyhow::Result<()> {
    let bin = gst::parse::bin_from_description(
        &format!("{launch} ! fakesink sync=false async=false"),
        true,
    )?;
    let element = bin
        .children()
        .into_iter()
        .find(|e| e.name().starts_with("vita"));
    let element = element.context("an element of ours")?;
    let begun = Arc::new(Mutex::new(None::<Instant>));
    let times = Arc::new(Mutex::new(Vec::new()));
    let (since, took) = (begun.clone(), times.clone());
    let both = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let pad = element.static_pad("src").context("a src pad")?;
    pad.add_probe(both, move |_, _| {
        if let (Ok(mut since), Ok(mut took)) = (since.lock(), took.lock()) {
            took.extend(since.take().map(|since| since.elapsed()));
        }
        gst::PadProbeReturn::Ok
    });
    bin.set_state(gst::State::Playing)?;
    let feed = feed(bin.upcast_ref(), caps)?;
    for buffer in buffers {
        *begun.lock().map_err(|e| anyhow::anyhow!("{e}"))? = Some(Instant::now());
        feed.push(buffer)?;
    }
    bin.set_state(gst::State::Null)?;
    let times = std::mem::take(&mut *times.lock().map_err(|e| anyhow::anyhow!("{e}"))?);
    report(launch.split(' ').next().unwrap_or_default(), times);
    Ok(())
}

/// An encoder and a sink behind it, and when what comes out of them.
struct Rig {
    bin: gst::Bin,
    feed: gst::Pad,
    encoded: Receiver<Instant>,
    told: Receiver<Instant>,
}

impl Rig {
    fn new(model: &str, pad: &str, caps: &str) -> anyhow::Result<Self> {
        let launch = format!(
            "vitaencoder name=encoder model={model} ! sink.{pad} vitallmsink name=sink model={model}"
        );
        let bin = gst::parse::bin_from_description(&launch, true)?;
        let encoder = bin.by_name("encoder").context("the encoder")?;
        let (sender, encoded) = channel();
        let src = encoder.static_pad("src").context("a src pad")?;
        src.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = sender.send(Instant::now());
            gst::PadProbeReturn::Ok
        });
        let (sender, told) = channel();
        let bus = gst::Bus::new();
        bus.set_sync_handler(move |_, message| {
            if message
                .structure()
                .is_some_and(|s| s.name() == "vita-noise")
            {
                let _ = sender.send(Instant::now());
            }
            gst::BusSyncReply::Drop
        });
        bin.set_bus(Some(&bus));
        bin.set_state(gst::State::Playing)?;
        let feed = feed(bin.upcast_ref(), caps)?;
        Ok(Self {
            bin,
            feed,
            encoded,
            told,
        })
    }

    fn frames(&self, count: u64) -> anyhow::Result<()> {
        let (width, height) = FRAME;
        let picture: Vec<u8> = (0..3 * width * height).map(|i| (i / 7) as u8).collect();
        let mut times = Vec::new();
        for i in 0..=count {
            let frame = buffer(picture.clone(), ms(40 * i), ms(40));
            let begun = Instant::now();
            self.feed.push(frame)?;
            let out = self.encoded.recv_timeout(PATIENCE)?;
            times.push(out.saturating_duration_since(begun));
        }
        report("vitaencoder, a frame", times.split_off(1));
        Ok(())
    }

    /// Utterances of 200 ms.
    fn utterances(&self, count: u64) -> anyhow::Result<()> {
        let (mut encoding, mut telling) = (Vec::new(), Vec::new());
        for i in 0..=count {
            let from = 1000 * i;
            let event = |name: &str, at| {
                let structure = gst::Structure::builder(name)
                    .field("utterance-id", i)
                    .field("stream-time", ms(at))
                    .field("accepted", true);
                gst::event::CustomDownstream::new(structure.build())
            };
            self.feed.push_event(event("vita-speech-start", from));
            for k in 0..20u64 {
                let values = (0..80u64).flat_map(|bin| ((k * bin) as f32 / 300.0).to_ne_bytes());
                self.feed
                    .push(buffer(values.collect(), ms(from + 10 * k), ms(10)))?;
            }
            let begun = Instant::now();
            self.feed.push_event(event("vita-speech-end", from + 200));
            let out = self.encoded.recv_timeout(PATIENCE)?;
            let told = self.told.recv_timeout(PATIENCE)?;
            encoding.push(out.saturating_duration_since(begun));
            telling.push(told.saturating_duration_since(out));
        }
        report("vitaencoder, an utterance", encoding.split_off(1));
        report("vitallmsink", telling.split_off(1));
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.bin.set_state(gst::State::Null);
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    gst::init()?;
    gstvita::plugin_register_static()?;
    let (width, height) = FRAME;
    let raw = format!("video/x-raw,format=RGB,width={width},height={height},framerate=25/1");
    let frames = (0..1000).map(|i| {
        buffer(
            vec![i as u8; (3 * width * height) as usize],
            ms(40 * i),
            ms(40),
        )
    });
    measure_through("vitaframesampler rate=25/1", &raw, frames)?;

    let sound = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let sound = sound.get(44..).context("a WAV file")?;
    let audio = "audio/x-raw,format=S16LE,rate=16000,channels=1,layout=interleaved";
    let blocks = || {
        let blocks = sound.chunks_exact(640).cycle().take(5000);
        (0..)
            .zip(blocks)
            .map(|(i, bytes)| buffer(bytes.to_vec(), ms(20 * i), ms(20)))
    };
    measure_through("vitavad", audio, blocks())?;
    measure_through(
        &format!("vitamel frontend={}", args.frontend),
        audio,
        blocks(),
    )?;

    Rig::new(&args.model, "video_0", &raw)?.frames(args.count)?;
    let mel = format!(
        "other/tensors,format=static,num_tensors=1,types=float32,dimensions=(string)80:1:1:1,framerate=100/1,frontend={}",
        args.frontend
    );
    Rig::new(&args.model, "audio_0", &mel)?.utterances(args.count)
}
