//! Pictures and utterances to media, off the threads of those who ask.
//!
//! Each model has two queues for all its clients, a worker thread each: one for frames, one for utterances. Somebody
//! waits for what becomes of an utterance, and pictures can take long, so the one never waits for the other. With one
//! worker a kind nothing is encoded twice at the same time. Frames that wait at the same time are encoded together,
//! whoever's they are. What was encoded before is found by its content.

mod cache;
mod queue;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use image::RgbImage;
use vita_model::Vita;
use vita_model::prompt::Media;

use cache::MediaCache;
use queue::Queue;
use worker::Worker;

/// Makes what is to be encoded, on the worker: it may be slow, fail or panic for itself alone.
pub type Load<T> = Box<dyn FnOnce() -> vita_model::Result<T> + Send>;

/// Is called once, on the worker, unless the job is cancelled first. It must not wait for anything.
pub type Answer = Box<dyn FnOnce(Result<Encoded, Error>) + Send>;

/// What became of a job.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub media: Media,
    /// From the job being taken to its answer, others of its batch included.
    pub time: Duration,
    /// Frames encoded together with this one, itself included; 0 when it had been encoded before.
    pub batch: usize,
}

/// Why a medium was not encoded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Model(Arc<vita_model::Error>),
    #[error("encoding panicked: {0}")]
    Panicked(String),
    #[error("{0} media wait to be encoded already")]
    Full(usize),
    #[error("it waited {:.1} s to be encoded: the model is overloaded", .0.as_secs_f64())]
    Stale(Duration),
    #[error("the model was closed")]
    Closed,
    #[error("no thread to encode on: {0}")]
    Thread(Arc<std::io::Error>),
}

impl From<vita_model::Error> for Error {
    fn from(error: vita_model::Error) -> Self {
        Self::Model(Arc::new(error))
    }
}

/// Since the model was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that went through the model.
    pub frames: u64,
    /// Utterances that went through the model.
    pub utterances: u64,
    /// Runs of the model that encoded frames.
    pub batches: u64,
    /// Frames and utterances that had been encoded before.
    pub cached: u64,
    pub failed: u64,
    /// Utterances that had waited too long to be encoded.
    pub stale: u64,
    /// Of encoded media that are kept now.
    pub cache_bytes: usize,
    /// Of encoded media that may be kept.
    pub cache_limit_bytes: usize,
}

/// What a stream wants of the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Most frames of a batch that one of this client's is part of.
    pub batch: usize,
    /// Most frames, and most utterances, that may wait.
    pub capacity: usize,
    /// An utterance that waits longer is not encoded any more. `None`: however long.
    pub max_wait: Option<Duration>,
    /// Of encoded media kept for all who use the model; the largest that one of them wants counts.
    pub cache_bytes: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            batch: 8,
            capacity: 16,
            max_wait: None,
            // 15 frames of VITA-1.0, hundreds of a small model
            cache_bytes: 64 << 20,
        }
    }
}

struct FrameJob {
    picture: Load<RgbImage>,
    answer: Answer,
}

struct UtteranceJob {
    features: Load<Tensor>,
    answer: Answer,
    queued: Instant,
    max_wait: Option<Duration>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    cache: Mutex<MediaCache>,
}

#[derive(Default)]
struct State {
    frames: Queue<FrameJob>,
    utterances: Queue<UtteranceJob>,
    /// What may become an utterance, one a client.
    drafts: HashMap<u64, Load<Tensor>>,
    /// Bytes of encoded media that each wants kept.
    clients: HashMap<u64, usize>,
    next_client: u64,
    stats: Stats,
    is_started: bool,
    is_closed: bool,
}

impl State {
    /// The next utterance; a draft where there is none.
    fn take_utterance(&mut self) -> Vec<UtteranceJob> {
        let jobs = self.utterances.take();
        if !jobs.is_empty() {
            return jobs;
        }
        let client = self.drafts.keys().next().copied();
        let draft = client.and_then(|client| self.drafts.remove(&client));
        draft.map(UtteranceJob::draft).into_iter().collect()
    }
}

impl UtteranceJob {
    fn draft(features: Load<Tensor>) -> Self {
        Self {
            features,
            answer: Box::new(|_| ()),
            queued: Instant::now(),
            max_wait: None,
        }
    }
}

impl Shared {
    /// What is changed under the lock is changed by code that does not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::lock`]. Where both are held, the state's is the first.
    fn cache(&self) -> MutexGuard<'_, MediaCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what `take` finds; empty once the encoder is closed.
    fn wait_for<T>(&self, take: impl Fn(&mut State) -> Vec<T>) -> Vec<T> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return Vec::new();
            }
            let work = take(&mut state);
            if !work.is_empty() {
                return work;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The largest that a client wants; without one it stays as it was, for those to come.
    fn limit_cache(&self, state: &State) {
        let Some(bytes) = state.clients.values().copied().max() else {
            return;
        };
        let before = self.cache().set_limit(bytes);
        if before != bytes {
            let (limit_mib, before_mib) = (bytes >> 20, before >> 20);
            tracing::info!(limit_mib, before_mib, "limit of encoded media kept");
        }
    }
}

/// A model's encoding queues. Dropping it ends the workers after what they are at; clients' jobs are no longer answered.
pub struct Encoder {
    vita: Arc<Vita>,
    shared: Arc<Shared>,
}

