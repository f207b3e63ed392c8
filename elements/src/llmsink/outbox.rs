//! Events on their way from the engine's thread to the bus. The engine never waits for a reader of the bus.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vita_engine::room::event::{Event, EventKind};

use crate::common::lock;

/// Events that may wait; `drop-newest`, counted.
const CAPACITY: usize = 4096;
/// Of these so many may be words; they are in the answer as well.
const CAPACITY_DELTAS: usize = 3072;

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    dropped: u64,
    /// The room's last event has been handed on.
    is_done: bool,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Never waits for whom it is meant.
    pub fn push(&self, event: Event) {
        let mut state = self.lock();
        let is_last = matches!(event.kind, EventKind::Closed | EventKind::Failed(_));
        let limit = match event.kind {
            EventKind::Delta { .. } => CAPACITY_DELTAS,
            _ => CAPACITY,
        };
        if state.events.len() >= limit && !is_last {
            state.dropped += 1;
            return;
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next event.
    pub fn pop(&self) -> Option<Event> {
        let is_idle = |state: &mut State| state.events.is_empty() && !state.is_done;
        let waited = self.changed.wait_while(self.lock(), is_idle);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .events
            .pop_front()
    }

    /// Nothing more is taken out.
    pub fn done(&self) {
        self.lock().is_done = true;
        self.changed.notify_all();
    }

    /// Waits until everything was handed on. `false`: not within `limit`.
    pub fn wait_done(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| !state.is_done;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_done
    }

    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vita_dialogue::duplex::{GenerationId, TurnId};

    fn event(kind: EventKind) -> Event {
        Event {
            stream_time: Duration::ZERO,
            kind,
        }
    }

    #[test]
    fn words_are_dropped_before_anything_else() {
        let outbox = Outbox::default();
        for sequence in 0..CAPACITY as u64 {
            outbox.push(event(EventKind::Delta {
                turn: TurnId(1),
                generation: GenerationId(1),
                sequence,
                text: "word".into(),
            }));
        }
        let lost = (CAPACITY - CAPACITY_DELTAS) as u64;
        assert_eq!((outbox.len(), outbox.dropped()), (CAPACITY_DELTAS, lost));
        for _ in 0..CAPACITY {
            outbox.push(event(EventKind::Reset));
        }
        assert_eq!(outbox.len(), CAPACITY);
        outbox.push(event(EventKind::Closed));
        let mut last = None;
        while outbox.len() > 0 {
            last = outbox.pop();
        }
        assert_eq!(
            last.unwrap().kind,
            EventKind::Closed,
            "the end always goes through"
        );
        assert!(!outbox.wait_done(Duration::ZERO));
        outbox.done();
        assert!(outbox.wait_done(Duration::ZERO));
        assert_eq!(outbox.pop(), None);
    }
}
