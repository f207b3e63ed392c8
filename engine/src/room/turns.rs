//! What is known of the turns that are not over, for the events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vita_dialogue::duplex::{self, Notice, TurnId};
use vita_model::generate::StateProbabilities;

use super::event::{Answer, EventKind, FrameSeen, Question, Timings, Tokens, Turn, Verdict};
use super::frames::Chosen;

/// One turn, from its question to its end. Times are of the room's clock.
#[derive(Clone, Debug)]
pub(super) struct TurnRecord {
    question: Question,
    /// When it had been asked.
    ended: Duration,
    frames: Arc<[FrameSeen]>,
    states: Option<StateProbabilities>,
    judged: Duration,
    first_token: Option<Duration>,
    last_token: Duration,
    tokens: Tokens,
}

impl TurnRecord {
    pub fn new(question: Question, ended: Duration) -> Self {
        Self {
            question,
            ended,
            frames: Arc::new([]),
            states: None,
            judged: Duration::ZERO,
            first_token: None,
            last_token: Duration::ZERO,
            tokens: Tokens::default(),
        }
    }

    pub fn shown(&mut self, frames: &[Chosen]) {
        let seen = frames.iter().map(|chosen| FrameSeen {
            time: chosen.frame.time,
            capture_time_ns: chosen.frame.capture_time_ns,
            repeat: chosen.repeat,
        });
        self.frames = seen.collect();
    }

    pub fn judged(&mut self, now: Duration, states: StateProbabilities, tokens: Tokens) {
        self.judged = now;
        self.states = Some(states);
        self.tokens = tokens;
    }

    pub fn token(&mut self, now: Duration) {
        self.first_token.get_or_insert(now);
        self.last_token = now;
        self.tokens.answer += 1;
    }

    fn verdict(&self) -> Option<Verdict> {
        let newest = self.frames.last();
        Some(Verdict {
            states: self.states?,
            judging: self.judged.saturating_sub(self.ended),
            frames: self.frames.clone(),
            staleness: newest.map(|frame| self.question.end.saturating_sub(frame.time)),
        })
    }

    fn timings(&self, now: Duration) -> Timings {
        let steps = self.tokens.answer.saturating_sub(1) as u32;
        let decoding = self
            .first_token
            .map(|first| self.last_token.saturating_sub(first));
        Timings {
            first_token: self
                .first_token
                .map(|first| first.saturating_sub(self.ended)),
            token: decoding.and_then(|spent| spent.checked_div(steps)),
            generation: now.saturating_sub(self.judged),
        }
    }
}

/// The turns of a room that are not over.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<TurnId, TurnRecord>);

impl Turns {
    pub fn add(&mut self, turn: TurnId, record: TurnRecord) {
        self.0.insert(turn, record);
    }

    pub fn get_mut(&mut self, turn: TurnId) -> Option<&mut TurnRecord> {
        self.0.get_mut(&turn)
    }

    pub fn is_open(&self, turn: TurnId) -> bool {
        self.0.contains_key(&turn)
    }

    /// What a notice tells the world, with what only the engine knows. A turn is forgotten with its last notice.
    /// `None` cannot be: every turn of the dialogue was added.
    pub fn event(&mut self, notice: Notice, now: Duration) -> Option<EventKind> {
        Some(match notice {
            Notice::Query {
                turn,
                generation,
                state,
                ..
            } => {
                let record = self.0.get(&turn)?;
                EventKind::Query {
                    generation,
                    state,
                    turn: numbered(turn, record),
                    verdict: record.verdict()?,
                }
            }
            Notice::Noise { turn, .. } => {
                let record = self.0.remove(&turn)?;
                EventKind::Noise {
                    turn: numbered(turn, &record),
                    verdict: record.verdict(),
                }
            }
            Notice::Interrupted {
                turn,
                generation,
                by,
            } => EventKind::Interrupted {
                turn,
                generation,
                by,
            },
            Notice::RolesSwapped {
                turn,
                generation,
                speaking,
            } => EventKind::RolesSwapped {
                turn,
                generation,
                speaking,
            },
            Notice::Delta {
                turn,
                generation,
                sequence,
                text,
            } => EventKind::Delta {
                turn,
                generation,
                sequence,
                text,
            },
            Notice::Answer(answer) => EventKind::Answer(Box::new(self.answer(answer, now)?)),
            Notice::Cancelled { turn, reason, .. } => {
                let record = self.0.remove(&turn)?;
                EventKind::Cancelled {
                    turn: numbered(turn, &record),
                    reason,
                }
            }
            Notice::Reset => EventKind::Reset,
        })
    }

    fn answer(&mut self, answer: duplex::Answer, now: Duration) -> Option<Answer> {
        let record = self.0.remove(&answer.turn)?;
        Some(Answer {
            turn: numbered(answer.turn, &record),
            generation: answer.generation,
            state: answer.state,
            verdict: record.verdict()?,
            text: answer.text,
            cut_off: answer.cut_off,
            tokens: record.tokens,
            timings: record.timings(now),
        })
    }
}

fn numbered(id: TurnId, record: &TurnRecord) -> Turn {
    Turn {
        id,
        question: record.question.clone(),
    }
}
