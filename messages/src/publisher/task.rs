//! The task behind a publisher: owns spool, window and link, and is the only one to touch them.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::link::Link;
use super::stats::Counters;
use super::window::{Origin, Window};
use super::{Close, Drained, Live, Options, Overflow, Status};
use crate::broker::BrokerError;
use crate::kinds::LostCause;
use crate::message::Message;
use crate::spool::{Entry, Record, Spool};
use crate::subject::SourceName;

/// How soon to try again when the connection takes no more.
const CONGESTION_PAUSE: Duration = Duration::from_millis(5);
/// Messages taken from the queue at a time.
const BATCH: usize = 64;

type Ack = (u64, Result<PublishAck, PublishError>);

pub(super) struct Queues {
    pub durable: mpsc::Receiver<Record>,
    pub live: mpsc::Receiver<Live>,
    pub close: mpsc::Receiver<Close>,
}

pub(super) struct Task {
    options: Options,
    spool: Spool,
    window: Window,
    link: Option<Link>,
    acks: FuturesUnordered<BoxFuture<'static, Ack>>,
    connecting: Option<BoxFuture<'static, Result<Link, BrokerError>>>,
    /// Wait before the next attempt; back to the first value once something was acknowledged.
    retry_delay: Duration,
    /// The connection takes no more until then.
    congested_until: Option<Instant>,
    /// No more durable messages will come.
    queue_has_ended: bool,
    closing: Option<Close>,
    status: watch::Sender<Status>,
    counters: Arc<Counters>,
    overflow: Arc<Mutex<Overflow>>,
}

impl Task {
    pub fn new(
        options: Options,
        spool: Spool,
        status: watch::Sender<Status>,
        counters: Arc<Counters>,
        overflow: Arc<Mutex<Overflow>>,
    ) -> Self {
        let mut window = Window::new(options.max_in_flight);
        for entry in spool.ledger.announce_again() {
            push_notice(&mut window, &options, entry);
        }
        Self {
            spool,
            window,
            link: None,
            acks: FuturesUnordered::new(),
            connecting: None,
            retry_delay: Duration::ZERO,
            congested_until: None,
            queue_has_ended: false,
            closing: None,
            status,
            counters,
            overflow,
            options,
        }
    }

    pub async fn run(mut self, mut queues: Queues) {
        let mut sync_tick = tokio::time::interval(
            self.options
                .spool
                .sync_interval
                .max(Duration::from_millis(10)),
        );
        sync_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        while !self.is_done() {
            self.enter_overflow();
            self.fill_window();
            self.send();
            self.keep_connecting();
            self.show();
            let deadline = self.closing.as_ref().map(|close| close.deadline);
            let congested_until = self.congested_until;
            tokio::select! {
                count = queues.durable.recv_many(&mut batch, BATCH), if !self.queue_has_ended => {
                    batch.drain(..).for_each(|record| self.take(&record));
                    self.queue_has_ended = count == 0;
                }
                Some(live) = queues.live.recv() => self.send_live(live),
                Some((number, result)) = self.acks.next(), if !self.acks.is_empty() => self.settle(number, result),
                error = ended(&mut self.link) => self.link_failed(&error),
                opened = pending_or(&mut self.connecting) => self.link_opened(opened),
                Some(close) = queues.close.recv() => {
                    queues.durable.close();
                    queues.live.close();
                    self.closing = Some(close);
                }
                () = until(congested_until), if congested_until.is_some() => self.congested_until = None,
                () = until(deadline) => break,
                _ = sync_tick.tick() => self.sync(),
            }
        }
        while let Ok(record) = queues.durable.try_recv() {
            self.take(&record);
        }
        self.finish().await;
    }

    /// Whether nothing is left to do: all was taken over and has arrived. With all handles gone but no close asked for, what has not
    /// arrived is left to the next process.
    fn is_done(&self) -> bool {
        let has_arrived = self.window.is_empty() && self.spool.is_caught_up();
        self.queue_has_ended && (has_arrived || self.closing.is_none())
    }

