//! From a conversation to token ids and media (spec sections 5 and 6).
//!
//! A prompt is made of parts, not of text with markers in it: what a user wrote is tokenised as plain
//! text, whatever it contains, so nobody can type a picture, an end of turn or a state token.

mod detokenizer;
mod template;
mod tokenizer;
mod turns;

pub use detokenizer::Detokenizer;
pub use template::{
    Modality, PicturePlace, SYSTEM_CHINESE_TEXT, SystemTexts, Template, system_text,
};
pub use tokenizer::{StateNames, StateTokens, Tokenizer};
pub use turns::{Content, Conversation, Role, Turn, user_turn};

use candle_core::Tensor;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Image,
    Audio,
}

/// Something seen or heard, encoded: vectors that take the place of token embeddings.
#[derive(Debug, Clone)]
pub struct Media {
    pub kind: MediaKind,
    /// Identity of the content, so that prompts with the same media share what was computed for them.
    pub key: u64,
    /// `[tokens, hidden]`.
    pub vectors: Tensor,
    /// What the model's own ears or eyes put into words, for models whose encoders can: the speech
    /// they read, the names of what they recognised. For people and messages; the language model
    /// is given the vectors only.
    pub transcript: Option<String>,
}

/// A prompt ready to be embedded: ids, and media between them.
#[derive(Debug, Clone)]
pub enum Segment {
    Ids(Vec<u32>),
    Media(Media),
}

impl Segment {
    /// Positions in the merged sequence.
    pub fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Media(media) => media.vectors.dims().first().copied().unwrap_or(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
