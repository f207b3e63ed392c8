//! One stream's way through the network and the rule, without pads and locks: buffers and events in, buffers, events
//! and messages out, in order.

use std::sync::Arc;

use vita_dialogue::utterance::{EndReason, SpeechEnd, SpeechStart, UtteranceEvent, UtteranceRule};
use vita_model::vad::{BLOCK_SAMPLES, SileroState, SileroVad};

use super::{
    clock::{Anchor, Clock},
    delay::{DelayLine, Output},
    settings::{BLOCK, SAMPLE_NS, Settings},
};
use crate::common::{Moment, capture_time_ns};

/// How samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleFormat {
    F32Le,
    S16Le,
}

impl SampleFormat {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32Le => 4,
            Self::S16Le => 2,
        }
    }

    /// Appends samples to `block`; `bytes` are whole samples that fit.
    fn read(self, bytes: &[u8], block: &mut [f32]) {
        match self {
            Self::F32Le => {
                for (into, bytes) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *into = f32::from_le_bytes(*bytes);
                }
            }
            Self::S16Le => {
                for (into, bytes) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *into = f32::from(i16::from_le_bytes(*bytes)) / 32768.0;
                }
            }
        }
    }
}

/// What the `stats` property counts, since the element went to PAUSED.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    pub(super) samples: u64,
    pub(super) blocks: u64,
    pub(super) utterances: u64,
    pub(super) rejected: u64,
    pub(super) gaps: u64,
    /// Samples of speech, padding not counted.
    pub(super) speech: u64,
    /// Of the last block.
    pub(super) probability: f32,
}

pub(super) struct Stream {
    network: Arc<SileroVad>,
    state: SileroState,
    rule: UtteranceRule,
    settings: Settings,
    segment: gst::FormattedSegment<gst::ClockTime>,
    format: SampleFormat,
    /// The block that is being filled, and how far.
    block: [f32; BLOCK_SAMPLES],
    filled: usize,
    clock: Clock,
    line: DelayLine,
    /// Where the open utterance began.
    start: Moment,
    /// The pause in it that was told.
    pause: Option<u64>,
    stats: Stats,
}

