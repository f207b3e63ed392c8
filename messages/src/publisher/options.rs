use std::path::PathBuf;
use std::time::Duration;

use crate::broker::Broker;
use crate::server_url::ServerUrl;
use crate::spool;
use crate::subject::Prefix;

/// Of a [`Publisher`](super::Publisher).
#[derive(Clone, Debug)]
pub struct Options {
    pub broker: Broker,
    pub prefix: Prefix,
    pub stream: StreamOptions,
    pub spool: spool::Options,
    /// Durable messages between the callers and the spool. Policy drop-newest: the caller is told, and the loss announced.
    pub durable_queue: usize,
    /// Transient messages between the callers and the connection. Policy drop-newest.
    pub live_queue: usize,
    /// Durable messages that wait for their acknowledgement at a time.
    pub max_in_flight: usize,
    /// No acknowledgement for this long: the connection is made anew and the messages sent again.
    pub ack_timeout: Duration,
    /// Wait between attempts to connect: doubled from the first up to the second.
    pub retry_initial: Duration,
    pub retry_max: Duration,
}

impl Options {
    pub fn new(servers: Vec<ServerUrl>, spool_dir: impl Into<PathBuf>) -> Self {
        Self {
            broker: Broker::new(servers),
            prefix: Prefix::default(),
            stream: StreamOptions::default(),
            spool: spool::Options::new(spool_dir),
            durable_queue: 1024,
            live_queue: 256,
            max_in_flight: 512,
            ack_timeout: Duration::from_secs(5),
            retry_initial: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// The JetStream stream that keeps durable messages.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub name: String,
    /// Older messages go; zero: none does.
    pub max_age: Duration,
    /// The oldest go when it grows larger; `None`: as large as the broker allows.
    pub max_bytes: Option<u64>,
    /// For how long a message sent again is known as the same.
    pub duplicate_window: Duration,
    /// Make the stream, or bring an existing one up to these options. Otherwise it has to be there.
    pub manage: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            name: "VITA".into(),
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: Some(1 << 30),
            duplicate_window: Duration::from_secs(10 * 60),
            manage: true,
        }
    }
}
