//! How long the elements hold the threads that stream into them, while the model is busy: a tracer on every chain function.
//!
//! ```sh
//! cargo run --release --example block_time -- talk.mp4 --model nano --copies 4 --seconds 60
//! ```
//!
//! Plays an MP4 (H.264 and AAC) in several pipelines at its own pace and prints a row of JSON for each kind of our elements: buffers, and the
//! median, 99th percentile and longest time in microseconds of a call of its chain function, without what the elements around it
//! took in that call for buffers, events and queries. Time that the thread was ready but another ran is left out (`/proc/thread-self/schedstat`), so that a busy machine does not
//! count as a block of ours; time in locks, sleeps and the arithmetic counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

#[derive(Parser)]
#[command(about = "Measure how long our elements hold a streaming thread")]
struct Args {
    file: PathBuf,
    #[arg(long, default_value = "nano")]
    model: String,
    /// The features that its ears want
    #[arg(long, default_value = "whisper")]
    frontend: String,
    /// Pipelines beside each other
    #[arg(long, default_value_t = 4)]
    copies: usize,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Nanoseconds of calls, by element factory.
static CALLS: Mutex<BTreeMap<String, Vec<u64>>> = Mutex::new(BTreeMap::new());

/// What a call is for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Chain,
    Event,
    Query,
}

/// A call that has not returned.
struct Call {
    kind: Kind,
    pad: usize,
    /// Of a chain function of ours.
    factory: Option<String>,
    begun: Instant,
    waited_ns: u64,
    /// What calls inside took.
    inner_ns: u64,
}

impl Call {
    fn begin(kind: Kind, pad: &gst::Pad) {
        let call = Self {
            kind,
            pad: pad.as_ptr().addr(),
            factory: ours(pad).filter(|_| kind == Kind::Chain),
            waited_ns: waited_ns(),
            begun: Instant::now(),
            inner_ns: 0,
        };
        OPEN.with_borrow_mut(|open| open.push(call));
    }

    fn end(kind: Kind, pad: &gst::Pad) {
        let pad = pad.as_ptr().addr();
        let call = OPEN.with_borrow_mut(|open| {
            // A call may go without telling.
            let at = open
                .iter()
                .rposition(|call| call.kind == kind && call.pad == pad)?;
            open.truncate(at + 1);
            open.pop()
        });
        let Some(call) = call else { return };
        let wall_ns = call.begun.elapsed().as_nanos() as u64;
        let took_ns = wall_ns.saturating_sub(waited_ns().saturating_sub(call.waited_ns));
        OPEN.with_borrow_mut(|open| {
            if let Some(outer) = open.last_mut() {
                outer.inner_ns += took_ns;
            }
        });
        if let (Some(factory), Ok(mut calls)) = (call.factory, CALLS.lock()) {
            let own_ns = took_ns.saturating_sub(call.inner_ns);
            calls.entry(factory).or_default().push(own_ns);
        }
    }
}

