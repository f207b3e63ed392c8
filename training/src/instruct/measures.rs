//! How a model does on items that it was not trained on.

use super::Learner;
use crate::sampler::generator;
use crate::{Example, Item, Kind, Phrasing, Result};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Tokens that are looked at together.
const BATCH_TOKENS: usize = 400;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    pub right: u32,
    pub of: u32,
}

impl Share {
    fn count(&mut self, right: bool) {
        self.of += 1;
        self.right += u32::from(right);
    }

    /// `None` of nothing.
    pub fn part(self) -> Option<f64> {
        (self.of > 0).then(|| f64::from(self.right) / f64::from(self.of))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.right, self.of)
    }
}

/// An answer is right when greedy decoding would give the item's own, word for word: a lower bound of
/// what people would call right.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measures {
    pub step: u64,
    /// The state token, among the three.
    pub states: Share,
    pub states_query: Share,
    pub states_noise: Share,
    pub states_text: Share,
    pub answers_seen: Share,
    pub answers_unseen: Share,
}

impl std::fmt::Display for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "update {}: states {} (query {}, noise {}, text {}), answers word for word: seen phrasings {}, unseen {}",
            self.step,
            self.states,
            self.states_query,
            self.states_noise,
            self.states_text,
            self.answers_seen,
            self.answers_unseen
        )
    }
}

/// Items to look at, the same for every run of a seed: of each kind and phrasing alike many.
pub fn choose(items: &[Item], count: usize, seed: u64) -> Vec<Item> {
    let mut groups = std::collections::BTreeMap::<_, Vec<&Item>>::new();
    for item in items {
        groups
            .entry((item.kind, item.phrasing))
            .or_default()
            .push(item);
    }
    for group in groups.values_mut() {
        group.shuffle(&mut generator(seed, 4, 0));
    }
    let mut chosen = Vec::new();
    let mut at = 0;
    while chosen.len() < count && groups.values().any(|group| at < group.len()) {
        chosen.extend(
            groups
                .values()
                .filter_map(|group| group.get(at).copied().cloned()),
        );
        at += 1;
    }
    chosen.truncate(count);
    chosen
}

pub fn measure(learner: &Learner, examples: &[Example]) -> Result<Measures> {
    let mut measures = Measures {
        step: learner.step(),
        ..Measures::default()
    };
    let mut rest = examples;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|example| {
            let before = tokens;
            tokens += example.len;
            before == 0 || tokens <= BATCH_TOKENS
        });
        let (batch, after) = rest.split_at(fits.count());
        rest = after;
        for (example, said) in batch.iter().zip(learner.said(batch)?) {
            let kind = Kind::ALL.iter().position(|kind| *kind == example.kind);
            let best = (0..3).max_by(|&a, &b| said.states[a].total_cmp(&said.states[b]));
            let right = kind == best;
            measures.states.count(right);
            match example.kind {
                Kind::Query => measures.states_query.count(right),
                Kind::Noise => measures.states_noise.count(right),
                Kind::Text => measures.states_text.count(right),
            }
            if example.kind != Kind::Noise {
                let wanted = example.targets.iter().map(|(_, token)| token);
                let right = said.best.iter().eq(wanted);
                match example.phrasing {
                    Some(Phrasing::Unseen) => measures.answers_unseen.count(right),
                    _ => measures.answers_seen.count(right),
                }
            }
        }
    }
    Ok(measures)
}
