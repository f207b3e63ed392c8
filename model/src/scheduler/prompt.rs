use candle_core::Tensor;

use crate::lm::Decoder;
use crate::{Error, Result};

/// A stretch of a prompt.
#[derive(Clone, Debug)]
pub enum Span {
    Tokens(Vec<u32>),
    /// Encoded media.
    Media {
        /// Names the content: equal keys are taken for equal embeddings, so that a shared prefix is found.
        key: u64,
        /// `[n, hidden]`.
        embeddings: Tensor,
    },
}

impl Span {
    /// Positions that it takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Media { embeddings, .. } => embeddings.dims().first().copied().unwrap_or(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What stands at one position, for comparing prompts without their tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Token(u32),
    Media { key: u64, index: u32 },
}

pub(super) fn marks(spans: &[Span]) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(spans.iter().map(Span::len).sum());
    for span in spans {
        match span {
            Span::Tokens(ids) => marks.extend(ids.iter().map(|id| Mark::Token(*id))),
            Span::Media { key, .. } => {
                marks.extend((0..span.len() as u32).map(|index| Mark::Media { key: *key, index }));
            }
        }
    }
    marks
}

/// Says what is wrong with a prompt before it reaches a batch, where it would trouble others.
pub(super) fn check(spans: &[Span], model: &Decoder) -> Result<()> {
    let config = model.config();
    if spans.iter().all(Span::is_empty) {
        return Err(Error::Input("the prompt is empty".into()));
    }
    for span in spans {
        match span {
            Span::Tokens(ids) => {
                if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
                    let vocab = config.vocab_size;
                    return Err(Error::Input(format!(
                        "token {id} is outside the vocabulary of {vocab}"
                    )));
                }
            }
            Span::Media { embeddings, .. } => {
                if embeddings.rank() != 2 || embeddings.dims()[1] != config.hidden_size {
                    return Err(Error::Input(format!(
                        "media embeddings: expected shape [n, {}], found {:?}",
                        config.hidden_size,
                        embeddings.dims()
                    )));
                }
            }
        }
    }
    Ok(())
}

/// The embeddings of `n` positions from `from` on, `[n, hidden]`.
pub(super) fn embed(spans: &[Span], from: usize, n: usize, model: &Decoder) -> Result<Tensor> {
    let mut parts = Vec::new();
    let mut start = 0;
    for span in spans {
        let end = start + span.len();
        let (first, last) = (from.max(start), (from + n).min(end));
        if first < last {
            parts.push(match span {
                Span::Tokens(ids) => model.embed(&ids[first - start..last - start])?,
                Span::Media { embeddings, .. } => {
                    embeddings.narrow(0, first - start, last - first)?
                }
            });
        }
        start = end;
    }
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        many => Ok(Tensor::cat(many, 0)?),
    }
}
