//! What time a sample is, from the times of the buffers.

use std::collections::VecDeque;

use super::settings::SAMPLE_NS;

/// A sample whose time a buffer told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anchor {
    /// Samples since the stream began, or since its last gap.
    pub(super) position: u64,
    pub(super) pts: gst::ClockTime,
    /// Unix time, where it is known.
    pub(super) capture_ns: Option<u64>,
}

/// Times of the samples that events may still name. Buffers that follow each other to the sample share an anchor.
#[derive(Debug, Default)]
pub(super) struct Clock {
    anchors: VecDeque<Anchor>,
}

impl Clock {
    /// Learns the time of the sample at `anchor.position`. A capture time that it does not tell goes on from the one
    /// before.
    pub(super) fn learn(&mut self, mut anchor: Anchor) {
        if let Some(predicted) = self.at(anchor.position) {
            anchor.capture_ns = anchor.capture_ns.or(predicted.capture_ns);
            let near = |one: u64, other: u64| one.abs_diff(other) <= SAMPLE_NS;
            let capture_is_near = match (anchor.capture_ns, predicted.capture_ns) {
                (Some(one), Some(other)) => near(one, other),
                (one, other) => one == other,
            };
            if near(anchor.pts.nseconds(), predicted.pts.nseconds()) && capture_is_near {
                return;
            }
        }
        self.anchors.push_back(anchor);
    }

    /// The time of the sample at `position`; `None` before any is known.
    pub(super) fn at(&self, position: u64) -> Option<Anchor> {
        let later = self
            .anchors
            .partition_point(|anchor| anchor.position <= position);
        // Before the first that is known, time runs backwards from it.
        let anchor = self.anchors.get(later.saturating_sub(1))?;
        let shift = |time: u64| {
            if position >= anchor.position {
                time.saturating_add((position - anchor.position).saturating_mul(SAMPLE_NS))
            } else {
                time.saturating_sub((anchor.position - position).saturating_mul(SAMPLE_NS))
            }
        };
        Some(Anchor {
            position,
            pts: gst::ClockTime::from_nseconds(
                shift(anchor.pts.nseconds()).min(gst::ClockTime::MAX.nseconds()),
            ),
            capture_ns: anchor.capture_ns.map(shift),
        })
    }

    /// When the sample before `position` has been played: the end of what it ends, even where time jumps right behind
    /// it.
    pub(super) fn at_end(&self, position: u64) -> Option<Anchor> {
        let Some(last) = position.checked_sub(1) else {
            return self.at(position);
        };
        self.at(last).map(|last| Anchor {
            position,
            pts: last
                .pts
                .saturating_add(gst::ClockTime::from_nseconds(SAMPLE_NS)),
            capture_ns: last.capture_ns.map(|time| time.saturating_add(SAMPLE_NS)),
        })
    }

    /// Forgets what is not needed for samples from `position` on.
    pub(super) fn forget_before(&mut self, position: u64) {
        // One sample more: the end of an utterance is told by the sample before it.
        while self
            .anchors
            .get(1)
            .is_some_and(|next| next.position < position)
        {
            self.anchors.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(position: u64, ms: u64, capture_ms: Option<u64>) -> Anchor {
        Anchor {
            position,
            pts: gst::ClockTime::from_mseconds(ms),
            capture_ns: capture_ms.map(|ms| ms * 1_000_000),
        }
    }

    #[test]
    fn time_runs_on_from_the_last_buffer_that_told_it() {
        let mut clock = Clock::default();
        assert_eq!(clock.at(0), None);
        clock.learn(anchor(0, 1000, Some(7000)));
        clock.learn(anchor(160, 1010, None));
        assert_eq!(clock.anchors.len(), 1, "it said nothing new");
        clock.learn(anchor(320, 1050, Some(7050)));
        assert_eq!(clock.at(160), Some(anchor(160, 1010, Some(7010))));
        assert_eq!(clock.at(320), Some(anchor(320, 1050, Some(7050))));
        assert_eq!(
            clock.at_end(320),
            Some(anchor(320, 1020, Some(7020))),
            "time jumps behind the last sample"
        );
        assert_eq!(clock.at_end(336), Some(anchor(336, 1051, Some(7051))));
    }

    #[test]
    fn what_is_forgotten_is_told_backwards_from_what_is_left() {
        let mut clock = Clock::default();
        clock.learn(anchor(0, 1000, None));
        clock.learn(anchor(160, 2000, None));
        clock.learn(anchor(320, 3000, None));
        clock.forget_before(160);
        assert_eq!(clock.at(0), Some(anchor(0, 1000, None)));
        clock.forget_before(161);
        assert_eq!(clock.at(0), Some(anchor(0, 1990, None)));
        clock.forget_before(10_000);
        assert_eq!(clock.at(480), Some(anchor(480, 3010, None)));
    }
}
