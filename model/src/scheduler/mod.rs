//! Many sequences on one copy of the weights: the two roles of a room, and many rooms.
//!
//! Each [`Scheduler::step`] is one batch: a token of every sequence that decodes, and a bounded stretch of those prompts
//! that are still to be read, so that a long prompt never holds up a running answer. Sequences are admitted in the order
//! in which they came, as far as the memory budget goes; what they remembered stays for prompts that begin alike.
//! A scheduler belongs to one thread; between two steps sequences can be submitted, resumed and cancelled.

mod marks;
mod prefix;
mod sequence;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;

pub use sequence::{Job, Output, SequenceId};

use crate::lm::{KvCache, LanguageModel};
use crate::{Error, Result, merge};
use marks::Mark;
use prefix::{PrefixCache, held_bytes};
use sequence::{Phase, Sequence};

/// Bounds of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in a batch.
    pub max_sequences: usize,
    /// Sequences that wait for a place; one more is refused with [`crate::ErrorKind::Busy`].
    pub max_waiting: usize,
    /// Bytes of keys and values, those of finished sequences included, which are kept for prompts that begin alike as long
    /// as nothing else needs the memory.
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
            memory_bytes: 512 << 20,
            prefill_rows: 256,
            prefill_rows_beside_decode: 128,
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
    /// Bytes of keys and values held now.
    pub memory_bytes: usize,
    /// What [`Limits::memory_bytes`] is now.
    pub memory_limit_bytes: usize,
}

/// See the [module](self).
pub struct Scheduler {
    lm: Arc<LanguageModel>,
    limits: Limits,
    running: Vec<Sequence>,
    waiting: VecDeque<Waiting>,
    prefixes: PrefixCache,
    outputs: Vec<Output>,
    next_id: u64,
    stats: Stats,
}

struct Waiting {
    id: SequenceId,
    job: Job,
    marks: Vec<Mark>,
}

impl Waiting {
    fn positions(&self) -> usize {
        self.marks.len() + self.job.writer.max_new_tokens()
    }
}

impl Scheduler {
    pub fn new(lm: Arc<LanguageModel>, limits: Limits) -> Self {
        Self {
            lm,
            limits,
            running: Vec::new(),
            waiting: VecDeque::new(),
            prefixes: PrefixCache::default(),
            outputs: Vec::new(),
            next_id: 0,
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            prefixes: self.prefixes.len(),
            memory_bytes: self.held_bytes(),
            memory_limit_bytes: self.limits.memory_bytes,
            ..self.stats
        }
    }

    /// Adds a sequence. It begins as soon as there is a place and memory for it.
    ///
    /// # Errors
    /// [`Error::Input`] for a prompt that cannot be embedded, [`Error::TooLong`] when prompt and answer do not fit the
    /// model's positions, [`Error::Busy`] when they never fit the memory budget or too many wait already.
    pub fn submit(&mut self, job: Job) -> Result<SequenceId> {
        merge::check(&job.prompt, &self.lm)?;
        let id = SequenceId(self.next_id);
        let marks = marks::marks(&job.prompt);
        let waiting = Waiting { id, job, marks };
        let (needed, available) = (waiting.positions(), self.lm.max_length());
        if needed > available {
            return Err(Error::TooLong { needed, available });
        }
        self.check_budget(needed)?;
        if self.waiting.len() >= self.limits.max_waiting {
            return Err(Error::Busy(format!(
                "{} sequences wait already: try again later",
                self.waiting.len()
            )));
        }
        self.next_id += 1;
        self.waiting.push_back(waiting);
        Ok(id)
    }

    fn check_budget(&self, tokens: usize) -> Result<()> {
        let (bytes, budget) = (self.bytes_for(tokens), self.limits.memory_bytes);
        if bytes <= budget {
            return Ok(());
        }
        Err(Error::Busy(format!(
            "a sequence of {tokens} tokens needs up to {bytes} bytes of keys and values, the budget is {budget}: shorten it or raise the budget"
        )))
    }

    /// Another [`Limits::memory_bytes`]. What is remembered is given up as far as need be, what runs goes on, what waits and
    /// does not fit any more fails.
    pub fn set_memory_bytes(&mut self, bytes: usize) {
        self.limits.memory_bytes = bytes;
        self.make_room(0);
        for waiting in std::mem::take(&mut self.waiting) {
            match self.check_budget(waiting.positions()) {
                Ok(()) => self.waiting.push_back(waiting),
                Err(error) => {
                    let id = waiting.id;
                    self.outputs.push(Output::Failed { id, error });
                }
            }
        }
    }

