//! Takes messages to the broker without ever making the caller wait.

mod link;
mod options;
mod stats;
mod stream;
mod task;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use options::{Options, StreamOptions};
use stats::Counters;
pub use stats::Stats;
use task::Task;

use crate::kinds::Kind;
use crate::message::Message;
use crate::spool::{Record, Spool, SpoolError};
use crate::subject::{Prefix, SourceName};

/// Largest message, bytes of JSON: the broker's usual `max_payload` of 1 MiB less room for headers.
const MAX_MESSAGE_BYTES: usize = (1 << 20) - 4096;

/// A handle to the task that publishes; clones share it.
///
/// Durable messages are written to the spool, published to JetStream with a bounded number of acknowledgements awaited at a time, and
/// forgotten once acknowledged; they keep their order. With the broker away they wait; JetStream knows a message sent again by its id, so
/// within the duplicate window each arrives once. Transient messages go out now or not at all.
#[derive(Clone)]
pub struct Publisher {
    durable: mpsc::Sender<Record>,
    live: mpsc::Sender<Live>,
    close: mpsc::Sender<Close>,
    prefix: Prefix,
    counters: Arc<Counters>,
    overflow: Arc<Mutex<Overflow>>,
    status: watch::Receiver<Status>,
}

pub(crate) struct Live {
    subject: String,
    payload: Bytes,
}

pub(crate) struct Close {
    deadline: tokio::time::Instant,
    done: oneshot::Sender<Drained>,
}

/// Messages for which the queue had no room, by source, until the task enters them in the ledger.
pub(crate) type Overflow = std::collections::BTreeMap<SourceName, u64>;

/// The connection, as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Name of the broker that we are connected to.
    pub server: Option<String>,
    /// Why there was none last.
    pub error: Option<String>,
}

/// What a bounded close left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Durable messages that stay in the spool for the next time.
    pub remaining: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Counted, and announced when durable.
    #[error("the queue for {} messages is full; this one is dropped", kind.name())]
    QueueFull { kind: Kind },
    #[error("a {} message of {bytes} bytes is too large; at most {MAX_MESSAGE_BYTES} are taken", kind.name())]
    TooLarge { kind: Kind, bytes: usize },
    #[error("the publisher is closed")]
    Closed,
}

impl Publisher {
    /// Opens the spool and starts the task on the current tokio runtime. Does not wait for the broker: see [`status`](Self::status).
    pub async fn connect(options: Options) -> Result<Self, SpoolError> {
        let (durable, durable_queue) = mpsc::channel(options.durable_queue.max(1));
        let (live, live_queue) = mpsc::channel(options.live_queue.max(1));
        let (close, close_requests) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(Status::default());
        let counters = Arc::new(Counters::default());
        let overflow = Arc::new(Mutex::new(Overflow::new()));
        let prefix = options.prefix.clone();
        let spool_options = options.spool.clone();
        // Reads what an earlier process left, which may be much.
        let opened = tokio::task::spawn_blocking(move || Spool::open(spool_options)).await;
        let spool = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let queues = task::Queues {
            durable: durable_queue,
            live: live_queue,
            close: close_requests,
        };
        let task = Task::new(
            options,
            spool,
            status_sender,
            Arc::clone(&counters),
            Arc::clone(&overflow),
        );
        tokio::spawn(task.run(queues));
        Ok(Self {
            durable,
            live,
            close,
            prefix,
            counters,
            overflow,
            status,
        })
    }

    /// Takes a message, kept or not as its kind says. Never waits; may be called from any thread.
    pub fn publish(&self, message: &Message) -> Result<(), PublishError> {
        let kind = message.kind();
        let payload = Bytes::from(message.to_json());
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(PublishError::TooLarge {
                kind,
                bytes: payload.len(),
            });
        }
        let subject = message.subject(&self.prefix);
        if !kind.place().is_durable() {
            let sent = self.live.try_send(Live { subject, payload });
            return sent.map_err(|error| {
                self.counters.live_dropped.add(1);
                queue_error(kind, &error)
            });
        }
        let record = Record {
            id: message.id.clone(),
            source: message.source.to_string(),
            subject,
            payload,
        };
        self.durable.try_send(record).map_err(|error| {
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                *self.overflow().entry(message.source.clone()).or_default() += 1;
            }
            queue_error(kind, &error)
        })
    }

    /// Durable messages that the queue has room for now, for callers that can wait.
    pub fn room(&self) -> usize {
        self.durable.capacity()
    }

    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Changes with the connection.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Takes no more messages, sends what it has, and stops at the deadline: what has not arrived then stays in the spool.
    pub async fn close(&self, within: Duration) -> Drained {
        let (done, drained) = oneshot::channel();
        let deadline = tokio::time::Instant::now() + within;
        let asked = self.close.send(Close { deadline, done }).await;
        match (asked, drained.await) {
            (Ok(()), Ok(drained)) => drained,
            // Closed before.
            _ => Drained {
                remaining: self.stats().pending,
            },
        }
    }

    fn overflow(&self) -> std::sync::MutexGuard<'_, Overflow> {
        self.overflow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn queue_error<T>(kind: Kind, error: &mpsc::error::TrySendError<T>) -> PublishError {
    match error {
        mpsc::error::TrySendError::Full(_) => PublishError::QueueFull { kind },
        mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
    }
}
