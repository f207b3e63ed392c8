//! A room: one dialogue on a model that others may use as well.
//!
//! [`Room`] is the handle. What is given to it goes through a bounded inbox to the engine's thread, where a task carries
//! out what the dialogue's machine ([`vita_dialogue::duplex`]) decides, and hands [events](event::Event) to the callback.
//! No method waits for the model, except [`Room::wait`], whose purpose it is.

pub mod event;
mod frames;
mod inbox;
mod prompt;
mod settings;
mod task;
mod turns;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use vita_dialogue::duplex::{CancelReason, GenerationId, TurnId};
use vita_model::Vita;
use vita_model::prompt::Media;
use vita_model::scheduler;

use crate::Error;
use crate::models::Model;
pub use event::Event;
pub use frames::Frame;
use inbox::{Inbox, Request};
pub use settings::{Pacing, RoomSettings};
pub(crate) use task::Task;

/// Is called on the engine's thread with each event, in order. It must not wait: every room of the model would wait with
/// it. A panic in it ends its room, and no other.
pub type OnEvent = Box<dyn FnMut(Event) + Send>;

/// Something that was said, encoded.
#[derive(Clone, Debug)]
pub struct Utterance {
    /// As its source counts them.
    pub id: u64,
    pub media: Media,
    /// Stream time.
    pub start: Duration,
    pub end: Duration,
    /// Unix nanoseconds of the start.
    pub capture_time_ns: Option<u64>,
    /// How long ago it ended, for the timings of rooms that run freely.
    pub age: Duration,
    /// Of this, what counts against [`vita_dialogue::duplex::Settings::maximum_wait`]: nothing where the media wait for the model.
    pub waited: Duration,
}

/// Something that was said and given up before it was encoded.
#[derive(Clone, Debug)]
pub struct LostUtterance {
    /// As its source counts them.
    pub id: u64,
    /// Stream time.
    pub start: Duration,
    pub end: Duration,
    /// Unix nanoseconds of the start.
    pub capture_time_ns: Option<u64>,
    pub reason: CancelReason,
}

/// How a room is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How far the media have come, as far as the engine has followed.
    pub position: Duration,
    /// The answer that is running.
    pub generation: Option<GenerationId>,
    /// Requests that the engine has not taken yet.
    pub requests: usize,
    /// Requests that were refused because too many were waiting.
    pub requests_refused: u64,
    /// Questions that wait while another is being judged.
    pub questions_waiting: usize,
    /// Questions that had no verdict in time.
    pub questions_overdue: u64,
    /// Frames kept for questions to come.
    pub frames: usize,
    /// Frames that had to make place for newer ones before their time was over.
    pub frames_dropped: u64,
    pub history_turns: usize,
    pub history_tokens: usize,
    /// What the engine reported of turns and answers that were over.
    pub late_reports: u64,
    /// Of the batch in which the room's sequences run, other rooms' included.
    pub scheduler: scheduler::Stats,
    /// Why the room is over, if it broke.
    pub failed: Option<String>,
}

/// A handle to an open room. Dropping it closes the room: what runs is stopped within one step, and
/// [`event::EventKind::Closed`] is the last event. Other rooms are not concerned.
#[derive(Debug)]
pub struct Room {
    inbox: Arc<Inbox>,
    wake: Wake,
    step: Option<Duration>,
    vocabulary: usize,
    model: Option<Arc<Model>>,
}

/// Rings for the engine's thread, which goes when nobody can ring any more.
#[derive(Clone, Debug)]
pub(crate) struct Wake(pub SyncSender<()>);

impl Wake {
    pub fn ring(&self) -> Result<(), Error> {
        match self.0.try_send(()) {
            // A full channel has rung already.
            Ok(()) | Err(TrySendError::Full(())) => Ok(()),
            Err(TrySendError::Disconnected(())) => Err(Error::Stopped),
        }
    }
}

impl Room {
    pub(crate) fn new(
        vita: Arc<Vita>,
        settings: RoomSettings,
        on_event: OnEvent,
        wake: Wake,
    ) -> Result<(Self, Task), Error> {
        settings.validate(&vita)?;
        let vocabulary = vita.lm().vocabulary();
        let inbox = Arc::new(Inbox::new(&settings));
        let step = match settings.pacing {
            Pacing::Free => None,
            Pacing::Stream { step } => Some(step),
        };
        let task = Task::new(vita, settings, inbox.clone(), on_event);
        let room = Self {
            inbox,
            wake,
            step,
            vocabulary,
            model: None,
        };
        Ok((room, task))
    }

