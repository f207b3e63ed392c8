//! Sampling before a decoder: of a coded stream, what a decoder needs to show the wanted frames, and no more.
//!
//! When key frames come at least as often as grid points, only key frames are released. Otherwise the frames that others refer to
//! are released from the key frame up to the wanted one. What is not wanted yet is held back (coded frames are small): when it
//! turns out to be needed it is released in one go, and when the next key frame arrives it is forgotten undecoded.
//!
//! Invariant: what is released after a key frame is a prefix of that group of pictures, save for frames that no other refers to; so
//! it can always be decoded. Checked in a property test below.

use std::collections::VecDeque;

use super::rate::RateGrid;

/// Encoders hardly make groups shorter than this, so one of unknown length is taken to be longer.
const SHORT_GROUP_NS: i64 = 500_000_000;

/// A group of pictures longer than this is no longer remembered; it is decoded along instead.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: usize,
    pub frames: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            frames: 4096,
        }
    }
}

/// One coded picture in decoding order.
#[derive(Clone, Debug)]
pub struct Unit<T> {
    pub payload: T,
    /// Presentation time; a picture without one can be referred to, never wanted.
    pub time_ns: Option<i64>,
    pub bytes: usize,
    /// Decoding can start here.
    pub key: bool,
    /// No other picture refers to it.
    pub disposable: bool,
    /// Shown, and inside the segment.
    pub presentable: bool,
}

/// Why a picture was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// No grid point asked for it.
    NotDue,
    /// Nothing it refers to is known: the stream began, broke or was cut in mid-group.
    NoKeyFrame,
    /// Precedes its key frame in presentation order and refers to what came before that.
    Leading,
}

/// A picture to push.
#[derive(Debug)]
pub struct Release<T> {
    pub payload: T,
    /// To be shown; else only decoded, because a wanted one refers to it.
    pub wanted: bool,
    /// The decoder has not got what came before this one.
    pub discont: bool,
    /// Released for the first time; a second time only after a gap was announced in mid-group.
    pub first_time: bool,
}

/// What became of one pushed picture and of those held before it.
#[derive(Debug)]
pub struct Outcome<T> {
    pub releases: Vec<Release<T>>,
    pub drops: Vec<(Drop, u64)>,
    /// Nothing more is released before another key frame or another release from the last one: a decoder may be drained.
    pub gap: bool,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self {
            releases: Vec::new(),
            drops: Vec::new(),
            gap: false,
        }
    }
}

#[derive(Debug)]
struct Held<T> {
    payload: T,
    bytes: usize,
    released: bool,
}

/// The group of pictures that the stream is in.
#[derive(Debug)]
struct Group<T> {
    key_time_ns: Option<i64>,
    held: Vec<Held<T>>,
    bytes: usize,
    /// So many of `held` are in the decoder, in this order.
    in_decoder: usize,
    /// The held ones were given up for their size; the decoder has them and must be kept fed.
    forgotten: bool,
}

/// The distances of the last key frames.
#[derive(Debug, Default)]
struct KeySpacing {
    recent_ns: VecDeque<i64>,
    last_ns: Option<i64>,
}

impl KeySpacing {
    const REMEMBERED: usize = 4;

    fn observe(&mut self, time_ns: i64) {
        let step = self.last_ns.map(|last| time_ns.saturating_sub(last));
        self.last_ns = Some(time_ns);
        match step {
            Some(step) if step > 0 => {
                if self.recent_ns.len() == Self::REMEMBERED {
                    self.recent_ns.pop_front();
                }
                self.recent_ns.push_back(step);
            }
            Some(_) => self.recent_ns.clear(),
            None => {}
        }
    }

    fn longest_ns(&self) -> Option<i64> {
        self.recent_ns.iter().copied().max()
    }
}

#[derive(Debug)]
pub struct GopGate<T> {
    group: Option<Group<T>>,
    spacing: KeySpacing,
    limits: Limits,
    /// Something was left out since the last release that later pictures might refer to.
    cut: bool,
}

impl<T: Clone> GopGate<T> {
    pub fn new(limits: Limits) -> Self {
        Self {
            group: None,
            spacing: KeySpacing::default(),
            limits,
            cut: true,
        }
    }

    /// The stream is no longer the one that the last key frame began: lost or damaged data, a new segment, other parameters.
    /// Returns how many held pictures are given up.
    pub fn cut(&mut self) -> u64 {
        self.cut = true;
        self.spacing.last_ns = None;
        self.group.take().map_or(0, |group| group.unreleased())
    }

    pub fn reset(&mut self) -> u64 {
        let unreleased = self.cut();
        self.spacing = KeySpacing::default();
        unreleased
    }

    pub fn held(&self) -> u64 {
        self.group.as_ref().map_or(0, Group::unreleased)
    }