    /// Goes on with a sequence that was [held](Job::hold) after its prefill, with `first` as its first token, or with one
    /// that it chooses. `false`: there is no such sequence, or it is not held.
    pub fn resume(&mut self, id: SequenceId, first: Option<u32>) -> bool {
        let Some(place) = self.place(id) else {
            return false;
        };
        let sequence = &mut self.running[place];
        let logits = match &mut sequence.phase {
            Phase::Held { logits } => std::mem::take(logits),
            _ => return false,
        };
        self.write(place, &logits, first);
        true
    }

    /// Has a sequence that decodes wait with its next token, or go on with it. `false`: there is no such sequence.
    pub fn pause(&mut self, id: SequenceId, is_paused: bool) -> bool {
        let place = self.place(id);
        place
            .map(|place| self.running[place].is_paused = is_paused)
            .is_some()
    }

    /// Drops a sequence; what it remembers is kept for prompts that begin as it did. `false`: it was over already.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        if let Some(place) = self.place(id) {
            self.retire(place);
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.id != id);
        self.waiting.len() < before
    }

    /// Whether a step would do anything.
    pub fn has_work(&self) -> bool {
        !self.outputs.is_empty() || !self.running.iter().all(Sequence::is_idle) || self.can_admit()
    }

    fn place(&self, id: SequenceId) -> Option<usize> {
        self.running.iter().position(|sequence| sequence.id == id)
    }

    fn can_admit(&self) -> bool {
        let Some(next) = self.waiting.front() else {
            return false;
        };
        let needed = self.bytes_for(next.positions());
        self.running.len() < self.limits.max_sequences
            && self.reserved() + needed <= self.limits.memory_bytes
    }

    /// Admits in order, giving up remembered prefixes where memory is short.
    fn admit(&mut self) {
        while self.can_admit()
            && let Some(Waiting { id, job, marks }) = self.waiting.pop_front()
        {
            match self.begin(&marks) {
                Ok(cache) => {
                    self.stats.cached_tokens += cache.len() as u64;
                    self.running.push(Sequence::new(id, job, marks, cache));
                }
                Err(error) => self.outputs.push(Output::Failed { id, error }),
            }
        }
    }

    /// A cache with what is known of a prompt, and with room for all of it.
    fn begin(&mut self, prompt: &[Mark]) -> Result<KvCache> {
        let found = self.prefixes.find(prompt)?;
        let mut cache = found.unwrap_or_else(|| self.lm.cache());
        let left = prompt.len() - cache.len();
        // What is shared with a remembered one would count twice, so it is room enough for sure.
        let new = held_bytes(std::iter::once(&cache)) + cache.growth_bytes(left);
        self.make_room(new);
        cache.reserve(left)?;
        Ok(cache)
    }

    /// Gives up what is remembered until there is room for `more` bytes.
    fn make_room(&mut self, more: usize) {
        while self.held_bytes() + more > self.limits.memory_bytes && self.prefixes.evict() {
            self.stats.evicted_prefixes += 1;
        }
    }

    /// Bytes of keys and values that there are now.
    fn held_bytes(&self) -> usize {
        let running = self.running.iter().map(|sequence| &sequence.cache);
        held_bytes(running.chain(self.prefixes.caches()))
    }

    /// Bytes that the running sequences may come to need.
    fn reserved(&self) -> usize {
        self.running
            .iter()
            .map(|s| self.bytes_for(s.reserved()))
            .sum()
    }

    /// Upper bound for a sequence of so many tokens.
    fn bytes_for(&self, tokens: usize) -> usize {
        self.lm.cache_shape().bytes_for(tokens)
    }

    /// The next token of a sequence: chosen from the logits, or given.
    fn write(&mut self, place: usize, logits: &[f32], given: Option<u32>) {
        let sequence = &mut self.running[place];
        let id = sequence.id;
        match sequence.write(logits, given, self.lm.max_length()) {
            Ok(delta) => {
                if delta.stop.is_some() {
                    self.retire(place);
                }
                self.outputs.push(Output::Delta { id, delta });
            }
            Err(error) => self.fail(place, error),
        }
    }

    /// Takes a sequence out of the batch and keeps what it remembers.
    fn retire(&mut self, place: usize) {
        let sequence = self.running.remove(place);
        self.prefixes.put(sequence.marks, sequence.cache);
        self.make_room(0);
    }

    fn fail(&mut self, place: usize, error: Error) {
        let id = self.running.remove(place).id;
        self.outputs.push(Output::Failed { id, error });
    }
}
