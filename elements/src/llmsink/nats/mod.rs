//! The sink's own way to NATS: what it posts is published, and commands reach it, with no program around the pipeline.
//!
//! Nothing here waits for the broker. Connecting, publishing and commands are tasks of one runtime that all sinks of the process
//! share; the publisher's queues are bounded and counted, and what is kept waits in the spool.

mod settings;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use gst::{glib, prelude::*, subclass::prelude::*};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use vita_messages::kinds::{Body, Source, SourceReason, SourceReasonKind, SourceStatus};
use vita_messages::service::{CommandService, Served};
use vita_messages::spool::SpoolError;
use vita_messages::{Message, Publisher, SourceName, Stats, Status, WallTime};

use super::LlmSink;
use super::imp::CAT;
use crate::common::lock;
use crate::messages::{self, Session, SourceRoom};
pub(super) use settings::NatsSettings;
use settings::Plan;

/// It moves small messages.
const THREADS: usize = 2;
/// What has not arrived by then stays in the spool for the next time.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// Longer than closing takes, but where the machine is busy.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// The session before may still be closing its spool.
const SPOOL_FREE_WITHIN: Duration = Duration::from_secs(2);
const SPOOL_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Made at the first use, kept until the process ends.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("vita-nats")
        .enable_all()
        .build();
    runtime.map_err(|error| format!("nats-url: no threads to publish with: {error}"))
});

/// Runs on the sinks' runtime, and waits here for its result: for as long as `limit`, or for as long as it takes. Unlike `block_on`, which
/// panics there, this may be called on a thread of another runtime.
fn run<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
    limit: Option<Duration>,
) -> Result<T, String> {
    let (sender, result) = mpsc::sync_channel(1);
    RUNTIME.as_ref().map_err(Clone::clone)?.spawn(async move {
        // Who gave up waiting does not want it any more.
        let _ = sender.send(future.await);
    });
    let received = match limit {
        Some(limit) => result
            .recv_timeout(limit)
            .map_err(|error| error.to_string()),
        None => result.recv().map_err(|error| error.to_string()),
    };
    received.map_err(|error| format!("nats-url: {error}"))
}

/// From PAUSED to READY, in a sink that has a `nats-url`.
pub(super) struct Nats {
    publisher: Publisher,
    source: SourceName,
    session: Session,
    room: Arc<SourceRoom>,
    commands: Mutex<Option<CommandService>>,
    /// The source has been announced.
    is_up: AtomicBool,
}

impl Nats {
    /// `None` without a `nats-url`. Opens the spool; the broker may come later. `last_session`: the number of the session before.
    ///
    /// # Errors
    /// For a property that is wrong, and a spool that cannot be used.
    pub fn open(
        element: &LlmSink,
        settings: &NatsSettings,
        model: Option<String>,
        last_session: &mut u64,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(Plan { options, source }) = settings.plan(&element.name())? else {
            return Ok(None);
        };
        let room = Arc::new(SourceRoom::new(source.as_str(), model.clone()));
        let now_ms = WallTime::now().unix_ns() / 1_000_000;
        let now_ms = u64::try_from(now_ms).unwrap_or_default();
        *last_session = room.new_session(now_ms.max(*last_session + 1));
        room.open(Some(element.clone().upcast()));
        let served = Served {
            source: source.clone(),
            outcomes: room.outcomes.clone(),
            room: room.clone(),
        };
        let weak = element.downgrade();
        let opened = run(
            async move {
                let (broker, prefix) = (options.broker.clone(), options.prefix.clone());
                let publisher = open_publisher(options).await?;
                let commands = CommandService::start(broker, prefix, vec![served]);
                tokio::spawn(report(publisher.status(), weak));
                Ok::<_, SpoolError>((publisher, commands))
            },
            None,
        )?;
        let (publisher, commands) = opened.map_err(|error| format!("spool-dir: {error}"))?;
        Ok(Some(Arc::new(Self {
            publisher,
            source,
            session: Session {
                id: *last_session,
                model,
            },
            room,
            commands: Mutex::new(Some(commands)),
            is_up: AtomicBool::new(false),
        })))
    }

    /// Publishes one of the structures that elements post. Never waits.
    pub fn tell(&self, structure: &gst::StructureRef) {
        match messages::parse(structure, &self.session) {
            Some(Ok(body)) => self.publish(body),
            Some(Err(error)) => gst::error!(CAT, "{}: {error}", self.source),
            None => (),
        }
    }

    fn publish(&self, body: impl Into<Body>) {
        let message = Message::now(&self.source, body);
        self.room.tell(&message.body);
        // The publisher counts what it gives up, and announces it where it would have been kept.
        if let Err(error) = self.publisher.publish(&message) {
            gst::debug!(CAT, "{}: {error}", self.source);
        }
    }

    /// Something has come in.
    pub fn up(&self) {
        if !self.is_up.load(Ordering::Relaxed) && !self.is_up.swap(true, Ordering::Relaxed) {
            self.tell_source(SourceStatus::Up, None);
        }
    }

    /// Nothing more comes.
    pub fn down(&self, kind: SourceReasonKind, text: &str) {
        if self.is_up.swap(false, Ordering::Relaxed) {
            let text = text.into();
            self.tell_source(SourceStatus::Down, Some(SourceReason { kind, text }));
        }
    }

    fn tell_source(&self, state: SourceStatus, reason: Option<SourceReason>) {
        self.publish(Source {
            state,
            reason,
            attempt: 1,
            next_retry: None,
            media: Vec::new(),
        });
    }

    /// Takes no more commands and messages; what the broker does not take within [`FLUSH_WITHIN`] stays in the spool.
    pub fn close(&self) {
        self.room.close();
        lock(&self.commands).take();
        self.down(SourceReasonKind::Stopped, "the element was stopped");
        let publisher = self.publisher.clone();
        let closing = async move { publisher.close(FLUSH_WITHIN).await };
        match run(closing, Some(CLOSE_WITHIN)) {
            Ok(drained) if drained.remaining == 0 => (),
            Ok(drained) => {
                let count = drained.remaining;
                gst::warning!(CAT, "{}: {count} messages wait in the spool", self.source);
            }
            Err(error) => gst::warning!(CAT, "{}: closing: {error}", self.source),
        }
    }

    pub fn stats(&self) -> Stats {
        self.publisher.stats()
    }
}

async fn open_publisher(options: vita_messages::Options) -> Result<Publisher, SpoolError> {
    let deadline = Instant::now() + SPOOL_FREE_WITHIN;
    loop {
        match Publisher::connect(options.clone()).await {
            Err(SpoolError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(SPOOL_AGAIN_AFTER).await;
            }
            opened => return opened,
        }
    }
}

/// Says on the bus that there is no broker: once, until there was one. Ends with the publisher.
async fn report(mut status: watch::Receiver<Status>, element: glib::WeakRef<LlmSink>) {
    let mut is_told = false;
    loop {
        let Status { server, error } = status.borrow_and_update().clone();
        match (server, error) {
            (Some(server), _) => {
                is_told = false;
                gst::info!(CAT, "connected to broker {server}");
            }
            (None, Some(error)) if !is_told => {
                is_told = true;
                let element = element.clone();
                // Who reads the bus may take time.
                let _ = tokio::task::spawn_blocking(move || warn(&element, &error)).await;
            }
            _ => (),
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn warn(element: &glib::WeakRef<LlmSink>, error: &str) {
    if let Some(element) = element.upgrade() {
        gst::element_imp_warning!(
            element.imp(),
            gst::ResourceError::OpenWrite,
            ("{error}; messages wait in the spool")
        );
    }
}