impl Stream {
    pub(super) fn new(network: Arc<SileroVad>, settings: Settings) -> Self {
        Self {
            network,
            state: SileroState::default(),
            rule: UtteranceRule::new(settings.rule()).expect("settings give a valid rule"),
            settings,
            segment: gst::FormattedSegment::new(),
            format: SampleFormat::F32Le,
            block: [0.0; BLOCK_SAMPLES],
            filled: 0,
            clock: Clock::default(),
            line: DelayLine::default(),
            start: Moment::default(),
            pause: None,
            stats: Stats::default(),
        }
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn format(&self) -> SampleFormat {
        self.format
    }

    /// Holds from the next block on.
    pub(super) fn set_settings(&mut self, settings: &Settings) {
        if self.settings != *settings {
            self.settings = settings.clone();
            self.rule
                .set_settings(settings.rule())
                .expect("settings give a valid rule");
        }
    }

    /// Another way to write samples, from the next buffer on.
    pub(super) fn set_format(&mut self, format: SampleFormat) {
        self.format = format;
    }

    /// A new segment. What was said in another one has ended.
    pub(super) fn set_segment(
        &mut self,
        segment: gst::FormattedSegment<gst::ClockTime>,
        out: &mut Vec<Output>,
    ) {
        if self.segment != segment {
            self.finish(EndReason::Gap, out);
            self.segment = segment;
        }
    }

    /// An event that keeps its place among the buffers.
    pub(super) fn pass(&mut self, event: gst::Event, out: &mut Vec<Output>) {
        self.line.push_event(event);
        self.release(out);
    }

    /// No data comes before `end`. What is shorter than the longest tolerated gap is none, as a short jump of time is
    /// none.
    pub(super) fn gap_until(&mut self, end: Option<gst::ClockTime>, out: &mut Vec<Output>) {
        let Some(expected) = self.expected_pts() else {
            return;
        };
        if end.is_none_or(|end| end > expected.saturating_add(self.settings.max_gap)) {
            self.gap(out);
        }
    }

    /// Takes a buffer in; [`Self::hear`] its bytes next.
    pub(super) fn take(&mut self, buffer: gst::Buffer, out: &mut Vec<Output>) {
        let expected = self.expected_pts();
        let is_gap = match (expected, buffer.pts()) {
            (Some(expected), Some(pts)) => {
                pts.nseconds().abs_diff(expected.nseconds()) > self.settings.max_gap.nseconds()
            }
            (Some(_), None) => buffer.flags().contains(gst::BufferFlags::DISCONT),
            (None, _) => false,
        };
        if is_gap {
            self.gap(out);
        }
        // Without a time of its own a buffer follows the one before, and the first begins the segment.
        let pts = buffer.pts().or(expected).or(self.segment.start());
        if let Some(pts) = pts {
            let capture_ns = capture_time_ns(&buffer);
            self.clock.learn(Anchor {
                position: self.line.taken_in(),
                pts,
                capture_ns,
            });
        }
        self.line.push(buffer, self.format.bytes());
    }

    /// Hears samples of the buffer taken last; `bytes` are whole samples. `None`: as many of silence.
    pub(super) fn hear(
        &mut self,
        mut samples: usize,
        mut bytes: Option<&[u8]>,
        out: &mut Vec<Output>,
    ) {
        self.stats.samples += samples as u64;
        while samples > 0 {
            let free = &mut self.block[self.filled..];
            let count = samples.min(free.len());
            match &mut bytes {
                Some(bytes) => {
                    let (now, later) = bytes.split_at(count * self.format.bytes());
                    self.format.read(now, &mut free[..count]);
                    *bytes = later;
                }
                None => free[..count].fill(0.0),
            }
            samples -= count;
            self.filled += count;
            if self.filled == BLOCK_SAMPLES {
                self.judge(out);
            }
        }
        self.clock.forget_before(self.rule.settled());
        self.release(out);
    }

    /// Ends what is being said, lets out all that is held, and begins anew.
    pub(super) fn finish(&mut self, reason: EndReason, out: &mut Vec<Output>) {
        if self.filled > 0 {
            self.judge(out);
        }
        if let Some(end) = self.rule.finish(reason) {
            self.report_end(&end, out);
        }
        self.line.drain(out);
        self.forget();
    }

    /// Throws away what is held. What was being said has ended; that is a message alone, as a flush tells downstream
    /// itself.
    pub(super) fn flush(&mut self) -> Option<gst::Structure> {
        let end = self.rule.finish(EndReason::Flush);
        let structure = end.map(|end| self.close(&end));
        self.forget();
        structure
    }

    /// Where the next buffer should begin; `None` at the beginning and after a gap.
    fn expected_pts(&self) -> Option<gst::ClockTime> {
        self.clock
            .at_end(self.line.taken_in())
            .map(|anchor| anchor.pts)
    }

    fn gap(&mut self, out: &mut Vec<Output>) {
        self.stats.gaps += 1;
        self.finish(EndReason::Gap, out);
    }

    fn forget(&mut self) {
        self.state = SileroState::default();
        self.rule.reset();
        self.filled = 0;
        self.clock = Clock::default();
        self.line = DelayLine::default();
    }

    fn release(&mut self, out: &mut Vec<Output>) {
        let until = self
            .rule
            .position()
            .saturating_sub(self.settings.hold_back());
        self.line.release(until, out);
    }

    /// Judges the block; one that is not full, at the end of a stream, is filled up with silence.
    fn judge(&mut self, out: &mut Vec<Output>) {
        let samples = std::mem::take(&mut self.filled);
        self.block[samples..].fill(0.0);
        let probability = self.network.step(&mut self.state, &self.block);
        self.stats.blocks += 1;
        self.stats.probability = probability;
        match self.rule.push(samples as u64, f64::from(probability)) {
            Some(UtteranceEvent::Start(start)) => self.report_start(&start, out),
            Some(UtteranceEvent::End(end)) => self.report_end(&end, out),
            None => self.report_pause(),
        }
    }

    /// For whoever can begin to work on what may be the whole utterance. It is no news for the bus.
    fn report_pause(&mut self) {
        let before = std::mem::replace(&mut self.pause, self.rule.pause());
        let Some(at) = self.pause.filter(|_| before != self.pause) else {
            return;
        };
        let structure = gst::Structure::builder(PAUSE);
        let moment = self.moment(self.clock.at_end(at));
        let event = gst::event::CustomDownstream::new(moment.add_to(structure).build());
        self.line.mark(at, event);
    }

    fn report_start(&mut self, start: &SpeechStart, out: &mut Vec<Output>) {
        self.start = self.moment(self.clock.at(start.start));
        let structure = gst::Structure::builder(START)
            .field("utterance-id", start.utterance_id)
            .field("probability", start.probability);
        self.report(start.start, self.start.add_to(structure).build(), out);
    }

    fn report_end(&mut self, end: &SpeechEnd, out: &mut Vec<Output>) {
        let structure = self.close(end);
        self.report(end.end, structure, out);
    }

    /// Counts an utterance that has ended, and says so.
    fn close(&mut self, end: &SpeechEnd) -> gst::Structure {
        self.stats.utterances += 1;
        self.stats.rejected += u64::from(!end.accepted);
        self.stats.speech += end.offset - end.onset;
        let duration = gst::ClockTime::from_nseconds((end.end - end.start) * SAMPLE_NS);
        let structure = gst::Structure::builder(END)
            .field("utterance-id", end.utterance_id)
            .field("probability", end.probability)
            .field_if_some("start-stream-time", self.start.stream_time)
            .field("duration", duration)
            .field("accepted", end.accepted)
            .field("reason", end.reason.as_str());
        self.moment(self.clock.at_end(end.end))
            .add_to(structure)
            .build()
    }

    fn report(&mut self, position: u64, structure: gst::Structure, out: &mut Vec<Output>) {
        self.line.mark(
            position,
            gst::event::CustomDownstream::new(structure.clone()),
        );
        out.push(Output::Message(structure));
    }

    fn moment(&self, anchor: Option<Anchor>) -> Moment {
        let pts = anchor.map(|anchor| anchor.pts);
        Moment::new(
            &self.segment,
            pts,
            anchor.and_then(|anchor| anchor.capture_ns),
        )
    }
}

/// Samples that are heard under one lock: a second, so that buffers of minutes neither keep readers of `stats` waiting
/// nor pile up what they bring.
pub(super) const SAMPLES_AT_ONCE: usize = 31 * BLOCK as usize;

const START: &str = "vita-speech-start";
const END: &str = "vita-speech-end";
const PAUSE: &str = "vita-speech-pause";