impl Encoder {
    pub(crate) fn new(vita: Arc<Vita>) -> Self {
        let cache = MediaCache::new(ClientSettings::default().cache_bytes);
        Self {
            vita,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                cache: Mutex::new(cache),
            }),
        }
    }

    /// A place in the queues, for one stream.
    ///
    /// # Errors
    /// [`Error::Thread`] where a worker cannot be started.
    pub fn client(&self, settings: &ClientSettings) -> Result<Client, Error> {
        let mut state = self.shared.lock();
        if !state.is_started {
            self.start("vita-hear", Worker::hear)?;
            self.start("vita-see", Worker::see)?;
            state.is_started = true;
        }
        let id = state.next_client;
        state.next_client += 1;
        let ClientSettings {
            batch,
            capacity,
            max_wait,
            cache_bytes,
        } = *settings;
        state.frames.add_client(id, batch, capacity);
        state.utterances.add_client(id, 1, capacity);
        state.clients.insert(id, cache_bytes);
        self.shared.limit_cache(&state);
        Ok(Client {
            id,
            capacity,
            max_wait,
            shared: self.shared.clone(),
        })
    }

    fn start(&self, name: &str, work: impl FnOnce(&Worker) + Send + 'static) -> Result<(), Error> {
        let worker = Worker::new(self.vita.clone(), self.shared.clone());
        let thread = std::thread::Builder::new().name(name.into());
        let started = thread.spawn(move || work(&worker));
        started
            .map(drop)
            .map_err(|error| Error::Thread(Arc::new(error)))
    }

    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        let cache = self.shared.cache();
        Stats {
            cache_bytes: cache.bytes(),
            cache_limit_bytes: cache.limit(),
            ..state.stats
        }
    }
}

impl Drop for Encoder {
    /// Does not wait: a model may be at an encode of seconds, and that thread is the only one that it concerns.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

/// One stream's place in the queues. Dropping it cancels what waits.
pub struct Client {
    id: u64,
    capacity: usize,
    max_wait: Option<Duration>,
    shared: Arc<Shared>,
}

impl Client {
    /// Queues a video frame.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Closed`]; `answer` is then not called.
    pub fn frame(&self, picture: Load<RgbImage>, answer: Answer) -> Result<Ticket, Error> {
        let job = FrameJob { picture, answer };
        self.push(Kind::Frame, |state| {
            state.frames.push(self.id, job).map_err(drop_later)
        })
    }

    /// Queues an utterance, as the features `[frames, bins]` that [`Vita::hear_frames`] takes.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Closed`]; `answer` is then not called.
    pub fn utterance(&self, features: Load<Tensor>, answer: Answer) -> Result<Ticket, Error> {
        let job = UtteranceJob {
            features,
            answer,
            queued: Instant::now(),
            max_wait: self.max_wait,
        };
        self.push(Kind::Utterance, |state| {
            let _draft = state.drafts.remove(&self.id);
            state.utterances.push(self.id, job).map_err(drop_later)
        })
    }

    /// The features of what may turn out to be an utterance: encoded where no utterance waits, so that it is found at once
    /// when it is one. Takes the place of the one before, if that still waits.
    pub fn draft(&self, features: Load<Tensor>) {
        let mut state = self.shared.lock();
        let before = match state.is_closed {
            true => Some(features),
            false => state.drafts.insert(self.id, features),
        };
        drop(state);
        drop(before);
        self.shared.work.notify_all();
    }

    /// Jobs that wait; what is being encoded is not among them.
    pub fn waiting(&self) -> usize {
        let state = self.shared.lock();
        state.frames.waiting(self.id) + state.utterances.waiting(self.id)
    }

    fn push(
        &self,
        kind: Kind,
        push: impl FnOnce(&mut State) -> Result<u64, Box<dyn Send>>,
    ) -> Result<Ticket, Error> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(Error::Closed);
        }
        let pushed = push(&mut state);
        drop(state);
        // A job that is given back is dropped here, without the lock: what it holds is the client's.
        let job = pushed.map_err(|_| Error::Full(self.capacity))?;
        self.shared.work.notify_all();
        Ok(Ticket {
            client: self.id,
            kind,
            job,
            shared: self.shared.clone(),
        })
    }
}

fn drop_later(job: impl Send + 'static) -> Box<dyn Send> {
    Box::new(job)
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let frames = state.frames.remove_client(self.id);
        let utterances = state.utterances.remove_client(self.id);
        let draft = state.drafts.remove(&self.id);
        state.clients.remove(&self.id);
        self.shared.limit_cache(&state);
        // What jobs hold is the client's: it is dropped without the lock.
        drop(state);
        drop((frames, utterances, draft));
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Frame,
    Utterance,
}

/// A job that was queued. Dropping it changes nothing.
pub struct Ticket {
    client: u64,
    kind: Kind,
    job: u64,
    shared: Arc<Shared>,
}

impl Ticket {
    /// Takes the job back; true if it still waited. It will then not be answered.
    pub fn cancel(&self) -> bool {
        let mut state = self.shared.lock();
        let (frame, utterance) = match self.kind {
            Kind::Frame => (state.frames.cancel(self.client, self.job), None),
            Kind::Utterance => (None, state.utterances.cancel(self.client, self.job)),
        };
        drop(state);
        frame.is_some() || utterance.is_some()
    }
}
