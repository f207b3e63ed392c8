//! From buffers and events of either kind of input to what goes into the line. Pushes and posts nothing itself.

use std::time::Instant;

use vita_model::Vita;
use vita_model::fbank::Frontend;

use super::outbox::Medium;
use super::utterance::{Collector, End, Frame, Start, Step, Utterance};
use crate::common::capture_time_ns;
use crate::common::media::{self, MediaTimes};

/// Where nothing is said, a gap says so this often.
const GAP_EVERY: gst::ClockTime = gst::ClockTime::from_mseconds(500);

const SPEECH_START: &str = "vita-speech-start";
const SPEECH_END: &str = "vita-speech-end";
const SPEECH_PAUSE: &str = "vita-speech-pause";

/// What the element is to do, in this order.
pub(super) enum Action {
    Event(gst::Event),
    Gap(gst::ClockTime, gst::ClockTime),
    Frame(Medium, gst::Buffer, gst_video::VideoInfo),
    /// Raw filterbank frames, row-major.
    Utterance(Medium, Vec<f32>),
    /// The same of what may turn out to be an utterance.
    Draft(Vec<f32>),
    Skipped,
    Rejected,
    Unfinished,
    /// An utterance lost its end.
    Cut(String),
    Warning(String),
}

enum Kind {
    Video(gst_video::VideoInfo),
    /// And the frames in a buffer.
    Frames(Collector, usize),
}

#[derive(Default)]
pub(super) struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    kind: Option<Kind>,
    /// PTS up to which gaps have told that nothing was said.
    quiet_until: Option<gst::ClockTime>,
    has_speech_events: bool,
    frames: u64,
}

