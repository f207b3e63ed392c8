//! `mode=on-demand`: the newest frames in a ring, until somebody asks for them.

use std::collections::VecDeque;

/// What a `vita-frames-request` asks for; times are stream time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// At most so many, the newest of them; all when absent.
    pub count: Option<usize>,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
}

/// The newest frames. Full, it drops the oldest.
#[derive(Debug)]
pub struct History<T> {
    frames: VecDeque<(i64, T)>,
}

/// Frames that were asked for, in order, and how many older ones were given up because they can't follow them any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub frames: Vec<T>,
    pub passed_over: u64,
}

impl<T> History<T> {
    pub fn new() -> Self {
        Self {
            frames: VecDeque::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Remembers a frame, and returns how many were dropped to stay within `capacity`. After a step back in time nothing older is
    /// kept: the ring is in order of time, as what it releases must be.
    pub fn push(&mut self, time_ns: i64, frame: T, capacity: usize) -> u64 {
        let before = self.frames.len();
        if self
            .frames
            .back()
            .is_some_and(|(newest, _)| time_ns < *newest)
        {
            self.frames.clear();
        }
        self.frames.push_back((time_ns, frame));
        while self.frames.len() > capacity.max(1) {
            self.frames.pop_front();
        }
        (before + 1 - self.frames.len()) as u64
    }

    /// Hands out each frame at most once, so that times never step back downstream.
    pub fn answer(&mut self, request: Request) -> Answer<T> {
        let end = self
            .frames
            .partition_point(|(time, _)| request.end_ns.is_none_or(|end| *time <= end));
        let start = self
            .frames
            .partition_point(|(time, _)| request.start_ns.is_some_and(|start| *time < start));
        let newest = request.count.map_or(0, |count| end.saturating_sub(count));
        let start = start.max(newest);
        if start >= end {
            return Answer {
                frames: Vec::new(),
                passed_over: 0,
            };
        }
        Answer {
            frames: self
                .frames
                .drain(..end)
                .skip(start)
                .map(|(_, frame)| frame)
                .collect(),
            passed_over: start as u64,
        }
    }

    pub fn clear(&mut self) -> u64 {
        let dropped = self.frames.len() as u64;
        self.frames.clear();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(frames: i64, capacity: usize) -> History<i64> {
        let mut history = History::new();
        for time in 0..frames {
            history.push(time, time, capacity);
        }
        history
    }

    #[test]
    fn keeps_the_newest() {
        let mut history = filled(10, 4);
        assert_eq!(history.answer(Request::default()).frames, [6, 7, 8, 9]);
        assert!(history.answer(Request::default()).frames.is_empty());
    }

    #[test]
    fn a_smaller_count_gives_up_what_is_older() {
        let mut history = filled(10, 4);
        let request = Request {
            count: Some(2),
            ..Default::default()
        };
        let answer = history.answer(request);
        assert_eq!((answer.frames, answer.passed_over), (vec![8, 9], 2));
        assert_eq!(history.len(), 0);
    }

    #[test]
    fn a_range_leaves_what_is_newer() {
        let mut history = filled(10, 8);
        let request = Request {
            count: Some(2),
            start_ns: Some(4),
            end_ns: Some(6),
        };
        assert_eq!(history.answer(request).frames, [5, 6]);
        assert_eq!(history.answer(request).frames, [0i64; 0]);
        assert_eq!(history.answer(Request::default()).frames, [7, 8, 9]);
    }

    #[test]
    fn a_smaller_capacity_and_a_step_back_drop() {
        let mut history = filled(8, 8);
        assert_eq!(history.push(8, 8, 3), 6);
        assert_eq!(history.push(2, 2, 3), 3);
        assert_eq!(history.answer(Request::default()).frames, [2]);
    }
}
