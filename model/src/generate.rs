//! Answering one prompt at a time. Several sequences in one batch are the scheduler's work.

use crate::lm::{Chunk, KvCache, LanguageModel};
use crate::nn::Probe;
use crate::prompt::{Detokenizer, StateTokens};
use crate::sampling::{Sampler, Stop, StopRules, probability};
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::ControlFlow;

/// Positions prefilled at once: scores of a whole long prompt would not fit.
pub const PREFILL_CHUNK: usize = 512;

/// Probabilities of the state tokens as the first token of the answer, under the softmax of the
/// model's own logits, before any temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateProbabilities {
    pub query: f64,
    pub noise: f64,
    pub text: f64,
}

impl StateProbabilities {
    pub fn of(logits: &[f32], tokens: &StateTokens) -> Self {
        Self {
            query: probability(logits, tokens.query),
            noise: probability(logits, tokens.noise),
            text: probability(logits, tokens.text),
        }
    }
}

/// What one decode step added.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    pub id: u32,
    /// Whole characters only; may be empty.
    pub text: String,
    /// Set on the last delta.
    pub stop: Option<Stop>,
}

/// A finished or cancelled answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub ids: Vec<u32>,
    pub text: String,
    /// None when the caller ended it.
    pub stop: Option<Stop>,
    pub states: StateProbabilities,
}

/// The part of a sequence that turns logits into words: sampler, stop rules, text so far.
#[derive(Clone)]
pub struct Writer {
    sampler: Sampler,
    rules: StopRules,
    detokenizer: Detokenizer,
    tokens: StateTokens,
    ids: Vec<u32>,
    text: String,
    states: Option<StateProbabilities>,
    stop: Option<Stop>,
}

impl Writer {
    pub fn new(
        sampler: Sampler,
        rules: StopRules,
        detokenizer: Detokenizer,
        tokens: StateTokens,
    ) -> Self {
        Self {
            sampler,
            rules,
            detokenizer,
            tokens,
            ids: Vec::new(),
            text: String::new(),
            states: None,
            stop: None,
        }
    }

    /// Ids chosen so far, the one that ended the answer included.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The longest answer that it writes.
    pub fn max_new_tokens(&self) -> usize {
        self.rules.max_new_tokens
    }

    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    pub fn states(&self) -> Option<StateProbabilities> {
        self.states
    }

    /// Chooses the next token; `room` is how many positions the context still has.
    pub fn next(&mut self, logits: &[f32], room: usize) -> Result<Delta> {
        if self.stop.is_some() {
            return Err(Error::Input("the answer has ended".into()));
        }
        if self.ids.is_empty() {
            self.judge(logits);
        }
        let id = self.sampler.sample(logits)?;
        self.take(id, room)
    }

    /// What the logits of the first position say of the question.
    pub fn judge(&mut self, logits: &[f32]) -> StateProbabilities {
        let states = StateProbabilities::of(logits, &self.tokens);
        self.states = Some(states);
        states
    }

    /// Goes on with a token that was not drawn: the state token that the caller decided on.
    pub fn take(&mut self, id: u32, room: usize) -> Result<Delta> {
        self.ids.push(id);
        self.stop = self.rules.after(id, self.ids.len());
        if self.stop.is_none() && room == 0 {
            self.stop = Some(Stop::ContextFull);
        }
        let mut text = match self.rules.end.contains(&id) {
            true => String::new(),
            false => self.detokenizer.push(id),
        };
        if self.stop.is_some() {
            text += &self.detokenizer.finish();
        }
        self.text += &text;
        let stop = self.stop;
        Ok(Delta { id, text, stop })
    }

    fn answer(mut self) -> Result<Answer> {
        self.text += &self.detokenizer.finish();
        let states = self.states;
        Ok(Answer {
            states: states.ok_or_else(|| Error::Input("no token was chosen".into()))?,
            ids: self.ids,
            text: self.text,
            stop: self.stop,
        })
    }
}

/// Runs embeddings `[positions, hidden]` through the model in pieces; logits of the last position.
pub fn prefill(lm: &LanguageModel, xs: &Tensor, cache: &mut KvCache) -> Result<Vec<f32>> {
    let total = xs.dim(0)?;
    let mut from = 0;
    let mut last = None;
    while from < total {
        let len = PREFILL_CHUNK.min(total - from);
        let mut chunks = [Chunk {
            len,
            cache: &mut *cache,
        }];
        let hidden = lm.forward(&xs.narrow(0, from, len)?, &mut chunks, &mut Probe::none())?;
        last = Some(hidden.narrow(0, len - 1, 1)?);
        from += len;
    }
    let last = last.ok_or_else(|| Error::Input("the prompt is empty".into()))?;
    Ok(lm.logits(&last)?.squeeze(0)?.to_vec1()?)
}

/// One prompt's answer, word by word. `on_delta` can end it after any token.
pub fn generate(
    lm: &LanguageModel,
    prompt: &Tensor,
    max_length: usize,
    mut writer: Writer,
    mut on_delta: impl FnMut(&Delta) -> ControlFlow<()>,
) -> Result<Answer> {
    let mut cache = lm.cache();
    let mut logits = prefill(lm, prompt, &mut cache)?;
    loop {
        let room = max_length.saturating_sub(cache.len() + 1);
        let delta = writer.next(&logits, room)?;
        if on_delta(&delta).is_break() || delta.stop.is_some() {
            return writer.answer();
        }
        logits = prefill(lm, &lm.embed(&[delta.id])?, &mut cache)?;
    }
}
