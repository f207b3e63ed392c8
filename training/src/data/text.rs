//! How the same words look: spoken, typed, or written down by a speech recogniser.

use super::corpus::capitalised;
use super::number;
use rand::Rng;
use rand::rngs::StdRng;

const ASKING: [&str; 39] = [
    "what", "what's", "which", "who", "who's", "whose", "whom", "where", "where's", "when", "why",
    "how", "how's", "is", "are", "am", "do", "does", "did", "can", "could", "will", "would",
    "shall", "should", "may", "have", "has", "was", "were", "isn't", "aren't", "don't", "with",
    "at", "in", "on", "of", "by",
];

/// A sentence with a capital and a full stop or question mark.
pub fn sentence(text: &str) -> String {
    if text.ends_with(['.', '?', '!']) {
        return capitalised(text);
    }
    let lower = text.to_lowercase();
    let asks = |part: &str| {
        let mut words = part.split_whitespace();
        let first = words.next().unwrap_or("");
        // "in the quiz they asked" is no question, "in which month" is one.
        let preposition = ["with", "at", "in", "on", "of", "by"].contains(&first);
        let second = words.next().unwrap_or("");
        ASKING.contains(&first)
            && (!preposition || ["what", "which", "whom", "how", "whose"].contains(&second))
    };
    let question = lower.split(", ").any(asks)
        || [" is what", " is which", "how many", " what is it"]
            .iter()
            .any(|end| lower.ends_with(end));
    capitalised(text) + if question { "?" } else { "." }
}

/// As people type it: in half of the cases without capitals and marks, sometimes with digits, signs
/// or a slip of the finger.
pub fn typed(text: &str, rng: &mut StdRng) -> String {
    let mut out = if rng.random_bool(0.5) {
        sentence(text)
    } else {
        text.to_lowercase().replace(',', "")
    };
    if rng.random_bool(0.3) {
        out = number::to_digits(&out);
        if rng.random_bool(0.6) {
            for (word, sign) in [(" plus ", " + "), (" minus ", " - "), (" times ", " * ")] {
                out = out.replace(word, sign);
            }
        }
    }
    if rng.random_bool(0.06) {
        slip(&out, rng)
    } else {
        out
    }
}

/// Two neighbouring letters change places, or one is left out.
fn slip(text: &str, rng: &mut StdRng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    if letters.len() < 8 {
        return text.to_owned();
    }
    let at = rng.random_range(1..letters.len() - 2);
    if rng.random_bool(0.5) {
        letters.swap(at, at + 1);
    } else {
        letters.remove(at);
    }
    letters.into_iter().collect()
}

/// As a recogniser writes it when it hears all: with marks, often with digits. Which words it takes for
/// others is drawn anew each time that the item is trained on.
pub fn recognised(text: &str, rng: &mut StdRng) -> String {
    let whole = sentence(text);
    match rng.random_bool(0.4) {
        true => number::to_digits(&whole),
        false => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_get_their_mark() {
        for (text, whole) in [
            ("what's two plus two", "What's two plus two?"),
            ("um, what is this", "Um, what is this?"),
            ("open the door", "Open the door."),
            (
                "in which month is Christmas",
                "In which month is Christmas?",
            ),
            ("in those days it was cold", "In those days it was cold."),
            ("Why not?", "Why not?"),
        ] {
            assert_eq!(sentence(text), whole);
        }
    }
}