    /// Keeps a model open as long as the room is.
    pub(crate) fn keep(&mut self, model: Arc<Model>) {
        self.model = Some(model);
    }

    /// An utterance ended. In a paced room it is heard when the media have come to its end.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or where the room is over.
    pub fn utterance(&self, utterance: Utterance) -> Result<(), Error> {
        let end = utterance.end;
        let request = Request::Utterance(Arc::new(utterance));
        self.inbox.lock().send_at(end, request)?;
        self.wake.ring()
    }

    /// An utterance will not come, so that it has its end, too. In a paced room when the media have come to its own.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or where the room is over.
    pub fn lost(&self, utterance: LostUtterance) -> Result<(), Error> {
        let end = utterance.end;
        self.inbox.lock().send_at(end, Request::Lost(utterance))?;
        self.wake.ring()
    }

    /// A frame for questions to come; when there are too many, the oldest is dropped and counted.
    pub fn frame(&self, frame: Frame) {
        let mut state = self.inbox.lock();
        if self.step.is_none() {
            state.advance(frame.time, None);
        }
        let position = state.position;
        state.frames.push(frame, position);
    }

    /// Somebody typed a question. Tells its number.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or where the room is over.
    pub fn ask(&self, text: impl Into<String>) -> Result<TurnId, Error> {
        let mut state = self.inbox.lock();
        let (text, at) = (text.into(), state.position);
        let turn = state.send(Request::Ask { text, at })?;
        drop(state);
        self.wake.ring()?;
        turn.ok_or(Error::Stopped)
    }

    /// A question that was typed at a time of the media.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or where the room is over.
    pub fn ask_at(&self, text: impl Into<String>, at: Duration) -> Result<(), Error> {
        let text = text.into();
        self.inbox.lock().send_at(at, Request::Ask { text, at })?;
        self.wake.ring()
    }

    /// Stops what runs, cancels what waits, forgets what was said.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or where the room is over.
    pub fn reset(&self) -> Result<(), Error> {
        self.send(Request::Reset)
    }

    /// Another [`RoomSettings::logit_bias`] from the next question on.
    ///
    /// # Errors
    /// For a token that the model does not have; else as [`Self::reset`].
    pub fn set_logit_bias(&self, bias: Vec<(u32, f32)>) -> Result<(), Error> {
        settings::check_bias(&bias, self.vocabulary)?;
        self.send(Request::LogitBias(bias))
    }

    fn send(&self, request: Request) -> Result<(), Error> {
        self.inbox.lock().send(request)?;
        self.wake.ring()
    }

    /// The media have come to `time`: nothing that is given from now on is from before it.
    pub fn advance(&self, time: Duration) {
        self.inbox.lock().advance(time, self.step);
        // An engine that has stopped is told by the next request.
        let _ = self.wake.ring();
    }

    /// Waits until a paced room has come to `time`, up to which it must have been [advanced](Self::advance). `false`: it
    /// was given up or flushed before, or the room is over. `gives_up` is asked at each [`Self::wake_waiting`]; it may not
    /// call the room.
    pub fn wait(&self, time: Duration, gives_up: impl Fn() -> bool) -> bool {
        self.inbox.wait(time, gives_up)
    }

    /// Has everyone in [`Self::wait`] asked whether they give up.
    pub fn wake_waiting(&self) {
        self.inbox.interrupt();
    }

    /// The media begin anew somewhere else: frames and what waits for its time are forgotten, the dialogue goes on.
    pub fn flush(&self) {
        self.inbox.lock().flush();
        self.inbox.notify();
    }

    /// No more media come. When everything that was asked has its end, [`event::EventKind::Drained`] tells so.
    pub fn finish(&self) {
        self.inbox.lock().is_finishing = true;
        // An engine that has stopped has said so by its last event.
        let _ = self.wake.ring();
    }

    pub fn status(&self) -> Status {
        self.inbox.lock().status()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.inbox.lock().is_closed = true;
        let _ = self.wake.ring();
    }
}
