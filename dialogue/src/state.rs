//! What the model heard: its state token, judged by probability.
//!
//! The reference demo compares decoded text with `"<2>"` on every delta (spec section 7.6, item 8). Here the
//! probabilities of the three tokens at the first position decide, once.

use serde::{Deserialize, Serialize};

/// The state tokens of VITA (spec section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// `<1>`: a spoken question to the model.
    Query,
    /// `<2>`: noise, or talk that is not meant for it.
    Noise,
    /// `<3>`: a typed question.
    Text,
}

/// Probabilities of the state tokens as the first token of the answer, from the softmax over the whole vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateProbabilities {
    pub query: f32,
    pub noise: f32,
    pub text: f32,
}

impl StateProbabilities {
    /// The share of "addressed to the model" among the three tokens, in 0..=1.
    ///
    /// `<3>` counts as addressed: a model that takes clear speech for typed text still takes it for a question.
    /// `None` when the model gave the three tokens no probability at all, or something that is not a number.
    pub fn addressed(&self) -> Option<f32> {
        let sum = self.query + self.noise + self.text;
        let share = (self.query + self.text) / sum;
        (sum > 0.0 && share.is_finite()).then_some(share)
    }
}

/// What to do with an utterance whose probability lies between the two thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undecided {
    /// Stay silent.
    Silent,
    /// Answer when nothing is being answered; never interrupt on a doubt.
    #[default]
    AnswerWhenIdle,
    /// Answer, and interrupt if need be.
    Answer,
}

/// Thresholds on [`StateProbabilities::addressed`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateRule {
    /// At or above: a question.
    pub query_threshold: f32,
    /// Below: noise.
    pub noise_threshold: f32,
    /// From `noise_threshold` up to `query_threshold`.
    pub undecided: Undecided,
}

impl Default for StateRule {
    fn default() -> Self {
        Self {
            query_threshold: 0.6,
            noise_threshold: 0.4,
            undecided: Undecided::default(),
        }
    }
}

impl StateRule {
    /// The state of an utterance. `speaking`: an answer is running that this one would interrupt.
    ///
    /// A model that gives no state token any probability has not said that it was addressed: noise.
    pub fn judge_speech(&self, probabilities: &StateProbabilities, speaking: bool) -> State {
        let Some(addressed) = probabilities.addressed() else {
            return State::Noise;
        };
        let answer = if addressed >= self.query_threshold {
            true
        } else if addressed < self.noise_threshold {
            false
        } else {
            match self.undecided {
                Undecided::Silent => false,
                Undecided::AnswerWhenIdle => !speaking,
                Undecided::Answer => true,
            }
        };
        if answer { State::Query } else { State::Noise }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probabilities(query: f32, noise: f32, text: f32) -> StateProbabilities {
        StateProbabilities { query, noise, text }
    }

    #[test]
    fn clear_cases_do_not_depend_on_who_speaks() {
        let rule = StateRule::default();
        for speaking in [false, true] {
            assert_eq!(
                rule.judge_speech(&probabilities(0.9, 0.05, 0.0), speaking),
                State::Query
            );
            assert_eq!(
                rule.judge_speech(&probabilities(0.05, 0.9, 0.0), speaking),
                State::Noise
            );
            assert_eq!(
                rule.judge_speech(&probabilities(0.1, 0.1, 0.8), speaking),
                State::Query
            );
        }
    }

    #[test]
    fn a_doubt_is_answered_only_when_idle() {
        let rule = StateRule::default();
        let doubt = probabilities(0.5, 0.5, 0.0);
        assert_eq!(rule.judge_speech(&doubt, false), State::Query);
        assert_eq!(rule.judge_speech(&doubt, true), State::Noise);
        let silent = StateRule {
            undecided: Undecided::Silent,
            ..rule
        };
        assert_eq!(silent.judge_speech(&doubt, false), State::Noise);
        let eager = StateRule {
            undecided: Undecided::Answer,
            ..rule
        };
        assert_eq!(eager.judge_speech(&doubt, true), State::Query);
    }

    #[test]
    fn small_probabilities_are_judged_by_their_share() {
        let rule = StateRule::default();
        assert_eq!(
            rule.judge_speech(&probabilities(8e-7, 1e-7, 0.0), true),
            State::Query
        );
    }

    #[test]
    fn a_model_that_says_nothing_of_its_state_stays_silent() {
        let rule = StateRule::default();
        for p in [
            probabilities(0.0, 0.0, 0.0),
            probabilities(f32::NAN, 0.1, 0.0),
            probabilities(f32::INFINITY, 0.0, 0.0),
        ] {
            assert_eq!(rule.judge_speech(&p, false), State::Noise);
        }
    }
}
