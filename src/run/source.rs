//! One source under supervision: attempt, announce, wait, again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use gstvita::messages::{Session, SourceRoom};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use vita_messages::kinds::{Body, Media, SourceReason, SourceReasonKind};
use vita_messages::{Message, Publisher, SourceName, WallTime};

use super::announce::Announcer;
use super::attempt::{Attempt, End};
use super::backoff::Backoff;
use super::diagnose::{diagnose, question};
use super::pipeline::{Dropped, Observed, Pipeline};
use super::redact::Redactor;
use super::taps::SOURCE;
use super::{reason, stopped};
use crate::plan::SourcePlan;

/// The element that answers, in the pipelines that have one.
const SINK: &str = "llm";
/// A pipeline that takes longer to go down is announced as down before it is.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// So that a file of no length does not spin.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often a pipeline that hangs is complained of.
const HANGS_AGAIN: Duration = Duration::from_secs(30);

/// One source, from its first attempt to its last.
pub struct SourceTask {
    pub(super) plan: SourcePlan,
    pub(super) backoff: Backoff<StdRng>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) announcer: Announcer,
    name: SourceName,
    redactor: Redactor,
    room: Arc<SourceRoom>,
    publisher: Publisher,
    dropped: Arc<Dropped>,
    /// The last pipeline, while it is still going down.
    closing: Option<JoinHandle<()>>,
}

