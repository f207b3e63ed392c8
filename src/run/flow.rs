//! Whether media flows: the clock of each stream of a source, and the verdict over all of them.
//!
//! GStreamer cannot be asked: over a frozen RTSP server `rtspsrc` says nothing at all, whatever its time-outs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// When a stream last delivered. Written by its streaming thread, read by the supervisor, without a lock.
#[derive(Debug)]
pub struct StreamClock {
    epoch: Instant,
    /// Nanoseconds after `epoch` plus one; 0: never.
    last: AtomicU64,
    ended: AtomicBool,
}

impl StreamClock {
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            last: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    pub fn delivered(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        self.last
            .store(u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        self.ended.store(false, Relaxed);
    }

    pub fn ended(&self) {
        self.ended.store(true, Relaxed);
    }

    pub fn read(&self) -> StreamState {
        match self.last.load(Relaxed) {
            _ if self.ended.load(Relaxed) => StreamState::Ended,
            0 => StreamState::Silent,
            nanos => StreamState::Flowing {
                last: self.epoch + Duration::from_nanos(nanos - 1),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Announced, nothing came yet. Some cameras announce audio that they never send.
    Silent,
    Flowing {
        last: Instant,
    },
    Ended,
}

/// What the streams of a source come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing has come yet.
    Waiting,
    Flowing,
    /// This stream has delivered, and then not for this long.
    Stalled {
        stream: &'static str,
        silence: Duration,
    },
    /// Every stream that delivered has ended.
    Ended,
}

/// Judges streams, each with what to call it. Each counts by itself: a camera whose picture froze is stalled though its sound goes on.
pub fn judge(
    streams: &[(&'static str, StreamState)],
    now: Instant,
    stall_timeout: Duration,
) -> Flow {
    let silence = |state: &StreamState| match *state {
        StreamState::Flowing { last } => Some(now.saturating_duration_since(last)),
        _ => None,
    };
    let flowing = streams
        .iter()
        .filter_map(|(stream, state)| Some((*stream, silence(state)?)));
    match flowing.max_by_key(|(_, silence)| *silence) {
        Some((stream, silence)) if silence > stall_timeout => Flow::Stalled { stream, silence },
        Some(_) => Flow::Flowing,
        None if streams
            .iter()
            .any(|(_, state)| *state == StreamState::Ended) =>
        {
            Flow::Ended
        }
        None => Flow::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_yet_is_no_stall() {
        let clock = StreamClock::new(Instant::now());
        assert_eq!(
            judge(
                &[("video", clock.read())],
                after(Instant::now(), 100),
                TIMEOUT
            ),
            Flow::Waiting
        );
        assert_eq!(judge(&[], Instant::now(), TIMEOUT), Flow::Waiting);
    }

    #[test]
    fn a_buffer_in_the_very_first_moment_counts() {
        let start = Instant::now();
        let clock = StreamClock::new(start);
        clock.delivered(start);
        assert_eq!(clock.read(), StreamState::Flowing { last: start });
    }

    #[test]
    fn one_frozen_stream_is_a_stall_of_the_source() {
        let start = Instant::now();
        let (video, audio) = (StreamClock::new(start), StreamClock::new(start));
        video.delivered(after(start, 1));
        audio.delivered(after(start, 7));
        let states = [("audio", audio.read()), ("video", video.read())];
        assert_eq!(judge(&states, after(start, 6), TIMEOUT), Flow::Flowing);
        let stalled = Flow::Stalled {
            stream: "video",
            silence: Duration::from_secs(6),
        };
        assert_eq!(judge(&states, after(start, 7), TIMEOUT), stalled);
    }

    #[test]
    fn audio_that_was_announced_and_never_sent_is_no_stall() {
        let start = Instant::now();
        let (video, audio) = (StreamClock::new(start), StreamClock::new(start));
        video.delivered(after(start, 99));
        let states = || [("video", video.read()), ("audio", audio.read())];
        assert_eq!(judge(&states(), after(start, 100), TIMEOUT), Flow::Flowing);
        video.ended();
        assert_eq!(judge(&states(), after(start, 100), TIMEOUT), Flow::Ended);
    }

    #[test]
    fn the_shorter_stream_of_a_file_ends_first() {
        let start = Instant::now();
        let (video, audio) = (StreamClock::new(start), StreamClock::new(start));
        audio.ended();
        video.delivered(after(start, 20));
        let states = || [("video", video.read()), ("audio", audio.read())];
        assert_eq!(judge(&states(), after(start, 21), TIMEOUT), Flow::Flowing);
        video.ended();
        assert_eq!(judge(&states(), after(start, 22), TIMEOUT), Flow::Ended);
    }

    #[test]
    fn a_loop_goes_on_after_its_end() {
        let start = Instant::now();
        let clock = StreamClock::new(start);
        clock.ended();
        clock.delivered(after(start, 1));
        assert_eq!(
            clock.read(),
            StreamState::Flowing {
                last: after(start, 1)
            }
        );
    }
}
