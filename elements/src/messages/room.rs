//! A source as the command service sees it: its dialogue while a pipeline is there, and what it has told.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use vita_messages::kinds::{Body, SourceStatus};
use vita_messages::service::{Asked, Outcomes, Refusal, RefusalCode, Room, StatusReply};

/// Shared by whoever publishes a source's messages and the command service.
#[derive(Debug, Default)]
pub struct SourceRoom {
    name: String,
    model: Option<String>,
    pub outcomes: Outcomes,
    state: Mutex<State>,
    queries: AtomicU64,
    answers: AtomicU64,
    noise: AtomicU64,
    cancelled: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    source: Option<SourceStatus>,
    session_id: u64,
    sink: Option<gst::glib::WeakRef<gst::Element>>,
    generation_id: Option<u64>,
}

impl SourceRoom {
    pub fn new(name: &str, model: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            model,
            ..Self::default()
        }
    }

    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the dialogue of a pipeline that is made at this time: greater than all before.
    pub fn new_session(&self, unix_ms: u64) -> u64 {
        let mut state = self.lock();
        state.session_id = unix_ms.max(state.session_id + 1);
        state.session_id
    }

    /// The pipeline has an element that answers, or none.
    pub fn open(&self, sink: Option<gst::Element>) {
        let mut state = self.lock();
        state.sink = sink.map(|sink| sink.downgrade());
        state.generation_id = None;
    }

    /// The pipeline is on its way down.
    pub fn close(&self) {
        self.open(None);
    }

    /// To be called with every message of the source.
    pub fn tell(&self, body: &Body) {
        match body {
            Body::Source(source) => self.lock().source = Some(source.state),
            Body::Query(query) => {
                self.queries.fetch_add(1, Relaxed);
                self.lock().generation_id = Some(query.generation_id);
            }
            Body::Answer(answer) => {
                self.answers.fetch_add(1, Relaxed);
                let mut state = self.lock();
                state
                    .generation_id
                    .take_if(|running| *running == answer.generation_id);
            }
            Body::Noise(_) => {
                self.noise.fetch_add(1, Relaxed);
            }
            Body::Cancelled(_) => {
                self.cancelled.fetch_add(1, Relaxed);
            }
            _ => return,
        }
        self.outcomes.tell(body);
    }

    /// The element that answers, and the number of its dialogue.
    fn sink(&self, command: &str) -> Result<(gst::Element, u64), Refusal> {
        let state = self.lock();
        let sink = state.sink.as_ref().and_then(gst::glib::WeakRef::upgrade);
        match (sink, &self.model) {
            (Some(sink), _) => Ok((sink, state.session_id)),
            (None, Some(_)) => Err(Refusal::new(
                RefusalCode::Down,
                format!("{command}: source {} is not up", self.name),
                "try again when its source message says up",
            )),
            (None, None) => Err(Refusal::new(
                RefusalCode::NoModel,
                format!("{command}: source {} has no model", self.name),
                "add a [model] to the config",
            )),
        }
    }
}

impl Room for SourceRoom {
    fn ask(&self, text: &str) -> Result<Asked, Refusal> {
        let (sink, session_id) = self.sink("ask")?;
        // Nothing is locked here: the element may post at once.
        let turn_id = sink.emit_by_name::<u64>("ask", &[&text]);
        if turn_id == 0 {
            return Err(Refusal::new(
                RefusalCode::Busy,
                format!("ask: source {} takes no question now", self.name),
                "too many are on their way, or it is about to go down: try again later",
            ));
        }
        Ok(Asked {
            session_id,
            turn_id,
        })
    }

    fn reset(&self) -> Result<u64, Refusal> {
        let (sink, session_id) = self.sink("reset")?;
        sink.emit_by_name::<()>("reset", &[]);
        Ok(session_id)
    }

    fn status(&self) -> StatusReply {
        let state = self.lock();
        let is_open = state.sink.is_some();
        StatusReply {
            source: state.source,
            model: self.model.clone(),
            session_id: is_open.then_some(state.session_id),
            generation_id: state.generation_id,
            queries: self.queries.load(Relaxed),
            answers: self.answers.load(Relaxed),
            noise: self.noise.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_only_grow_also_when_the_clock_goes_back() {
        let room = SourceRoom::new("door", None);
        let sessions = [5000, 5000, 3000, 7000].map(|ms| room.new_session(ms));
        assert_eq!(sessions, [5000, 5001, 5002, 7000]);
    }

    #[test]
    fn a_source_without_a_model_or_a_pipeline_refuses() {
        let code = |room: &SourceRoom| room.ask("who?").unwrap_err().code;
        assert_eq!(code(&SourceRoom::new("door", None)), RefusalCode::NoModel);
        let room = SourceRoom::new("door", Some("nano".into()));
        assert_eq!(code(&room), RefusalCode::Down);
        assert_eq!(room.reset().unwrap_err().code, RefusalCode::Down);
        assert_eq!(room.status().session_id, None);
    }
}
