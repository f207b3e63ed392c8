//! One attempt at a source, from PLAYING to its end.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use vita_messages::kinds::{SourceReason, SourceReasonKind};

use super::flow::Flow;
use super::pipeline::{Control, Pipeline};
use super::source::SourceTask;
use super::{media, reason, stopped};
use crate::plan::AtEnd;

/// How often the clocks of the streams are read.
const TICK: Duration = Duration::from_millis(100);
/// Connecting, with a fall-back from UDP to TCP, may take this long even where the stall time-out is shorter.
const FIRST_MEDIA_WITHIN: Duration = Duration::from_secs(15);
/// How long after the first stream the others, and the picture's size, may be before the source is announced without them.
const OTHERS_WITHIN: Duration = Duration::from_secs(3);
/// An element that fails posts why; the failed state change may be known first.
const ERROR_WITHIN: Duration = Duration::from_secs(1);
/// From the end of a live source's streams to that of the pipeline. A branch that never got its stream never ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// From the end of a file to the end of what was asked in it: the longest answer, and the questions that wait behind it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// What a source that is told to stop gets to say its last.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
const PRUNE_WITHIN: Duration = Duration::from_secs(5);
const REWIND_WITHIN: Duration = Duration::from_secs(5);

/// How an attempt ended.
#[derive(Debug)]
pub enum End {
    Stopped,
    /// A file that plays once has.
    Finished,
    /// From the beginning, with a new pipeline and without a word.
    Again,
    /// Announced already.
    Stalled,
    Failed(SourceReason),
}

/// A pipeline at work.
pub struct Attempt {
    pipeline: Pipeline,
    began: Instant,
    up: bool,
    first_media: Option<Instant>,
    streams_known: bool,
    streams_ended: Option<Instant>,
    start_failed: Option<Instant>,
    last_warning: Option<String>,
}

impl Attempt {
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            began: Instant::now(),
            up: false,
            first_media: None,
            streams_known: pipeline.has_all_streams(),
            pipeline,
            streams_ended: None,
            start_failed: None,
            last_warning: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn into_pipeline(self) -> Pipeline {
        self.pipeline
    }

