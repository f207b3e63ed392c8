//! One attempt at a source: its GStreamer pipeline, the bus messages that matter, and the clocks of its streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use gst::prelude::*;
use gstvita::messages::{self, Session};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::{JoinHandle, spawn_blocking};
use vita_messages::kinds::{Body, SourceReason, SourceReasonKind};

use super::redact::Redactor;
use super::taps::{SOURCE, Taps};
use super::{branches, reason};
use crate::plan::SourcePlan;

/// What elements noticed waits here until the supervisor takes it. Policy: drop-newest, counted in [`Dropped`].
const OBSERVED_CAPACITY: usize = 1024;
/// So much is kept free for what is kept: the frames of a file that is read at full speed must not crowd out its speech.
const RESERVED_FOR_EVENTS: usize = 768;
/// The first error is the cause, later ones are its consequences: drop-newest.
const CONTROL_CAPACITY: usize = 32;

/// What the supervisor has to act on.
#[derive(Debug)]
pub enum Control {
    Error(SourceReason),
    /// The model does not keep up.
    Overload(String),
    /// Said, not acted on; the last one often tells why the stream ended.
    Warning(String),
    /// The source has said which streams it has.
    StreamsKnown,
    /// Every sink has had the end of the stream.
    Eos,
    Latency,
    ClockLost,
}

/// Something an element noticed, with the moment at which it was posted.
#[derive(Debug)]
pub struct Observed {
    pub time: vita_messages::WallTime,
    pub body: Body,
}

/// What was given up, over all attempts at a source.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Observations that found the queue full.
    pub queue_full: AtomicU64,
    /// Element messages that break their contract.
    pub malformed: AtomicU64,
}

/// A pipeline that goes to NULL when it is dropped.
pub struct Pipeline {
    pipeline: gst::Pipeline,
    pub taps: Arc<Taps>,
    pub control: mpsc::Receiver<Control>,
    pub observed: mpsc::Receiver<Observed>,
    closed: bool,
}

impl Pipeline {
    /// Builds a source's pipeline, in NULL. Loads plugins: call it where blocking is allowed.
    pub fn open(
        plan: &SourcePlan,
        session: Session,
        redactor: &Redactor,
        dropped: &Arc<Dropped>,
    ) -> Result<Self, SourceReason> {
        let flags = gst::ParseFlags::FATAL_ERRORS;
        let launch = branches::without_delayed_links(plan.launch.reveal());
        let element = gst::parse::launch_full(&launch, None, flags).map_err(|error| {
            reason::new(SourceReasonKind::Pipeline, redactor.redact(error.message()))
        })?;
        let pipeline = match element.downcast::<gst::Pipeline>() {
            Ok(pipeline) => pipeline,
            Err(single) => {
                let pipeline = gst::Pipeline::new();
                pipeline
                    .add(&single)
                    .map_err(|error| reason::new(SourceReasonKind::Pipeline, error.to_string()))?;
                pipeline
            }
        };
        branches::prepare(&pipeline, plan)?;
        branches::link_streams(&pipeline);
        let taps = Taps::watch(&pipeline, Instant::now());
        let (control_tx, control) = mpsc::channel(CONTROL_CAPACITY);
        let streams_known = control_tx.clone();
        branches::when_streams_are_known(&pipeline, move || {
            let _ = streams_known.try_send(Control::StreamsKnown);
        });
        let (observed_tx, observed) = mpsc::channel(OBSERVED_CAPACITY);
        if let Some(bus) = pipeline.bus() {
            let listener = BusListener {
                control: control_tx,
                observed: observed_tx,
                dropped: Arc::clone(dropped),
                redactor: redactor.clone(),
                session,
            };
            // Nothing stays on the bus, which has no bound.
            bus.set_sync_handler(move |_, message| {
                listener.take(message);
                gst::BusSyncReply::Drop
            });
        }
        Ok(Self {
            pipeline,
            taps,
            control,
            observed,
            closed: false,
        })
    }

    /// Starts the pipeline. Devices and files are opened on the way, which may block.
    pub fn play(&self) -> JoinHandle<Result<(), gst::StateChangeError>> {
        let pipeline = self.pipeline.clone();
        spawn_blocking(move || pipeline.set_state(gst::State::Playing).map(drop))
    }

    /// Ends the streams in good order, so that elements say what they still hold; [`Control::Eos`] follows.
    pub fn end(&self) {
        let pipeline = self.pipeline.clone();
        spawn_blocking(move || pipeline.send_event(gst::event::Eos::new()));
    }

    /// Back to the beginning, in the same pipeline. Resolves to false where the source cannot seek.
    pub fn rewind(&self) -> JoinHandle<bool> {
        let pipeline = self.pipeline.clone();
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        spawn_blocking(move || pipeline.seek_simple(flags, gst::ClockTime::ZERO).is_ok())
    }

