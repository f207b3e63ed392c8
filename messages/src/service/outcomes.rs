//! What became of questions, for those who wait for it.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::kinds::{Answer, Body, Cancelled};

/// Outcomes that a waiter may be behind. Questions end one after the other, so few are on their way.
const BEHIND: usize = 64;

/// Hands the ends of a source's questions to those who wait. Clones share it.
#[derive(Clone, Debug)]
pub struct Outcomes(broadcast::Sender<Outcome>);

/// The end of a question.
#[derive(Clone, Debug)]
pub enum Outcome {
    Answer(Box<Answer>),
    Cancelled(Box<Cancelled>),
}

impl Outcome {
    fn turn(&self) -> (u64, u64) {
        match self {
            Self::Answer(answer) => (answer.session_id, answer.turn_id),
            Self::Cancelled(cancelled) => (cancelled.session_id, cancelled.turn_id),
        }
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

impl Outcomes {
    /// To be called with every message of the source. Never waits.
    pub fn tell(&self, body: &Body) {
        let outcome = match body {
            Body::Answer(answer) => Outcome::Answer(Box::new(answer.clone())),
            Body::Cancelled(cancelled) => Outcome::Cancelled(Box::new(cancelled.clone())),
            _ => return,
        };
        // Nobody may be waiting.
        let _ = self.0.send(outcome);
    }

    /// Hears of all outcomes from now on.
    pub(super) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

pub(super) struct Listener(broadcast::Receiver<Outcome>);

impl Listener {
    /// What became of a turn. `None`: nothing in that time, or nobody is left to tell.
    pub async fn outcome(mut self, session: u64, turn: u64, within: Duration) -> Option<Outcome> {
        let found = async {
            loop {
                match self.0.recv().await {
                    Ok(outcome) if outcome.turn() == (session, turn) => return Some(outcome),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        };
        tokio::time::timeout(within, found).await.ok().flatten()
    }
}
