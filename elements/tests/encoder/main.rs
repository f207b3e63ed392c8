//! `vitaencoder` on the golden checkpoint: what it encodes (`frames`, `speech`), and what becomes of it when the model is
//! slow, fails, or the stream is flushed or stopped (`control`).

mod control;
mod frames;
mod speech;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use gst::prelude::*;
use gst_check::Harness;
use gstvita::common::media::{self, MediaTimes};
use vita_engine::encode::{Client, ClientSettings, Load, Stats};
use vita_engine::models::{self, Model, ModelSpec};
use vita_model::prompt::Media;

/// What is waited for comes within this time also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A place for sums to be taken in another order: frames in a batch against frames alone.
pub const TOLERANCE: f32 = 1e-4;

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
}

pub fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// Says that it is at it, and is as long as the other end of `released` is there.
fn hold_up<T>(begin: Sender<()>, released: Receiver<()>) -> Load<T> {
    Box::new(move || {
        begin.send(()).unwrap();
        let _ = released.recv();
        Err(vita_model::Error::Input("it only held the model up".into()))
    })
}

/// A copy of the golden checkpoint that no other test opens: its queue is the test's own.
pub struct OwnModel {
    pub model: Arc<Model>,
    pub folder: tempfile::TempDir,
}

impl OwnModel {
    pub fn open() -> Self {
        init();
        let folder = tempfile::tempdir().unwrap();
        copy(&tests_folder().join("golden/checkpoint"), folder.path());
        let spec = ModelSpec::named(folder.path().to_str().unwrap()).unwrap();
        Self {
            model: models::open(&spec, None).unwrap(),
            folder,
        }
    }

    pub fn stats(&self) -> Stats {
        self.model.encoder().stats()
    }

    /// Keeps the model busy until what it returns is dropped.
    pub fn block(&self) -> Blocked {
        let client = self
            .model
            .encoder()
            .client(&ClientSettings::default())
            .unwrap();
        let (begin, begun) = channel();
        let (frames, released) = channel::<()>();
        let picture = hold_up::<image::RgbImage>(begin.clone(), released);
        client.frame(picture, Box::new(|_| ())).unwrap();
        let (utterances, released) = channel::<()>();
        let features = hold_up::<Tensor>(begin, released);
        client.utterance(features, Box::new(|_| ())).unwrap();
        for _ in 0..2 {
            begun.recv_timeout(PATIENCE).unwrap();
        }
        Blocked {
            _release: [frames, utterances],
            _client: client,
        }
    }

    pub fn element(&self, properties: &str) -> gst::Element {
        let model = self.folder.path().display();
        gst::parse::launch(&format!("vitaencoder model={model} {properties}")).unwrap()
    }
}

/// A model that is busy.
pub struct Blocked {
    _release: [Sender<()>; 2],
    _client: Client,
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// The element in a harness, with a bus and a record of what it pushes in order.
pub struct Rig {
    pub harness: Harness,
    bus: gst::Bus,
    pushed: Receiver<String>,
    /// Messages taken from the bus.
    seen: Mutex<Vec<gst::Message>>,
}

impl Rig {
    pub fn new(element: &gst::Element, caps: &str) -> Self {
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let (sender, pushed) = channel();
        let sender = Mutex::new(sender);
        let both = gst::PadProbeType::BUFFER
            | gst::PadProbeType::EVENT_DOWNSTREAM
            | gst::PadProbeType::EVENT_FLUSH;
        let pad = element.static_pad("src").unwrap();
        pad.add_probe(both, move |_, info| {
            // the test may be over
            let _ = sender.lock().unwrap().send(name(info));
            gst::PadProbeReturn::Ok
        });
        let mut harness = Harness::with_element(element, Some("sink"), Some("src"));
        harness.set_src_caps_str(caps);
        Self {
            harness,
            bus,
            pushed,
            seen: Mutex::default(),
        }
    }

    pub fn element(&self) -> gst::Element {
        self.harness.element().unwrap()
    }

    /// What came out from the last call to the first of this name, that included.
    #[track_caller]
    pub fn pushed_until(&self, last: &str) -> Vec<String> {
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != last) {
            match self.pushed.recv_timeout(PATIENCE) {
                Ok(name) => names.push(name),
                Err(error) => panic!("{error}: no {last} after {names:?}"),
            }
        }
        names
    }

    /// The next buffer as a medium.
    #[track_caller]
    pub fn medium(&mut self) -> (gst::Buffer, Media, MediaTimes) {
        let buffer = self.harness.pull().unwrap();
        let caps = self.harness.sinkpad().unwrap().current_caps().unwrap();
        let (medium, times) = media::read(&buffer, &caps).unwrap();
        (buffer, medium, times)
    }

    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        stat(&self.element(), name)
    }

    #[track_caller]
    pub fn wait_for_stat(&self, name: &str, value: u64) {
        wait_until(
            || self.stat(name) == value,
            || {
                let stats = self.element().property::<gst::Structure>("stats");
                format!("{name} is not {value}: {stats}")
            },
        );
    }

    fn all_messages(&self) -> std::sync::MutexGuard<'_, Vec<gst::Message>> {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(std::iter::from_fn(|| self.bus.pop()));
        seen
    }

    /// Texts of the errors or warnings so far.
    pub fn messages(&self, kind: gst::MessageType) -> Vec<String> {
        let seen = self.all_messages();
        let of_kind = seen.iter().filter(|message| message.type_() == kind);
        of_kind.map(text).collect()
    }

    /// Structures of this name that were posted so far.
    pub fn posted(&self, name: &str) -> Vec<gst::Structure> {
        let seen = self.all_messages();
        let structures = seen.iter().filter_map(|message| message.structure());
        let named = structures.filter(|structure| structure.name() == name);
        named.map(|structure| structure.to_owned()).collect()
    }

    /// Every medium has one fate or still waits.
    #[track_caller]
    pub fn assert_accounted(&self) {
        let fates = [
            "encoded",
            "dropped",
            "failed",
            "stale",
            "discarded",
            "waiting",
        ];
        let sum: u64 = fates.iter().map(|name| self.stat(name)).sum();
        let stats = self.element().property::<gst::Structure>("stats");
        assert_eq!(self.stat("received"), sum, "{stats}");
    }
}

/// A buffer by its PTS in milliseconds, an event by its type, a custom one by its name.
fn name(info: &gst::PadProbeInfo) -> String {
    match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) => {
            format!("{}", buffer.pts().unwrap().mseconds())
        }
        Some(gst::PadProbeData::Event(event)) => match event.view() {
            gst::EventView::CustomDownstream(custom) => {
                custom.structure().unwrap().name().to_string()
            }
            gst::EventView::Gap(gap) => format!("gap {}", gap.get().0.mseconds()),
            _ => event.type_().to_string(),
        },
        _ => "?".into(),
    }
}

pub fn text(message: &gst::Message) -> String {
    match message.view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        gst::MessageView::Warning(warning) => warning.error().to_string(),
        other => format!("{other:?}"),
    }
}

#[track_caller]
pub fn stat(element: &gst::Element, name: &str) -> u64 {
    let stats: gst::Structure = element.property("stats");
    stats.get(name).unwrap()
}

#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool, problem: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{}", problem());
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    difference.max(0).unwrap().to_scalar().unwrap()
}

pub fn ms(milliseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(milliseconds)
}
