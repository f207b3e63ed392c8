//! Token embeddings and media vectors in one sequence (spec section 5).

use crate::lm::LanguageModel;
use crate::prompt::Segment;
use crate::{Error, Result};
use candle_core::Tensor;

/// Embeddings `[positions, hidden]` of a prompt. One that leaves no room for an answer is an error;
/// the reference would silently cut its end off, which is the question.
pub fn embed_prompt(lm: &LanguageModel, prompt: &[Segment], max_length: usize) -> Result<Tensor> {
    let needed = prompt.iter().map(Segment::len).sum();
    if needed >= max_length {
        let available = max_length.saturating_sub(1);
        return Err(Error::TooLong { needed, available });
    }
    check(prompt, lm)?;
    embed(prompt, 0, needed, lm)
}

/// Says what is wrong with a prompt before it reaches a batch, where it would trouble others.
pub(crate) fn check(prompt: &[Segment], lm: &LanguageModel) -> Result<()> {
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
pub(crate) fn embed(
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
