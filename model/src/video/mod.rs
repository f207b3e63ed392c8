//! Which frames of a clip the model looks at.
//!
//! Two rules exist (spec section 3). [`Rule::Code`] is what the released VITA-1.0 does (`_get_rawvideo_dec` of its
//! `video_audio_demo.py`), [`Rule::Paper`] what arXiv 2408.05211, section 3.1, says. Both come in two forms: by frame number for a
//! file whose average frame rate is known ([`FrameSelection::of_file`]), and by time for a live stream, where a frame rate is at
//! best a rumour ([`FrameSelection::of_times`]).
//!
//! An entry of the result may come several times: the model is always shown at least `min_frames` pictures.

mod linspace;

pub use linspace::uniform;

use std::ops::RangeInclusive;

const SECOND_NS: u64 = 1_000_000_000;

/// How the frames of a clip are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The released code: one frame per second; when these are more than the maximum or fewer than the minimum, that many of
    /// *these*, spread evenly, with repetitions.
    #[default]
    Code,
    /// The paper: a clip shorter than `min_frames` seconds gives `min_frames` of all its frames, spread evenly; one longer
    /// than `max_frames` seconds gives `max_frames` of all its frames; any other gives one frame per second.
    Paper,
}

/// A rule and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSelection {
    pub rule: Rule,
    /// At least so many entries, repeated where the clip has fewer frames.
    pub min_frames: usize,
    /// At most so many entries.
    pub max_frames: usize,
}

impl Default for FrameSelection {
    /// Training and the offline demo: the code's rule, 4 to 16 frames.
    fn default() -> Self {
        Self {
            rule: Rule::Code,
            min_frames: 4,
            max_frames: 16,
        }
    }
}

/// A file of constant frame rate, and the part of it that is asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct File {
    /// Average frames per second.
    pub fps: f64,
    pub frames: usize,
    /// Start and end in seconds; the whole file when absent.
    pub seconds: Option<(f64, f64)>,
}

/// Frames of the live demo: four of all frames of the short clip that was recorded while the question was asked, whatever
/// its rate ("realtime" in the golden table).
pub const LIVE_FRAMES: usize = 4;

/// The live demo's rule: [`LIVE_FRAMES`] of `frames`, spread evenly.
pub fn live(frames: usize) -> Vec<usize> {
    uniform(frames, LIVE_FRAMES)
}

impl FrameSelection {
    /// Frame numbers of a file, in ascending order, between `min_frames` and `max_frames` of them; none when the range holds
    /// no frame.
    pub fn of_file(&self, file: &File) -> Vec<usize> {
        let Some(range) = file.range() else {
            return Vec::new();
        };
        match self.rule {
            Rule::Code => {
                let positions: Vec<usize> = range.step_by(file.stride()).collect();
                self.limit(positions.len())
                    .into_iter()
                    .map(|i| positions[i])
                    .collect()
            }
            Rule::Paper => {
                let (first, count) = (*range.start(), range.clone().count());
                let seconds = count as f64 / file.fps;
                match self.uniform_count(seconds) {
                    Some(entries) => uniform(count, entries),
                    None => (0..)
                        .map(|second| (f64::from(second) * file.fps).ceil() as usize)
                        .take_while(|&frame| frame < count)
                        .collect(),
                }
                .into_iter()
                .map(|frame| first + frame)
                .collect()
            }
        }
    }

    /// Indices into `pts_ns`, the ascending times of a clip's frames in nanoseconds. Where the number form steps by frames,
    /// this one takes the frame nearest to each whole second since the first frame, so that jitter, lost frames and a rate
    /// that is not known do not matter. Equal to [`of_file`](Self::of_file) for a constant whole number of frames per second.
    pub fn of_times(&self, pts_ns: &[u64]) -> Vec<usize> {
        let (Some(&first), Some(&last)) = (pts_ns.first(), pts_ns.last()) else {
            return Vec::new();
        };
        let entries = match self.rule {
            Rule::Code => None,
            Rule::Paper => {
                // The last frame is shown for as long as the others were on average.
                let shown = last.saturating_sub(first) as f64 / SECOND_NS as f64;
                let intervals = (pts_ns.len() - 1).max(1) as f64;
                self.uniform_count(shown * (intervals + 1.0) / intervals)
            }
        };
        if let Some(entries) = entries {
            return uniform(pts_ns.len(), entries);
        }
        let positions = nearest_to_seconds(pts_ns);
        self.limit(positions.len())
            .into_iter()
            .map(|i| positions[i])
            .collect()
    }

    /// The code's rule from the list of candidates on: all of them, or the limit that they break, spread evenly.
    fn limit(&self, positions: usize) -> Vec<usize> {
        if positions > self.max_frames {
            uniform(positions, self.max_frames)
        } else if positions < self.min_frames {
            uniform(positions, self.min_frames)
        } else {
            (0..positions).collect()
        }
    }

    /// How many frames the paper spreads over a clip of this length; `None` where it takes one per second.
    fn uniform_count(&self, seconds: f64) -> Option<usize> {
        if seconds < self.min_frames as f64 {
            Some(self.min_frames)
        } else if seconds > self.max_frames as f64 {
            Some(self.max_frames)
        } else {
            None
        }
    }
}

impl File {
    /// Frames per second, rounded half to even as the reference does; its crash below 0.5 frames/s is left out.
    fn stride(&self) -> usize {
        (self.fps.round_ties_even() as usize).max(1)
    }

    /// First and last frame of the part asked about. The reference truncates both seconds to whole ones, swaps them when they
    /// are reversed, and takes one second when they are equal.
    fn range(&self) -> Option<RangeInclusive<usize>> {
        let last_frame = self.frames.checked_sub(1)?;
        let Some((start, end)) = self.seconds else {
            return Some(0..=last_frame);
        };
        let (start, end) = (start.trunc().max(0.0), end.trunc().max(0.0));
        let (start, end) = match start.total_cmp(&end) {
            std::cmp::Ordering::Less => (start, end),
            std::cmp::Ordering::Equal => (start, start + 1.0),
            std::cmp::Ordering::Greater => (end, start),
        };
        let first = (start * self.fps) as usize;
        let last = ((end * self.fps) as usize).min(last_frame);
        (first <= last).then_some(first..=last)
    }
}

/// For each whole second from the first frame to the last: the frame nearest to it, the earlier one of two. A frame is taken
/// once only, however long the gap around it.
fn nearest_to_seconds(pts_ns: &[u64]) -> Vec<usize> {
    let Some((&first, &last)) = pts_ns.first().zip(pts_ns.last()) else {
        return Vec::new();
    };
    let mut chosen = vec![0];
    let mut second_ns = SECOND_NS;
    while first + second_ns <= last {
        let target = first + second_ns;
        let after = pts_ns.partition_point(|&pts| pts < target);
        let before = after.saturating_sub(1);
        let nearest = if target.abs_diff(pts_ns[before]) <= target.abs_diff(pts_ns[after]) {
            before
        } else {
            after
        };
        if chosen.last() != Some(&nearest) {
            chosen.push(nearest);
        }
        // Over a gap, on to the first second that another frame can serve.
        let served = pts_ns[nearest].saturating_sub(first) / SECOND_NS * SECOND_NS;
        second_ns = second_ns.max(served) + SECOND_NS;
    }
    chosen
}

#[cfg(test)]
mod tests;
