//! `vitaframesampler` in a harness: behind a decoder (`raw`), in its holding modes (`held`), and before a decoder (`coded`).

mod coded;
mod held;
mod raw;

use std::sync::Once;

use gst::prelude::*;
use gst_check::Harness;

pub const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(40);
pub const RAW_CAPS: &str = "video/x-raw,format=GRAY8,width=4,height=4,framerate=0/1";

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
}

/// A sampler with a bus of its own, playing on a test clock, with raw caps as RTSP leaves them.
pub struct Sampler {
    pub harness: Harness,
    pub bus: gst::Bus,
}

impl Sampler {
    pub fn new(properties: &str) -> Self {
        let mut sampler = Self::without_caps(properties);
        sampler.harness.set_src_caps_str(RAW_CAPS);
        sampler
    }

    pub fn without_caps(properties: &str) -> Self {
        init();
        let element = gst::parse::launch(&format!("vitaframesampler {properties}")).unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        harness.use_testclock();
        harness.play();
        Self { harness, bus }
    }

    pub fn element(&self) -> gst::Element {
        self.harness.element().unwrap()
    }

    #[track_caller]
    pub fn push(&mut self, pts: impl Into<Option<gst::ClockTime>>) {
        self.harness.push(raw_frame(pts.into())).unwrap();
    }

    /// Steady frames, 25 per second, from one time to before another.
    #[track_caller]
    pub fn push_range(&mut self, from: gst::ClockTime, to: gst::ClockTime) {
        let mut pts = from;
        while pts < to {
            self.push(pts);
            pts += FRAME;
        }
    }

    /// PTS in milliseconds of what came out since the last call.
    pub fn pulled_ms(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.harness.try_pull())
            .map(|buffer| buffer.pts().unwrap().mseconds())
            .collect()
    }

    pub fn events(&mut self) -> Vec<gst::Event> {
        std::iter::from_fn(|| self.harness.try_pull_event()).collect()
    }

    pub fn custom_events(&mut self, name: &str) -> Vec<gst::Structure> {
        self.events()
            .iter()
            .filter_map(|event| event.structure())
            .filter(|structure| structure.name() == name)
            .map(gst::StructureRef::to_owned)
            .collect()
    }

    pub fn messages(&self, kind: gst::MessageType) -> Vec<gst::Message> {
        std::iter::from_fn(|| self.bus.pop_filtered(&[kind])).collect()
    }

    pub fn frame_messages(&self) -> Vec<gst::Structure> {
        self.messages(gst::MessageType::Element)
            .iter()
            .filter_map(|message| message.structure())
            .filter(|structure| structure.name() == "vita-frame")
            .map(gst::StructureRef::to_owned)
            .collect()
    }

    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        stat(&self.element(), name)
    }

    /// Every frame has one fate or is still held.
    #[track_caller]
    pub fn assert_accounted(&self) {
        assert_accounted(&self.element());
    }
}

#[track_caller]
pub fn stat(element: &gst::Element, name: &str) -> u64 {
    element
        .property::<gst::Structure>("stats")
        .get(name)
        .unwrap()
}

#[track_caller]
pub fn assert_accounted(element: &gst::Element) {
    let stat = |name| stat(element, name);
    assert_eq!(
        stat("in"),
        stat("kept") + stat("decode-only") + stat("held") + stat("dropped"),
        "{:?}",
        element.property::<gst::Structure>("stats")
    );
}

pub fn raw_frame(pts: Option<gst::ClockTime>) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(16).unwrap();
    let frame = buffer.get_mut().unwrap();
    frame.set_pts(pts);
    frame.set_duration(FRAME);
    buffer
}

pub fn ms(milliseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(milliseconds)
}
