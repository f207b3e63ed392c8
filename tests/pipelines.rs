//! The templates of `pipelines/` against a real RTSP server, with every codec and with either medium missing, and files.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::rtsp::RtspServer;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use vita_stream::config;
use vita_stream::plan::SourcePlan;
use vita_stream::run::branches;

/// Generous: encoders of a busy machine are slow.
const PATIENCE: Duration = Duration::from_secs(60);

fn media(file: &str) -> PathBuf {
    let path = vita_stream::nats_server::cache_dir()
        .unwrap()
        .join("media")
        .join(file);
    assert!(path.exists(), "{} is missing: make setup", path.display());
    path
}

/// Serves one media on a free port of loopback, for as long as it lives.
struct Server {
    context: gst::glib::MainContext,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    uri: String,
}

impl Server {
    fn start(launch: &str) -> Self {
        gst::init().unwrap();
        let context = gst::glib::MainContext::new();
        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(launch);
        factory.set_shared(true);
        server
            .mount_points()
            .unwrap()
            .add_factory("/media", factory);
        server.attach(Some(&context)).unwrap();
        let uri = format!("rtsp://127.0.0.1:{}/media", server.bound_port());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (context, stop) = (context.clone(), Arc::clone(&stop));
            // The context holds the server.
            move || {
                while !stop.load(Ordering::Relaxed) {
                    context.iteration(true);
                }
            }
        });
        Self {
            context,
            stop,
            thread: Some(thread),
            uri,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.context.wakeup();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A pipeline of a plan, and how many buffers its sinks have had.
struct Playing {
    pipeline: gst::Pipeline,
    plan: SourcePlan,
    streams_known: mpsc::Receiver<()>,
    counts: [(&'static str, Arc<AtomicUsize>); 2],
}

impl Playing {
    fn start(plan: &SourcePlan) -> Self {
        let flags = gst::ParseFlags::FATAL_ERRORS;
        let launch = branches::without_delayed_links(plan.launch.reveal());
        let pipeline = gst::parse::launch_full(&launch, None, flags).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        branches::prepare(&pipeline, plan).unwrap();
        branches::link_streams(&pipeline);
        let (known, streams_known) = mpsc::channel();
        branches::when_streams_are_known(&pipeline, move || {
            let _ = known.send(());
        });
        let counts = ["video-sink", "audio-sink"].map(|name| {
            let count = Arc::new(AtomicUsize::new(0));
            let pad = pipeline
                .by_name(name)
                .and_then(|sink| sink.static_pad("sink"));
            if let Some(pad) = pad {
                let count = Arc::clone(&count);
                pad.add_probe(
                    gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
                    move |_, _| {
                        count.fetch_add(1, Ordering::Relaxed);
                        gst::PadProbeReturn::Ok
                    },
                );
            }
            (name, count)
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            pipeline,
            plan: plan.clone(),
            streams_known,
            counts,
        }
    }

    /// Waits until each of these sinks has had that many buffers, or for the failure that comes first.
    #[track_caller]
    fn wait_for(&self, wanted: &[(&str, usize)]) -> Result<(), String> {
        let reached = |(name, wanted): &(&str, usize)| {
            self.counts
                .iter()
                .any(|(sink, count)| sink == name && count.load(Ordering::Relaxed) >= *wanted)
        };
        self.wait_until(|_| wanted.iter().all(reached))
    }

    #[track_caller]
    fn wait_for_end(&self) -> Result<(), String> {
        self.wait_until(|message| {
            message.is_some_and(|message| message.type_() == gst::MessageType::Eos)
        })
    }

    #[track_caller]
    fn wait_until(&self, done: impl Fn(Option<&gst::Message>) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let bus = self.pipeline.bus().unwrap();
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
        loop {
            let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(20), &kinds);
            if done(message.as_ref()) {
                return Ok(());
            }
            // Known before the error that follows from it, as in the supervisor.
            if self.streams_known.try_recv().is_ok() {
                branches::prune(&self.pipeline, &self.plan).map_err(|reason| reason.text)?;
            }
            if let Some(gst::MessageView::Error(error)) =
                message.as_ref().map(|message| message.view())
            {
                return Err(format!("{} ({:?})", error.error(), error.debug()));
            }
            assert!(Instant::now() < deadline, "no media: {:?}", self.counts);
        }
    }

    fn has(&self, branch: &str) -> bool {
        self.pipeline.by_name(branch).is_some()
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The plan of one source with these keys.
#[track_caller]
fn plan(keys: &str) -> SourcePlan {
    let text = format!("version = 1\n[[source]]\nname = \"test\"\n{keys}\n");
    let loaded = config::parse(Path::new("/etc/vita/test.toml"), &text, &|_| None);
    assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
    loaded.deployment.unwrap().plan().sources.remove(0)
}

fn video(encoder: &str, pay: &str) -> String {
    format!(
        "filesrc location={} ! qtdemux ! decodebin ! videoconvert ! videoscale \
         ! video/x-raw,format=I420,width=160,height=120 ! {encoder} ! {pay} name=pay0 pt=96",
        media("bikes.mp4").display()
    )
}

fn audio(encoder: &str, pay: &str) -> String {
    let file = media("jfk.wav");
    format!(
        "filesrc location={} ! wavparse ! audioconvert ! audioresample ! {encoder} ! {pay}",
        file.display()
    )
}

const H264: (&str, &str) = (
    "x264enc speed-preset=ultrafast tune=zerolatency key-int-max=12",
    "rtph264pay config-interval=-1",
);

#[test]
fn audio_of_every_codec_is_heard() {
    for (encoder, pay) in [
        (
            "audio/x-raw,rate=8000,channels=1 ! mulawenc",
            "rtppcmupay name=pay0 pt=0",
        ),
        (
            "audio/x-raw,rate=8000,channels=1 ! alawenc",
            "rtppcmapay name=pay0 pt=8",
        ),
        (
            "audio/x-raw,rate=16000,channels=1 ! avenc_g722",
            "rtpg722pay name=pay0 pt=9",
        ),
        (
            "audio/x-raw,rate=48000,channels=2 ! avenc_aac",
            "rtpmp4gpay name=pay0 pt=97",
        ),
        (
            "audio/x-raw,rate=48000,channels=2 ! avenc_aac",
            "rtpmp4apay name=pay0 pt=97",
        ),
        (
            "audio/x-raw,rate=48000,channels=1 ! opusenc",
            "rtpopuspay name=pay0 pt=97",
        ),
    ] {
        let server = Server::start(&format!("( {} )", audio(encoder, pay)));
        let playing = Playing::start(&plan(&format!("type = \"rtsp\"\nuri = \"{}\"", server.uri)));
        playing
            .wait_for(&[("audio-sink", 5)])
            .unwrap_or_else(|error| panic!("{pay}: {error}"));
        assert!(!playing.has("video") && playing.has("audio"), "{pay}");
    }
}

#[test]
fn video_of_every_codec_is_seen() {
    for (encoder, pay) in [
        H264,
        (
            "x265enc speed-preset=ultrafast tune=zerolatency key-int-max=12",
            "rtph265pay config-interval=-1",
        ),
        ("vp8enc deadline=1 keyframe-max-dist=12", "rtpvp8pay"),
        (
            "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=12",
            "rtpvp9pay",
        ),
    ] {
        let server = Server::start(&format!("( {} )", video(encoder, pay)));
        let playing = Playing::start(&plan(&format!("type = \"rtsp\"\nuri = \"{}\"", server.uri)));
        playing
            .wait_for(&[("video-sink", 2)])
            .unwrap_or_else(|error| panic!("{pay}: {error}"));
        assert!(playing.has("video") && !playing.has("audio"), "{pay}");
    }
}

fn both() -> Server {
    let sound = audio(
        "audio/x-raw,rate=8000,channels=1 ! mulawenc",
        "rtppcmupay name=pay1 pt=0",
    );
    Server::start(&format!("( {} {sound} )", video(H264.0, H264.1)))
}

#[test]
fn both_media_come_over_every_transport() {
    let server = both();
    for transport in ["tcp", "udp", "auto"] {
        let keys = format!(
            "type = \"rtsp\"\nuri = \"{}\"\ntransport = \"{transport}\"\nvideo = \"on\"\naudio = \"on\"",
            server.uri
        );
        let playing = Playing::start(&plan(&keys));
        playing
            .wait_for(&[("video-sink", 1), ("audio-sink", 5)])
            .unwrap_or_else(|error| panic!("{transport}: {error}"));
    }
}

#[test]
fn what_is_off_is_not_asked_for() {
    let server = RtspServer::start(&[]);
    let playing = Playing::start(&plan(&format!(
        "type = \"rtsp\"\nuri = \"{}/pcmu\"\nvideo = \"off\"",
        server.address
    )));
    playing.wait_for(&[("audio-sink", 50)]).unwrap();
    assert_eq!(
        playing.pipeline.by_name("source").unwrap().src_pads().len(),
        1
    );
}

#[test]
fn a_medium_that_must_be_there_is_missed() {
    let server = Server::start(&format!("( {} )", video(H264.0, H264.1)));
    let playing = Playing::start(&plan(&format!(
        "type = \"rtsp\"\nuri = \"{}\"\naudio = \"on\"",
        server.uri
    )));
    let error = playing.wait_for(&[("audio-sink", 1)]).unwrap_err();
    assert!(error.starts_with("the source has no audio, "), "{error}");
}

#[test]
fn a_source_of_which_nothing_is_left_is_missed() {
    let path = media("jfk.wav");
    let playing = Playing::start(&plan(&format!(
        "type = \"file\"\npath = \"{}\"\naudio = \"off\"",
        path.display()
    )));
    let error = playing.wait_for(&[("video-sink", 1)]).unwrap_err();
    assert_eq!(
        error,
        "the source has neither video nor audio that its pipeline takes"
    );
}

#[test]
fn a_file_without_sound_plays_to_its_end() {
    let path = media("bikes.mp4");
    let playing = Playing::start(&plan(&format!(
        "type = \"file\"\npath = \"{}\"\nrealtime = false",
        path.display()
    )));
    playing.wait_for_end().unwrap();
    playing.wait_for(&[("video-sink", 3)]).unwrap();
    assert!(!playing.has("audio"));
}

#[test]
fn a_file_without_picture_plays_to_its_end() {
    let path = media("jfk.wav");
    let playing = Playing::start(&plan(&format!(
        "type = \"file\"\npath = \"{}\"\nrealtime = false",
        path.display()
    )));
    playing.wait_for_end().unwrap();
    playing.wait_for(&[("audio-sink", 50)]).unwrap();
    assert!(!playing.has("video"));
}

#[test]
fn generated_media_flow() {
    let playing = Playing::start(&plan("type = \"test\""));
    playing
        .wait_for(&[("video-sink", 2), ("audio-sink", 20)])
        .unwrap();
}

#[test]
fn a_camera_that_is_not_there_is_an_error() {
    let loaded = config::parse(
        Path::new("/etc/vita/test.toml"),
        "version = 1\n[[source]]\nname = \"a\"\ntype = \"v4l2\"\ndevice = \"/dev/video-nowhere\"",
        &|_| None,
    );
    let plan = loaded.deployment.unwrap().plan().sources.remove(0);
    let pipeline = gst::parse::launch(plan.launch.reveal()).unwrap();
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    pipeline.set_state(gst::State::Null).unwrap();
}
