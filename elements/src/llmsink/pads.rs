//! What the sink knows of its pads: where each is, which have come to their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

/// One pad.
#[derive(Debug)]
pub(super) struct PadState {
    pub pad: gst::Pad,
    pub caps: Option<gst::Caps>,
    /// `None`: none yet, or one that is not of time.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Stream time up to which everything has come.
    pub position: Option<gst::ClockTime>,
    pub is_eos: bool,
    /// Data is refused, and who waits gives up.
    pub is_flushing: Arc<AtomicBool>,
    /// What its thread waits for with `sync`.
    pub wait: Option<gst::SingleShotClockId>,
}

impl PadState {
    fn new(pad: gst::Pad, is_flushing: bool) -> Self {
        Self {
            pad,
            caps: None,
            segment: None,
            position: None,
            is_eos: false,
            is_flushing: Arc::new(AtomicBool::new(is_flushing)),
            wait: None,
        }
    }

    pub fn stop(&mut self) {
        self.is_flushing.store(true, Ordering::SeqCst);
        if let Some(wait) = self.wait.take() {
            wait.unschedule();
        }
    }

    /// Ready for a stream that begins anew.
    pub fn start(&mut self) {
        self.segment = None;
        self.position = None;
        self.is_eos = false;
        self.is_flushing.store(false, Ordering::SeqCst);
    }

    pub fn is_flushing(&self) -> bool {
        self.is_flushing.load(Ordering::SeqCst)
    }

    pub fn stream_time(&self, pts: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        self.segment.as_ref()?.to_stream_time(pts?)
    }

    pub fn running_time(&self, pts: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        self.segment.as_ref()?.to_running_time(pts?)
    }

    pub fn came_to(&mut self, time: gst::ClockTime) {
        self.position = self.position.max(Some(time));
    }

    /// A pad that nothing is linked to has no stream that could hold up others.
    fn counts(&self) -> bool {
        self.pad.is_linked()
    }
}

/// All pads by their names.
#[derive(Debug, Default)]
pub(super) struct Pads {
    pads: BTreeMap<String, PadState>,
    /// That of the last EOS event.
    seqnum: Option<gst::Seqnum>,
    is_end_told: bool,
    last_flush: Option<gst::Seqnum>,
}

impl Pads {
    pub fn add(&mut self, pad: gst::Pad, is_flushing: bool) {
        self.pads
            .insert(pad.name().into(), PadState::new(pad, is_flushing));
    }

    pub fn remove(&mut self, pad: &gst::Pad) {
        if let Some(mut state) = self.pads.remove(pad.name().as_str()) {
            state.stop();
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.pads.contains_key(name)
    }

    pub fn get(&mut self, pad: &gst::Pad) -> Option<&mut PadState> {
        self.pads.get_mut(pad.name().as_str())
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut PadState> {
        self.pads.values_mut()
    }

    /// All streams begin anew.
    pub fn start(&mut self) {
        self.all().for_each(PadState::start);
        self.is_end_told = false;
        self.last_flush = None;
    }

    /// How far all media have come. `None`: one has not begun, or all are over.
    pub fn position(&self) -> Option<gst::ClockTime> {
        let running = self.pads.values().filter(|pad| pad.counts() && !pad.is_eos);
        let positions: Option<Vec<_>> = running.map(|pad| pad.position).collect();
        positions?.into_iter().min()
    }

    /// The end of a stream.
    pub fn eos(&mut self, pad: &gst::Pad, seqnum: gst::Seqnum) {
        self.seqnum = Some(seqnum);
        if let Some(state) = self.get(pad) {
            state.is_eos = true;
        }
    }

    /// Whether all streams have come to their end; said once.
    pub fn take_end(&mut self) -> bool {
        let mut counting = self.pads.values().filter(|pad| pad.counts()).peekable();
        let is_end = counting.peek().is_some() && counting.all(|pad| pad.is_eos);
        is_end && !std::mem::replace(&mut self.is_end_told, true)
    }

    pub fn end_seqnum(&self) -> Option<gst::Seqnum> {
        self.seqnum
    }

    /// A pad is open again after a flush. `true`: this is the first pad that this flush has come to.
    pub fn flushed(&mut self, pad: &gst::Pad, seqnum: gst::Seqnum) -> bool {
        if let Some(state) = self.get(pad) {
            state.start();
        }
        self.is_end_told = false;
        self.last_flush.replace(seqnum) != Some(seqnum)
    }
}
