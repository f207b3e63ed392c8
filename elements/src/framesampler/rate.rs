//! The grid of `mode=rate`: which frames come first at or after each of its points. Times are stream time in nanoseconds, signed
//! because a decoder is also fed frames from before the segment.

const SECOND_NS: i128 = 1_000_000_000;

/// Containers round their times, Matroska and FLV to whole milliseconds: a frame that is early by so little is on time.
const ROUNDING_NS: i64 = 1_000_000;

/// A step back of more than this is a jump of the source, less is reordering or jitter.
const JUMP_BACK_NS: i64 = 1_000_000_000;

/// Frames per second, as a fraction, so that its grid does not drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub numerator: u32,
    pub denominator: u32,
}

impl Rate {
    pub fn period_ns(self) -> i64 {
        let period = SECOND_NS * i128::from(self.denominator) / i128::from(self.numerator.max(1));
        i64::try_from(period).unwrap_or(i64::MAX)
    }

    /// The last grid point at or before a time.
    fn cell(self, time_ns: i64) -> i128 {
        (i128::from(time_ns) * i128::from(self.numerator))
            .div_euclid(i128::from(self.denominator.max(1)) * SECOND_NS)
    }

    /// The time of a grid point, rounded up.
    fn point_ns(self, cell: i128) -> i64 {
        let time = (cell * i128::from(self.denominator) * SECOND_NS)
            .div_euclid(i128::from(self.numerator.max(1)));
        i64::try_from(time).unwrap_or(i64::MAX)
    }
}

/// A grid anchored at stream time zero, so that the same frames of a file are kept wherever one starts to read it. The first
/// frame that is seen is always kept.
#[derive(Debug)]
pub struct RateGrid {
    rate: Rate,
    served: Option<Served>,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    cell: i128,
    time_ns: i64,
}

impl RateGrid {
    pub fn new(rate: Rate) -> Self {
        Self { rate, served: None }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Goes on with another grid from the next of its points on.
    pub fn set_rate(&mut self, rate: Rate) {
        if self.rate != rate {
            self.rate = rate;
            if let Some(served) = &mut self.served {
                served.cell = rate.cell(served.time_ns);
            }
        }
    }

    pub fn reset(&mut self) {
        self.served = None;
    }

    /// Whether a frame serves a grid point that none has served yet, or a jump back makes it the first of a new run.
    /// `interval_ns`, the usual distance of the candidates, decides how early a frame may be ([`Self::tolerance_ns`]).
    pub fn is_due(&self, time_ns: i64, interval_ns: Option<i64>) -> bool {
        self.served.is_none_or(|served| {
            self.rate.cell(self.counted_as(time_ns, interval_ns)) > served.cell
                || time_ns < served.time_ns.saturating_sub(JUMP_BACK_NS)
        })
    }

    /// Marks the grid points up to this frame as served.
    pub fn serve(&mut self, time_ns: i64, interval_ns: Option<i64>) {
        self.served = Some(Served {
            cell: self.rate.cell(self.counted_as(time_ns, interval_ns)),
            time_ns,
        });
    }

    /// The next grid point to serve; `None` before the first frame, which is due at once.
    pub fn next_due_ns(&self) -> Option<i64> {
        self.served
            .map(|served| self.rate.point_ns(served.cell + 1))
    }

    fn counted_as(&self, time_ns: i64, interval_ns: Option<i64>) -> i64 {
        time_ns.saturating_add(self.tolerance_ns(interval_ns))
    }

    /// How early a frame may be and still count for a grid point. Where candidates come hardly more often than grid points,
    /// waiting for the next one after a little jitter would halve the rate, so there the nearest counts.
    fn tolerance_ns(&self, interval_ns: Option<i64>) -> i64 {
        let period = self.rate.period_ns();
        let rounding = ROUNDING_NS.min(period / 4);
        match interval_ns {
            Some(interval) if interval.saturating_mul(2) > period => {
                (interval.min(period) / 2).max(rounding)
            }
            _ => rounding,
        }
    }
}

/// The usual distance between frames, as a moving average that forgets within a few frames.
#[derive(Debug, Default)]
pub struct Interval {
    previous_ns: Option<i64>,
    mean_ns: Option<i64>,
}

impl Interval {
    /// Longer steps are gaps and say nothing about the rate.
    const LONGEST_NS: i64 = 10_000_000_000;

    pub fn observe(&mut self, time_ns: i64) {
        let step = self
            .previous_ns
            .map(|previous| time_ns.saturating_sub(previous));
        self.previous_ns = Some(time_ns);
        if let Some(step) = step.filter(|step| (1..=Self::LONGEST_NS).contains(step)) {
            self.mean_ns = Some(self.mean_ns.map_or(step, |mean| (3 * mean + step) / 4));
        }
    }

