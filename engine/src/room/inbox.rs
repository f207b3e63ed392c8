//! What lies between a room's handle and the engine's thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vita_dialogue::duplex::TurnId;

use super::frames::Frames;
use super::{LostUtterance, Pacing, RoomSettings, Status, Utterance};
use crate::Error;

/// A request on its way to the engine.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Utterance(Arc<Utterance>),
    Lost(LostUtterance),
    /// `at`: how far the media had come.
    Ask {
        text: String,
        at: Duration,
    },
    Reset,
    LogitBias(Vec<(u32, f32)>),
}

/// A request, and when it came by the wall clock.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub request: Request,
    pub at: Instant,
}

impl Received {
    fn now(request: Request) -> Self {
        let at = Instant::now();
        Self { request, at }
    }
}

/// A request that waits until the media have come to its time.
#[derive(Debug)]
struct Timed {
    time: Duration,
    /// Among requests of one time: sound before text, then by number, then as they came.
    rank: (u8, u64),
    received: Received,
}

#[derive(Debug)]
pub(crate) struct State {
    queue: VecDeque<Received>,
    timed: VecDeque<Timed>,
    capacity: usize,
    is_paced: bool,
    next_turn: u64,
    pub frames: Frames,
    /// How far the media have come; paced rooms: as far as the engine has followed.
    pub position: Duration,
    /// Paced rooms: how far the engine may go.
    pub target: Duration,
    /// The media begin anew; positions start from what comes next.
    pub is_flushed: bool,
    pub is_finishing: bool,
    pub is_closed: bool,
    /// Set when the room is over.
    pub end: Option<End>,
    refused: u64,
    pub status: Status,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Closed,
    Failed(String),
}

impl End {
    fn error(&self) -> Error {
        match self {
            Self::Closed => Error::Stopped,
            Self::Failed(reason) => Error::RoomFailed(reason.clone()),
        }
    }
}

/// Shared by a room's handle and its task.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// The engine has come further, or somebody who waits is to look again.
    moved: Condvar,
}

impl Inbox {
    pub fn new(settings: &RoomSettings) -> Self {
        let state = State {
            queue: VecDeque::new(),
            timed: VecDeque::new(),
            capacity: settings.queue,
            is_paced: settings.pacing != Pacing::Free,
            next_turn: 1,
            frames: Frames::new(settings.frames, settings.frame_window),
            position: Duration::ZERO,
            target: Duration::ZERO,
            is_flushed: true,
            is_finishing: false,
            is_closed: false,
            end: None,
            refused: 0,
            status: Status::default(),
        };
        Self {
            state: Mutex::new(state),
            moved: Condvar::new(),
        }
    }

    /// Each change under this lock is complete in itself, so a panic leaves a sound state.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn notify(&self) {
        self.moved.notify_all();
    }

    /// Makes those who wait look again. With the lock, so that none is missed who is about to wait.
    pub fn interrupt(&self) {
        let _state = self.lock();
        self.notify();
    }

    /// Waits until the engine has come to `time`. `false`: given up before, or the room is flushed or over.
    pub fn wait(&self, time: Duration, gives_up: impl Fn() -> bool) -> bool {
        let goes_on = |state: &mut State| {
            state.position < time && state.end.is_none() && !state.is_flushed && !gives_up()
        };
        let state = self
            .moved
            .wait_while(self.lock(), goes_on)
            .unwrap_or_else(PoisonError::into_inner);
        state.position >= time
    }
}

impl State {
    /// Queues a request for now. A question gets its number here.
    pub fn send(&mut self, request: Request) -> Result<Option<TurnId>, Error> {
        self.check_room()?;
        let is_question = !matches!(request, Request::Reset | Request::LogitBias(_));
        self.queue.push_back(Received::now(request));
        Ok(is_question.then(|| self.number()))
    }

    /// Queues a request for `time`; in a room that is not paced, for now.
    pub fn send_at(&mut self, time: Duration, request: Request) -> Result<(), Error> {
        if !self.is_paced {
            self.advance(time, None);
            return self.send(request).map(|_| ());
        }
        self.check_room()?;
        let rank = match &request {
            Request::Utterance(utterance) => (0, utterance.id),
            Request::Lost(lost) => (0, lost.id),
            _ => (1, 0),
        };
        let before = |t: &Timed| (t.time, t.rank) <= (time, rank);
        let place = self.timed.partition_point(before);
        let received = Received::now(request);
        self.timed.insert(
            place,
            Timed {
                time,
                rank,
                received,
            },
        );
        Ok(())
    }

    /// Whether the media have come so far that all of this moment is known.
    pub fn may_step(&self) -> bool {
        self.position < self.target || self.is_finishing
    }

    /// The next request that is due at the room's position.
    pub fn next(&mut self) -> Option<Received> {
        if let Some(request) = self.queue.pop_front() {
            return Some(request);
        }
        if !self.may_step() {
            return None;
        }
        let position = self.position;
        let timed = self.timed.pop_front_if(|timed| timed.time <= position)?;
        self.number();
        Some(timed.received)
    }

    /// When the next request is due that has to wait.
    pub fn next_time(&self) -> Option<Duration> {
        self.timed.front().map(|timed| timed.time)
    }

    /// Whether nothing is on its way, now or later.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.timed.is_empty()
    }

    /// Forgets what belongs to media that are over.
    pub fn flush(&mut self) {
        self.frames.clear();
        self.timed.clear();
        self.target = Duration::ZERO;
        self.is_flushed = true;
        self.is_finishing = false;
    }

    /// The media have come to `time`.
    pub fn advance(&mut self, time: Duration, step: Option<Duration>) {
        let Some(step) = step else {
            self.position = match std::mem::take(&mut self.is_flushed) {
                true => time,
                false => self.position.max(time),
            };
            return;
        };
        if std::mem::take(&mut self.is_flushed) {
            self.position = whole_steps(time, step);
        }
        self.target = self.target.max(time);
    }

    pub fn status(&self) -> Status {
        Status {
            position: self.position,
            requests: self.queue.len() + self.timed.len(),
            requests_refused: self.refused,
            frames: self.frames.len(),
            frames_dropped: self.frames.dropped(),
            failed: match &self.end {
                Some(End::Failed(reason)) => Some(reason.clone()),
                _ => None,
            },
            ..self.status.clone()
        }
    }

    fn check_room(&mut self) -> Result<(), Error> {
        if let Some(end) = &self.end {
            return Err(end.error());
        }
        let waiting = self.queue.len() + self.timed.len();
        if waiting < self.capacity {
            return Ok(());
        }
        self.refused += 1;
        Err(Error::QueueFull { waiting })
    }

    /// Numbers a question as the dialogue will: both count in the order in which the engine takes them.
    fn number(&mut self) -> TurnId {
        let turn = TurnId(self.next_turn);
        self.next_turn += 1;
        turn
    }
}

/// The last whole step that is not after `time`.
pub(crate) fn whole_steps(time: Duration, step: Duration) -> Duration {
    let steps = time.as_nanos() / step.as_nanos();
    Duration::from_nanos((steps * step.as_nanos()) as u64)
}
