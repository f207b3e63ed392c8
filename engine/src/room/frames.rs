use std::collections::VecDeque;
use std::time::Duration;

use vita_dialogue::duplex::Interval;
use vita_model::prompt::Media;
use vita_model::video::FrameSelection;

/// A picture of a stream, encoded.
#[derive(Clone, Debug)]
pub struct Frame {
    pub media: Media,
    /// Its stream time.
    pub time: Duration,
    /// Unix nanoseconds.
    pub capture_time_ns: Option<u64>,
}

/// A frame that is shown with a question.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub frame: Frame,
    /// How often the model sees it.
    pub repeat: u32,
}

/// The newest frames in the order of their times.
#[derive(Debug)]
pub(crate) struct Frames {
    ring: VecDeque<Frame>,
    capacity: usize,
    window: Duration,
    dropped: u64,
}

impl Frames {
    /// Keeps `capacity` frames of the last `window`.
    pub fn new(capacity: usize, window: Duration) -> Self {
        Self {
            ring: VecDeque::new(),
            capacity,
            window,
            dropped: 0,
        }
    }

    /// Adds a frame. Those older than the window before `position` have done their service; when there are still too
    /// many, the oldest is dropped and counted.
    pub fn push(&mut self, frame: Frame, position: Duration) {
        let place = self.ring.partition_point(|f| f.time <= frame.time);
        self.ring.insert(place, frame);
        let oldest = position.saturating_sub(self.window);
        while self.ring.pop_front_if(|f| f.time < oldest).is_some() {}
        while self.ring.len() > self.capacity {
            self.ring.pop_front();
            self.dropped += 1;
        }
    }

    pub fn clear(&mut self) {
        self.ring.clear();
    }

    pub fn len(&self) -> usize {
        self.ring.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The frames of an interval by the model's rule; where it holds none, the last one before its end.
    pub fn choose(&self, interval: Interval, rule: &FrameSelection) -> Vec<Chosen> {
        let end = self.ring.partition_point(|f| f.time <= interval.end);
        let start = self.ring.partition_point(|f| f.time < interval.start);
        let start = start.min(end.saturating_sub(1));
        let frames: Vec<&Frame> = self.ring.range(start..end).collect();
        let times: Vec<u64> = frames.iter().map(|f| f.time.as_nanos() as u64).collect();
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut last = None;
        for i in rule.of_times(&times) {
            match chosen.last_mut().filter(|_| last == Some(i)) {
                Some(same) => same.repeat += 1,
                None => chosen.push(Chosen {
                    frame: frames[i].clone(),
                    repeat: 1,
                }),
            }
            last = Some(i);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use vita_model::prompt::MediaKind;

    fn frames(times_ms: &[u64]) -> Frames {
        let mut frames = Frames::new(4, Duration::from_secs(10));
        for &ms in times_ms {
            let frame = Frame {
                media: Media {
                    kind: MediaKind::Image,
                    key: ms,
                    vectors: Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap(),
                    transcript: None,
                },
                time: Duration::from_millis(ms),
                capture_time_ns: None,
            };
            frames.push(frame, Duration::from_millis(ms));
        }
        frames
    }

    #[track_caller]
    fn assert_chosen(frames: &Frames, from_ms: u64, to_ms: u64, expected: &[(u64, u32)]) {
        let interval = Interval {
            start: Duration::from_millis(from_ms),
            end: Duration::from_millis(to_ms),
        };
        let chosen = frames.choose(interval, &FrameSelection::default());
        let seen: Vec<_> = chosen
            .iter()
            .map(|c| (c.frame.media.key, c.repeat))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_frames_of_the_interval_by_the_models_rule() {
        let frames = frames(&[0, 1000, 3000, 2000]);
        assert_chosen(&frames, 0, 3000, &[(0, 1), (1000, 1), (2000, 1), (3000, 1)]);
        assert_chosen(&frames, 900, 2000, &[(1000, 3), (2000, 1)]);
        assert_chosen(&frames, 1000, 1000, &[(1000, 4)]);
    }

    #[test]
    fn an_interval_without_a_frame_has_the_last_one_before() {
        let frames = frames(&[1000, 2000]);
        assert_chosen(&frames, 2500, 9000, &[(2000, 4)]);
        assert_chosen(&frames, 1200, 1900, &[(1000, 4)]);
        assert_chosen(&frames, 0, 900, &[]);
    }

    #[test]
    fn too_many_are_dropped_and_counted_but_old_ones_just_go() {
        let crowded = frames(&[1, 2, 3, 4, 5, 6]);
        assert_eq!((crowded.len(), crowded.dropped()), (4, 2));
        let old = frames(&[1, 2, 3, 20_000]);
        assert_eq!((old.len(), old.dropped()), (1, 0));
    }
}