thread_local! {
    static OPEN: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// How long this thread was ready while another ran.
fn waited_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let field = text.split_whitespace().nth(1);
    field.and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn ours(pad: &gst::Pad) -> Option<String> {
    let factory = pad.parent_element()?.factory()?.name();
    factory.starts_with("vita").then(|| factory.to_string())
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct BlockTracer;

    #[glib::object_subclass]
    impl ObjectSubclass for BlockTracer {
        const NAME: &'static str = "VitaBlockTracer";
        type Type = super::BlockTracer;
        type ParentType = gst::Tracer;
    }

    impl ObjectImpl for BlockTracer {
        fn constructed(&self) {
            self.parent_constructed();
            for hook in [
                TracerHook::PadChainPre,
                TracerHook::PadChainPost,
                TracerHook::PadChainListPre,
                TracerHook::PadChainListPost,
                TracerHook::PadPushEventPre,
                TracerHook::PadPushEventPost,
                TracerHook::PadQueryPre,
                TracerHook::PadQueryPost,
            ] {
                self.register_hook(hook);
            }
        }
    }

    impl GstObjectImpl for BlockTracer {}

    type Flow = Result<gst::FlowSuccess, gst::FlowError>;

    impl TracerImpl for BlockTracer {
        fn pad_chain_pre(&self, _ts: u64, pad: &gst::Pad, _buffer: &gst::Buffer) {
            Call::begin(Kind::Chain, pad);
        }

        fn pad_chain_post(&self, _ts: u64, pad: &gst::Pad, _result: Flow) {
            Call::end(Kind::Chain, pad);
        }

        fn pad_chain_list_pre(&self, _ts: u64, pad: &gst::Pad, _list: &gst::BufferList) {
            Call::begin(Kind::Chain, pad);
        }

        fn pad_chain_list_post(&self, _ts: u64, pad: &gst::Pad, _result: Flow) {
            Call::end(Kind::Chain, pad);
        }

        fn pad_push_event_pre(&self, _ts: u64, pad: &gst::Pad, _event: &gst::Event) {
            Call::begin(Kind::Event, pad);
        }

        fn pad_push_event_post(&self, _ts: u64, pad: &gst::Pad, _result: bool) {
            Call::end(Kind::Event, pad);
        }

        fn pad_query_pre(&self, _ts: u64, pad: &gst::Pad, _query: &gst::QueryRef) {
            Call::begin(Kind::Query, pad);
        }

        fn pad_query_post(&self, _ts: u64, pad: &gst::Pad, _query: &gst::QueryRef, _result: bool) {
            Call::end(Kind::Query, pad);
        }
    }
}

glib::wrapper! {
    pub struct BlockTracer(ObjectSubclass<imp::BlockTracer>) @extends gst::Tracer, gst::Object;
}

/// The branches of `pipelines/file.launch`, with a clock in them where a camera has its own.
fn launch(args: &Args) -> String {
    let (file, model, frontend) = (args.file.display(), &args.model, &args.frontend);
    format!(
        "filesrc location=\"{file}\" ! qtdemux name=demux vitallmsink name=llm model={model}
         demux. ! queue ! h264parse ! vitaframesampler rate=1/1 ! avdec_h264 ! videoconvert ! video/x-raw,format=RGB
         ! identity sync=true ! vitaencoder model={model} ! llm.video_0
         demux. ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample ! audio/x-raw,format=F32LE,rate=16000,channels=1
         ! identity sync=true ! vitavad ! vitamel frontend={frontend} ! vitaencoder model={model} ! llm.audio_0"
    )
}

fn play(pipelines: &[gst::Element], duration: Duration) -> anyhow::Result<()> {
    for pipeline in pipelines {
        pipeline.set_state(gst::State::Playing)?;
    }
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        let buses = pipelines.iter().filter_map(|pipeline| pipeline.bus());
        for message in buses.flat_map(|bus| std::iter::from_fn(move || bus.pop())) {
            if let gst::MessageView::Error(error) = message.view() {
                anyhow::bail!("{}: {:?}", error.error(), error.debug());
            }
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    gst::init()?;
    gstvita::plugin_register_static()?;
    let tracer: BlockTracer = glib::Object::new();
    let pipelines = (0..args.copies).map(|_| gst::parse::launch(&launch(&args)));
    let pipelines: Vec<_> = pipelines
        .collect::<Result<_, _>>()
        .context("the pipeline cannot be made")?;
    let played = play(&pipelines, Duration::from_secs(args.seconds));
    for pipeline in &pipelines {
        pipeline.set_state(gst::State::Null)?;
    }
    played?;
    drop(tracer);
    let calls = CALLS.lock().map_err(|e| anyhow::anyhow!("{e}"))?;
    for (factory, calls) in calls.iter() {
        let mut sorted = calls.clone();
        sorted.sort_unstable();
        let us = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!(
            "{{\"element\":\"{factory}\",\"buffers\":{},\"median_us\":{:.1},\"p99_us\":{:.1},\"longest_us\":{:.1}}}",
            sorted.len(),
            us(0.5),
            us(0.99),
            us(1.0)
        );
    }
    Ok(())
}
