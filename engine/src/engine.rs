//! The thread of a model, on which all its rooms run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vita_model::Vita;
use vita_model::scheduler::{Limits, Output, Scheduler};

use crate::Error;
use crate::models::panic_text;
use crate::room::{OnEvent, Pacing, Room, RoomSettings, Task, Wake};

/// Rooms that one model has at most.
pub const MAX_ROOMS: usize = 256;

/// Prompt positions that a paced room reads in a step, so that nearly every question is judged in one.
const PACED_PREFILL_ROWS: usize = 2048;

/// Runs rooms on a model. The thread lives as long as the engine or one of its rooms.
///
/// Rooms that run freely share one batch: the words of all of them, and the prompts that are being read, are computed
/// together. A paced room has a batch of its own, so neither waits for the other's clock. A panic ends the room in whose
/// doing it happened; one in the common batch ends what runs there, and the rooms go on.
pub struct Engine {
    vita: Arc<Vita>,
    wake: Wake,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    opened: Vec<Task>,
    rooms: usize,
}

impl Engine {
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(vita: Arc<Vita>, limits: Limits) -> Result<Self, Error> {
        // One wake-up that is under way is as good as many.
        let (sender, wakes) = sync_channel(1);
        let shared = Arc::<Mutex<Shared>>::default();
        let worker = Worker {
            vita: vita.clone(),
            limits,
            batch: Scheduler::new(vita.lm().clone(), limits),
            seats: Vec::new(),
            shared: shared.clone(),
        };
        std::thread::Builder::new()
            .name("vita-engine".into())
            .spawn(move || worker.work(&wakes))?;
        Ok(Self {
            vita,
            wake: Wake(sender),
            shared,
        })
    }

    /// Opens a room, whose events go to `on_event` (see there what it may not do).
    ///
    /// # Errors
    /// For settings that cannot be, and where too many rooms are open.
    pub fn open_room(&self, settings: RoomSettings, on_event: OnEvent) -> Result<Room, Error> {
        let wake = self.wake.clone();
        let (room, task) = Room::new(self.vita.clone(), settings, on_event, wake)?;
        {
            let mut shared = lock(&self.shared);
            if shared.rooms >= MAX_ROOMS {
                return Err(Error::TooManyRooms {
                    rooms: shared.rooms,
                });
            }
            shared.rooms += 1;
            shared.opened.push(task);
        }
        self.wake.ring()?;
        Ok(room)
    }

    /// Rooms that are open.
    pub fn rooms(&self) -> usize {
        lock(&self.shared).rooms
    }
}

/// Each change under this lock is complete in itself, so a panic leaves a sound state.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    vita: Arc<Vita>,
    limits: Limits,
    /// Of the rooms that run freely.
    batch: Scheduler,
    seats: Vec<Seat>,
    shared: Arc<Mutex<Shared>>,
}

/// A room, and the batch of a paced one.
struct Seat {
    task: Task,
    own: Option<Scheduler>,
    is_over: bool,
}

impl Seat {
    /// Lets the room do something with its batch; a panic ends the room.
    fn guard<T>(
        &mut self,
        common: &mut Scheduler,
        work: impl FnOnce(&mut Task, &mut Scheduler) -> T,
    ) -> Option<T> {
        let batch = self.own.as_mut().unwrap_or(common);
        let task = &mut self.task;
        match catch_unwind(AssertUnwindSafe(|| work(task, batch))) {
            Ok(result) => {
                task.report(batch.stats());
                Some(result)
            }
            Err(panic) => {
                let reason = panic_text(&*panic);
                tracing::error!(%reason, "a room panicked and is closed");
                task.fail(&reason, batch);
                self.is_over = true;
                None
            }
        }
    }
}

impl Worker {
    fn work(mut self, wakes: &Receiver<()>) {
        loop {
            self.admit();
            let mut is_busy = self.visit_rooms();
            is_busy |= self.step_batch();
            let is_alone = match is_busy {
                true => matches!(wakes.try_recv(), Err(TryRecvError::Disconnected)),
                false => self.sleep(wakes),
            };
            // Without a handle no room is open; the last ones may still have to be told so.
            if is_alone && self.seats.is_empty() {
                return;
            }
        }
    }

