use std::time::Duration;

use vita_engine::encode::{self, Encoded};

/// Since the element started. Of media: received = encoded + dropped + failed + stale + discarded + waiting.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    pub received: u64,
    /// Pushed.
    pub encoded: u64,
    /// By the queue's policy.
    pub dropped: u64,
    pub failed: u64,
    /// Utterances that waited longer than `max-wait`.
    pub stale: u64,
    /// By a flush, or because downstream takes nothing any more.
    pub discarded: u64,
    /// Of `encoded`: those that had been encoded before, by content.
    pub cached: u64,
    /// Of `encoded`: those that took longer than `latency`.
    pub late: u64,
    /// Frames that are not to be shown: outside the segment, or decoded for others only.
    pub skipped: u64,
    /// Utterances that were not accepted.
    pub rejected: u64,
    /// Utterances whose end or frames never came.
    pub unfinished: u64,
    /// Utterances longer than the model takes.
    pub cut: u64,
    last_time: Duration,
    total_time: Duration,
    runs: u32,
}

impl Stats {
    /// Counts a medium that is pushed.
    pub fn count(&mut self, encoded: &Encoded, took: Duration, latency: Duration) {
        self.encoded += 1;
        self.late += u64::from(took > latency);
        if encoded.batch == 0 {
            self.cached += 1;
            return;
        }
        self.last_time = encoded.time;
        self.total_time += encoded.time;
        self.runs += 1;
    }

    pub fn structure(&self, waiting: usize, encoder: &encode::Stats) -> gst::Structure {
        let mean = self.total_time.checked_div(self.runs).unwrap_or_default();
        gst::Structure::builder("vitaencoder-stats")
            .field("received", self.received)
            .field("encoded", self.encoded)
            .field("dropped", self.dropped)
            .field("failed", self.failed)
            .field("stale", self.stale)
            .field("discarded", self.discarded)
            .field("waiting", waiting as u64)
            .field("cached", self.cached)
            .field("late", self.late)
            .field("skipped", self.skipped)
            .field("rejected", self.rejected)
            .field("unfinished", self.unfinished)
            .field("cut", self.cut)
            .field("last-encode-time", self.last_time.as_nanos() as u64)
            .field("mean-encode-time", mean.as_nanos() as u64)
            .field("cache-bytes", encoder.cache_bytes as u64)
            .build()
    }
}
