//! When it is said that the model does not keep up.

use std::time::{Duration, Instant};

use vita_dialogue::duplex::CancelReason;
use vita_engine::room::event::EventKind;

/// At most one warning in so long.
const EVERY: Duration = Duration::from_secs(30);

/// Counts questions that had no verdict in time.
#[derive(Debug, Default)]
pub(super) struct Overload {
    said: Option<Instant>,
    unsaid: u64,
}

impl Overload {
    /// A warning, where it is time for one.
    pub fn hear(&mut self, event: &EventKind, now: Instant) -> Option<String> {
        let EventKind::Cancelled { reason, .. } = event else {
            return None;
        };
        if !matches!(reason, CancelReason::Stale | CancelReason::JudgingTimedOut) {
            return None;
        }
        self.unsaid += 1;
        if self
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < EVERY)
        {
            return None;
        }
        self.said = Some(now);
        let count = std::mem::take(&mut self.unsaid);
        Some(format!(
            "{count} questions had no verdict within max-wait: the model does not keep up; take fewer sources or frames, a smaller model, or a longer max-wait"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vita_dialogue::duplex::TurnId;
    use vita_engine::room::event::{Question, Turn};

    fn cancelled(reason: CancelReason) -> EventKind {
        let question = Question {
            utterance_id: Some(1),
            text: None,
            start: Duration::ZERO,
            end: Duration::ZERO,
            capture_time_ns: None,
        };
        let id = TurnId(1);
        let turn = Turn { id, question };
        EventKind::Cancelled { turn, reason }
    }

    #[test]
    fn overload_is_said_at_once_and_then_summed_up() {
        let (mut overload, start) = (Overload::default(), Instant::now());
        let mut said = |reason, seconds| {
            let now = start + Duration::from_secs(seconds);
            let warning = overload.hear(&cancelled(reason), now)?;
            warning.split(' ').next()?.parse::<u64>().ok()
        };
        assert_eq!(said(CancelReason::Reset, 0), None);
        assert_eq!(said(CancelReason::Stale, 0), Some(1));
        for second in 1..30 {
            assert_eq!(said(CancelReason::JudgingTimedOut, second), None);
        }
        assert_eq!(said(CancelReason::Stale, 30), Some(30));
        assert_eq!(said(CancelReason::Stale, 31), None);
    }
}