    pub async fn run(&mut self, source: &mut SourceTask) -> End {
        let mut starting = Some(self.pipeline.play());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = source.stop.clone();
        loop {
            let end = tokio::select! {
                () = stopped(&mut stop) => {
                    self.finish(source).await;
                    Some(End::Stopped)
                }
                Some(control) = self.pipeline.control.recv() => self.act(control, source).await,
                started = started(&mut starting) => {
                    self.start_failed = (!started).then(Instant::now);
                    None
                }
                Some(observed) = self.pipeline.observed.recv(), if self.up => {
                    source.observe(observed);
                    None
                }
                _ = tick.tick() => self.check(source),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn act(&mut self, control: Control, source: &SourceTask) -> Option<End> {
        match control {
            Control::Error(reason) => return Some(End::Failed(reason)),
            Control::Eos => return self.at_end(source).await,
            Control::StreamsKnown => {
                self.streams_known = true;
                return self.prune(source).await;
            }
            Control::Overload(text) => tracing::warn!(text, "overload"),
            Control::Warning(text) => {
                tracing::debug!(text, "warning");
                self.last_warning = Some(text);
            }
            Control::Latency => self.pipeline.recalculate_latency(),
            Control::ClockLost => self.pipeline.renew_clock(),
        }
        None
    }

    fn check(&mut self, source: &mut SourceTask) -> Option<End> {
        let now = Instant::now();
        if self.start_failed.is_some_and(|at| now > at + ERROR_WITHIN) {
            return Some(self.failed(
                SourceReasonKind::Pipeline,
                "the pipeline could not be started",
            ));
        }
        let stall_timeout = source.plan.stall_timeout;
        match self.pipeline.taps.flow(now, stall_timeout) {
            Flow::Waiting => {
                let within = stall_timeout.max(FIRST_MEDIA_WITHIN);
                let late = now > self.began + within;
                late.then(|| {
                    self.failed(
                        SourceReasonKind::TimedOut,
                        format!("no media within {} s", within.as_secs()),
                    )
                })
            }
            Flow::Flowing => {
                self.streams_ended = None;
                self.announce_up(now, source);
                None
            }
            Flow::Stalled { stream, silence } => {
                let text = format!("no {stream} for {:.1} s", silence.as_secs_f64());
                source.stalled(reason::new(SourceReasonKind::Stalled, text));
                Some(End::Stalled)
            }
            Flow::Ended => {
                self.announce_up(now, source);
                let ended = *self.streams_ended.get_or_insert(now);
                let drained = match source.plan.at_end {
                    AtEnd::Retry => now > ended + DRAIN_WITHIN,
                    // What was read may still be played.
                    AtEnd::Finish | AtEnd::Loop => {
                        let answered = source.plan.model.as_ref().map(|_| ANSWERED_WITHIN);
                        let within = stall_timeout + answered.unwrap_or_default();
                        now > ended.max(self.pipeline.taps.last_out()) + within
                    }
                };
                drained.then(|| match source.plan.at_end {
                    AtEnd::Retry => self.hung_up(),
                    AtEnd::Finish => End::Finished,
                    AtEnd::Loop => End::Again,
                })
            }
        }
    }

    fn announce_up(&mut self, now: Instant, source: &mut SourceTask) {
        let first = *self.first_media.get_or_insert(now);
        if self.up {
            return;
        }
        let streams = media::complete(self.pipeline.taps.media(), self.pipeline.bin());
        let is_complete = self.streams_known
            && self.pipeline.taps.all_delivered()
            && media::is_described(&streams);
        if is_complete || now > first + OTHERS_WITHIN {
            self.up = true;
            source.up(streams);
        }
    }

    async fn prune(&self, source: &SourceTask) -> Option<End> {
        match timeout(PRUNE_WITHIN, self.pipeline.prune(&source.plan)).await {
            Ok(Ok(Err(reason))) => Some(End::Failed(reason)),
            _ => None,
        }
    }

    /// The pipeline has had the end of its streams.
    async fn at_end(&mut self, source: &SourceTask) -> Option<End> {
        match source.plan.at_end {
            AtEnd::Retry => Some(self.hung_up()),
            _ if self.first_media.is_none() => {
                Some(self.failed(SourceReasonKind::Media, "it ended before any media came"))
            }
            AtEnd::Finish => Some(End::Finished),
            AtEnd::Loop => {
                self.streams_ended = None;
                let rewound = timeout(REWIND_WITHIN, self.pipeline.rewind()).await;
                (!matches!(rewound, Ok(Ok(true)))).then_some(End::Again)
            }
        }
    }

    /// A server that goes away over TCP looks like the end of a file.
    fn hung_up(&self) -> End {
        self.failed(SourceReasonKind::Ended, "the stream ended")
    }

    fn failed(&self, kind: SourceReasonKind, text: impl Into<String>) -> End {
        let mut text = text.into();
        if let Some(warning) = &self.last_warning {
            text.push_str(": ");
            text.push_str(warning);
        }
        End::Failed(reason::new(kind, text))
    }

    /// Lets the elements say what they still hold, such as the end of an utterance.
    async fn finish(&mut self, source: &SourceTask) {
        if !self.up {
            return;
        }
        self.pipeline.end();
        let ended = async {
            loop {
                tokio::select! {
                    control = self.pipeline.control.recv() => match control {
                        Some(Control::Eos | Control::Error(_)) | None => return,
                        Some(_) => {}
                    },
                    Some(observed) = self.pipeline.observed.recv() => source.observe(observed),
                }
            }
        };
        let _ = timeout(FINISH_WITHIN, ended).await;
    }
}

/// Whether the start succeeded; pending when that is known already.
async fn started(starting: &mut Option<JoinHandle<Result<(), gst::StateChangeError>>>) -> bool {
    let Some(handle) = starting else {
        return std::future::pending().await;
    };
    let started = matches!(handle.await, Ok(Ok(())));
    *starting = None;
    started
}
