//! The element without its pads: what goes in, and what has to be pushed for it.

use std::collections::VecDeque;

use vita_model::video::FrameSelection;

use super::{
    Mode, Settings,
    caps::Media,
    clip::{Chosen, Clip},
    gop::{GopGate, Limits},
    history::{History, Request},
    not_wanted,
    parsed::ParameterSets,
    rate::{Interval, RateGrid},
    stats::{Reason, Stats},
};
use crate::common::{Moment, capture_time_ns};

type TimeSegment = gst::FormattedSegment<gst::ClockTime>;

/// Commands that wait for the streaming thread; more than this many at once are one person leaning on a button.
const MAX_COMMANDS: usize = 16;

/// Something to push or post, in this order, with no lock held.
#[derive(Debug)]
pub enum Item {
    Buffer(gst::Buffer),
    Event(gst::Event),
    Message(gst::Structure),
    Warning(&'static str),
}

/// What an event asks of the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    Request(Request),
    SpeechStart {
        stream_time_ns: Option<i64>,
    },
    SpeechEnd {
        stream_time_ns: Option<i64>,
        accepted: bool,
    },
}

impl Command {
    pub fn from_structure(structure: &gst::StructureRef) -> Option<Self> {
        let time = |field: &str| {
            let time = structure.get::<u64>(field).ok()?;
            i64::try_from(time).ok()
        };
        match structure.name().as_str() {
            "vita-frames-request" => Some(Self::Request(Request {
                count: structure
                    .get::<u32>("count")
                    .ok()
                    .map(|count| count as usize),
                start_ns: time("start-stream-time"),
                end_ns: time("end-stream-time"),
            })),
            "vita-speech-start" => Some(Self::SpeechStart {
                stream_time_ns: time("stream-time"),
            }),
            "vita-speech-end" => Some(Self::SpeechEnd {
                stream_time_ns: time("stream-time"),
                accepted: structure.get::<bool>("accepted").unwrap_or(true),
            }),
            _ => None,
        }
    }
}

/// Where `mode=clip` is between utterances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Speech {
    /// No speech event was ever seen: the clip is all of the stream.
    #[default]
    Unknown,
    Between,
    Speaking,
}

#[derive(Debug)]
pub struct Sampler {
    pub(super) media: Option<Media>,
    pub(super) segment: Option<TimeSegment>,
    pub(super) grid: RateGrid,
    pub(super) interval: Interval,
    pub(super) gate: GopGate<gst::Buffer>,
    pub(super) parameter_sets: ParameterSets,
    history: History<gst::Buffer>,
    clip: Clip<gst::Buffer>,
    speech: Speech,
    commands: VecDeque<Command>,
    warned_of_timestamps: bool,
    /// The decoder was told that nothing comes for a while.
    pub(super) still: bool,
    pub(super) stats: Stats,
}

