//! Reading an utterance: the likeliest token at each step, under Whisper's rules for what may not be
//! written (`whisper/decoding.py` of openai/whisper, without timestamps).

use super::WhisperDecoder;
use crate::audio::Padded;
use crate::prompt::Tokenizer;
use crate::{Error, Result};
use std::path::Path;

/// Tokens that nobody speaks faster than: so many, and so many more for each second.
const TOKENS_AT_LEAST: f64 = 8.0;
const TOKENS_PER_SECOND: f64 = 8.0;

/// A run of so many tokens that stands there so often in a row is the decoder going in circles, which it does where
/// an utterance is not padded to 30 s. People repeat a word or a short phrase, not a sentence.
fn rounds(run: usize) -> usize {
    match run {
        0..=2 => 4,
        3..=7 => 3,
        _ => 2,
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    pub text: String,
    /// In the decoder's own vocabulary, without its special tokens.
    pub ids: Vec<u32>,
    /// Mean logarithm of the probabilities of the tokens and of the end, under the rules.
    pub average_log_probability: f64,
    /// The least of them.
    pub lowest_log_probability: f64,
    /// Probability that nobody speaks, before the first token.
    pub no_speech_probability: f64,
    /// False: it went in circles, or was longer than anyone speaks in the time, and was cut.
    pub complete: bool,
}

impl Transcript {
    /// Of pieces of one utterance, in order.
    pub(crate) fn join(pieces: Vec<Self>) -> Result<Self> {
        let mut pieces = pieces.into_iter();
        let first = pieces
            .next()
            .ok_or_else(|| Error::Input("the utterance is empty".into()))?;
        Ok(pieces.fold(first, Self::and))
    }

    fn and(mut self, next: Self) -> Self {
        // the end of each piece has a probability too
        let (mine, its) = (self.ids.len() as f64 + 1.0, next.ids.len() as f64 + 1.0);
        let sum = mine * self.average_log_probability + its * next.average_log_probability;
        self.ids.extend(next.ids);
        Self {
            text: format!("{} {}", self.text, next.text).trim().to_string(),
            ids: self.ids,
            average_log_probability: sum / (mine + its),
            lowest_log_probability: self.lowest_log_probability.min(next.lowest_log_probability),
            no_speech_probability: self.no_speech_probability.min(next.no_speech_probability),
            complete: self.complete && next.complete,
        }
    }
}

/// A decoder with its tokenizer and rules.
#[derive(Debug)]
pub struct Transcriber {
    decoder: WhisperDecoder,
    tokenizer: Tokenizer,
    opening: [u32; 2],
    end: u32,
    no_speech: u32,
    suppressed: Vec<u32>,
    suppressed_first: Vec<u32>,
}

impl Transcriber {
    /// For models of English alone, whose opening is `<|startoftranscript|><|notimestamps|>`.
    /// `suppressed` are the tokens that are never written (music notes, brackets), beside the special ones;
    /// `suppressed_first` those that no text begins with.
    ///
    /// # Errors
    /// Where the tokenizer lacks one of Whisper's special tokens or has more tokens than the decoder.
    pub fn new(
        decoder: WhisperDecoder,
        tokenizer: Tokenizer,
        suppressed: &[u32],
        suppressed_first: &[u32],
    ) -> Result<Self> {
        let id = |name: &str| tokenizer.added_token(name);
        let end = id("<|endoftext|>")?;
        let vocabulary = decoder.vocabulary() as u32;
        if tokenizer.size() > vocabulary as usize {
            let reason = format!(
                "expected at most {vocabulary} tokens (vocab-size), found {}",
                tokenizer.size()
            );
            let path = tokenizer.path().to_path_buf();
            return Err(Error::Tokenizer { path, reason });
        }
        let special = (0..vocabulary).filter(|&id| id != end && tokenizer.is_special(id));
        // timestamps stand behind the special tokens and are no added tokens in every file
        let rest = end + 1..vocabulary;
        let all = suppressed.iter().copied().chain(special).chain(rest);
        let suppressed = sorted(all.filter(|&id| id < vocabulary));
        Ok(Self {
            opening: [id("<|startoftranscript|>")?, id("<|notimestamps|>")?],
            no_speech: id("<|nospeech|>").or_else(|_| id("<|nocaptions|>"))?,
            end,
            suppressed,
            suppressed_first: sorted(
                suppressed_first
                    .iter()
                    .copied()
                    .filter(|&id| id < vocabulary),
            ),
            decoder,
            tokenizer,
        })
    }

    pub fn decoder(&self) -> &WhisperDecoder {
        &self.decoder
    }

    /// What the decoder writes for a text: opening, tokens, end. No text: the end at once.
    pub fn written(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.opening.to_vec();
        if !text.is_empty() {
            ids.extend(self.tokenizer.encode_text(&format!(" {text}"))?);
        }
        ids.push(self.end);
        Ok(ids)
    }

    /// Tokens of [`Self::written`] that are given and not written.
    pub fn opening(&self) -> usize {
        self.opening.len()
    }

    /// File of the tokenizer, for messages.
    pub fn path(&self) -> &Path {
        self.tokenizer.path()
    }

    /// Reads one encoded utterance `[1, steps, width]` of `seconds`.
    pub fn read(&self, encoded: &Padded, seconds: f64) -> Result<Transcript> {
        self.read_with(&self.decoder, encoded, seconds)
    }

    /// [`Self::read`] with another decoder of the same vocabulary.
    pub fn read_with(
        &self,
        decoder: &WhisperDecoder,
        encoded: &Padded,
        seconds: f64,
    ) -> Result<Transcript> {
        let wanted = TOKENS_AT_LEAST + TOKENS_PER_SECOND * seconds.max(0.0);
        let room = decoder.max_length()?.saturating_sub(self.opening.len());
        let limit = (wanted as usize).min(room);
        let mut state = decoder.begin(encoded)?;
        let logits = decoder.step(&self.opening, &mut state)?;
        let no_speech_probability =
            crate::sampling::probability(&logits.get(0)?.to_vec1()?, self.no_speech);
        let mut logits = logits.get(1)?.to_vec1::<f32>()?;
        let mut ids = Vec::new();
        let mut log_probabilities = Vec::new();
        let mut complete = false;
        loop {
            forbid(&mut logits, &self.suppressed);
            if ids.is_empty() {
                forbid(&mut logits, &self.suppressed_first);
            }
            let (id, log_probability) = likeliest(&logits)?;
            log_probabilities.push(log_probability);
            if id == self.end {
                complete = true;
                break;
            }
            ids.push(id);
            if let Some(kept) = without_circles(&ids) {
                ids.truncate(kept);
                break;
            }
            if ids.len() >= limit {
                break;
            }
            logits = decoder.step(&[id], &mut state)?.get(0)?.to_vec1()?;
        }
        let text = self.tokenizer.decode(&ids, true)?;
        let sum: f64 = log_probabilities.iter().sum();
        Ok(Transcript {
            text: text.trim().to_string(),
            average_log_probability: sum / log_probabilities.len() as f64,
            lowest_log_probability: log_probabilities.iter().copied().fold(0.0, f64::min),
            no_speech_probability,
            complete,
            ids,
        })
    }
}

fn sorted(ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn forbid(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        logits[id as usize] = f32::NEG_INFINITY;
    }
}

/// The likeliest token and the logarithm of its probability.
pub(crate) fn likeliest(logits: &[f32]) -> Result<(u32, f64)> {
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > max {
            (best, max) = (id, logit);
        }
    }
    if !max.is_finite() {
        return Err(Error::Input(
            "the audio decoder's logits are no numbers: is the sound sound?".into(),
        ));
    }
    let sum: f64 = logits.iter().map(|&l| f64::from((l - max).exp())).sum();
    Ok((best as u32, -sum.ln()))
}