    /// One picture, in decoding order. `interval_ns` is the usual distance of pictures; `keys_only` makes the rate an upper bound
    /// and keeps nothing but key frames.
    pub fn push(
        &mut self,
        unit: Unit<T>,
        grid: &mut RateGrid,
        interval_ns: Option<i64>,
        keys_only: bool,
    ) -> Outcome<T> {
        let mut outcome = Outcome::default();
        if unit.key {
            self.start_group(unit.time_ns, &mut outcome);
        }
        let Some(group) = &mut self.group else {
            outcome.drops.push((Drop::NoKeyFrame, 1));
            return outcome;
        };
        if !unit.key
            && unit
                .time_ns
                .zip(group.key_time_ns)
                .is_some_and(|(time, key)| time < key)
        {
            outcome.drops.push((Drop::Leading, 1));
            return outcome;
        }

        let paced_by_keys = keys_only || self.spacing.paces(group.key_time_ns, unit.time_ns, grid);
        let tolerated_interval = if paced_by_keys {
            self.spacing.longest_ns()
        } else {
            interval_ns
        };
        let wanted = unit.presentable
            && (unit.key || !paced_by_keys)
            && unit
                .time_ns
                .is_some_and(|time| grid.is_due(time, tolerated_interval));
        if let (true, Some(time)) = (wanted, unit.time_ns) {
            grid.serve(time, tolerated_interval);
        }
        let disposable = unit.disposable && !unit.key;
        let never_needed = disposable || (keys_only && !unit.key);
        if !wanted && never_needed {
            outcome.drops.push((Drop::NotDue, 1));
            self.cut |= !disposable;
            return outcome;
        }

        let along = !paced_by_keys
            && self
                .spacing
                .next_point_is_in_group(group.key_time_ns, unit.time_ns, grid);
        group.hold(unit);
        if wanted || along || group.forgotten {
            outcome.releases = group.release(wanted, self.cut);
            self.cut = false;
        }
        if wanted && disposable {
            // Nothing refers to it, so it is not part of the prefix that might be needed again.
            group.forget_last();
        }
        group.enforce(self.limits, &mut outcome, &mut self.cut);
        if wanted && !along && !group.forgotten {
            outcome.gap = true;
            group.in_decoder = 0;
            self.cut = true;
        }
        outcome
    }

    fn start_group(&mut self, time_ns: Option<i64>, outcome: &mut Outcome<T>) {
        if let Some(time) = time_ns {
            self.spacing.observe(time);
        }
        if let Some(previous) = self.group.take() {
            let unreleased = previous.unreleased();
            if unreleased > 0 {
                outcome.drops.push((Drop::NotDue, unreleased));
                self.cut = true;
            }
        }
        self.group = Some(Group {
            key_time_ns: time_ns,
            held: Vec::new(),
            bytes: 0,
            in_decoder: 0,
            forgotten: false,
        });
    }
}

impl KeySpacing {
    /// Encoders count frames: thirty of them at 29.97 per second last longer than a second.
    fn slack_ns(period_ns: i64) -> i64 {
        period_ns / 10
    }

    /// Whether each grid period can be expected to hold a key frame, and this group has not outlasted that expectation.
    fn paces(&self, key_time_ns: Option<i64>, time_ns: Option<i64>, grid: &RateGrid) -> bool {
        let period = grid.rate().period_ns();
        let longest = period.saturating_add(Self::slack_ns(period));
        let age = time_ns
            .zip(key_time_ns)
            .map_or(0, |(time, key)| time.saturating_sub(key));
        self.longest_ns()
            .is_some_and(|spacing| spacing <= longest && age <= longest)
    }

    /// Whether the next grid point is expected before the next key frame, so that what comes until then is needed anyway.
    fn next_point_is_in_group(
        &self,
        key_time_ns: Option<i64>,
        time_ns: Option<i64>,
        grid: &RateGrid,
    ) -> bool {
        let (Some(key), Some(due)) = (key_time_ns, grid.next_due_ns()) else {
            return false;
        };
        let period = grid.rate().period_ns();
        let age = time_ns.map_or(0, |time| time.saturating_sub(key));
        match self.longest_ns() {
            Some(spacing) if age <= spacing => {
                due.saturating_add(Self::slack_ns(period)) < key.saturating_add(spacing)
            }
            // Longer than any before: it has no end in sight.
            Some(_) => age >= period,
            None => age >= period || period <= SHORT_GROUP_NS,
        }
    }
}

impl<T: Clone> Group<T> {
    fn unreleased(&self) -> u64 {
        self.held.iter().filter(|held| !held.released).count() as u64
    }

    fn hold(&mut self, unit: Unit<T>) {
        self.bytes += unit.bytes;
        self.held.push(Held {
            payload: unit.payload,
            bytes: unit.bytes,
            released: false,
        });
    }

    fn release(&mut self, last_is_wanted: bool, cut: bool) -> Vec<Release<T>> {
        let first = self.in_decoder;
        let last = self.held.len() - 1;
        self.in_decoder = self.held.len();
        self.held[first..]
            .iter_mut()
            .enumerate()
            .map(|(i, held)| Release {
                payload: held.payload.clone(),
                wanted: last_is_wanted && first + i == last,
                discont: cut && i == 0,
                first_time: !std::mem::replace(&mut held.released, true),
            })
            .collect()
    }

    fn forget_last(&mut self) {
        if let Some(last) = self.held.pop() {
            self.bytes -= last.bytes;
            self.in_decoder = self.in_decoder.min(self.held.len());
        }
    }

    /// Keeps the group within its limits: what the decoder still has to get is released now, then all of it is forgotten and
    /// the rest of the group goes along.
    fn enforce(&mut self, limits: Limits, outcome: &mut Outcome<T>, cut: &mut bool) {
        if self.bytes <= limits.bytes && self.held.len() <= limits.frames && !self.forgotten {
            return;
        }
        if self.in_decoder < self.held.len() {
            outcome.releases.extend(self.release(false, *cut));
            *cut = false;
        }
        self.held.clear();
        self.bytes = 0;
        self.in_decoder = 0;
        self.forgotten = true;
    }
}

#[cfg(test)]
#[path = "gop_tests.rs"]
mod tests;
