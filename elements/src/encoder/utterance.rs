//! Which filterbank frames make an utterance. Pure: frames and events in, in order, steps out.

/// Where an utterance is cut out of the frames.
pub(super) struct Collector {
    bins: usize,
    hop: gst::ClockTime,
    max_frames: usize,
    open: Option<Open>,
}

/// What a `vita-speech-start` event says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Start {
    pub utterance_id: u64,
    pub stream_time: Option<gst::ClockTime>,
    pub capture_time_ns: Option<u64>,
}

/// What a `vita-speech-end` event says, and the event, which goes on after the utterance.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub utterance_id: u64,
    pub stream_time: Option<gst::ClockTime>,
    pub accepted: bool,
    pub event: gst::Event,
}

/// One frame of filterbank values and its times.
pub(super) struct Frame<'a> {
    pub values: &'a [f32],
    pub pts: gst::ClockTime,
    pub stream_time: Option<gst::ClockTime>,
}

/// A reading of a clock at an utterance's first frame.
pub(super) type References = Vec<(gst::Caps, gst::ClockTime)>;

/// A whole utterance.
#[derive(Debug)]
pub(super) struct Utterance {
    pub start: Start,
    pub end: Option<gst::ClockTime>,
    pub pts: gst::ClockTime,
    pub duration: gst::ClockTime,
    pub references: References,
    /// Frames row-major, raw.
    pub values: Vec<f32>,
    /// Frames that were left out at its end, because the model takes no more.
    pub cut_frames: usize,
}

/// What follows from a frame or an event, in the order of the stream.
#[derive(Debug)]
pub(super) enum Step {
    Utterance(Utterance),
    Event(gst::Event),
    /// Frames of what may turn out to be the whole utterance.
    Draft(Vec<f32>),
    /// The end said that it was none.
    Rejected,
    /// It has no end, or no frames.
    Unfinished,
}

struct Open {
    start: Start,
    /// It has ended, but frames before its end are still to come: a frame is complete some milliseconds after its time.
    end: Option<End>,
    first: Option<(gst::ClockTime, References)>,
    values: Vec<f32>,
    /// Where each of them ends in stream time.
    ends: Vec<Option<gst::ClockTime>>,
    /// Frames that the model has no room for.
    excess_frames: usize,
    /// How far frames have come in stream time.
    heard: Option<gst::ClockTime>,
    /// Where it ends if nothing more is said, until all frames up to there are here.
    pause: Option<gst::ClockTime>,
}

