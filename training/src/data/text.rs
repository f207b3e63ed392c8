//! How the same words look: spoken, typed, or written down by a speech recogniser.

use super::corpus::capitalised;
use super::number;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const ASKING: [&str; 40] = [
    "what", "what's", "which", "who", "who's", "whose", "whom", "where", "where's", "when", "why",
    "how", "how's", "is", "are", "am", "do", "does", "did", "can", "could", "will", "would",
    "shall", "should", "may", "have", "has", "was", "were", "isn't", "aren't", "don't", "with",
    "at", "in", "on", "of", "by", "may",
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

/// What small recognisers write for what was said.
const CONFUSED: [(&str, &str); 26] = [
    ("two", "to"),
    ("four", "for"),
    ("eight", "ate"),
    ("one", "won"),
    ("your", "you're"),
    ("there", "their"),
    ("hear", "here"),
    ("see", "sea"),
    ("right", "write"),
    ("sun", "son"),
    ("know", "no"),
    ("would", "what"),
    ("can", "can't"),
    ("watch", "what"),
    ("count", "can't"),
    ("and", "in"),
    ("is", "as"),
    ("the", "a"),
    ("a", "the"),
    ("are", "our"),
    ("than", "then"),
    ("legs", "likes"),
    ("cat", "cut"),
    ("wheels", "whales"),
    ("month", "man"),
    ("plus", "less"),
];
const LOST: [&str; 9] = ["the", "a", "is", "of", "to", "does", "and", "do", "it"];

/// As a recogniser writes it: with marks, mostly with digits, now and then with a wrong word.
pub fn recognised(text: &str, rng: &mut StdRng) -> String {
    let mut out = text.to_owned();
    if rng.random_bool(0.18) {
        out = misheard(&out, rng);
    }
    out = sentence(&out);
    if rng.random_bool(0.4) {
        out = number::to_digits(&out);
    }
    if rng.random_bool(0.1) {
        out = out.trim_end_matches(['.', '?']).to_owned()
            + ["", ".", "...", "!"].choose(rng).unwrap_or(&"");
    }
    out
}

fn misheard(text: &str, rng: &mut StdRng) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    let swaps: Vec<(usize, &str)> = words
        .iter()
        .enumerate()
        .flat_map(|(i, word)| {
            CONFUSED
                .iter()
                .filter(move |(said, _)| said == word)
                .map(move |(_, read)| (i, *read))
        })
        .collect();
    let losses: Vec<usize> = (0..words.len())
        .filter(|i| LOST.contains(&words[*i]))
        .collect();
    match (swaps.choose(rng), losses.choose(rng)) {
        (Some((at, read)), _) if rng.random_bool(0.6) => words[*at] = read,
        (_, Some(at)) if words.len() > 3 => drop(words.remove(*at)),
        // The end is what gets cut off most.
        _ if words.len() > 4 => drop(words.pop()),
        _ => {}
    }
    words.join(" ")
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