impl SourceTask {
    pub fn new(
        plan: SourcePlan,
        name: SourceName,
        room: Arc<SourceRoom>,
        publisher: Publisher,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            backoff: Backoff::new(plan.retry, StdRng::from_os_rng()),
            redactor: Redactor::of_launch(plan.launch.reveal()),
            plan,
            stop,
            announcer: Announcer::default(),
            name,
            room,
            publisher,
            dropped: Arc::default(),
            closing: None,
        }
    }

    /// Until it is finished or told to stop. Returns what was given up.
    pub async fn run(mut self) -> Arc<Dropped> {
        loop {
            let attempt = AssertUnwindSafe(self.attempt()).catch_unwind().await;
            let end = attempt.unwrap_or_else(|panic| End::Failed(panicked(panic.as_ref())));
            let wait = match end {
                End::Stopped => {
                    self.down(
                        reason::new(SourceReasonKind::Stopped, "vita was stopped"),
                        None,
                    );
                    break;
                }
                End::Finished => {
                    self.down(
                        reason::new(SourceReasonKind::Ended, "the file was played to its end"),
                        None,
                    );
                    break;
                }
                End::Again => AGAIN_AFTER,
                End::Stalled => self.backoff.failed(Instant::now()),
                End::Failed(reason) => {
                    let wait = self.backoff.failed(Instant::now());
                    self.down(reason, Some(wait));
                    wait
                }
            };
            if timeout(wait, stopped(&mut self.stop)).await.is_ok() {
                self.down(
                    reason::new(SourceReasonKind::Stopped, "vita was stopped"),
                    None,
                );
                break;
            }
        }
        self.dropped
    }

    async fn attempt(&mut self) -> End {
        if let Err(stopped) = self.await_closing().await {
            return stopped;
        }
        self.announcer.attempt_begins();
        tracing::debug!(attempt = self.announcer.attempt(), "connecting");
        let (plan, redactor) = (self.plan.clone(), self.redactor.clone());
        let dropped = Arc::clone(&self.dropped);
        let unix_ms = u64::try_from(WallTime::now().unix_ns() / 1_000_000).unwrap_or_default();
        let session = Session {
            id: self.room.new_session(unix_ms),
            model: self.room.model().map(str::to_owned),
        };
        let opened =
            spawn_blocking(move || Pipeline::open(&plan, session, &redactor, &dropped)).await;
        let pipeline = match opened {
            Ok(Ok(pipeline)) => pipeline,
            Ok(Err(reason)) => return End::Failed(reason),
            Err(error) => {
                return End::Failed(reason::new(SourceReasonKind::Pipeline, error.to_string()));
            }
        };
        self.room.open(pipeline.element(SINK));
        let mut attempt = Attempt::new(pipeline);
        let end = attempt.run(self).await;
        self.room.close();
        let (was_up, pipeline) = (attempt.is_up(), attempt.into_pipeline());
        let question = pipeline
            .element(SOURCE)
            .and_then(|source| question(&source, &self.plan));
        self.close(pipeline, was_up).await;
        match (end, question) {
            (End::Failed(reason), Some(question))
                if reason.kind == SourceReasonKind::Pipeline && !was_up =>
            {
                End::Failed(diagnose(&question).await.unwrap_or(reason))
            }
            (end, _) => end,
        }
    }

    /// A pipeline that still hangs on the way down is waited for: it holds the device, and one such thread is enough.
    async fn await_closing(&mut self) -> Result<(), End> {
        let Some(mut closing) = self.closing.take() else {
            return Ok(());
        };
        loop {
            tokio::select! {
                () = stopped(&mut self.stop) => return Err(End::Stopped),
                _ = &mut closing => return Ok(()),
                () = sleep(HANGS_AGAIN) => tracing::error!("the last pipeline hangs on its way down; not tried again before it is"),
            }
        }
    }

    async fn close(&mut self, pipeline: Pipeline, was_up: bool) {
        let (mut closing, mut observed) = pipeline.close();
        if timeout(CLOSE_WITHIN, &mut closing).await.is_err() {
            self.closing = Some(closing);
        }
        if was_up {
            self.drain(&mut observed);
        }
    }

    fn drain(&self, observed: &mut mpsc::Receiver<Observed>) {
        while let Ok(observed) = observed.try_recv() {
            self.observe(observed);
        }
    }

    pub(super) fn observe(&self, observed: Observed) {
        if let Body::Speech(speech) = &observed.body {
            let at_ms = speech.stream_time_ns / 1_000_000;
            tracing::debug!(edge = ?speech.edge, at_ms, "speech");
        }
        self.publish(&Message::new(&self.name, observed.time, observed.body));
    }

    pub(super) fn up(&mut self, media: Vec<Media>) {
        self.backoff.succeeded(Instant::now());
        let streams: Vec<_> = media.iter().map(|media| media.codec.as_str()).collect();
        tracing::info!(
            attempt = self.announcer.attempt(),
            streams = streams.join("+"),
            "up"
        );
        if let Some(source) = self.announcer.up(media) {
            self.announce(source);
        }
    }

    pub(super) fn stalled(&mut self, reason: SourceReason) {
        tracing::warn!(reason = reason.text, "stalled");
        if let Some(source) = self.announcer.stalled(reason) {
            self.announce(source);
        }
    }

    fn down(&mut self, reason: SourceReason, wait: Option<Duration>) {
        let retry_in_ms = wait.map(|wait| wait.as_millis());
        tracing::warn!(reason = reason.text, kind = ?reason.kind, attempt = self.announcer.attempt(), retry_in_ms, "down");
        let next_retry = wait.map(|wait| {
            let now = WallTime::now().unix_ns();
            let at = now + i128::try_from(wait.as_nanos()).unwrap_or_default();
            WallTime::from_unix_ns(u64::try_from(at).unwrap_or_default())
        });
        if let Some(source) = self.announcer.down(reason, next_retry) {
            self.announce(source);
        }
    }

    fn announce(&self, body: impl Into<Body>) {
        self.publish(&Message::now(&self.name, body));
    }

    fn publish(&self, message: &Message) {
        self.room.tell(&message.body);
        // The publisher counts what it gives up, and announces it where it would have been kept.
        if let Err(error) = self.publisher.publish(message) {
            tracing::debug!(%error, "not published");
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> SourceReason {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    tracing::error!(panic = text, "the source's task panicked; this is a bug");
    reason::new(SourceReasonKind::Pipeline, "internal error, see the log")
}