    /// Settles for the streams that the source has.
    pub fn prune(&self, plan: &SourcePlan) -> JoinHandle<Result<(), SourceReason>> {
        let (pipeline, plan) = (self.pipeline.clone(), plan.clone());
        spawn_blocking(move || branches::prune(&pipeline, &plan))
    }

    /// Live sources added late may raise the latency that sinks have to allow for.
    pub fn recalculate_latency(&self) {
        let pipeline = self.pipeline.clone();
        spawn_blocking(move || pipeline.recalculate_latency());
    }

    /// A new clock is chosen on the way through PAUSED.
    pub fn renew_clock(&self) {
        let pipeline = self.pipeline.clone();
        spawn_blocking(move || {
            let paused = pipeline.set_state(gst::State::Paused);
            paused
                .and_then(|_| pipeline.set_state(gst::State::Playing))
                .is_ok()
        });
    }

    /// Whether its streams are known from the start; otherwise [`Control::StreamsKnown`] tells when they are.
    pub fn has_all_streams(&self) -> bool {
        let source = self.pipeline.by_name(SOURCE);
        source.is_none_or(|source| {
            let pads = source.pad_template_list();
            pads.iter()
                .all(|pad| pad.presence() != gst::PadPresence::Sometimes)
        })
    }

    pub fn element(&self, name: &str) -> Option<gst::Element> {
        self.pipeline.by_name(name)
    }

    pub fn bin(&self) -> &gst::Bin {
        self.pipeline.upcast_ref()
    }

    /// Takes the pipeline down. The handle resolves when it is: a driver that hangs may keep it for ever.
    pub fn close(mut self) -> (JoinHandle<()>, mpsc::Receiver<Observed>) {
        self.closed = true;
        let pipeline = self.pipeline.clone();
        let observed = std::mem::replace(&mut self.observed, mpsc::channel(1).1);
        (spawn_blocking(move || take_down(&pipeline)), observed)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !self.closed {
            let pipeline = self.pipeline.clone();
            std::thread::spawn(move || take_down(&pipeline));
        }
    }
}

fn take_down(pipeline: &gst::Pipeline) {
    // Going to NULL does not fail, except in elements that are broken anyhow.
    let _ = pipeline.set_state(gst::State::Null);
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}

/// Runs on whatever thread posts: sorts, counts, never waits.
struct BusListener {
    control: mpsc::Sender<Control>,
    observed: mpsc::Sender<Observed>,
    dropped: Arc<Dropped>,
    redactor: Redactor,
    session: Session,
}

impl BusListener {
    fn take(&self, message: &gst::Message) {
        use gst::MessageView;
        let control = match message.view() {
            MessageView::Element(element) => {
                return element
                    .structure()
                    .map_or((), |structure| self.observe(structure));
            }
            MessageView::Error(error) => {
                let element = message.src().map(|src| src.name()).unwrap_or_default();
                let debug = error.debug();
                Control::Error(reason::of_error(
                    &error.error(),
                    debug.as_deref(),
                    &element,
                    &self.redactor,
                ))
            }
            // A branch whose stream the source does not have, which is seen to.
            MessageView::Warning(warning)
                if warning.error().matches(gst::ParseError::DelayedLink) =>
            {
                return;
            }
            MessageView::Warning(warning) => {
                let text = self.redactor.redact(warning.error().message());
                match warning.error().matches(gst::ResourceError::Busy) {
                    true => Control::Overload(text),
                    false => Control::Warning(text),
                }
            }
            MessageView::Eos(_) => Control::Eos,
            MessageView::Latency(_) => Control::Latency,
            MessageView::ClockLost(_) => Control::ClockLost,
            _ => return,
        };
        // Full: what came before says it all. Closed: the attempt is over.
        let _ = self.control.try_send(control);
    }

    fn observe(&self, structure: &gst::StructureRef) {
        let body = match messages::parse(structure, &self.session) {
            None => return,
            Some(Ok(body)) => body,
            Some(Err(error)) => {
                if self.dropped.malformed.fetch_add(1, Relaxed) == 0 {
                    tracing::error!(%error, "an element message breaks its contract");
                }
                return;
            }
        };
        let observed = Observed {
            time: vita_messages::WallTime::now(),
            body,
        };
        let is_event = observed.body.kind().place().is_durable();
        let has_room = is_event || self.observed.capacity() > RESERVED_FOR_EVENTS;
        if !has_room || matches!(self.observed.try_send(observed), Err(TrySendError::Full(_))) {
            self.dropped.queue_full.fetch_add(1, Relaxed);
        }
    }
}
