//! Sentences of running text: the corpus's own, and those of Debian's `fortunes` where it is installed.

use super::sound::split_of;
use super::{Error, Result};
use crate::Split;
use std::collections::BTreeSet;
use std::path::Path;

const FORTUNES: &str = "/usr/share/games/fortunes";
const FILES: [&str; 12] = [
    "literature",
    "wisdom",
    "people",
    "science",
    "humorists",
    "miscellaneous",
    "platitudes",
    "food",
    "law",
    "medicine",
    "sports",
    "work",
];

/// Sentences for training, and those held out.
pub fn sentences(own: &(Vec<String>, Vec<String>)) -> Result<(Vec<String>, Vec<String>)> {
    let (mut seen, mut unseen) = own.clone();
    let mut found = BTreeSet::new();
    for name in FILES {
        let path = Path::new(FORTUNES).join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => found.extend(from_fortunes(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&path)(e)),
        }
    }
    for sentence in found {
        match split_of(&sentence) {
            Split::Test => unseen.push(sentence),
            Split::Train => seen.push(sentence),
            Split::Valid => {}
        }
    }
    Ok((seen, unseen))
}

/// Whole sentences of 6 to 24 words that can be read aloud as they stand.
fn from_fortunes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for saying in text.split("\n%\n") {
        // The line of the author.
        let saying = saying.split("\n\t\t").next().unwrap_or("");
        let flat = saying.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in flat.split_inclusive(['.', '!', '?']) {
            let sentence = sentence.trim();
            let words = sentence.split(' ').count();
            let plain = |c: char| c.is_ascii_alphabetic() || " ,.'!?;".contains(c);
            let whole = sentence.starts_with(|c: char| c.is_ascii_uppercase())
                && sentence.ends_with(['.', '!', '?']);
            if whole && (6..=24).contains(&words) && sentence.chars().all(plain) {
                found.push(sentence.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_a_saying() {
        let text = "He who sees the stars\nmisses the well at his feet.  Beware!\n\t\t-- A. Poet\n%\nQ:\tWhat is 42?\n";
        assert_eq!(
            from_fortunes(text),
            ["He who sees the stars misses the well at his feet."]
        );
    }
}
