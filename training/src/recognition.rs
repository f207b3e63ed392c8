//! What a recogniser would have written: words dropped, taken for others that sound alike, and taken
//! for what the ears really wrote in their place in some recording, other ones each time that an item is
//! drawn. So a few real recordings serve many more sentences than were spoken.

use crate::RecognitionErrors;
use crate::data::normalise;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};

/// Words by how they sound.
pub struct SoundAlikes(BTreeMap<String, Vec<String>>);

impl SoundAlikes {
    /// From all words of some texts.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let words: BTreeSet<String> = texts
            .flat_map(str::split_whitespace)
            .map(bare)
            .filter(|word| word.chars().all(|c| c.is_ascii_alphabetic()) && !word.is_empty())
            .collect();
        let mut by_sound: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for word in words {
            by_sound.entry(sound(&word)).or_default().push(word);
        }
        Self(by_sound)
    }

    /// Another word that sounds like this one.
    fn other(&self, word: &str, rng: &mut StdRng) -> Option<&str> {
        let alike = self.0.get(&sound(word))?;
        let others = alike.iter().filter(|other| *other != word).count();
        if others == 0 {
            return None;
        }
        let chosen = rng.random_range(0..others);
        let mut others = alike.iter().filter(|other| *other != word);
        others.nth(chosen).map(String::as_str)
    }
}

/// Longest piece of a sentence that is taken as one mistake, in words.
const LONGEST: usize = 3;

/// Mistakes that the ears made: what was said, and what they wrote.
#[derive(Debug, Default)]
pub struct Confusions {
    /// By the words said, all that was written instead; a mistake made often stands there often.
    written: BTreeMap<String, Vec<String>>,
    /// How often words were said, rightly read or not.
    said: BTreeMap<String, usize>,
}

impl Confusions {
    /// From what was said in recordings and what was read. Recordings of which half of the words are wrong
    /// say nothing about single words, and are left out.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut found = Self::default();
        for (said, read) in pairs {
            let (said, read) = (normalise(said), normalise(read));
            let said: Vec<&str> = said.split_whitespace().collect();
            let read: Vec<&str> = read.split_whitespace().collect();
            let path = alignment(&said, &read);
            let wrong = path.iter().filter(|(s, r)| s != r).count();
            if wrong * 2 > said.len() {
                continue;
            }
            for length in 1..=LONGEST {
                for words in said.windows(length) {
                    *found.said.entry(words.join(" ")).or_default() += 1;
                }
            }
            for mistake in path.split(|(s, r)| s == r) {
                let was: Vec<&str> = mistake.iter().filter_map(|(s, _)| *s).collect();
                let became: Vec<&str> = mistake.iter().filter_map(|(_, r)| *r).collect();
                if (1..=LONGEST).contains(&was.len()) && became.len() <= LONGEST {
                    let written = found.written.entry(was.join(" ")).or_default();
                    written.push(became.join(" "));
                }
            }
        }
        found
    }

    /// What stands in the place of these words in one of the recordings in which they were read wrong: as often
    /// as they were, times `scale`.
    fn instead(&self, words: &str, scale: f64, rng: &mut StdRng) -> Option<&str> {
        let written = self.written.get(words)?;
        let said = self.said.get(words).copied().unwrap_or(1).max(1);
        let chance = scale * written.len() as f64 / said as f64;
        if rng.random::<f64>() >= chance {
            return None;
        }
        Some(&written[rng.random_range(0..written.len())])
    }
}

/// Two texts word by word along their shortest edit: a word of each, or of one alone.
fn alignment<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(Option<&'a str>, Option<&'a str>)> {
    let mut cost = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            cost[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let both = cost[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    both.min(cost[i - 1][j] + 1).min(cost[i][j - 1] + 1)
                }
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let mut path = Vec::new();
    while i > 0 || j > 0 {
        let both = i > 0 && j > 0 && {
            let step = usize::from(a[i - 1] != b[j - 1]);
            cost[i][j] == cost[i - 1][j - 1] + step
        };
        if both {
            path.push((Some(a[i - 1]), Some(b[j - 1])));
            (i, j) = (i - 1, j - 1);
        } else if i > 0 && cost[i][j] == cost[i - 1][j] + 1 {
            path.push((Some(a[i - 1]), None));
            i -= 1;
        } else {
            path.push((None, Some(b[j - 1])));
            j -= 1;
        }
    }
    path.reverse();
    path
}

/// A coarse phonetic key: the first sound's class, then the classes of the consonants, doubles once.
fn sound(word: &str) -> String {
    let class = |c: char| match c {
        'b' | 'p' | 'f' | 'v' => 'p',
        'c' | 'g' | 'j' | 'k' | 'q' | 's' | 'x' | 'z' => 's',
        'd' | 't' => 't',
        'l' | 'r' => 'l',
        'm' | 'n' => 'n',
        _ => 'a',
    };
    let mut key = String::new();
    for (i, c) in word.chars().map(class).enumerate() {
        if (c != 'a' || i == 0) && !key.ends_with(c) {
            key.push(c);
        }
    }
    key
}

/// A word in small letters without marks.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric())
        .to_lowercase()
}

