//! When an answer counts as right.

use super::number;
use serde::{Deserialize, Serialize};

/// When an answer counts as right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Each must occur, as whole words; `a|b` is met by either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// None of these may occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// The last number of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

impl Rule {
    /// Case, punctuation and the way in which numbers are written don't matter.
    pub fn is_right(&self, answer: &str) -> bool {
        let said = normalise(answer);
        let has = |wanted: &str| {
            wanted
                .split('|')
                .any(|one| contains_words(&said, &normalise(one)))
        };
        self.words.iter().all(|wanted| has(wanted))
            && !self.wrong.iter().any(|wrong| has(wrong))
            && self
                .number
                .is_none_or(|wanted| number::last_in(answer) == Some(wanted))
    }
}

/// Lower-case words with single spaces, numbers up to 99 in words.
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase().replace(['’', '\''], "");
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| match word.parse::<u32>() {
            Ok(n) if n < 100 => number::words(n),
            _ => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

fn contains_words(text: &str, wanted: &str) -> bool {
    !wanted.is_empty() && format!(" {text} ").contains(&format!(" {wanted} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_words() {
        let rule = Rule {
            words: vec!["can't|cannot".into(), "door".into()],
            ..Default::default()
        };
        assert!(rule.is_right("I CAN'T open the door."));
        assert!(rule.is_right("I can’t, it is a door"));
        assert!(!rule.is_right("I can open the door"));
        assert!(!rule.is_right("I can't open the doors"));
    }

    #[test]
    fn a_number_counts_however_it_is_written() {
        let rule = Rule {
            number: Some(12),
            ..Default::default()
        };
        for right in ["Twelve.", "12", "Seven plus five is twelve.", "7 + 5 = 12"] {
            assert!(rule.is_right(right), "{right}");
        }
        for wrong in ["Seven.", "twelve, no, eleven", "", "one hundred and twenty"] {
            assert!(!rule.is_right(wrong), "{wrong}");
        }
        let twenty_four = Rule {
            words: vec!["twenty four".into()],
            ..Default::default()
        };
        assert!(twenty_four.is_right("24 hours"));
        assert!(twenty_four.is_right("Twenty-four."));
    }

    #[test]
    fn what_must_not_be_said() {
        let rule = Rule {
            words: vec!["left".into()],
            wrong: vec!["right".into()],
            ..Default::default()
        };
        assert!(rule.is_right("On the left."));
        assert!(!rule.is_right("On the left or the right."));
    }
}
