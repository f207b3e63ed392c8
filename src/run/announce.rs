//! What is said of a source's state, and when it would only be said again.

use vita_messages::WallTime;
use vita_messages::kinds::{Media, Source, SourceReason, SourceReasonKind, SourceStatus};

/// The state of one source as its readers know it.
#[derive(Debug, Default)]
pub struct Announcer {
    attempt: u64,
    was_up: bool,
    said: Option<(SourceStatus, Option<SourceReasonKind>)>,
    media: Vec<Media>,
}

impl Announcer {
    pub fn attempt_begins(&mut self) {
        self.attempt = if self.was_up { 1 } else { self.attempt + 1 };
        self.was_up = false;
    }

    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    pub fn up(&mut self, media: Vec<Media>) -> Option<Source> {
        self.was_up = true;
        self.media = media;
        self.say(SourceStatus::Up, None, None)
    }

    pub fn stalled(&mut self, reason: SourceReason) -> Option<Source> {
        self.say(SourceStatus::Stalled, Some(reason), None)
    }

    /// Said again only when the reason is of another kind: a camera that is away for a night is one event.
    pub fn down(&mut self, reason: SourceReason, next_retry: Option<WallTime>) -> Option<Source> {
        self.say(SourceStatus::Down, Some(reason), next_retry)
    }

    fn say(
        &mut self,
        state: SourceStatus,
        reason: Option<SourceReason>,
        next_retry: Option<WallTime>,
    ) -> Option<Source> {
        let said = (state, reason.as_ref().map(|reason| reason.kind));
        if self.said.replace(said) == Some(said) {
            return None;
        }
        Some(Source {
            state,
            reason,
            attempt: self.attempt,
            next_retry,
            media: self.media.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use vita_messages::kinds::MediaKind;

    use super::*;

    fn reason(kind: SourceReasonKind) -> SourceReason {
        SourceReason {
            kind,
            text: "because".into(),
        }
    }

    #[test]
    fn a_night_away_is_one_event_and_attempts_are_counted() {
        let mut announcer = Announcer::default();
        announcer.attempt_begins();
        assert_eq!(announcer.up(Vec::new()).unwrap().attempt, 1);
        let down = announcer
            .down(reason(SourceReasonKind::Ended), None)
            .unwrap();
        assert_eq!((down.state, down.attempt), (SourceStatus::Down, 1));
        for attempt in 1..=50 {
            announcer.attempt_begins();
            assert_eq!(announcer.attempt(), attempt);
            let said = announcer.down(reason(SourceReasonKind::Refused), None);
            assert_eq!(said.is_some(), attempt == 1, "attempt {attempt}");
        }
        announcer.attempt_begins();
        assert_eq!(announcer.up(Vec::new()).unwrap().attempt, 51);
    }

    #[test]
    fn what_it_carried_is_still_told_when_it_is_down() {
        let mut announcer = Announcer::default();
        announcer.attempt_begins();
        announcer.up(vec![Media::new(MediaKind::Video, "h264")]);
        let stalled = announcer
            .stalled(reason(SourceReasonKind::Stalled))
            .unwrap();
        let down = announcer
            .down(reason(SourceReasonKind::TimedOut), None)
            .unwrap();
        assert_eq!((stalled.media.len(), down.media.len()), (1, 1));
    }

    #[test]
    fn up_is_said_after_every_outage() {
        let mut announcer = Announcer::default();
        for _ in 0..3 {
            announcer.attempt_begins();
            assert!(announcer.up(Vec::new()).is_some());
            assert!(
                announcer
                    .down(reason(SourceReasonKind::Ended), None)
                    .is_some()
            );
        }
    }
}