impl Input {
    /// # Errors
    /// Says what the model wants instead.
    pub fn set_caps(&mut self, caps: &gst::CapsRef, vita: &Vita) -> Result<(), String> {
        let is_video = caps.structure(0).is_some_and(|s| s.name() == "video/x-raw");
        if is_video {
            vita.eyes().map_err(|error| error.to_string())?;
            let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| error.to_string())?;
            self.kind = Some(Kind::Video(info));
            return Ok(());
        }
        let fbank = &vita.ears().map_err(|error| error.to_string())?.fbank;
        let (bins, rows) = media::dimensions(caps).map_err(|error| error.to_string())?;
        let wanted = match fbank.frontend() {
            Frontend::Whale { .. } => "whale",
            Frontend::Whisper => "whisper",
        };
        let structure = caps.structure(0);
        let found = structure.and_then(|s| s.get::<&str>("frontend").ok());
        if let Some(found) = found.filter(|found| *found != wanted) {
            return Err(format!(
                "the model's ears want the features of vitamel frontend={wanted}, these are frontend={found}: set it on vitamel"
            ));
        }
        if bins != fbank.num_mel_bins() {
            return Err(format!(
                "the model's ears want frames of {} mel bins, these have {bins}",
                fbank.num_mel_bins()
            ));
        }
        if let Some(Kind::Frames(_, known)) = &mut self.kind {
            *known = rows;
        } else {
            let hop_ns =
                fbank.frame_shift() as u64 * 1_000_000_000 / u64::from(fbank.sample_rate_hz());
            let hop = gst::ClockTime::from_nseconds(hop_ns);
            let max_frames = vita.ears().map_or(0, |ears| ears.max_frames());
            self.kind = Some(Kind::Frames(Collector::new(bins, hop, max_frames), rows));
        }
        Ok(())
    }

    pub fn set_segment(&mut self, segment: gst::FormattedSegment<gst::ClockTime>) {
        self.segment = Some(segment);
    }

    /// Forgets all but the caps.
    pub fn flush(&mut self) -> Vec<Action> {
        let mut steps = Vec::new();
        if let Some(Kind::Frames(collector, _)) = &mut self.kind {
            collector.abandon(&mut steps);
        }
        self.segment = None;
        self.quiet_until = None;
        steps.into_iter().flat_map(actions).collect()
    }

    /// A serialised event that is to go on.
    pub fn event(&mut self, event: gst::Event) -> Vec<Action> {
        let Some(Kind::Frames(collector, _)) = &mut self.kind else {
            return vec![Action::Event(event)];
        };
        let mut steps = Vec::new();
        let mut before = Vec::new();
        match event.structure().map(|s| (s.name().as_str(), s)) {
            Some((SPEECH_START, structure)) => {
                self.has_speech_events = true;
                self.quiet_until = None;
                collector.start(read_start(structure), event.clone(), &mut steps);
            }
            Some((SPEECH_END, structure)) => {
                collector.end(read_end(structure, &event), &mut steps);
            }
            Some((SPEECH_PAUSE, structure)) => {
                if let Ok(at) = structure.get::<u64>("stream-time") {
                    collector.pause(gst::ClockTime::from_nseconds(at), &mut steps);
                }
            }
            _ => {
                collector.finish(&mut steps);
                let is_end = [
                    gst::EventType::Eos,
                    gst::EventType::SegmentDone,
                    gst::EventType::StreamStart,
                ]
                .contains(&event.type_());
                if is_end {
                    collector.abandon(&mut steps);
                    before.extend(self.warn_of_silence());
                }
                steps.push(Step::Event(event));
            }
        }
        before.extend(steps.into_iter().flat_map(actions));
        before
    }

    fn warn_of_silence(&mut self) -> Option<Action> {
        let frames = std::mem::take(&mut self.frames);
        (frames > 0 && !self.has_speech_events).then(|| {
            Action::Warning(format!(
                "{frames} frames came without any {SPEECH_START}: put vitavad before vitamel"
            ))
        })
    }

    pub fn buffer(&mut self, buffer: gst::Buffer) -> Result<Vec<Action>, Refused> {
        match &mut self.kind {
            None => Err(Refused::NoCaps),
            Some(Kind::Video(info)) => {
                let info = info.clone();
                Ok(vec![self.video(buffer, info)])
            }
            Some(Kind::Frames(..)) => self.filterbank(&buffer),
        }
    }

    fn video(&self, buffer: gst::Buffer, info: gst_video::VideoInfo) -> Action {
        let (pts, duration) = (buffer.pts(), buffer.duration());
        let end = pts.map(|pts| pts + duration.unwrap_or_default());
        let is_outside = |segment: &gst::FormattedSegment<gst::ClockTime>| {
            pts.is_some() && segment.clip(pts, end).is_none()
        };
        let is_outside = self.segment.as_ref().is_some_and(is_outside);
        if is_outside || buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
            return Action::Skipped;
        }
        let stream_time = |pts| self.segment.as_ref()?.to_stream_time(pts);
        let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
        let medium = Medium {
            pts,
            duration,
            times: MediaTimes {
                utterance_id: None,
                start: stream_time(pts),
                end: duration.and_then(|_| stream_time(end)),
                capture_time_ns: capture_time_ns(&buffer),
            },
            references: metas
                .map(|meta| (meta.reference_owned(), meta.timestamp(), meta.duration()))
                .collect(),
            received: Instant::now(),
        };
        Action::Frame(medium, buffer, info)
    }

    fn filterbank(&mut self, buffer: &gst::Buffer) -> Result<Vec<Action>, Refused> {
        let Some(Kind::Frames(collector, rows)) = &mut self.kind else {
            return Err(Refused::NoCaps);
        };
        let (bins, rows) = (collector.bins(), *rows);
        let map = buffer.map_readable().map_err(|_| Refused::Unreadable)?;
        let values: Vec<f32> = map
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_ne_bytes(*bytes))
            .collect();
        if map.len() != rows * bins * size_of::<f32>() {
            return Err(Refused::Size {
                found: map.len(),
                expected: rows * bins * size_of::<f32>(),
            });
        }
        let Some(pts) = buffer.pts() else {
            return Err(Refused::NoPts);
        };
        let mut steps = Vec::new();
        for (frame, nth) in values.chunks_exact(bins).zip(0u64..) {
            let offset = collector.hop() * nth;
            let references = || {
                let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
                metas
                    .map(|meta| (meta.reference_owned(), meta.timestamp() + offset))
                    .collect()
            };
            let frame = Frame {
                values: frame,
                pts: pts + offset,
                stream_time: self
                    .segment
                    .as_ref()
                    .and_then(|segment| segment.to_stream_time(pts + offset)),
            };
            collector.frame(&frame, references, &mut steps);
        }
        self.frames += rows as u64;
        let end = pts + collector.hop() * rows as u64;
        let is_quiet = !collector.is_open();
        let mut todo: Vec<_> = steps.into_iter().flat_map(actions).collect();
        if is_quiet {
            todo.extend(self.quiet(pts, end));
        }
        Ok(todo)
    }

    /// Nothing is said up to `end`.
    fn quiet(&mut self, pts: gst::ClockTime, end: gst::ClockTime) -> Option<Action> {
        let from = match self.quiet_until {
            None => pts,
            Some(until) if end >= until + GAP_EVERY || end < until => until.min(pts),
            Some(_) => return None,
        };
        self.quiet_until = Some(end);
        Some(Action::Gap(from, end))
    }
}