    /// Waits for a wake-up or a room's deadline. `true`: nobody can wake any more.
    fn sleep(&self, wakes: &Receiver<()>) -> bool {
        let deadlines = self.seats.iter().filter_map(|seat| seat.task.deadline());
        match deadlines.min() {
            None => wakes.recv().is_err(),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                wakes.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
            }
        }
    }

    fn admit(&mut self) {
        let opened = std::mem::take(&mut lock(&self.shared).opened);
        if opened.is_empty() {
            return;
        }
        for task in opened {
            let own = (task.pacing() != Pacing::Free).then(|| {
                let limits = Limits {
                    memory_bytes: task.kv_cache_bytes(),
                    prefill_rows: PACED_PREFILL_ROWS,
                    prefill_rows_beside_decode: PACED_PREFILL_ROWS,
                    ..self.limits
                };
                Scheduler::new(self.vita.lm().clone(), limits)
            });
            self.seats.push(Seat {
                task,
                own,
                is_over: false,
            });
        }
        self.limit_memory();
    }

    /// The largest budget that a freely running room wants; without one it stays as it was, for those to come.
    fn limit_memory(&mut self) {
        let free = self.seats.iter().filter(|seat| seat.own.is_none());
        let Some(bytes) = free.map(|seat| seat.task.kv_cache_bytes()).max() else {
            return;
        };
        let before = std::mem::replace(&mut self.limits.memory_bytes, bytes);
        if before != bytes {
            let (limit_mib, before_mib) = (bytes >> 20, before >> 20);
            tracing::info!(limit_mib, before_mib, "limit of keys and values kept");
            self.batch.set_memory_bytes(bytes);
        }
    }

    /// `true`: a paced room can go on at once.
    fn visit_rooms(&mut self) -> bool {
        let mut is_busy = false;
        for seat in &mut self.seats {
            if seat.task.is_closed() {
                seat.guard(&mut self.batch, Task::close);
                seat.is_over = true;
                continue;
            }
            let stepped = seat.guard(&mut self.batch, |task, batch| match task.pacing() {
                Pacing::Stream { step } => task.tick(batch, step),
                Pacing::Free => {
                    task.run(batch);
                    task.tell_if_drained();
                    false
                }
            });
            is_busy |= stepped == Some(true);
        }
        let before = self.seats.len();
        self.seats.retain(|seat| !seat.is_over);
        if self.seats.len() < before {
            self.limit_memory();
        }
        let mut shared = lock(&self.shared);
        shared.rooms = self.seats.len() + shared.opened.len();
        is_busy
    }

    /// One step of the common batch. `false`: there was nothing to do.
    fn step_batch(&mut self) -> bool {
        if !self.batch.has_work() {
            return false;
        }
        let batch = &mut self.batch;
        match catch_unwind(AssertUnwindSafe(|| batch.step())) {
            Ok(outputs) => outputs.into_iter().for_each(|output| self.hand_out(output)),
            Err(panic) => self.lose_batch(&panic_text(&*panic)),
        }
        true
    }

    fn hand_out(&mut self, output: Output) {
        let (Output::Prefilled { id, .. } | Output::Delta { id, .. } | Output::Failed { id, .. }) =
            output;
        let owner = self
            .seats
            .iter_mut()
            .find(|seat| seat.own.is_none() && seat.task.owns(id));
        // What a cancelled sequence still said is nobody's.
        if let Some(seat) = owner {
            seat.guard(&mut self.batch, |task, batch| task.digest(output, batch));
        }
    }

    /// What the batch holds may be half done: it begins anew.
    fn lose_batch(&mut self, reason: &str) {
        tracing::error!(
            reason,
            "a step of the batch panicked: what ran in it is ended"
        );
        self.batch = Scheduler::new(self.vita.lm().clone(), self.limits);
        for seat in self.seats.iter_mut().filter(|seat| seat.own.is_none()) {
            seat.guard(&mut self.batch, |task, batch| {
                task.batch_lost(reason, batch);
            });
        }
    }
}
