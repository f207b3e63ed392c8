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
    let hidden = lm.config().hidden_size;
    let parts = prompt.iter().filter(|segment| !segment.is_empty());
    let parts = parts.map(|segment| match segment {
        Segment::Ids(ids) => lm.embed(ids),
        Segment::Media(media) => {
            let vectors = &media.vectors;
            let (_, width) = vectors.dims2()?;
            if width != hidden {
                return Err(Error::Input(format!(
                    "media vectors are {width} wide, the language model {hidden}"
                )));
            }
            Ok(vectors
                .to_dtype(lm.compute_dtype())?
                .to_device(lm.device())?)
        }
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    if parts.is_empty() {
        return Err(Error::Input("the prompt is empty".into()));
    }
    Ok(Tensor::cat(&parts, 0)?)
}
