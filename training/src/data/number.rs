//! Numbers in English words, both ways.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// `n` in words for 0 to 99, in digits beyond.
pub fn words(n: u32) -> String {
    match n {
        0..20 => SMALL[n as usize].to_owned(),
        20..100 if n.is_multiple_of(10) => TENS[(n / 10) as usize].to_owned(),
        20..100 => format!("{} {}", TENS[(n / 10) as usize], SMALL[(n % 10) as usize]),
        _ => n.to_string(),
    }
}

/// The value of one word or of digits.
pub fn value(word: &str) -> Option<u32> {
    let position = |list: &[&str]| list.iter().position(|w| !w.is_empty() && *w == word);
    let small = position(&SMALL).map(|n| n as u32);
    let tens = || position(&TENS).map(|n| 10 * n as u32);
    small.or_else(tens).or_else(|| word.parse().ok())
}

/// The last number said in a text, in words (up to 99, or with "hundred") or digits.
pub fn last_in(text: &str) -> Option<u32> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    let (mut last, mut running): (Option<u32>, Option<u32>) = (None, None);
    for word in words.filter(|word| !word.is_empty()) {
        running = match (value(word), running) {
            (Some(ones @ 1..10), Some(tens)) if tens >= 20 && tens % 10 == 0 => Some(tens + ones),
            (Some(rest), Some(hundreds)) if hundreds >= 100 && hundreds % 100 == 0 => {
                Some(hundreds + rest)
            }
            (Some(n), _) => Some(n),
            (None, Some(n @ 1..10)) if word == "hundred" => Some(100 * n),
            (None, Some(n)) if word == "and" && n >= 100 => Some(n),
            (None, _) => None,
        };
        last = running.or(last);
    }
    last
}

/// Replaces each number word by digits, as speech recognisers and people who type do.
pub fn to_digits(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let core = word.trim_end_matches([',', '.', '?', '!']);
        match value(&core.to_lowercase()) {
            Some(n) => out.push(format!("{n}{}", &word[core.len()..])),
            None => out.push(word.to_owned()),
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for n in 0..100 {
            assert_eq!(last_in(&words(n)), Some(n), "{}", words(n));
        }
        assert_eq!(last_in("three hundred and sixty five days"), Some(365));
        assert_eq!(last_in("two, then 17"), Some(17));
        assert_eq!(last_in("none"), None);
    }

    #[test]
    fn digits_keep_punctuation() {
        assert_eq!(to_digits("What's two plus ten?"), "What's 2 plus 10?");
    }
}
