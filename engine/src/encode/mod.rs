//! Pictures and utterances to media, off the threads of those who ask.
//!
//! Each model has one queue and one worker thread for all its clients: the CPU kernels and a GPU use all there is by
//! themselves, and with one worker nothing is encoded twice at the same time. Frames that wait at the same time are
//! encoded together, whoever's they are. What was encoded before is found by its content.

mod cache;
mod queue;
mod worker;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candle_core::Tensor;
use image::RgbImage;
use vita_model::Vita;
use vita_model::prompt::Media;

use queue::{Queue, Work};
use worker::Worker;

/// Of encoded media kept, by default: 60 frames of VITA-1.0, thousands of a small model.
const CACHE_BYTES: usize = 256 << 20;

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
}

struct FrameJob {
    picture: Load<RgbImage>,
    answer: Answer,
}

struct UtteranceJob {
    features: Load<Tensor>,
    answer: Answer,
}

type Job = queue::Job<FrameJob, UtteranceJob>;

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue<FrameJob, UtteranceJob>,
    stats: Stats,
    is_started: bool,
    is_closed: bool,
}

impl Shared {
    /// What is changed under the lock is changed by code that does not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` once the encoder is closed.
    fn wait_for_work(&self) -> Option<Work<FrameJob, UtteranceJob>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(work) = state.queue.take() {
                return Some(work);
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A model's encoding queue. Dropping it ends the worker after what it is at; clients' jobs are no longer answered.
pub struct Encoder {
    vita: Arc<Vita>,
    shared: Arc<Shared>,
}

impl Encoder {
    pub(crate) fn new(vita: Arc<Vita>) -> Self {
        Self {
            vita,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
            }),
        }
    }

    /// A place in the queue, for one stream. `batch` is the most frames of a batch that one of this client's is part
    /// of, `capacity` the most jobs of it that may wait.
    ///
    /// # Errors
    /// [`Error::Thread`] where the worker cannot be started.
    pub fn client(&self, batch: usize, capacity: usize) -> Result<Client, Error> {
        let mut state = self.shared.lock();
        if !state.is_started {
            let worker = Worker::new(self.vita.clone(), self.shared.clone(), CACHE_BYTES);
            std::thread::Builder::new()
                .name("vita-encode".into())
                .spawn(move || worker.run())
                .map_err(|error| Error::Thread(Arc::new(error)))?;
            state.is_started = true;
        }
        Ok(Client {
            id: state.queue.add_client(batch, capacity),
            capacity,
            shared: self.shared.clone(),
        })
    }

    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }
}

impl Drop for Encoder {
    /// Does not wait: a model may be at an encode of seconds, and that thread is the only one that it concerns.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

/// One stream's place in the queue. Dropping it cancels what waits.
pub struct Client {
    id: u64,
    capacity: usize,
    shared: Arc<Shared>,
}

impl Client {
    /// Queues a video frame.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Closed`]; `answer` is then not called.
    pub fn frame(&self, picture: Load<RgbImage>, answer: Answer) -> Result<Ticket, Error> {
        self.push(Job::Frame(FrameJob { picture, answer }))
    }

    /// Queues an utterance, as the features `[frames, bins]` that [`Vita::hear_frames`] takes.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Closed`]; `answer` is then not called.
    pub fn utterance(&self, features: Load<Tensor>, answer: Answer) -> Result<Ticket, Error> {
        self.push(Job::Utterance(UtteranceJob { features, answer }))
    }

    /// Jobs that wait; what is being encoded is not among them.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.waiting(self.id)
    }

    fn push(&self, job: Job) -> Result<Ticket, Error> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(Error::Closed);
        }
        let pushed = state.queue.push(self.id, job);
        drop(state);
        // A job that is given back is dropped here, without the lock: what it holds is the client's.
        let job = pushed.map_err(|_| Error::Full(self.capacity))?;
        self.shared.work.notify_one();
        Ok(Ticket {
            client: self.id,
            job,
            shared: self.shared.clone(),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let jobs = self.shared.lock().queue.remove_client(self.id);
        drop(jobs);
    }
}

/// A job that was queued. Dropping it changes nothing.
pub struct Ticket {
    client: u64,
    job: u64,
    shared: Arc<Shared>,
}

impl Ticket {
    /// Takes the job back; true if it still waited. It will then not be answered.
    pub fn cancel(&self) -> bool {
        let job = self.shared.lock().queue.cancel(self.client, self.job);
        job.is_some()
    }
}