/// Why a buffer cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("a buffer came before its caps")]
    NoCaps,
    #[error("a buffer cannot be mapped")]
    Unreadable,
    #[error("a buffer of filterbank frames without PTS")]
    NoPts,
    #[error("a buffer of {found} bytes, its caps say {expected}")]
    Size { found: usize, expected: usize },
}

fn read_start(structure: &gst::StructureRef) -> Start {
    Start {
        utterance_id: structure.get("utterance-id").unwrap_or_default(),
        stream_time: structure
            .get::<u64>("stream-time")
            .ok()
            .map(gst::ClockTime::from_nseconds),
        capture_time_ns: structure.get("capture-time").ok(),
    }
}

fn read_end(structure: &gst::StructureRef, event: &gst::Event) -> End {
    End {
        utterance_id: structure.get("utterance-id").unwrap_or_default(),
        stream_time: structure
            .get::<u64>("stream-time")
            .ok()
            .map(gst::ClockTime::from_nseconds),
        accepted: structure.get("accepted").unwrap_or(true),
        event: event.clone(),
    }
}

fn actions(step: Step) -> Vec<Action> {
    let utterance = match step {
        Step::Event(event) => return vec![Action::Event(event)],
        Step::Draft(values) => return vec![Action::Draft(values)],
        Step::Rejected => return vec![Action::Rejected],
        Step::Unfinished => return vec![Action::Unfinished],
        Step::Utterance(utterance) => utterance,
    };
    let cut = (utterance.cut_frames > 0).then(|| {
        Action::Cut(format!(
            "utterance {} is longer than the model takes: its last {} frames of 10 ms are left out; a smaller \
             max-utterance of vitavad divides it instead",
            utterance.start.utterance_id, utterance.cut_frames
        ))
    });
    let (medium, values) = medium(utterance);
    cut.into_iter()
        .chain([Action::Utterance(medium, values)])
        .collect()
}

fn medium(utterance: Utterance) -> (Medium, Vec<f32>) {
    let references = utterance.references.into_iter();
    let medium = Medium {
        pts: Some(utterance.pts),
        duration: Some(utterance.duration),
        times: MediaTimes {
            utterance_id: Some(utterance.start.utterance_id),
            start: utterance.start.stream_time,
            end: utterance.end,
            capture_time_ns: utterance.start.capture_time_ns,
        },
        references: references
            .map(|(clock, time)| (clock, time, None))
            .collect(),
        received: Instant::now(),
    };
    (medium, utterance.values)
}
