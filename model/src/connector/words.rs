//! Words as the language model's own embeddings, for encoders that can name what they hear or see.

use crate::lm::LanguageModel;
use crate::prompt::Tokenizer;
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// The language model's tokens and their embeddings.
#[derive(Clone)]
pub struct Words {
    lm: Arc<LanguageModel>,
    tokenizer: Arc<Tokenizer>,
}

impl Words {
    pub fn new(lm: Arc<LanguageModel>, tokenizer: Arc<Tokenizer>) -> Self {
        Self { lm, tokenizer }
    }

    /// Ids of plain text: what was heard cannot imitate a state token or an end of turn.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_text(text)
    }

    /// Plain text of ids.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        Ok(self.tokenizer.decode(ids, true)?.trim().to_string())
    }

    /// Id of a token of its own, such as a marker.
    pub fn marker(&self, name: &str) -> Result<u32> {
        self.tokenizer.added_token(name)
    }

    /// Embeddings `[ids, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.lm.embed(ids)
    }

    /// Width of an embedding.
    pub fn hidden(&self) -> usize {
        self.lm.config().hidden_size
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Words({})", self.tokenizer.path().display())
    }
}

/// A run of a medium's vectors.
#[derive(Debug, Clone)]
pub enum Part {
    /// Tokens of the language model.
    Ids(Vec<u32>),
    /// `[vectors, hidden]`.
    Vectors(Tensor),
}

/// All parts one after the other, `[vectors, hidden]`; `embed` gives the embeddings of ids, with their gradient where
/// one is wanted.
pub fn join_parts(
    parts: &[Part],
    mut embed: impl FnMut(&[u32]) -> Result<Tensor>,
) -> Result<Tensor> {
    let rows = parts.iter().filter_map(|part| match part {
        Part::Ids(ids) if ids.is_empty() => None,
        Part::Ids(ids) => Some(embed(ids)),
        Part::Vectors(vectors) => Some(Ok(vectors.clone())),
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        return Err(Error::Input("a medium of no vectors".into()));
    }
    Ok(Tensor::cat(&rows, 0)?)
}
