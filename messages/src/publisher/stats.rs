use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a publisher did since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64),+
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub $name: Counter),+
        }

        impl Counters {
            pub fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get()),+ }
            }
        }
    };
}

counters! {
    /// Durable messages taken.
    accepted,
    /// Durable messages acknowledged by JetStream, notices of loss included.
    acknowledged,
    /// Of these, known already: they had been sent before.
    duplicates,
    /// Durable messages not acknowledged yet (a gauge).
    pending,
    /// Bytes of the spool on disk (a gauge).
    spool_bytes,
    /// Durable messages given up, for whatever cause.
    lost,
    /// Torn or damaged places found in the spool.
    spool_damaged,
    /// Transient messages handed to the connection.
    live_sent,
    /// Transient messages dropped: no connection, or no room.
    live_dropped,
    /// Connections made.
    connections,
}