    fn take(&mut self, record: &Record) {
        self.counters.accepted.add(1);
        if !self.may_fill() || !self.spool.is_caught_up() {
            if let Err(error) = self.spool.append(record) {
                self.give_up(&record.source, LostCause::SpoolWrite, &error);
            }
            return;
        }
        let origin = match self.spool.append_taken(record) {
            Ok(position) => Origin::Spool(position),
            Err(error) => {
                tracing::error!(%error, "publisher: a message is only in memory until it is acknowledged");
                Origin::Memory
            }
        };
        self.window.push(record.clone(), origin);
    }

    fn may_fill(&self) -> bool {
        self.link.is_some() && self.window.has_room() && !self.spool.ledger.has_news()
    }

    /// With a link, takes up what waits. A gap is announced where it is: after what was taken before it, ahead of what comes after.
    fn fill_window(&mut self) {
        if self.link.is_none() {
            return;
        }
        if self.spool.ledger.has_news() {
            for entry in self.spool.ledger.announce() {
                push_notice(&mut self.window, &self.options, entry);
            }
        }
        while self.window.has_room() {
            match self.spool.take() {
                Ok(Some((record, position))) => self.window.push(record, Origin::Spool(position)),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "publisher: cannot read the spool");
                    break;
                }
            }
        }
    }

    fn send(&mut self) {
        let Some(link) = &self.link else { return };
        if self.congested_until.is_some() {
            return;
        }
        while let Some((number, record)) = self.window.next() {
            match link.publish(record) {
                Some(Ok(ack)) => self.acks.push(
                    ack.into_future()
                        .map(move |result| (number, result))
                        .boxed(),
                ),
                Some(Err(error)) => self.acks.push(future::ready((number, Err(error))).boxed()),
                None => {
                    self.congested_until = Some(Instant::now() + CONGESTION_PAUSE);
                    return;
                }
            }
            self.window.sent(number);
        }
    }

    fn settle(&mut self, number: u64, result: Result<PublishAck, PublishError>) {
        match result {
            Ok(ack) => {
                self.retry_delay = Duration::ZERO;
                self.counters.acknowledged.add(1);
                self.counters.duplicates.add(u64::from(ack.duplicate));
            }
            Err(error) if is_too_large(&error) => {
                if let Some(source) = self
                    .window
                    .record(number)
                    .map(|record| record.source.clone())
                {
                    self.give_up(&source, LostCause::TooLarge, &error);
                }
            }
            Err(error) => {
                let what = format!("no acknowledgement: {}", with_source(&error));
                let error = self.link.as_ref().map(|link| link.error(&what));
                return error.iter().for_each(|error| self.link_failed(error));
            }
        }
        let (mut records, mut last) = (0, None);
        for origin in self.window.settle(number) {
            match origin {
                Origin::Spool(position) => {
                    records += 1;
                    last = Some(position);
                }
                Origin::Notice(entry) => self.spool.ledger.arrived(&entry),
                Origin::Memory => {}
            }
        }
        if let Some(position) = last {
            self.spool.acknowledge(position, records);
        }
    }

    fn send_live(&self, live: Live) {
        let was_sent = self
            .link
            .as_ref()
            .is_some_and(|link| link.publish_live(live.subject, live.payload));
        let counter = if was_sent {
            &self.counters.live_sent
        } else {
            &self.counters.live_dropped
        };
        counter.add(1);
    }

    fn give_up(&mut self, source: &str, cause: LostCause, error: &dyn std::error::Error) {
        tracing::warn!(source, ?cause, %error, "publisher: a message is given up");
        self.spool.ledger.add(source, cause, 1);
        self.spool.ledger.save();
    }

    /// Losses at the queue are noted by whoever published; here they enter the account.
    fn enter_overflow(&mut self) {
        let overflow =
            std::mem::take(&mut *self.overflow.lock().unwrap_or_else(PoisonError::into_inner));
        if overflow.is_empty() {
            return;
        }
        for (source, count) in overflow {
            self.spool
                .ledger
                .add(source.as_str(), LostCause::QueueFull, count);
        }
        self.spool.ledger.save();
    }

    fn keep_connecting(&mut self) {
        if self.link.is_some() || self.connecting.is_some() {
            return;
        }
        let (options, delay) = (self.options.clone(), self.retry_delay);
        self.retry_delay = (delay * 2).clamp(self.options.retry_initial, self.options.retry_max);
        self.connecting = Some(Box::pin(async move {
            tokio::time::sleep(delay).await;
            Link::open(&options).await
        }));
    }

    fn link_opened(&mut self, opened: Result<Link, BrokerError>) {
        self.connecting = None;
        match opened {
            Ok(link) => {
                tracing::info!(
                    server = link.server(),
                    pending = self.spool.pending(),
                    "publisher: connected"
                );
                self.status.send_replace(Status {
                    server: Some(link.server()),
                    error: None,
                });
                self.counters.connections.add(1);
                self.window.rewind();
                self.congested_until = None;
                self.link = Some(link);
            }
            Err(error) => self.announce_failure(&error),
        }
    }

    /// Everything that is not acknowledged will be sent again on the next link.
    fn link_failed(&mut self, error: &BrokerError) {
        self.link = None;
        self.acks.clear();
        self.announce_failure(error);
    }

    fn announce_failure(&self, error: &BrokerError) {
        let text = error.to_string();
        // Once, not at every attempt.
        if self.status.borrow().error.as_ref() != Some(&text) {
            tracing::warn!(
                error = text,
                pending = self.spool.pending(),
                "publisher: no broker; durable messages wait in the spool"
            );
        }
        self.status.send_replace(Status {
            server: None,
            error: Some(text),
        });
    }

    fn show(&self) {
        self.counters
            .pending
            .set(self.spool.pending() + self.window.in_memory());
        self.counters.spool_bytes.set(self.spool.bytes());
        self.counters.lost.set(self.spool.ledger.total());
        self.counters.spool_damaged.set(self.spool.damaged());
    }

    /// The disk may take its time, so not here.
    fn sync(&mut self) {
        if let Some(file) = self.spool.unsynced() {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = file.sync_data() {
                    tracing::warn!(%error, "publisher: cannot sync the spool");
                }
            });
        }
    }

    async fn finish(mut self) {
        let deadline = self
            .closing
            .as_ref()
            .map_or_else(Instant::now, |close| close.deadline);
        if let Some(link) = &self.link {
            let _ = tokio::time::timeout_at(deadline, link.flush()).await;
        }
        self.sync();
        self.show();
        let drained = Drained {
            remaining: self.spool.pending() + self.window.in_memory(),
        };
        let closing = self.closing.take();
        // Gives the folder free before the caller goes on.
        drop(self);
        if let Some(close) = closing {
            let _ = close.done.send(drained);
        }
    }
}

fn push_notice(window: &mut Window, options: &Options, entry: Entry) {
    // Names were checked when the messages were made; one that somebody wrote into the file by hand is passed over.
    let Ok(source) = SourceName::new(entry.source.as_str()) else {
        return;
    };
    let message = Message::new(&source, entry.lost.last_time, entry.lost.clone());
    let record = Record {
        id: message.id.clone(),
        source: source.to_string(),
        subject: message.subject(&options.prefix),
        payload: message.to_json().into(),
    };
    window.push(record, Origin::Notice(entry));
}

fn is_too_large(error: &PublishError) -> bool {
    let refused = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || refused
            .is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

async fn ended(link: &mut Option<Link>) -> BrokerError {
    match link {
        Some(link) => link.ended().await,
        None => future::pending().await,
    }
}

async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}
