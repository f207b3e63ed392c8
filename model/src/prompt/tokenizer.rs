//! `tokenizer.json`, with and without its special tokens.

use super::detokenizer::Pieces;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Ids of the tokens that judge a question (spec 6.2), looked up by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateTokens {
    /// `<1>`: a spoken question; answer it.
    pub query: u32,
    /// `<2>`: noise, or not meant for the system; stay silent.
    pub noise: u32,
    /// `<3>`: a typed question.
    pub text: u32,
}

/// What the state tokens are called. The default is VITA's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateNames {
    pub query: String,
    pub noise: String,
    pub text: String,
}

impl Default for StateNames {
    fn default() -> Self {
        Self {
            query: "<1>".into(),
            noise: "<2>".into(),
            text: "<3>".into(),
        }
    }
}

/// Text to ids and back.
pub struct Tokenizer {
    /// As published: for decoding, and for text that may name special tokens.
    full: tokenizers::Tokenizer,
    /// Without added tokens: reads any text as nothing but text.
    plain: tokenizers::Tokenizer,
    added: HashMap<String, u32>,
    special: Vec<u32>,
    bos: Option<u32>,
    size: usize,
    pieces: Pieces,
    path: PathBuf,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({})", self.path.display())
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(path, &crate::error::read_file(path)?)
    }

    /// `path` is for messages.
    pub fn from_bytes(path: &Path, json: &[u8]) -> Result<Self> {
        let fail = |reason: String| Error::Tokenizer {
            path: path.to_path_buf(),
            reason,
        };
        let parse =
            |json: &[u8]| tokenizers::Tokenizer::from_bytes(json).map_err(|e| fail(e.to_string()));
        let mut value: Value = serde_json::from_slice(json).map_err(|e| fail(e.to_string()))?;
        for key in ["truncation", "padding"] {
            value[key] = Value::Null;
        }
        let full = parse(value.to_string().as_bytes())?;
        value["added_tokens"] = Value::Array(Vec::new());
        value["post_processor"] = Value::Null;
        let plain = parse(value.to_string().as_bytes())?;

        let opening = full.encode("", true).map_err(|e| fail(e.to_string()))?;
        let decoder = value["decoder"].to_string();
        let size = full
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1);
        let added = full.get_added_tokens_decoder();
        let pieces = Pieces::new(&full, size, &decoder).map_err(fail)?;
        Ok(Self {
            added: added
                .iter()
                .map(|(&id, t)| (t.content.clone(), id))
                .collect(),
            special: added
                .iter()
                .filter(|(_, t)| t.special)
                .map(|(&id, _)| id)
                .collect(),
            bos: opening.get_ids().first().copied(),
            path: path.to_path_buf(),
            full,
            plain,
            size,
            pieces,
        })
    }

    /// Rows that an embedding table needs: the largest id and one.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token that every prompt begins with, for tokenizers that have one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Id of an added token (an end of turn, a state token) by its text.
    pub fn added_token(&self, text: &str) -> Result<u32> {
        self.added
            .get(text)
            .copied()
            .ok_or_else(|| Error::Tokenizer {
                path: self.path.clone(),
                reason: format!("expected a token {text:?} of its own, found none"),
            })
    }

    /// Ids of the three state tokens under VITA's names.
    pub fn state_tokens(&self) -> Result<StateTokens> {
        self.state_tokens_named(&StateNames::default())
    }

    /// Ids of the three state tokens.
    pub fn state_tokens_named(&self, names: &StateNames) -> Result<StateTokens> {
        Ok(StateTokens {
            query: self.added_token(&names.query)?,
            noise: self.added_token(&names.noise)?,
            text: self.added_token(&names.text)?,
        })
    }

    /// Ids of a run of plain text: no special token is recognised in it, none is added.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let placed = self.encode_text_with_places(text)?;
        Ok(placed.into_iter().map(|(id, _)| id).collect())
    }

    /// [`Self::encode_text`], and of each token which bytes of the text it stands for.
    pub fn encode_text_with_places(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.plain.encode(text, false).map_err(|e| self.failed(e))?;
        let ids = encoding.get_ids().iter();
        let placed: Vec<_> = ids
            .zip(encoding.get_offsets())
            .map(|(&id, &(from, to))| (id, from..to))
            .collect();
        match placed.iter().find(|(id, _)| self.special.contains(id)) {
            Some((id, _)) => Err(Error::Input(format!(
                "the text turned into special token {id}"
            ))),
            None => Ok(placed),
        }
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::Tokenizer {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    /// Ids of trusted text, in which special tokens are recognised by their names. Never for user text.
    pub fn encode_markup(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.full.encode_fast(text, false);
        Ok(encoding.map_err(|e| self.failed(e))?.get_ids().to_vec())
    }

    /// Text of ids, all at once.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.full
            .decode(ids, skip_special)
            .map_err(|e| Error::Tokenizer {
                path: self.path.clone(),
                reason: e.to_string(),
            })
    }

    /// Is the token one that a reader should not see?
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Splits trusted template text at the names of added tokens.
    pub(super) fn split_markup<'a>(&self, text: &'a str) -> Vec<MarkupPiece<'a>> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((at, name, id)) = self.first_added(rest) {
            if at > 0 {
                pieces.push(MarkupPiece::Text(&rest[..at]));
            }
            pieces.push(MarkupPiece::Token(id));
            rest = &rest[at + name.len()..];
        }
        if !rest.is_empty() {
            pieces.push(MarkupPiece::Text(rest));
        }
        pieces
    }

    /// The first added token in a text; of those that begin there, the longest.
    fn first_added(&self, text: &str) -> Option<(usize, &str, u32)> {
        self.added
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .filter_map(|(name, &id)| Some((text.find(name.as_str())?, name.as_str(), id)))
            .min_by_key(|(at, name, _)| (*at, std::cmp::Reverse(name.len())))
    }
}

pub(super) enum MarkupPiece<'a> {
    Text(&'a str),
    Token(u32),
}
