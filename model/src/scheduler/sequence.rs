use super::prompt::{Mark, Span};
use crate::lm::KvCache;
use crate::sampling::{Sampler, Sampling};

/// Names a sequence. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(super) u64);

/// A sequence to be run.
#[derive(Clone, Debug)]
pub struct Job {
    pub prompt: Vec<Span>,
    pub sampling: Sampling,
    pub max_new_tokens: usize,
    /// Tokens that end the answer; they are not given out.
    pub stop: Vec<u32>,
    /// Tokens whose probability at the first position is reported: the state tokens.
    pub watch: Vec<u32>,
    /// Wait after the prefill until [`super::Scheduler::resume`] or [`super::Scheduler::cancel`].
    pub hold: bool,
}

/// What a step brought about.
#[derive(Debug)]
pub enum Output {
    /// The prompt is done.
    Prefilled {
        id: SequenceId,
        /// Probabilities of the [watched](Job::watch) tokens, from the softmax over the whole vocabulary.
        watched: Vec<f32>,
        prompt_tokens: usize,
        /// Of these, so many were remembered from earlier sequences.
        cached_tokens: usize,
    },
    Token {
        id: SequenceId,
        token: u32,
    },
    Finished {
        id: SequenceId,
        reason: FinishReason,
    },
    Failed {
        id: SequenceId,
        error: crate::Error,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// One of the [stop tokens](Job::stop).
    Stop,
    MaxNewTokens,
}

/// A sequence under way.
#[derive(Debug)]
pub(super) struct Sequence {
    pub id: SequenceId,
    pub prompt: Vec<Span>,
    /// What stands at every position so far, generated tokens included.
    pub marks: Vec<Mark>,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub cache: KvCache,
    pub sampler: Sampler,
    pub stop: Vec<u32>,
    pub watch: Vec<u32>,
    pub hold: bool,
    pub new_tokens: usize,
    pub max_new_tokens: usize,
    pub phase: Phase,
}

#[derive(Debug)]
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
            sampler: Sampler::new(job.sampling),
            stop: job.stop,
            watch: job.watch,
            hold: job.hold,
            new_tokens: 0,
            max_new_tokens: job.max_new_tokens,
            phase: Phase::Prefill,
        }
    }

    /// Takes the next token: gives it out and goes on with it, or ends here.
    pub fn take(&mut self, token: u32, outputs: &mut Vec<Output>) -> Option<FinishReason> {
        if self.stop.contains(&token) {
            return Some(FinishReason::Stop);
        }
        outputs.push(Output::Token { id: self.id, token });
        self.new_tokens += 1;
        if self.new_tokens >= self.max_new_tokens {
            return Some(FinishReason::MaxNewTokens);
        }
        self.marks.push(Mark::Token(token));
        self.phase = Phase::Decode { token };
        None
    }
}
