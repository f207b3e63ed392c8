use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::StateRule;
use crate::utterance::MIN_SPEECH;

/// Limits and thresholds of a dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub state_rule: StateRule,
    /// Shorter utterances are noise without being judged. Counts from start to end, padding included; `vitavad`, whose
    /// minimum is the same, counts speech alone and is the stricter.
    pub minimum_utterance: Duration,
    /// An answer that runs longer is cut off.
    pub maximum_answer: Duration,
    /// A question that is not judged within this time is cancelled.
    pub maximum_judging: Duration,
    /// A question that waited longer than this for its turn is cancelled: nobody wants its answer any more.
    pub maximum_wait: Duration,
    /// Questions that may wait while another is being judged. When one more comes, the oldest is cancelled.
    pub queue: usize,
    /// Prompt tokens of past turns; oldest whole turns are dropped first. 0: no history.
    pub history_tokens: usize,
    /// Frames from this long before the question are shown with it.
    pub look_back: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_rule: StateRule::default(),
            minimum_utterance: MIN_SPEECH,
            maximum_answer: Duration::from_secs(60),
            maximum_judging: Duration::from_secs(30),
            maximum_wait: Duration::from_secs(30),
            queue: 4,
            history_tokens: 1024,
            look_back: Duration::from_secs(2),
        }
    }
}
