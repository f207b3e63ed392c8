//! Ids to text as they come, never splitting a character.

use super::Tokenizer;
use std::sync::Arc;

/// The bytes that each token stands for.
pub(super) struct Pieces {
    bytes: Vec<Box<[u8]>>,
    /// The decoder removes one space at the beginning of a text.
    strips_first_space: bool,
}

#[derive(Clone, Copy)]
enum Spelling {
    /// "▁" for a space, `<0x41>` for a byte.
    ByteFallback,
    /// One printable character for each byte, as GPT-2 does.
    ByteLevel,
}

impl Pieces {
    /// `decoder` is the JSON of the tokenizer's decoder, whose kind tells how tokens are spelt.
    pub fn new(
        tokenizer: &tokenizers::Tokenizer,
        size: usize,
        decoder: &str,
    ) -> Result<Self, String> {
        let spelling = match decoder {
            d if d.contains("\"ByteFallback\"") => Spelling::ByteFallback,
            d if d.contains("\"ByteLevel\"") => Spelling::ByteLevel,
            _ => {
                return Err("expected a byte-fallback or byte-level decoder, found another".into());
            }
        };
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = (0..size as u32)
            .map(|id| match added.get(&id) {
                Some(token) => token.content.as_bytes().into(),
                None => {
                    let token = tokenizer.id_to_token(id).unwrap_or_default();
                    spelling.bytes(&token).into_boxed_slice()
                }
            })
            .collect();
        Ok(Self {
            bytes,
            strips_first_space: decoder.contains("\"Strip\""),
        })
    }

    fn of(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |b| b)
    }
}

impl Spelling {
    fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteFallback => match byte_token(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            Self::ByteLevel => token.chars().flat_map(byte_of_char).collect(),
        }
    }
}

/// `<0x41>` → 0x41.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2 writes printable Latin-1 as itself and the other bytes, in order, from U+0100 on.
fn byte_of_char(c: char) -> Vec<u8> {
    let printable = |b: &u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    match u32::from(c) {
        code @ 0..=255 => vec![code as u8],
        code @ 256..=323 => {
            let other = (0..=255u8)
                .filter(|b| !printable(b))
                .nth(code as usize - 256);
            other.map_or_else(|| c.to_string().into_bytes(), |b| vec![b])
        }
        _ => c.to_string().into_bytes(),
    }
}

/// Turns one sequence's ids into text. Bytes that are not yet a whole character wait for the rest.
#[derive(Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    pending: Vec<u8>,
    at_start: bool,
    keep_special: bool,
}

impl Detokenizer {
    /// `keep_special`: write special tokens by their names instead of leaving them out.
    pub fn new(tokenizer: Arc<Tokenizer>, keep_special: bool) -> Self {
        Self {
            tokenizer,
            pending: Vec::new(),
            at_start: true,
            keep_special,
        }
    }

    /// The text that this token completes; often a word, sometimes nothing yet.
    pub fn push(&mut self, id: u32) -> String {
        if !self.keep_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        let pieces = self.tokenizer.pieces();
        let mut bytes = pieces.of(id);
        if self.at_start && pieces.strips_first_space {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.at_start &= pieces.of(id).is_empty();
        self.pending.extend_from_slice(bytes);
        self.take(false)
    }

    /// What is left, with U+FFFD for a character that never became whole.
    pub fn finish(&mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, all: bool) -> String {
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let at_end = used + invalid.len() == self.pending.len();
            if at_end && !all && may_continue(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        text
    }
}

/// Could more bytes make a character of these?
fn may_continue(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(e) if e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_spelling_covers_every_byte_once() {
        let spelt: String = (0..=323u32).filter_map(char::from_u32).collect();
        let mut seen = [false; 256];
        for c in spelt.chars().filter(|c| {
            let code = u32::from(*c);
            code >= 256 || matches!(code, 33..=126 | 161..=172 | 174..=255)
        }) {
            for byte in byte_of_char(c) {
                assert!(
                    !std::mem::replace(&mut seen[usize::from(byte)], true),
                    "{c:?}"
                );
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!(Spelling::ByteLevel.bytes("Ġhi"), b" hi");
    }

    #[test]
    fn byte_fallback_spelling() {
        assert_eq!(Spelling::ByteFallback.bytes("<0xE5>"), [0xe5]);
        assert_eq!(Spelling::ByteFallback.bytes("▁a"), b" a");
        assert_eq!(Spelling::ByteFallback.bytes("<0xE>"), b"<0xE>");
    }
}
