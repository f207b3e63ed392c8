//! Many sequences on one copy of the weights: the two roles of a room, and many rooms.
//!
//! Each [`Scheduler::step`] is one batch: a token of every sequence that decodes, and a bounded stretch of those prompts
//! that are still to be read, so that a long prompt never holds up a running answer. Sequences are admitted in the order
//! in which they came, as far as the memory budget goes; what they remembered stays for prompts that begin alike.
//! A scheduler belongs to one thread; between two steps sequences can be submitted, resumed and cancelled.

mod media;
mod prefix;
mod prompt;
mod sequence;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;

pub use media::MediaCache;
pub use prompt::Span;
pub use sequence::{FinishReason, Job, Output, SequenceId};

use crate::lm::Decoder;
use crate::{Error, Result};
use prefix::PrefixCache;
use prompt::Mark;
use sequence::{Phase, Sequence};

/// Bounds of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in a batch.
    pub max_sequences: usize,
    /// Sequences that wait for a place; one more is refused with [`crate::ErrorKind::Busy`].
    pub max_waiting: usize,
    /// Bytes of keys and values, those of finished sequences included.
    pub memory_bytes: usize,
    /// Positions of prompts read in a step in which nothing is being decoded.
    pub prefill_rows: usize,
    /// The same while answers are running: it bounds how long a step keeps them waiting.
    pub prefill_rows_beside_decode: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sequences: 16,
            max_waiting: 64,
            memory_bytes: 1 << 30,
            prefill_rows: 256,
            prefill_rows_beside_decode: 32,
        }
    }
}

/// Counters since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub steps: u64,
    pub decoded_tokens: u64,
    pub prefilled_tokens: u64,
    /// Prompt tokens that needed no prefill.
    pub cached_tokens: u64,
    pub evicted_prefixes: u64,
    pub running: usize,
    pub waiting: usize,
    pub prefixes: usize,
}

#[derive(Debug)]
pub struct Scheduler {
    model: Arc<Decoder>,
    limits: Limits,
    running: Vec<Sequence>,
    waiting: VecDeque<(SequenceId, Job, Vec<Mark>)>,
    prefixes: PrefixCache,
    outputs: Vec<Output>,
    next_id: u64,
    stats: Stats,
}

impl Scheduler {
    pub fn new(model: Arc<Decoder>, limits: Limits) -> Self {
        Self {
            model,
            limits,
            running: Vec::new(),
            waiting: VecDeque::new(),
            prefixes: PrefixCache::default(),
            outputs: Vec::new(),
            next_id: 0,
            stats: Stats::default(),
        }
    }

    pub fn model(&self) -> &Arc<Decoder> {
        &self.model
    }

    pub fn stats(&self) -> Stats {
        Stats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            prefixes: self.prefixes.len(),
            ..self.stats
        }
    }

    /// Adds a sequence. It begins as soon as there is a place and memory for it.
    ///
    /// # Errors
    /// [`Error::Input`] for a prompt that cannot be embedded, [`Error::TooLong`] when prompt and answer do not fit the
    /// model's positions, [`Error::Busy`] when they never fit the memory budget or too many wait already.
    pub fn submit(&mut self, job: Job) -> Result<SequenceId> {
        prompt::check(&job.prompt, &self.model)?;
        let marks = prompt::marks(&job.prompt);
        let (needed, available) = (
            marks.len() + job.max_new_tokens,
            self.model.config().max_positions,
        );
        if needed > available {
            return Err(Error::TooLong { needed, available });
        }
        let (bytes, budget) = (self.bytes_for(needed), self.limits.memory_bytes);
        if bytes > budget {
            return Err(Error::Busy(format!(
                "a sequence of {needed} tokens needs {bytes} bytes of keys and values, the budget is {budget}: shorten it or raise the budget"
            )));
        }
        if self.waiting.len() >= self.limits.max_waiting {
            return Err(Error::Busy(format!(
                "{} sequences wait already: try again later",
                self.waiting.len()
            )));
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back((id, job, marks));
        Ok(id)
    }

    /// Goes on with a sequence that was [held](Job::hold) after its prefill, with `first` as its first token, or with a
    /// sampled one. `false`: there is no such sequence, or it is not held.
    pub fn resume(&mut self, id: SequenceId, first: Option<u32>) -> bool {
        let Some(place) = self.running.iter().position(|s| s.id == id) else {
            return false;
        };
        let sequence = &mut self.running[place];
        let Phase::Held { logits } = &sequence.phase else {
            return false;
        };
        let token = first.unwrap_or_else(|| sequence.sampler.sample(logits));
        if let Some(reason) = sequence.take(token, &mut self.outputs) {
            self.finish(place, reason);
        }
        true
    }

    /// Drops a sequence; what it remembers is kept for prompts that begin as it did. `false`: it was over already.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        if let Some(place) = self.running.iter().position(|s| s.id == id) {
            self.retire(place);
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        self.waiting.len() < before
    }

    /// Whether a step would do anything.
    pub fn has_work(&self) -> bool {
        let held = |s: &Sequence| matches!(s.phase, Phase::Held { .. });
        !self.outputs.is_empty() || !self.running.iter().all(held) || self.can_admit()
    }

    fn can_admit(&self) -> bool {
        let Some((_, job, marks)) = self.waiting.front() else {
            return false;
        };
        let needed = self.bytes_for(marks.len() + job.max_new_tokens);
        self.running.len() < self.limits.max_sequences
            && self.reserved() + needed <= self.limits.memory_bytes
    }

    /// Admits in order, giving up remembered prefixes where memory is short.
    fn admit(&mut self) {
        while self.can_admit() {
            let Some((id, job, marks)) = self.waiting.pop_front() else {
                return;
            };
            let needed = self.bytes_for(marks.len() + job.max_new_tokens);
            let found = self.prefixes.find(&marks);
            self.make_room(needed);
            match found {
                Ok(cache) => {
                    let cache = cache.unwrap_or_else(|| self.model.new_cache());
                    self.stats.cached_tokens += cache.len() as u64;
                    self.running.push(Sequence::new(id, job, marks, cache));
                }
                Err(error) => self.outputs.push(Output::Failed { id, error }),
            }
        }
    }

    fn make_room(&mut self, needed: usize) {
        while self.reserved() + self.prefixes.bytes() + needed > self.limits.memory_bytes
            && self.prefixes.evict()
        {
            self.stats.evicted_prefixes += 1;
        }
    }

    /// Bytes that the running sequences may come to need.
    fn reserved(&self) -> usize {
        let tokens = |s: &Sequence| s.prompt_tokens + s.max_new_tokens;
        self.running.iter().map(|s| self.bytes_for(tokens(s))).sum()
    }

    /// Upper bound for a sequence of so many tokens: tails grow with half as much again to spare.
    fn bytes_for(&self, tokens: usize) -> usize {
        let element = self.model.compute_dtype().size_in_bytes();
        (tokens + tokens / 2 + 64) * self.model.config().kv_bytes_per_token(element)
    }

    fn finish(&mut self, place: usize, reason: FinishReason) {
        let id = self.retire(place);
        self.outputs.push(Output::Finished { id, reason });
    }

    /// Takes a sequence out of the batch and keeps what it remembers.
    fn retire(&mut self, place: usize) -> SequenceId {
        let sequence = self.running.remove(place);
        self.prefixes.put(sequence.marks, sequence.cache);
        self.make_room(0);
        sequence.id
    }
}
