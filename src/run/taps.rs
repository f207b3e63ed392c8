//! Probes on the source's output pads: when each stream last delivered, and what it carries.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use vita_messages::kinds::{Media, MediaKind};

use super::flow::{self, Flow, StreamClock, StreamState};
use super::media;

/// The element whose output is watched. Without one of this name, all elements that bring data into the pipeline are.
pub const SOURCE: &str = "source";

/// The streams of one pipeline. Holds no reference to its elements.
pub struct Taps {
    epoch: Instant,
    /// Locked for moments only: by streaming threads when a pad comes or goes, by the supervisor when it reads the clocks.
    streams: Mutex<Vec<Arc<Stream>>>,
    /// That there were at once.
    most_streams: AtomicUsize,
    /// What has come out at the far end.
    sinks: StreamClock,
}

struct Stream {
    pad: String,
    clock: StreamClock,
    media: Mutex<Option<Media>>,
}

impl Taps {
    pub fn watch(pipeline: &gst::Pipeline, epoch: Instant) -> Arc<Self> {
        let taps = Arc::new(Self {
            epoch,
            streams: Mutex::default(),
            most_streams: AtomicUsize::new(0),
            sinks: StreamClock::new(epoch),
        });
        match pipeline.by_name(SOURCE) {
            Some(source) => taps.watch_source(&source),
            None => elements(pipeline, gst::ElementFlags::SOURCE)
                .for_each(|source| taps.watch_source(&source)),
        }
        for pad in elements(pipeline, gst::ElementFlags::SINK).flat_map(|sink| sink.sink_pads()) {
            let taps = Arc::clone(&taps);
            let buffers = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(buffers, move |_, _| {
                taps.sinks.delivered(Instant::now());
                gst::PadProbeReturn::Ok
            });
        }
        taps
    }

    fn watch_source(self: &Arc<Self>, source: &gst::Element) {
        let added = Arc::clone(self);
        source.connect_pad_added(move |_, pad| added.watch_pad(pad));
        // rtspsrc replaces its pads when it falls back from UDP to TCP.
        let removed = Arc::clone(self);
        source.connect_pad_removed(move |_, pad| {
            removed.lock().retain(|stream| stream.pad != pad.name())
        });
        source.src_pads().iter().for_each(|pad| self.watch_pad(pad));
    }

    fn watch_pad(&self, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src {
            return;
        }
        let stream = Arc::new(Stream {
            pad: pad.name().to_string(),
            clock: StreamClock::new(self.epoch),
            media: Mutex::new(pad.current_caps().and_then(|caps| media::of_caps(&caps))),
        });
        let count = {
            let mut streams = self.lock();
            streams.push(Arc::clone(&stream));
            streams.len()
        };
        self.most_streams.fetch_max(count, Ordering::Relaxed);
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Event(event)) => stream.see(event),
                _ => stream.clock.delivered(Instant::now()),
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Whether the source flows, as of `now`.
    pub fn flow(&self, now: Instant, stall_timeout: Duration) -> Flow {
        flow::judge(&self.states(), now, stall_timeout)
    }

    /// No stream is still to deliver its first buffer, nor to come back: rtspsrc adds its pads anew, one after the other, when
    /// it falls back from UDP to TCP.
    pub fn all_delivered(&self) -> bool {
        self.lock().len() >= self.most_streams.load(Ordering::Relaxed)
            && self
                .states()
                .iter()
                .all(|(_, state)| *state != StreamState::Silent)
    }

    /// Metadata is left out: it comes when there is some, so its silence is no stall.
    fn states(&self) -> Vec<(&'static str, StreamState)> {
        let streams = self.lock();
        let named = streams
            .iter()
            .filter_map(|stream| Some((stream.name()?, stream.clock.read())));
        named.collect()
    }

    /// When something last came out at the far end, or when the attempt began.
    pub fn last_out(&self) -> Instant {
        match self.sinks.read() {
            StreamState::Flowing { last } => last,
            StreamState::Silent | StreamState::Ended => self.epoch,
        }
    }

    /// The streams that the source has announced, as far as their caps tell.
    pub fn media(&self) -> Vec<Media> {
        self.lock()
            .iter()
            .filter_map(|stream| stream.media())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn see(&self, event: &gst::Event) {
        match event.view() {
            gst::EventView::Eos(_) => self.clock.ended(),
            gst::EventView::Caps(caps) => {
                let media = media::of_caps(caps.caps());
                *self.media.lock().unwrap_or_else(PoisonError::into_inner) = media;
            }
            _ => {}
        }
    }

    fn media(&self) -> Option<Media> {
        self.media
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What to call it; `None` for metadata.
    fn name(&self) -> Option<&'static str> {
        match self.media().map(|media| media.kind) {
            Some(MediaKind::Video) => Some("video"),
            Some(MediaKind::Audio) => Some("audio"),
            Some(MediaKind::Other) => None,
            None => Some("data"),
        }
    }
}

/// Elements of a kind, wherever they are, without the bins that only hold one.
fn elements(
    pipeline: &gst::Pipeline,
    kind: gst::ElementFlags,
) -> impl Iterator<Item = gst::Element> {
    let all = pipeline.iterate_recurse().into_iter().flatten();
    all.filter(move |element| {
        element.element_flags().contains(kind) && !element.pad_template_list().is_empty()
    })
}