impl Collector {
    pub fn new(bins: usize, hop: gst::ClockTime, max_frames: usize) -> Self {
        Self {
            bins,
            hop,
            max_frames,
            open: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn hop(&self) -> gst::ClockTime {
        self.hop
    }

    pub fn bins(&self) -> usize {
        self.bins
    }

    pub fn start(&mut self, start: Start, event: gst::Event, steps: &mut Vec<Step>) {
        self.finish(steps);
        self.abandon(steps);
        self.open = Some(Open {
            start,
            end: None,
            first: None,
            values: Vec::new(),
            ends: Vec::new(),
            excess_frames: 0,
            heard: None,
            pause: None,
        });
        steps.push(Step::Event(event));
    }

    pub fn end(&mut self, end: End, steps: &mut Vec<Step>) {
        self.finish(steps);
        let Some(open) = &mut self.open else {
            steps.push(Step::Event(end.event));
            return;
        };
        if open.start.utterance_id != end.utterance_id {
            self.abandon(steps);
            steps.push(Step::Event(end.event));
            return;
        }
        if !end.accepted {
            self.open = None;
            steps.extend([Step::Rejected, Step::Event(end.event)]);
            return;
        }
        let is_heard = match (open.heard, end.stream_time) {
            (Some(heard), Some(end)) => heard + self.hop > end,
            _ => true,
        };
        open.end = Some(end);
        if is_heard {
            self.finish(steps);
        }
    }

    /// The utterance may end at `at`.
    pub fn pause(&mut self, at: gst::ClockTime, steps: &mut Vec<Step>) {
        let hop = self.hop;
        let Some(open) = self.open.as_mut().filter(|open| open.end.is_none()) else {
            return;
        };
        open.pause = Some(at);
        if open.heard.is_some_and(|heard| heard + hop > at) {
            steps.extend(open.draft(self.bins));
        }
    }

    /// `references` is asked for the first frame only.
    pub fn frame(
        &mut self,
        frame: &Frame,
        references: impl FnOnce() -> References,
        steps: &mut Vec<Step>,
    ) {
        let Some(open) = &mut self.open else { return };
        let frame_end = frame.stream_time.map(|time| time + self.hop);
        let end = open.end.as_ref().and_then(|end| end.stream_time);
        if let (Some(frame_end), Some(end)) = (frame_end, end)
            && frame_end > end
        {
            self.finish(steps);
            return;
        }
        if let (Some(frame_end), Some(pause)) = (frame_end, open.pause)
            && frame_end > pause
        {
            steps.extend(open.draft(self.bins));
        }
        open.heard = frame_end;
        if let (Some(time), Some(start)) = (frame.stream_time, open.start.stream_time)
            && time < start
        {
            return;
        }
        if open.ends.len() >= self.max_frames {
            open.excess_frames += 1;
            return;
        }
        open.first.get_or_insert_with(|| (frame.pts, references()));
        open.values.extend_from_slice(frame.values);
        open.ends.push(frame_end);
    }

    /// Something came that ends the frames of an utterance whose end is known.
    pub fn finish(&mut self, steps: &mut Vec<Step>) {
        let Some(Open { end: Some(_), .. }) = &self.open else {
            return;
        };
        let Some(open) = self.open.take() else { return };
        let Some((end, open)) = open.ended() else {
            return;
        };
        steps.push(
            open.utterance(&end, self)
                .map_or(Step::Unfinished, Step::Utterance),
        );
        steps.push(Step::Event(end.event));
    }

    /// The end of an utterance will not come.
    pub fn abandon(&mut self, steps: &mut Vec<Step>) {
        if self.open.take().is_some() {
            steps.push(Step::Unfinished);
        }
    }
}

impl Open {
    fn ended(mut self) -> Option<(End, Self)> {
        Some((self.end.take()?, self))
    }

    /// What [`Self::utterance`] will give if it ends at its pause.
    fn draft(&mut self, bins: usize) -> Option<Step> {
        let pause = self.pause.take()?;
        let is_before = |end: &&Option<gst::ClockTime>| end.is_none_or(|end| end <= pause);
        let frames = self.ends.iter().take_while(is_before).count();
        let values = self.values.get(..frames * bins)?;
        (frames > 0).then(|| Step::Draft(values.to_vec()))
    }

    /// Without the frames beyond the end: it is known only after the silence that says so.
    fn utterance(mut self, end: &End, collector: &Collector) -> Option<Utterance> {
        let is_beyond = |frame_end: &Option<gst::ClockTime>| matches!((frame_end, end.stream_time), (Some(frame), Some(end)) if *frame > end);
        let frames = self.ends.iter().take_while(|end| !is_beyond(end)).count();
        let wanting = match (self.ends.last()?, end.stream_time) {
            (Some(last), Some(end)) => {
                let rest = end.saturating_sub(*last);
                (rest.nseconds() / collector.hop.nseconds()) as usize
            }
            _ => self.excess_frames,
        };
        self.values.truncate(frames * collector.bins);
        let (pts, references) = self.first.filter(|_| frames > 0)?;
        Some(Utterance {
            start: self.start,
            end: end.stream_time,
            pts,
            duration: collector.hop * frames as u64,
            references,
            values: self.values,
            cut_frames: wanting.min(self.excess_frames),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINS: usize = 2;

    fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    fn event(name: &str) -> gst::Event {
        gst::init().unwrap();
        gst::event::CustomDownstream::new(gst::Structure::new_empty(name))
    }

    struct Ran {
        collector: Collector,
        steps: Vec<Step>,
    }

    impl Ran {
        fn new(max_frames: usize) -> Self {
            Self {
                collector: Collector::new(BINS, ms(10), max_frames),
                steps: Vec::new(),
            }
        }

        fn start(mut self, id: u64, at_ms: u64) -> Self {
            let start = Start {
                utterance_id: id,
                stream_time: Some(ms(at_ms)),
                capture_time_ns: None,
            };
            let event = event("start");
            self.collector.start(start, event, &mut self.steps);
            self
        }

        fn end(mut self, id: u64, at_ms: u64, accepted: bool) -> Self {
            let end = End {
                utterance_id: id,
                stream_time: Some(ms(at_ms)),
                accepted,
                event: event("end"),
            };
            self.collector.end(end, &mut self.steps);
            self
        }

        fn frames(mut self, times_ms: impl IntoIterator<Item = u64>) -> Self {
            for at in times_ms {
                let frame = Frame {
                    values: &[at as f32; BINS],
                    pts: ms(at + 1_000),
                    stream_time: Some(ms(at)),
                };
                self.collector.frame(&frame, Vec::new, &mut self.steps);
            }
            self
        }

        /// Steps as words; an utterance by its frames' times.
        fn steps(&self) -> Vec<String> {
            let times = |values: &[f32]| -> Vec<u64> {
                let frames = values.chunks_exact(BINS);
                frames.map(|frame| frame[0] as u64).collect()
            };
            let name = |step: &Step| match step {
                Step::Draft(values) => format!("draft {:?}", times(values)),
                Step::Utterance(utterance) => {
                    assert_eq!(
                        utterance.pts,
                        ms(utterance.values[0] as u64 + 1_000),
                        "it has the PTS of its first frame"
                    );
                    let times = times(&utterance.values);
                    assert_eq!(utterance.duration, ms(10) * times.len() as u64);
                    format!("{times:?} -{}", utterance.cut_frames)
                }
                Step::Event(event) => event.structure().unwrap().name().to_string(),
                Step::Rejected => "rejected".into(),
                Step::Unfinished => "unfinished".into(),
            };
            self.steps.iter().map(name).collect()
        }
    }

    #[test]
    fn frames_from_the_start_to_the_padded_end_are_the_utterance() {
        let ran = Ran::new(99)
            .frames([0, 10])
            .start(1, 25)
            .frames([20, 30, 40, 50, 60, 70])
            .end(1, 60, true);
        assert_eq!(ran.steps(), ["start", "[30, 40, 50] -0", "end"]);
    }

    #[test]
    fn an_end_that_comes_before_its_last_frames_waits_for_them() {
        let ran = Ran::new(99).start(1, 0).frames([0, 10]).end(1, 40, true);
        assert_eq!(ran.steps(), ["start"]);
        let ran = ran.frames([20, 30, 40, 50]);
        assert_eq!(ran.steps(), ["start", "[0, 10, 20, 30] -0", "end"]);
    }

    #[test]
    fn an_end_whose_frames_never_come_is_ended_by_what_comes_instead() {
        let mut ran = Ran::new(99).start(1, 0).frames([0]).end(1, 40, true);
        ran.collector.finish(&mut ran.steps);
        let ran = ran.start(2, 100);
        assert_eq!(ran.steps(), ["start", "[0] -0", "end", "start"]);
        let ran = ran.end(2, 130, true);
        assert_eq!(ran.steps()[4..], ["unfinished", "end"]);
    }

    #[test]
    fn a_pause_gives_out_early_what_an_end_there_will() {
        let pause = |mut ran: Ran, at| {
            ran.collector.pause(ms(at), &mut ran.steps);
            ran
        };
        // Told before its last frames are here, and after frames beyond it.
        let early = pause(Ran::new(99).start(1, 0).frames([0, 10]), 40);
        assert_eq!(early.steps(), ["start"]);
        let late = pause(Ran::new(99).start(1, 0).frames([0, 10, 20, 30, 40, 50]), 40);
        for ran in [early.frames([20, 30, 40, 50]), late] {
            let drafted = ["start", "draft [0, 10, 20, 30]"];
            assert_eq!(ran.steps(), drafted);
            let ended = ran.frames([60]).end(1, 40, true);
            assert_eq!(ended.steps()[2..], ["[0, 10, 20, 30] -0", "end"]);
        }
        // It goes on after a pause.
        let ran = pause(Ran::new(99).start(1, 0).frames([0, 10]), 10).frames([20]);
        let ran = ran.end(1, 30, true);
        assert_eq!(ran.steps(), ["start", "draft [0]", "[0, 10, 20] -0", "end"]);
    }

    #[test]
    fn what_is_not_accepted_is_not_given_out() {
        let ran = Ran::new(99).start(1, 0).frames([0, 10]).end(1, 20, false);
        assert_eq!(ran.steps(), ["start", "rejected", "end"]);
    }

    #[test]
    fn a_start_without_an_end_is_abandoned_by_the_next() {
        let ran = Ran::new(99).start(1, 0).frames([0, 10]).start(2, 50);
        assert_eq!(ran.steps(), ["start", "unfinished", "start"]);
        let ran = ran.frames([50]).end(7, 60, true);
        assert_eq!(ran.steps()[3..], ["unfinished", "end"]);
        let ran = ran.end(8, 70, true);
        assert_eq!(ran.steps()[5..], ["end"]);
    }

    #[test]
    fn what_is_longer_than_the_model_takes_is_cut_and_counted() {
        let ran = Ran::new(3)
            .start(1, 0)
            .frames([0, 10, 20, 30, 40])
            .end(1, 50, true);
        assert_eq!(ran.steps(), ["start", "[0, 10, 20] -2", "end"]);
        // silence beyond the end is no loss
        let ran = Ran::new(3)
            .start(1, 0)
            .frames([0, 10, 20, 30, 40])
            .end(1, 30, true);
        assert_eq!(ran.steps(), ["start", "[0, 10, 20] -0", "end"]);
    }
}
