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
    /// A question that has no verdict so long after its end is cancelled: nobody wants its answer any more. `None`:
    /// however long it takes.
    pub maximum_wait: Option<Duration>,
    /// Questions that may wait while another is being judged. When one more comes, the oldest is cancelled.
    pub queue: usize,
    /// Prompt tokens of past turns; where there are more, oldest whole turns go. 0: no history.
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
            maximum_wait: Some(Duration::from_secs(10)),
            queue: 4,
            history_tokens: 1024,
            look_back: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// When a question that ended at `at` must have its verdict; `None`: it has all the time in the world.
    pub(super) fn deadline(&self, at: Duration) -> Option<Duration> {
        self.maximum_wait.map(|limit| at.saturating_add(limit))
    }

    pub(super) fn is_overdue(&self, now: Duration, at: Duration) -> bool {
        self.deadline(at).is_some_and(|deadline| now >= deadline)
    }
}
