use candle_core::Tensor;

use crate::lm::LanguageModel;
use crate::prompt::Segment;
use crate::{Error, Result};

/// What stands at one position, for comparing prompts without their tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Token(u32),
    Media { key: u64, index: usize },
}

pub(super) fn marks(prompt: &[Segment]) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(prompt.iter().map(Segment::len).sum());
    for segment in prompt {
        match segment {
            Segment::Ids(ids) => marks.extend(ids.iter().map(|id| Mark::Token(*id))),
            Segment::Media(media) => {
                let key = media.key;
                marks.extend((0..segment.len()).map(|index| Mark::Media { key, index }));
            }
        }
    }
    marks
}

/// Says what is wrong with a prompt before it reaches a batch, where it would trouble others.
pub(super) fn check(prompt: &[Segment], lm: &LanguageModel) -> Result<()> {
    if prompt.iter().all(Segment::is_empty) {
        return Err(Error::Input("the prompt is empty".into()));
    }
    let (vocabulary, hidden) = (lm.vocabulary(), lm.config().hidden_size);
    for segment in prompt {
        match segment {
            Segment::Ids(ids) => {
                if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
                    return Err(Error::Input(format!(
                        "token {id} of a vocabulary of {vocabulary}"
                    )));
                }
            }
            Segment::Media(media) => {
                let found = media.vectors.dims();
                if found.len() != 2 || found[1] != hidden {
                    return Err(Error::Input(format!(
                        "media vectors: expected shape [tokens, {hidden}], found {found:?}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// The embeddings of `n` positions from `from` on, `[n, hidden]`.
pub(super) fn embed(
    prompt: &[Segment],
    from: usize,
    n: usize,
    lm: &LanguageModel,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    let mut start = 0;
    for segment in prompt {
        let end = start + segment.len();
        let (first, last) = (from.max(start), (from + n).min(end));
        if first < last {
            parts.push(match segment {
                Segment::Ids(ids) => lm.embed(&ids[first - start..last - start])?,
                Segment::Media(media) => {
                    let vectors = media.vectors.narrow(0, first - start, last - first)?;
                    vectors
                        .to_dtype(lm.compute_dtype())?
                        .to_device(lm.device())?
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
