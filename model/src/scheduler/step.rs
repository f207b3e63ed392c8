use candle_core::Tensor;

use super::sequence::{Output, Phase, Sequence};
use super::{Scheduler, SequenceId};
use crate::lm::{Chunk, LanguageModel};
use crate::nn::Probe;
use crate::{Result, merge};

/// Rows that one sequence has in a step.
#[derive(Clone, Copy, Debug)]
struct Share {
    place: usize,
    rows: usize,
}

impl Scheduler {
    /// Runs one batch and says what came of it. Does nothing when nothing is to be done.
    ///
    /// A sequence whose arithmetic fails is reported as [`Output::Failed`]; the others of its batch go on.
    pub fn step(&mut self) -> Vec<Output> {
        self.admit();
        let shares = self.shares();
        if !shares.is_empty() {
            self.stats.steps += 1;
            let grows = shares.iter().map(|share| {
                let cache = &self.running[share.place].cache;
                cache.growth_bytes(share.rows)
            });
            self.make_room(grows.sum());
            self.run(&shares);
        }
        std::mem::take(&mut self.outputs)
    }

    /// One row for each sequence that decodes; what the limits leave is shared equally by the prompts.
    fn shares(&self) -> Vec<Share> {
        let mut shares = Vec::new();
        let mut prefilling = Vec::new();
        for (place, sequence) in self.running.iter().enumerate() {
            match sequence.phase {
                _ if sequence.is_idle() => {}
                Phase::Decode { .. } => shares.push(Share { place, rows: 1 }),
                Phase::Prefill => {
                    prefilling.push((place, sequence.prompt_tokens - sequence.cache.len()))
                }
                Phase::Held { .. } => {}
            }
        }
        let mut rows = match shares.is_empty() {
            true => self.limits.prefill_rows,
            false => self.limits.prefill_rows_beside_decode,
        };
        // The shortest first, so that what it leaves over goes to the longer ones.
        prefilling.sort_by_key(|(_, left)| *left);
        let mut sharers = prefilling.len();
        for (place, left) in prefilling {
            let share = left.min((rows / sharers).max(1));
            shares.push(Share { place, rows: share });
            rows = rows.saturating_sub(share);
            sharers -= 1;
        }
        shares.sort_by_key(|share| share.place);
        shares
    }

    fn run(&mut self, shares: &[Share]) {
        match forward(&self.lm, &mut self.running, shares) {
            Ok(logits) => self.digest(shares, logits),
            Err(error) => match shares {
                [share] => self.fail(share.place, error),
                // Whose fault it was shows when each runs alone. From the back, since a failure moves those behind.
                many => many.iter().rev().for_each(|share| self.run(&[*share])),
            },
        }
    }

    /// `logits` has an entry for each share whose sequence now needs its next token.
    fn digest(&mut self, shares: &[Share], logits: Vec<(SequenceId, Vec<f32>)>) {
        for share in shares {
            match self.running[share.place].phase {
                Phase::Prefill => self.stats.prefilled_tokens += share.rows as u64,
                _ => self.stats.decoded_tokens += 1,
            }
        }
        for (id, mut logits) in logits {
            let Some(place) = self.place(id) else {
                continue;
            };
            let sequence = &mut self.running[place];
            sequence.bias(&mut logits);
            if matches!(sequence.phase, Phase::Prefill) {
                self.outputs.push(Output::Prefilled {
                    id,
                    states: sequence.writer.judge(&logits),
                    prompt_tokens: sequence.prompt_tokens,
                    cached_tokens: sequence.cached_tokens,
                });
                if sequence.hold {
                    sequence.phase = Phase::Held { logits };
                    continue;
                }
            }
            self.write(place, &logits, None);
        }
    }
}

/// The batch itself: logits of those sequences that are through with their prompt.
fn forward(
    lm: &LanguageModel,
    running: &mut [Sequence],
    shares: &[Share],
) -> Result<Vec<(SequenceId, Vec<f32>)>> {
    let mut embeddings = Vec::with_capacity(shares.len());
    let mut wanted = Vec::new();
    let mut last_rows: Vec<u32> = Vec::new();
    let mut rows = 0;
    for share in shares {
        let sequence = &running[share.place];
        let from = sequence.cache.len();
        embeddings.push(match sequence.phase {
            Phase::Decode { token } => lm.embed(&[token])?,
            _ => merge::embed(&sequence.prompt, from, share.rows, lm)?,
        });
        rows += share.rows;
        if from + share.rows >= sequence.prompt_tokens {
            wanted.push(sequence.id);
            last_rows.push(rows as u32 - 1);
        }
    }
    let mut chunks: Vec<Chunk> = Vec::with_capacity(shares.len());
    let mut shared = shares.iter().peekable();
    for (place, sequence) in running.iter_mut().enumerate() {
        if let Some(share) = shared.next_if(|share| share.place == place) {
            chunks.push(Chunk {
                len: share.rows,
                cache: &mut sequence.cache,
            });
        }
    }
    let hidden = lm.forward(
        &Tensor::cat(&embeddings, 0)?,
        &mut chunks,
        &mut Probe::none(),
    )?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let last_rows = Tensor::new(last_rows, hidden.device())?;
    let logits = lm.logits(&hidden.index_select(&last_rows, 0)?)?;
    Ok(wanted.into_iter().zip(logits.to_vec2()?).collect())
}
