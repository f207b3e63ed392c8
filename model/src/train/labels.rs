//! From a conversation to what a language model is trained on (spec 8.2), and the packing of
//! conversations (spec 8.3).

use crate::Result;
use crate::prompt::{Conversation, Segment, Template, Tokenizer};

/// Which tokens are targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Labels {
    /// In conversations whose answers have no state token the reference also asks for the token before
    /// each answer (the `:` of `bot:`), by an off-by-one of its own. Off by default: that token is
    /// given at inference.
    pub with_token_before: bool,
}

/// A segment of a sequence, and of each of its positions whether it is a target.
#[derive(Debug, Clone)]
pub struct Labelled {
    pub segment: Segment,
    pub targets: Vec<bool>,
}

impl Labels {
    /// The whole conversation, answers included. Targets are the answers' tokens, state tokens
    /// included, and the tokens that end them. `ended`: whether the last answer has an end.
    pub fn render(
        self,
        template: &Template,
        tokenizer: &Tokenizer,
        conversation: &Conversation,
        ended: bool,
    ) -> Result<Vec<Labelled>> {
        let rendered = template.render_answered(conversation, tokenizer, ended)?;
        let labelled = rendered.into_iter().map(|(segment, mut targets)| {
            if self.with_token_before {
                for i in 1..targets.len() {
                    let plain = targets[i] && !targets[i - 1] && !is_state(&segment, i, tokenizer);
                    targets[i - 1] |= plain;
                }
            }
            Labelled { segment, targets }
        });
        Ok(labelled.collect())
    }
}

fn is_state(segment: &Segment, at: usize, tokenizer: &Tokenizer) -> bool {
    match segment {
        Segment::Ids(ids) => tokenizer.is_special(ids[at]),
        Segment::Media(_) => false,
    }
}

/// How conversations are joined to long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Tokens of a group; one longer conversation stands alone.
    pub limit: usize,
}

/// Fills groups greedily, in order: indices of the conversations whose token lengths are given.
pub fn pack(lengths: &[usize], packing: Packing) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut filled = 0;
    for (i, &length) in lengths.iter().enumerate() {
        match groups
            .last_mut()
            .filter(|_| filled + length <= packing.limit)
        {
            Some(group) => {
                group.push(i);
                filled += length;
            }
            None => {
                groups.push(vec![i]);
                filled = length;
            }
        }
    }
    groups
}