impl Sampler {
    pub fn new(settings: &Settings) -> Self {
        Self {
            media: None,
            segment: None,
            grid: RateGrid::new(settings.rate),
            interval: Interval::default(),
            gate: GopGate::new(Limits::default()),
            parameter_sets: ParameterSets::default(),
            history: History::new(),
            clip: Clip::new(),
            speech: Speech::default(),
            commands: VecDeque::new(),
            warned_of_timestamps: false,
            still: false,
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> gst::Structure {
        let held = self.gate.held() + (self.history.len() + self.clip.len()) as u64;
        self.stats.structure(held)
    }

    /// `same_coding`: a decoder could go on with the pictures of before.
    pub fn set_media(&mut self, media: Media, same_coding: bool) {
        if !same_coding {
            let unreleased = self.gate.cut();
            self.stats.drop(Reason::NoKeyFrame, unreleased);
            self.parameter_sets = ParameterSets::default();
            self.media = Some(media);
        }
    }

    pub fn set_segment(&mut self, segment: &gst::Segment) -> Result<(), &'static str> {
        let segment = segment
            .downcast_ref::<gst::ClockTime>()
            .ok_or("segment is not in time format")?;
        if self.segment.as_ref() != Some(segment) {
            let unreleased = self.gate.cut();
            self.stats.drop(Reason::NoKeyFrame, unreleased);
            self.interval.reset();
            self.segment = Some(segment.clone());
        }
        Ok(())
    }

    /// After a flush the stream begins anew; what was held is nobody's any more.
    pub fn flush(&mut self) {
        let discarded = self.gate.reset() + self.history.clear() + self.clip.clear();
        self.stats.drop(Reason::Discarded, discarded);
        self.parameter_sets = ParameterSets::default();
        self.segment = None;
        self.grid.reset();
        self.interval.reset();
        self.speech = Speech::default();
        self.commands.clear();
    }

    /// Leaves a command to the streaming thread. Returns whether there was room.
    pub fn enqueue(&mut self, command: Command) -> bool {
        let room = self.commands.len() < MAX_COMMANDS;
        if room {
            self.commands.push_back(command);
        }
        room
    }

    pub fn run_queued(&mut self, settings: &Settings) -> Vec<Item> {
        let commands = std::mem::take(&mut self.commands);
        commands
            .into_iter()
            .flat_map(|command| self.run(settings, command))
            .collect()
    }

    pub fn run(&mut self, settings: &Settings, command: Command) -> Vec<Item> {
        match (settings.mode, command) {
            (Mode::OnDemand, Command::Request(request)) => self.release_history(settings, request),
            (Mode::Clip, Command::Request(request)) => {
                self.stats.requests += 1;
                let mut selection = settings.selection();
                if let Some(count) = request.count {
                    selection.max_frames = count.max(1);
                    selection.min_frames = selection.min_frames.min(selection.max_frames);
                }
                let dropped = request
                    .start_ns
                    .map_or(0, |start| self.clip.start_at(start));
                self.stats.drop(Reason::NotChosen, dropped);
                self.release_clip(settings, &selection, request.end_ns)
            }
            (Mode::Clip, Command::SpeechStart { stream_time_ns }) => {
                self.speech = Speech::Speaking;
                let dropped = match stream_time_ns {
                    Some(start) => self.clip.start_at(start),
                    None => self.clip.clear(),
                };
                self.stats.drop(Reason::Discarded, dropped);
                Vec::new()
            }
            (
                Mode::Clip,
                Command::SpeechEnd {
                    stream_time_ns,
                    accepted,
                },
            ) => {
                self.speech = Speech::Between;
                if accepted {
                    self.release_clip(settings, &settings.selection(), stream_time_ns)
                } else {
                    let dropped = self.clip.clear();
                    self.stats.drop(Reason::Discarded, dropped);
                    Vec::new()
                }
            }
            _ => Vec::new(),
        }
    }

    /// What is still owed when the stream ends: the clip that is open.
    pub fn end_of_stream(&mut self, settings: &Settings) -> Vec<Item> {
        let mut items = self.run_queued(settings);
        if settings.mode == Mode::Clip && self.speech != Speech::Between {
            items.extend(self.release_clip(settings, &settings.selection(), None));
        }
        let discarded = self.gate.reset() + self.clip.clear();
        self.stats.drop(Reason::Discarded, discarded);
        items
    }

    pub fn buffer(&mut self, settings: &Settings, buffer: gst::Buffer) -> Vec<Item> {
        let mut items = self.run_queued(settings);
        self.stats.received += 1;
        self.grid.set_rate(settings.rate);
        match self.media {
            Some(Media::Parsed(codec)) => self.parsed(settings, codec, buffer, &mut items),
            _ => self.raw(settings, buffer, &mut items),
        }
        items
    }

    fn raw(&mut self, settings: &Settings, buffer: gst::Buffer, items: &mut Vec<Item>) {
        let Some(time_ns) = self.time_ns(&buffer, items) else {
            self.stats.drop(Reason::NoTimestamp, 1);
            return;
        };
        if !self.is_presentable(&buffer) {
            self.stats.drop(Reason::OutsideSegment, 1);
            return;
        }
        match settings.mode {
            Mode::Rate => {
                self.interval.observe(time_ns);
                if !self.grid.is_due(time_ns, self.interval.ns()) {
                    self.stats.drop(Reason::NotDue, 1);
                    return;
                }
                self.grid.serve(time_ns, self.interval.ns());
                self.keep(settings, buffer, items);
            }
            Mode::Clip => {
                let dropped = self.clip.push(time_ns, buffer, settings.clip_capacity());
                self.stats.drop(Reason::Overflow, dropped);
            }
            Mode::OnDemand => {
                let dropped = self
                    .history
                    .push(time_ns, buffer, settings.history as usize);
                self.stats.drop(Reason::Overflow, dropped);
            }
        }
    }

    /// Position of a buffer in stream time, also before the segment's start; its place in the list of frames.
    pub(super) fn time_ns(
        &mut self,
        buffer: &gst::BufferRef,
        items: &mut Vec<Item>,
    ) -> Option<i64> {
        let Some(time) = buffer.pts().or(buffer.dts()) else {
            if !std::mem::replace(&mut self.warned_of_timestamps, true) {
                items.push(Item::Warning(
                    "a frame has neither PTS nor DTS and can't be sampled; such frames are counted in stats",
                ));
            }
            return None;
        };
        let stream_time = match &self.segment {
            Some(segment) => match segment.to_stream_time_full(time)? {
                gst::Signed::Positive(time) => return i64::try_from(time.nseconds()).ok(),
                gst::Signed::Negative(time) => -i64::try_from(time.nseconds()).ok()?,
            },
            None => i64::try_from(time.nseconds()).ok()?,
        };
        Some(stream_time)
    }

    pub(super) fn is_presentable(&self, buffer: &gst::BufferRef) -> bool {
        let time = buffer.pts().or(buffer.dts());
        let end = time.map(|time| time + buffer.duration().unwrap_or(gst::ClockTime::ZERO));
        !buffer.flags().contains(gst::BufferFlags::DECODE_ONLY)
            && !not_wanted::is_marked(buffer)
            && self
                .segment
                .as_ref()
                .is_none_or(|segment| segment.clip(time, end).is_some())
    }

    pub(super) fn keep(&mut self, settings: &Settings, buffer: gst::Buffer, items: &mut Vec<Item>) {
        self.stats.kept += 1;
        if settings.post_messages {
            items.push(Item::Message(self.message(settings, &buffer)));
        }
        items.push(Item::Buffer(buffer));
    }

    fn message(&self, settings: &Settings, buffer: &gst::BufferRef) -> gst::Structure {
        let capture_time = capture_time_ns(buffer);
        let moment = match &self.segment {
            Some(segment) => Moment::new(segment, buffer.pts().or(buffer.dts()), capture_time),
            None => Moment {
                capture_time_ns: capture_time,
                ..Moment::default()
            },
        };
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        moment
            .add_to(gst::Structure::builder("vita-frame"))
            .field("reason", settings.mode.reason())
            .field("kept", self.stats.kept)
            .field("keyframe", keyframe)
            .build()
    }

    fn release_history(&mut self, settings: &Settings, request: Request) -> Vec<Item> {
        self.stats.requests += 1;
        let answer = self.history.answer(request);
        self.stats.drop(Reason::Overflow, answer.passed_over);
        let frames = answer
            .frames
            .into_iter()
            .map(|frame| Chosen { frame, repeat: 1 })
            .collect();
        self.release(settings, frames)
    }

    fn release_clip(
        &mut self,
        settings: &Settings,
        selection: &FrameSelection,
        end_ns: Option<i64>,
    ) -> Vec<Item> {
        let (frames, passed_over) = self.clip.finish(selection, end_ns);
        self.stats.drop(Reason::NotChosen, passed_over);
        self.release(settings, frames)
    }

    /// Announces frames that belong together, then the frames.
    fn release(&mut self, settings: &Settings, frames: Vec<Chosen<gst::Buffer>>) -> Vec<Item> {
        let time = |chosen: Option<&Chosen<gst::Buffer>>| {
            let segment = self.segment.as_ref()?;
            segment.to_stream_time(chosen?.frame.pts().or(chosen?.frame.dts()))
        };
        let announcement = gst::Structure::builder("vita-frames")
            .field("reason", settings.mode.reason())
            .field("frames", frames.len() as u32)
            .field(
                "repeat",
                gst::Array::new(frames.iter().map(|chosen| chosen.repeat)),
            )
            .field_if_some("start-stream-time", time(frames.first()))
            .field_if_some("end-stream-time", time(frames.last()))
            .build();
        let mut items = vec![Item::Event(gst::event::CustomDownstream::new(announcement))];
        for chosen in frames {
            self.keep(settings, chosen.frame, &mut items);
        }
        items
    }
}
