//! What was asked and what was really said, for the next prompt.

use std::collections::VecDeque;

use crate::duplex::{Question, TurnId};

/// One question and what was said to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub id: TurnId,
    pub question: Question,
    /// The words that went out, and no others.
    pub said: String,
    /// The answer was stopped before its end.
    pub cut_off: bool,
    /// Prompt tokens that question and answer take together.
    pub tokens: usize,
}

/// Past turns in the order of their questions.
///
/// Trimming rule: with more than `limit_tokens` tokens, whole turns go, oldest first, until three quarters of them are left
/// or fewer; then most prompts begin as the one before did, and what was computed for it serves again. A limit of 0 keeps none
/// (in the reference `history[-0:]` kept all: spec section 7.6, item 5).
#[derive(Clone, Debug)]
pub struct History {
    turns: VecDeque<Turn>,
    tokens: usize,
    limit_tokens: usize,
}

impl History {
    pub fn new(limit_tokens: usize) -> Self {
        Self {
            turns: VecDeque::new(),
            tokens: 0,
            limit_tokens,
        }
    }

    pub fn turns(&self) -> impl ExactSizeIterator<Item = &Turn> {
        self.turns.iter()
    }

    /// Tokens of all turns kept.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds a turn at the place its question has in time, then trims.
    pub(crate) fn push(&mut self, turn: Turn) {
        let place = self.turns.partition_point(|t| t.id < turn.id);
        self.tokens += turn.tokens;
        self.turns.insert(place, turn);
        if self.tokens <= self.limit_tokens {
            return;
        }
        let left = self.limit_tokens - self.limit_tokens / 4;
        while self.tokens > left
            && let Some(oldest) = self.turns.pop_front()
        {
            self.tokens -= oldest.tokens;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.turns.clear();
        self.tokens = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turn(id: u64, tokens: usize) -> Turn {
        Turn {
            id: TurnId(id),
            question: Question::Text {
                text: format!("question {id}"),
                at: Duration::ZERO,
            },
            said: format!("answer {id}"),
            cut_off: false,
            tokens,
        }
    }

    fn ids(history: &History) -> Vec<u64> {
        history.turns().map(|t| t.id.0).collect()
    }

    #[test]
    fn the_oldest_whole_turns_go_first() {
        let mut history = History::new(40);
        for id in 1..=4 {
            history.push(turn(id, 10));
        }
        assert_eq!(ids(&history), [1, 2, 3, 4]);
        history.push(turn(5, 10));
        assert_eq!(ids(&history), [3, 4, 5], "three quarters of the limit");
        assert_eq!(history.tokens(), 30);
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let mut history = History::new(0);
        history.push(turn(1, 10));
        assert_eq!(ids(&history), [0u64; 0]);
        assert_eq!(history.tokens(), 0);
    }

    #[test]
    fn a_turn_over_the_limit_does_not_stay() {
        let mut history = History::new(25);
        history.push(turn(1, 10));
        history.push(turn(2, 30));
        assert_eq!(ids(&history), [0u64; 0]);
    }

    #[test]
    fn the_order_is_that_of_the_questions() {
        let mut history = History::new(100);
        history.push(turn(2, 10));
        history.push(turn(1, 10));
        assert_eq!(ids(&history), [1, 2]);
    }
}
