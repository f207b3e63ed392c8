/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    End,
    /// The first token said that nothing was asked.
    Noise,
    /// As many tokens as were allowed.
    MaxTokens,
    /// No position is left in the model's context.
    ContextFull,
}

/// When an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRules {
    /// Tokens that end an answer.
    pub end: Vec<u32>,
    /// A token that ends it when it comes first: the state token for noise. At training the answer goes
    /// on after it; only inference takes it as the end (spec section 10).
    pub silent_first: Option<u32>,
    pub max_new_tokens: usize,
}

impl StopRules {
    /// Does the answer end with its `count`-th token, `id`?
    pub fn after(&self, id: u32, count: usize) -> Option<Stop> {
        if self.end.contains(&id) {
            Some(Stop::End)
        } else if count == 1 && self.silent_first == Some(id) {
            Some(Stop::Noise)
        } else if count >= self.max_new_tokens {
            Some(Stop::MaxTokens)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_ends_an_answer_only_as_its_first_token() {
        let rules = StopRules {
            end: vec![2],
            silent_first: Some(9),
            max_new_tokens: 5,
        };
        assert_eq!(rules.after(9, 1), Some(Stop::Noise));
        assert_eq!(rules.after(9, 2), None);
        assert_eq!(rules.after(2, 1), Some(Stop::End));
        assert_eq!(rules.after(7, 5), Some(Stop::MaxTokens));
    }
}
