//! `mode=clip`: the candidates of a clip whose end is not known yet, in bounded memory, and the model's choice among them.

use vita_model::video::FrameSelection;

const SECOND_NS: i64 = 1_000_000_000;

/// Finest spacing of candidates once not all can be kept: 1/64 s. It doubles from there, so that whole seconds, on which the model's
/// rules turn, stay candidates throughout.
const FINEST_NS: i64 = SECOND_NS / 64;

/// As in the rate grid: rounding in containers is no lateness.
const ROUNDING_NS: i64 = 1_000_000;

/// All frames of a clip as long as they are few; then those nearest after the points of a grid that coarsens as the clip grows,
/// and always the newest one.
#[derive(Debug)]
pub struct Clip<T> {
    candidates: Vec<(i64, T)>,
    newest: Option<(i64, T)>,
    spacing_ns: Option<i64>,
}

/// A frame and how often the model sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen<T> {
    pub frame: T,
    pub repeat: u32,
}

impl<T> Clip<T> {
    pub fn new() -> Self {
        Self {
            candidates: Vec::new(),
            newest: None,
            spacing_ns: None,
        }
    }

    pub fn len(&self) -> usize {
        self.candidates.len() + usize::from(self.newest.is_some())
    }

    /// Takes a frame in, and returns how many were given up for it. A step back in time begins a new clip.
    pub fn push(&mut self, time_ns: i64, frame: T, capacity: usize) -> u64 {
        let before = self.len();
        if self.last_ns().is_some_and(|last| time_ns < last) {
            self.clear();
        }
        if let Some((time, previous)) = self.newest.take()
            && self.is_candidate(time)
        {
            self.candidates.push((time, previous));
        }
        self.newest = Some((time_ns, frame));
        while self.len() > capacity.max(2) {
            self.coarsen();
        }
        (before + 1 - self.len()) as u64
    }

    /// Forgets what is older than the clip's real start.
    pub fn start_at(&mut self, start_ns: i64) -> u64 {
        let before = self.len();
        self.candidates.retain(|(time, _)| *time >= start_ns);
        self.newest.take_if(|(time, _)| *time < start_ns);
        (before - self.len()) as u64
    }

    /// The model's choice among the frames up to `end_ns`, in order; then the clip is empty but for the frames after it.
    pub fn finish(
        &mut self,
        selection: &FrameSelection,
        end_ns: Option<i64>,
    ) -> (Vec<Chosen<T>>, u64) {
        let mut frames = std::mem::take(&mut self.candidates);
        frames.extend(self.newest.take());
        self.spacing_ns = None;
        let end = frames.partition_point(|(time, _)| end_ns.is_none_or(|end| *time <= end));
        self.candidates = frames.split_off(end);
        self.newest = self.candidates.pop();

        let first = frames.first().map_or(0, |(time, _)| *time);
        let times: Vec<u64> = frames
            .iter()
            .map(|(time, _)| time.abs_diff(first))
            .collect();
        let indices = selection.of_times(&times);
        let mut passed_over = 0;
        let mut chosen = Vec::new();
        for (i, (_, frame)) in frames.into_iter().enumerate() {
            match indices.iter().filter(|&&index| index == i).count() as u32 {
                0 => passed_over += 1,
                repeat => chosen.push(Chosen { frame, repeat }),
            }
        }
        (chosen, passed_over)
    }

    pub fn clear(&mut self) -> u64 {
        let dropped = self.len() as u64;
        *self = Self::new();
        dropped
    }

    fn last_ns(&self) -> Option<i64> {
        let newest = self.newest.as_ref().or(self.candidates.last());
        newest.map(|(time, _)| *time)
    }

    fn first_ns(&self) -> Option<i64> {
        self.candidates.first().map(|(time, _)| *time)
    }

    fn cell(first_ns: i64, spacing_ns: i64, time_ns: i64) -> i64 {
        time_ns.saturating_sub(first_ns).saturating_add(ROUNDING_NS) / spacing_ns
    }

    /// Whether a frame is the first in its cell of the grid.
    fn is_candidate(&self, time_ns: i64) -> bool {
        let (Some(spacing), Some(first), Some((last, _))) =
            (self.spacing_ns, self.first_ns(), self.candidates.last())
        else {
            return true;
        };
        Self::cell(first, spacing, time_ns) > Self::cell(first, spacing, *last)
    }