/// A word with the capital and the marks of another.
fn dressed(word: &str, like: &str) -> String {
    capitalised_like(word, like) + trailing_marks(like)
}

fn trailing_marks(word: &str) -> &str {
    word.trim_start_matches(|c: char| c.is_alphanumeric() || c == '\'')
}

fn capitalised_like(word: &str, like: &str) -> String {
    let mut letters = word.chars();
    match (like.starts_with(char::is_uppercase), letters.next()) {
        (true, Some(first)) => first.to_uppercase().chain(letters).collect(),
        _ => word.to_string(),
    }
}

/// Words as a recogniser would have heard them.
pub fn misheard(
    words: &str,
    alikes: &SoundAlikes,
    confusions: &Confusions,
    errors: &RecognitionErrors,
    rng: &mut StdRng,
) -> String {
    if rng.random::<f64>() >= errors.utterances {
        return words.to_string();
    }
    let all: Vec<&str> = words.split_whitespace().collect();
    let mut heard = Vec::new();
    let mut at = 0;
    while let Some(&word) = all.get(at) {
        // the longest piece first: "hey vita" is misread as one
        let piece = (1..=LONGEST.min(all.len() - at)).rev().find_map(|length| {
            let words = normalise(&all[at..at + length].join(" "));
            let written = confusions.instead(&words, errors.confuse, rng)?;
            Some((length, written))
        });
        if let Some((length, written)) = piece {
            if !written.is_empty() {
                let marks = all[at + length - 1];
                heard.push(capitalised_like(written, word) + trailing_marks(marks));
            }
            at += length;
            continue;
        }
        at += 1;
        let chance = rng.random::<f64>();
        if chance < errors.drop {
            continue;
        }
        let other = match chance < errors.drop + errors.substitute {
            true => alikes.other(&bare(word), rng),
            false => None,
        };
        heard.push(match other {
            Some(other) => dressed(other, word),
            None => word.to_string(),
        });
    }
    match heard.is_empty() {
        true => words.to_string(),
        false => heard.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::generator;

    #[test]
    fn words_are_taken_for_others_that_sound_alike() {
        let alikes = SoundAlikes::of(["what is the date", "put the dot on the boat"].into_iter());
        let mut rng = generator(1, 0, 0);
        assert_eq!(alikes.other("boat", &mut rng), Some("put"));
        assert_eq!(alikes.other("xylophone", &mut rng), None);
        let always = RecognitionErrors {
            utterances: 1.0,
            drop: 0.0,
            substitute: 1.0,
            confuse: 0.0,
        };
        let none = Confusions::default();
        let heard = misheard("The boat?", &alikes, &none, &always, &mut rng);
        assert!(
            heard.ends_with(" put?") && !heard.contains("boat"),
            "{heard}"
        );
    }

    #[test]
    fn the_same_seed_mishears_the_same() {
        let text = "could you tell me which of the two trains is the faster one";
        let alikes = SoundAlikes::of([text, "toe tow tree terns"].into_iter());
        let heard = |seed| {
            let errors = RecognitionErrors::default();
            let none = Confusions::default();
            misheard(text, &alikes, &none, &errors, &mut generator(seed, 3, 4))
        };
        assert_eq!(heard(5), heard(5));
        assert!((0..50).any(|seed| heard(seed) != text));
    }

    #[test]
    fn what_the_ears_misread_is_misread_again() {
        let pairs = [
            ("Hey Vita, open the door.", "A Vida, open the door."),
            (
                "Hey Vita, what time is it now?",
                "Hey, Vita. What time is it now?",
            ),
            ("the sun", "nothing of this was read"),
        ];
        let confusions = Confusions::of(pairs.into_iter());
        let errors = RecognitionErrors {
            utterances: 1.0,
            drop: 0.0,
            substitute: 0.0,
            confuse: 1.0,
        };
        let alikes = SoundAlikes::of(std::iter::empty());
        let heard = |text: &str| -> BTreeSet<String> {
            let mut rng = generator(7, 1, 2);
            let all = (0..60).map(|_| misheard(text, &alikes, &confusions, &errors, &mut rng));
            all.collect()
        };
        let both = ["A vida, the sun!", "Hey Vita, the sun!"].map(str::to_owned);
        assert_eq!(heard("Hey Vita, the sun!"), both.into());
    }
}
