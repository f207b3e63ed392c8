use super::marks::Mark;
use crate::generate::{Delta, StateProbabilities, Writer};
use crate::lm::KvCache;
use crate::prompt::Segment;
use crate::{Error, Result};

/// Names a sequence. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(super) u64);

/// A sequence to be run.
#[derive(Clone)]
pub struct Job {
    pub prompt: Vec<Segment>,
    /// Chooses the tokens, writes the text and knows when to stop.
    pub writer: Writer,
    /// Added to the logits of these tokens before anything else; for tests that force an outcome.
    pub logit_bias: Vec<(u32, f32)>,
    /// Wait after the prefill until [`super::Scheduler::resume`] or [`super::Scheduler::cancel`].
    pub hold: bool,
}

/// What a step brought about.
#[derive(Debug)]
pub enum Output {
    /// The prompt is done.
    Prefilled {
        id: SequenceId,
        states: StateProbabilities,
        prompt_tokens: usize,
        /// Of these, so many were remembered from earlier sequences.
        cached_tokens: usize,
    },
    /// One more token; the last one has its reason to stop.
    Delta { id: SequenceId, delta: Delta },
    /// The sequence is over; the others of its batch are not concerned.
    Failed { id: SequenceId, error: Error },
}

/// A sequence under way.
pub(super) struct Sequence {
    pub id: SequenceId,
    pub prompt: Vec<Segment>,
    /// What stands at every position so far, generated tokens included.
    pub marks: Vec<Mark>,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub cache: KvCache,
    pub writer: Writer,
    pub logit_bias: Vec<(u32, f32)>,
    pub hold: bool,
    /// Decodes nothing for now.
    pub is_paused: bool,
    pub phase: Phase,
}

pub(super) enum Phase {
    Prefill,
    /// Prefilled, with the logits of the first position.
    Held {
        logits: Vec<f32>,
    },
    /// This token was chosen and goes through the model next.
    Decode {
        token: u32,
    },
}

impl Sequence {
    pub fn new(id: SequenceId, job: Job, marks: Vec<Mark>, cache: KvCache) -> Self {
        Self {
            id,
            prompt_tokens: marks.len(),
            cached_tokens: cache.len(),
            prompt: job.prompt,
            marks,
            cache,
            writer: job.writer,
            logit_bias: job.logit_bias,
            hold: job.hold,
            is_paused: false,
            phase: Phase::Prefill,
        }
    }

    /// Whether a step does nothing for it.
    pub fn is_idle(&self) -> bool {
        match self.phase {
            Phase::Prefill => false,
            Phase::Held { .. } => true,
            Phase::Decode { .. } => self.is_paused,
        }
    }

    /// Positions that it may come to take.
    pub fn reserved(&self) -> usize {
        self.prompt_tokens + self.writer.max_new_tokens()
    }

    pub fn bias(&self, logits: &mut [f32]) {
        for (token, bias) in &self.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }

    /// Chooses the next token, or takes the one that is given.
    pub fn write(
        &mut self,
        logits: &[f32],
        given: Option<u32>,
        max_length: usize,
    ) -> Result<Delta> {
        let room = max_length.saturating_sub(self.marks.len() + 1);
        let delta = match given {
            Some(token) => self.writer.take(token, room)?,
            None => self.writer.next(logits, room)?,
        };
        self.marks.push(Mark::Token(delta.id));
        self.phase = Phase::Decode { token: delta.id };
        Ok(delta)
    }
}