    fn coarsen(&mut self) {
        let spacing = self
            .spacing_ns
            .map_or(FINEST_NS, |spacing| spacing.saturating_mul(2));
        self.spacing_ns = Some(spacing);
        let Some(first) = self.first_ns() else {
            return;
        };
        let mut last_cell = None;
        self.candidates.retain(|(time, _)| {
            let cell = Some(Self::cell(first, spacing, *time));
            std::mem::replace(&mut last_cell, cell) != cell
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vita_model::video::Rule;

    use super::*;

    fn choose(times: &[i64], capacity: usize, rule: Rule) -> Vec<(i64, u32)> {
        let mut clip = Clip::new();
        for &time in times {
            clip.push(time, time, capacity);
            assert!(clip.len() <= capacity);
        }
        let selection = FrameSelection {
            rule,
            ..Default::default()
        };
        let (chosen, _) = clip.finish(&selection, None);
        assert_eq!(clip.len(), 0);
        chosen
            .into_iter()
            .map(|chosen| (chosen.frame, chosen.repeat))
            .collect()
    }

    fn steady(fps: i64, frames: i64) -> Vec<i64> {
        (0..frames).map(|i| i * SECOND_NS / fps).collect()
    }

    #[test]
    fn a_short_clip_repeats_frames_as_the_released_code_does() {
        assert_eq!(
            choose(&steady(30, 45), 64, Rule::Code),
            [(0, 3), (SECOND_NS, 1)]
        );
        assert_eq!(choose(&steady(30, 1), 64, Rule::Code), [(0, 4)]);
    }

    #[test]
    fn bounded_memory_chooses_the_same_whole_seconds() {
        for seconds in [5, 9, 20, 40] {
            let times = steady(25, seconds * 25);
            assert_eq!(
                choose(&times, 64, Rule::Code),
                choose(&times, usize::MAX, Rule::Code),
                "{seconds} s"
            );
        }
    }

    #[test]
    fn a_long_clip_is_spread_within_one_spacing_of_the_rule() {
        let times = steady(25, 25 * 600);
        let bounded = choose(&times, 32, Rule::Paper);
        let exact = choose(&times, usize::MAX, Rule::Paper);
        assert_eq!(bounded.len(), exact.len());
        assert_eq!(
            bounded.last(),
            exact.last(),
            "the newest frame is never thinned out"
        );
        for (bounded, exact) in bounded.iter().zip(&exact) {
            // 600 s in 32 candidates: 32 s apart, and even numbers of them between two choices at best.
            assert!(bounded.0.abs_diff(exact.0) <= 40 * SECOND_NS as u64);
        }
    }

    #[test]
    fn frames_after_the_end_belong_to_the_next_clip() {
        let mut clip = Clip::new();
        for time in steady(10, 50) {
            clip.push(time, time, 64);
        }
        clip.start_at(SECOND_NS);
        let (chosen, passed_over) = clip.finish(&FrameSelection::default(), Some(4 * SECOND_NS));
        let times: Vec<i64> = chosen.iter().map(|chosen| chosen.frame).collect();
        assert_eq!(times, [1, 2, 3, 4].map(|second| second * SECOND_NS));
        assert_eq!(passed_over, 27);
        assert_eq!(clip.len(), 9);
    }

    proptest! {
        #[test]
        fn stays_bounded_and_in_order(
            steps in proptest::collection::vec(-50i64..3000, 1..300),
            capacity in 2usize..40,
            paper: bool,
        ) {
            let mut clip = Clip::new();
            let mut time = 0i64;
            let mut dropped = 0;
            for step in &steps {
                time += step * 1_000_000;
                dropped += clip.push(time, time, capacity);
                prop_assert!(clip.len() <= capacity);
            }
            let rule = if paper { Rule::Paper } else { Rule::Code };
            let selection = FrameSelection { rule, ..Default::default() };
            let (chosen, passed_over) = clip.finish(&selection, None);
            prop_assert_eq!(dropped + passed_over + chosen.len() as u64, steps.len() as u64);
            prop_assert!(chosen.is_sorted_by_key(|chosen| chosen.frame));
            let shown: u32 = chosen.iter().map(|chosen| chosen.repeat).sum();
            prop_assert!((4..=16).contains(&shown));
        }
    }
}