/// Where a text ends in circles, its length with one round of them.
fn without_circles(ids: &[u32]) -> Option<usize> {
    (1..=ids.len() / 2).find_map(|run| {
        let circles = rounds(run);
        let tail = ids.get(ids.len().checked_sub(circles * run)?..)?;
        let (first, others) = tail.split_at(run);
        let same = others.chunks_exact(run).all(|part| part == first);
        same.then(|| ids.len() - (circles - 1) * run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_cut_to_one_round() {
        assert_eq!(without_circles(&[7, 1, 2, 1, 2, 1, 2, 1, 2]), Some(3));
        assert_eq!(without_circles(&[7, 5, 5, 5, 5]), Some(2));
        assert_eq!(without_circles(&[7, 5, 5, 5]), None);
        assert_eq!(without_circles(&[]), None);
        let sentence = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(without_circles(&[sentence, sentence].concat()), Some(9));
        assert_eq!(without_circles(&[1, 2, 3, 4, 1, 2, 3, 4]), None);
        assert_eq!(without_circles(&[9, 1, 2, 3, 1, 2, 3, 1, 2, 3]), Some(4));
    }

    #[test]
    fn the_likeliest_has_the_logarithm_of_its_share() {
        let (id, log_probability) = likeliest(&[f32::NEG_INFINITY, 1.0, 3.0, 1.0]).unwrap();
        assert_eq!(id, 2);
        let expected = -(1.0 + 2.0 * (-2f64).exp()).ln();
        assert!((log_probability - expected).abs() < 1e-6);
        assert!(likeliest(&[f32::NAN, f32::NAN]).is_err());
    }
}
