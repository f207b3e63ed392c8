//! What the streaming thread, the encoder's worker and the pushing task share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vita_engine::encode::{self, Answer, Client, Encoded, Error, Ticket};

use super::outbox::{Medium, Out, Outbox};
use super::settings::{QueuePolicy, Settings};
use super::stats::Stats;
use crate::common::lock;

pub(super) struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What upstream is told: an error once downstream takes nothing any more, or the element stops.
    flow: Result<(), gst::FlowError>,
    policy: QueuePolicy,
    max_queued: usize,
    outbox: Outbox<Ticket>,
    stats: Stats,
    has_eos: bool,
}

impl State {
    fn end(&mut self, error: gst::FlowError) -> Vec<gst::Event> {
        self.flow = Err(error);
        let (media, events) = self.outbox.clear();
        self.stats.discarded += media as u64;
        events
    }

    fn add(&mut self, medium: Medium, ticket: Result<Ticket, Error>) {
        match ticket {
            Ok(ticket) => self.outbox.push_medium(medium, ticket),
            Err(error) => self.outbox.push_failed(medium, error),
        }
    }
}

impl Line {
    pub fn new() -> Arc<Self> {
        let settings = Settings::default();
        Arc::new(Self {
            state: Mutex::new(State {
                flow: Err(gst::FlowError::Flushing),
                policy: settings.queue,
                max_queued: settings.max_queued as usize,
                outbox: Outbox::new(),
                stats: Stats::default(),
                has_eos: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// No holder of the lock leaves anything half done behind when it panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_limit(&self, settings: &Settings) {
        let mut state = self.lock();
        state.policy = settings.queue;
        state.max_queued = settings.max_queued as usize;
        drop(state);
        self.changed.notify_all();
    }

    pub fn reset_stats(&self) {
        self.lock().stats = Stats::default();
    }

    /// Takes media and events from now on.
    pub fn open(&self) {
        let mut state = self.lock();
        state.flow = Ok(());
        state.has_eos = false;
    }

    /// Forgets what is there, and wakes who waits. Returns the events that were not pushed.
    pub fn close(&self, error: gst::FlowError) -> Vec<gst::Event> {
        let events = self.lock().end(error);
        self.changed.notify_all();
        events
    }

    pub fn flow(&self) -> Result<(), gst::FlowError> {
        self.lock().flow
    }

    pub fn has_eos(&self) -> bool {
        self.lock().has_eos
    }

    /// Puts a medium in the line by the queue's policy; `submit` hands it to the encoder. Returns who was dropped for it,
    /// or itself, and by which policy.
    pub fn offer(
        self: &Arc<Self>,
        client: &Client,
        medium: Medium,
        submit: impl FnOnce(Answer) -> Result<Ticket, Error>,
    ) -> Result<Vec<(Medium, QueuePolicy)>, gst::FlowError> {
        let mut dropped = Vec::new();
        let mut state = self.lock();
        state.flow?;
        state.stats.received += 1;
        while client.waiting() + state.outbox.done() >= state.max_queued {
            match state.policy {
                QueuePolicy::Block => {
                    state = self.wait(state);
                    state.flow.inspect_err(|_| state.stats.discarded += 1)?;
                }
                QueuePolicy::DropOldest => {
                    let reason = QueuePolicy::DropOldest.nick();
                    let Some(oldest) = state.outbox.drop_oldest(reason) else {
                        break;
                    };
                    state.stats.dropped += 1;
                    dropped.push((oldest, QueuePolicy::DropOldest));
                }
                QueuePolicy::DropNewest => {
                    state.stats.dropped += 1;
                    state
                        .outbox
                        .push_dropped(&medium, QueuePolicy::DropNewest.nick());
                    drop(state);
                    self.changed.notify_all();
                    dropped.push((medium, QueuePolicy::DropNewest));
                    return Ok(dropped);
                }
            }
        }
        let ticket = submit(self.answer(state.outbox.next_id()));
        state.add(medium, ticket);
        drop(state);
        self.changed.notify_all();
        Ok(dropped)
    }

    /// For the worker: puts the result in its place, if that is still there.
    fn answer(self: &Arc<Self>, id: u64) -> Answer {
        let line = Arc::downgrade(self);
        Box::new(move |encoded: Result<Encoded, Error>| {
            if let Some(line) = line.upgrade() {
                line.lock().outbox.finish(id, encoded);
                line.changed.notify_all();
            }
        })
    }

    pub fn push_event(&self, event: gst::Event) -> Result<(), gst::FlowError> {
        let mut state = self.lock();
        state.flow?;
        state.has_eos |= event.type_() == gst::EventType::Eos;
        state.outbox.push_event(event);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    pub fn push_gap(&self, from: gst::ClockTime, until: Option<gst::ClockTime>) {
        let mut state = self.lock();
        if state.flow.is_ok() {
            state.outbox.push_gap(from, until);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next to be pushed; an error once the line is closed.
    pub fn next(&self) -> Result<Out, gst::FlowError> {
        let mut state = self.lock();
        loop {
            state.flow?;
            if let Some(out) = state.outbox.take() {
                drop(state);
                // who blocks has room now
                self.changed.notify_all();
                return Ok(out);
            }
            state = self.wait(state);
        }
    }

    pub fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.lock().stats);
    }

    pub fn count_encoded(&self, encoded: &Encoded, took: Duration, latency: gst::ClockTime) {
        self.count(|stats| stats.count(encoded, took, latency.into()));
    }

    /// `encoder`: of the model, for all who use it.
    pub fn stats(&self, encoder: &encode::Stats) -> gst::Structure {
        let state = self.lock();
        state.stats.structure(state.outbox.media(), encoder)
    }
}