    pub fn ns(&self) -> Option<i64> {
        self.mean_ns
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    fn rate(numerator: u32, denominator: u32) -> Rate {
        Rate {
            numerator,
            denominator,
        }
    }

    fn keep(rate: Rate, times_ns: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut grid = RateGrid::new(rate);
        let mut interval = Interval::default();
        times_ns
            .into_iter()
            .filter(|&time| {
                interval.observe(time);
                let due = grid.is_due(time, interval.ns());
                if due {
                    grid.serve(time, interval.ns());
                }
                due
            })
            .collect()
    }

    #[test]
    fn keeps_the_first_frame_at_or_after_each_point() {
        let kept = keep(rate(1, 1), (0..100).map(|i| 130 * MS + i * 40 * MS));
        assert_eq!(kept, [130 * MS, 1010 * MS, 2010 * MS, 3010 * MS, 4010 * MS]);
    }

    #[test]
    fn does_not_drift_over_a_day_of_ntsc() {
        let frames = 24 * 3600 * 30_000i64 / 1001;
        let kept = keep(
            rate(1, 1),
            (0..frames).map(|i| (i128::from(i) * 1001 * SECOND_NS / 30_000) as i64),
        );
        assert_eq!(kept.len(), 24 * 3600);
        assert!(kept.iter().enumerate().all(|(second, &time)| {
            (0..34 * MS).contains(&(time - second as i64 * 1000 * MS + MS))
        }));
    }

    #[test]
    fn a_rate_equal_to_the_streams_keeps_every_frame_despite_rounding_and_jitter() {
        let rounded: Vec<i64> = (0..300).map(|i| i * 1000 * MS / 30).collect();
        assert_eq!(keep(rate(30, 1), rounded.clone()), rounded);
        let jittered: Vec<i64> = (0..300)
            .map(|i| i * 100 * MS + [0, -30, 20, -10, 30][i as usize % 5] * MS)
            .collect();
        assert_eq!(keep(rate(10, 1), jittered.clone()), jittered);
    }

    #[test]
    fn a_slow_source_is_passed_whole() {
        let times: Vec<i64> = (0..20).map(|i| i * 3_700 * MS).collect();
        assert_eq!(keep(rate(1, 1), times.clone()), times);
    }

    #[test]
    fn a_jump_back_starts_anew_and_a_jump_forward_keeps_one() {
        let kept = keep(
            rate(1, 60),
            [
                100_000 * MS,
                101_000 * MS,
                20_000 * MS,
                21_000 * MS,
                600_000 * MS,
                600_100 * MS,
            ],
        );
        assert_eq!(kept, [100_000 * MS, 20_000 * MS, 600_000 * MS]);
    }

    #[test]
    fn a_new_rate_takes_effect_at_its_next_point() {
        let mut grid = RateGrid::new(rate(1, 1));
        grid.serve(2_000 * MS, None);
        grid.set_rate(rate(4, 1));
        assert_eq!(grid.next_due_ns(), Some(2_250 * MS));
        assert!(!grid.is_due(2_200 * MS, None));
        assert!(grid.is_due(2_250 * MS, None));
    }

    /// One frame for each grid point passed, and none left out that has frames.
    fn check_served_points(steps_ms: &[i64], rate: Rate) -> Result<(), TestCaseError> {
        let mut time = 0;
        let times: Vec<i64> = steps_ms
            .iter()
            .map(|step| {
                time += step * MS;
                time
            })
            .collect();
        let (first, last) = (times[0], times[times.len() - 1]);
        let period = rate.period_ns();
        let kept = keep(rate, times.iter().copied());
        prop_assert_eq!(kept[0], first);
        prop_assert!(kept.is_sorted());
        // A frame may be early by half a period at most: the last one can serve a point behind it.
        let points = rate.cell(last + period / 2) - rate.cell(first) + 1;
        prop_assert!(kept.len() as i128 <= points);
        for pair in kept.windows(2) {
            let unserved = pair[0] + 2 * period..pair[1];
            prop_assert!(!times.iter().any(|time| unserved.contains(time)));
        }
        Ok(())
    }

    #[test]
    fn a_last_frame_that_is_early_serves_the_point_behind_it() {
        let steps = [
            159, 128, 69, 45, 161, 136, 27, 166, 72, 131, 37, 21, 171, 150, 154,
        ];
        check_served_points(&steps, rate(32, 6)).unwrap();
    }

    proptest! {
        #[test]
        fn kept_frames_are_one_per_served_point(
            steps in proptest::collection::vec(0i64..200, 1..400),
            numerator in 1u32..40,
            denominator in 1u32..8,
        ) {
            check_served_points(&steps, rate(numerator, denominator))?;
        }

        #[test]
        fn never_panics_whatever_the_times(
            times in proptest::collection::vec(any::<i64>(), 0..50),
            numerator in 0u32..,
            denominator in 0u32..,
        ) {
            keep(rate(numerator, denominator), times);
        }
    }
}
