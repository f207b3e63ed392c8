//! What a recogniser would have written: words dropped, and taken for others that sound alike, other
//! ones each time that an item is drawn. So a few real recordings serve many more sentences than were
//! spoken.

use crate::RecognitionErrors;
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
    let marks = like.trim_start_matches(|c: char| c.is_alphanumeric() || c == '\'');
    let mut letters = word.chars();
    match (like.starts_with(char::is_uppercase), letters.next()) {
        (true, Some(first)) => first.to_uppercase().chain(letters).collect::<String>() + marks,
        _ => word.to_string() + marks,
    }
}

/// Words as a recogniser would have heard them.
pub fn misheard(
    words: &str,
    alikes: &SoundAlikes,
    errors: &RecognitionErrors,
    rng: &mut StdRng,
) -> String {
    if rng.random::<f64>() >= errors.utterances {
        return words.to_string();
    }
    let mut heard = Vec::new();
    for word in words.split_whitespace() {
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
        };
        let heard = misheard("The boat?", &alikes, &always, &mut rng);
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
            misheard(text, &alikes, &errors, &mut generator(seed, 3, 4))
        };
        assert_eq!(heard(5), heard(5));
        assert!((0..50).any(|seed| heard(seed) != text));
    }
}
