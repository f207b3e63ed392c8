//! The engine's side of a room: carries out what the dialogue decides.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vita_dialogue::duplex::{
    Command, Duplex, End as AnswerEnd, GenerationId, Interval, Notice, Slot, TurnId,
};
use vita_dialogue::history;
use vita_dialogue::state::StateProbabilities;
use vita_model::generate::Delta;
use vita_model::sampling::Stop;
use vita_model::scheduler::{Job, Output, Scheduler, SequenceId, Stats};
use vita_model::{GenerateOptions, Result, Vita};

use super::event::{Event, EventKind, Question, Tokens};
use super::inbox::{End, Inbox, Received, Request};
use super::prompt::{Past, Words, prompt, state_token};
use super::turns::{TurnRecord, Turns};
use super::{LostUtterance, OnEvent, Pacing, RoomSettings, Status, Utterance};

pub(crate) struct Task {
    vita: Arc<Vita>,
    settings: RoomSettings,
    inbox: Arc<Inbox>,
    on_event: OnEvent,
    duplex: Duplex,
    /// The sequences of the two roles.
    slots: [Option<Live>; 2],
    turns: Turns,
    /// What was asked in the turns that are open or in the history.
    words: HashMap<TurnId, Words>,
    clock: Clock,
    /// The sequence that waits with its next token, and until when.
    paused: Option<(SequenceId, Duration)>,
}

enum Clock {
    Wall { opened: Instant },
    Media { now: Duration },
}

/// A sequence in the scheduler.
struct Live {
    id: SequenceId,
    turn: TurnId,
    /// From the verdict on.
    generation: Option<GenerationId>,
    question_tokens: usize,
    submitted: Duration,
    /// The first token is the state's.
    has_begun: bool,
}

impl Task {
    pub fn new(
        vita: Arc<Vita>,
        settings: RoomSettings,
        inbox: Arc<Inbox>,
        on_event: OnEvent,
    ) -> Self {
        let clock = match settings.pacing {
            Pacing::Free => Clock::Wall {
                opened: Instant::now(),
            },
            Pacing::Stream { .. } => Clock::Media {
                now: Duration::ZERO,
            },
        };
        Self {
            vita,
            duplex: Duplex::new(settings.dialogue.clone()),
            settings,
            inbox,
            on_event,
            slots: [None, None],
            turns: Turns::default(),
            words: HashMap::new(),
            clock,
            paused: None,
        }
    }

    pub fn pacing(&self) -> Pacing {
        self.settings.pacing
    }

    pub fn kv_cache_bytes(&self) -> usize {
        self.settings.kv_cache_bytes
    }

    pub fn is_closed(&self) -> bool {
        self.inbox.lock().is_closed
    }

    pub fn owns(&self, sequence: SequenceId) -> bool {
        self.slots.iter().flatten().any(|live| live.id == sequence)
    }

    /// When a freely running room has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Instant> {
        match self.clock {
            Clock::Wall { opened } => {
                let next_token = self.paused.map(|(_, until)| until);
                let times = [self.duplex.next_deadline(), next_token];
                times.into_iter().flatten().min().map(|time| opened + time)
            }
            Clock::Media { .. } => None,
        }
    }

    /// Takes what was sent, and enforces limits of time.
    pub fn run(&mut self, scheduler: &mut Scheduler) {
        while let Some(received) = self.next_request() {
            self.take(received);
            self.carry_out(scheduler);
        }
        let now = self.now();
        if self.duplex.next_deadline().is_some_and(|time| time <= now) {
            self.duplex.tick(now);
            self.carry_out(scheduler);
        }
        if let Some((id, _)) = self.paused.take_if(|(_, until)| *until <= now) {
            // It may have been cancelled since.
            scheduler.pause(id, false);
        }
    }

    /// One step of a paced room's batch, or a leap over time in which nothing happens. `false`: nothing is to be done
    /// before something is sent or the media advance.
    pub fn tick(&mut self, scheduler: &mut Scheduler, step: Duration) -> bool {
        self.run(scheduler);
        let has_work = scheduler.has_work();
        let Some(steps) = self.steps_ahead(step, has_work) else {
            self.tell_if_drained();
            return false;
        };
        let outputs = scheduler.step();
        self.pass(step * steps);
        for output in outputs {
            self.digest(output, scheduler);
        }
        true
    }

    /// What a step of the batch brought about for this room.
    pub fn digest(&mut self, output: Output, scheduler: &mut Scheduler) {
        match output {
            Output::Prefilled {
                id,
                states,
                prompt_tokens,
                cached_tokens,
            } => {
                let tokens = Tokens {
                    answer: 0,
                    prompt: prompt_tokens,
                    cached: cached_tokens,
                };
                self.judged(id, states, tokens);
            }
            Output::Delta { id, delta } => self.delta(id, &delta, scheduler),
            Output::Failed { id, error } => self.sequence_failed(id, &error.to_string()),
        }
        self.carry_out(scheduler);
    }

    /// After [`super::Room::finish`], once.
    pub fn tell_if_drained(&mut self) {
        let mut state = self.inbox.lock();
        let is_drained = state.is_finishing && state.is_empty() && self.duplex.is_idle();
        if is_drained {
            state.is_finishing = false;
            drop(state);
            self.tell(EventKind::Drained);
        }
    }

    /// Ends everything that is open, and says so.
    pub fn close(&mut self, scheduler: &mut Scheduler) {
        self.run(scheduler);
        self.duplex.close(self.now());
        self.carry_out(scheduler);
        self.tell(EventKind::Closed);
        self.end(End::Closed);
    }

    /// Ends a room that panicked. What it holds may be half done and is not looked at any more.
    pub fn fail(&mut self, reason: &str, scheduler: &mut Scheduler) {
        for live in self.slots.iter_mut().filter_map(Option::take) {
            scheduler.cancel(live.id);
        }
        self.end(End::Failed(reason.to_owned()));
        // It may have been the callback that panicked.
        let failed = EventKind::Failed(reason.to_owned());
        let _ = catch_unwind(AssertUnwindSafe(|| self.tell(failed)));
    }

    /// The batch is gone with everything in it.
    pub fn batch_lost(&mut self, reason: &str, scheduler: &mut Scheduler) {
        let lost: Vec<SequenceId> = self.slots.iter().flatten().map(|live| live.id).collect();
        for id in lost {
            self.sequence_failed(id, reason);
        }
        self.carry_out(scheduler);
    }

    pub fn report(&self, scheduler: Stats) {
        let mut state = self.inbox.lock();
        self.describe(&mut state.status);
        state.status.scheduler = scheduler;
    }

    fn describe(&self, status: &mut Status) {
        status.generation = self.duplex.speaking();
        status.questions_waiting = self.duplex.waiting();
        status.history_turns = self.duplex.history().turns().len();
        status.history_tokens = self.duplex.history().tokens();
        status.questions_overdue = self.duplex.overdue();
        status.late_reports = self.duplex.late_reports();
    }

    fn end(&self, end: End) {
        self.inbox.lock().end = Some(end);
        self.inbox.notify();
    }

    fn now(&self) -> Duration {
        match self.clock {
            Clock::Wall { opened } => opened.elapsed(),
            Clock::Media { now } => now,
        }
    }

    fn next_request(&self) -> Option<Received> {
        self.inbox.lock().next()
    }

    /// How many steps time goes on: one while the batch has work, else to where something happens next.
    fn steps_ahead(&self, step: Duration, has_work: bool) -> Option<u32> {
        let state = self.inbox.lock();
        if !state.may_step() {
            return None;
        }
        if has_work {
            return Some(1);
        }
        let from = state.position;
        let deadline = self.duplex.next_deadline();
        let deadline = deadline.map(|time| from + time.saturating_sub(self.now()));
        let target = Some(state.target).filter(|target| *target > from);
        let limit = match state.is_finishing {
            true => None,
            false => target,
        };
        let next = [state.next_time(), deadline, limit]
            .into_iter()
            .flatten()
            .min()
            .or(target)?;
        let steps = next
            .saturating_sub(from)
            .as_nanos()
            .div_ceil(step.as_nanos());
        Some(u32::try_from(steps).unwrap_or(u32::MAX).max(1))
    }

    fn pass(&mut self, time: Duration) {
        if let Clock::Media { now } = &mut self.clock {
            *now += time;
        }
        self.inbox.lock().position += time;
        self.inbox.notify();
    }

    fn take(&mut self, received: Received) {
        let now = self.now();
        match received.request {
            Request::Utterance(utterance) => {
                let ended = |age| self.ended(received.at, utterance.end, age);
                let (ended, waits_since) = (ended(utterance.age), ended(utterance.waited));
                self.hear(&utterance, now, ended, waits_since);
            }
            Request::Lost(lost) => self.lose(&lost, now),
            Request::Ask { text, at } => {
                let ended = self.ended(received.at, at, Duration::ZERO);
                let turn = self.duplex.ask(now, at, text.clone());
                let question = Question {
                    utterance_id: None,
                    text: Some(text.clone()),
                    start: at,
                    end: at,
                    capture_time_ns: None,
                };
                self.turns.add(turn, TurnRecord::new(question, ended));
                self.words.insert(turn, Words::Typed(text));
            }
            Request::Reset => self.duplex.reset(now),
            Request::LogitBias(bias) => self.settings.logit_bias = bias,
        }
    }

    fn hear(
        &mut self,
        utterance: &Utterance,
        now: Duration,
        ended: Duration,
        waits_since: Duration,
    ) {
        let Utterance { id, start, end, .. } = *utterance;
        let interval = (start, end);
        let turn = self.duplex.utterance_ended(now, waits_since, id, interval);
        let question = Question {
            utterance_id: Some(id),
            text: utterance.media.transcript.clone(),
            start,
            end,
            capture_time_ns: utterance.capture_time_ns,
        };
        self.turns.add(turn, TurnRecord::new(question, ended));
        self.words
            .insert(turn, Words::Spoken(utterance.media.clone()));
    }

    fn lose(&mut self, lost: &LostUtterance, now: Duration) {
        let (start, end) = (lost.start, lost.end);
        let reason = lost.reason.clone();
        let turn = self.duplex.utterance_lost(lost.id, (start, end), reason);
        let question = Question {
            utterance_id: Some(lost.id),
            text: None,
            start,
            end,
            capture_time_ns: lost.capture_time_ns,
        };
        self.turns.add(turn, TurnRecord::new(question, now));
    }

    /// When a question ended, by the room's clock.
    fn ended(&self, received: Instant, end: Duration, age: Duration) -> Duration {
        match self.clock {
            Clock::Wall { opened } => received
                .saturating_duration_since(opened)
                .saturating_sub(age),
            Clock::Media { now } => {
                let position = self.inbox.lock().position;
                now.saturating_sub(position.saturating_sub(end))
            }
        }
    }

    fn carry_out(&mut self, scheduler: &mut Scheduler) {
        while let Some(command) = self.duplex.next_command() {
            match command {
                Command::Prefill {
                    slot,
                    turn,
                    frames,
                    history,
                    ..
                } => {
                    if let Err(error) = self.prefill(slot, turn, frames, &history, scheduler) {
                        self.duplex.failed(self.now(), turn, error.to_string());
                    }
                }
                Command::Generate {
                    slot,
                    turn,
                    generation,
                } => self.generate(slot, turn, generation, scheduler),
                Command::Cancel { slot, turn } => {
                    let live = self.slots[index(slot)].take_if(|live| live.turn == turn);
                    if let Some(live) = live {
                        scheduler.cancel(live.id);
                    }
                }
                Command::Publish(notice) => self.publish(notice),
            }
        }
    }

    fn prefill(
        &mut self,
        slot: Slot,
        turn: TurnId,
        frames: Interval,
        history: &[history::Turn],
        scheduler: &mut Scheduler,
    ) -> Result<()> {
        let missing = || vita_model::Error::Input(format!("question {} is not known", turn.0));
        let (vita, settings) = (&self.vita, &self.settings);
        let frames = self
            .inbox
            .lock()
            .frames
            .choose(frames, &settings.frame_selection);
        self.turns.get_mut(turn).ok_or_else(missing)?.shown(&frames);
        let words = self.words.get(&turn).ok_or_else(missing)?;
        let past: Vec<Past> = history
            .iter()
            .filter_map(|past| Some(Past::new(past, self.words.get(&past.id)?.clone(), vita)))
            .collect();
        // The state token and the answer.
        let wanted = settings.max_tokens + 1;
        let system = settings.system.as_deref();
        let prompt = prompt(vita, system, &past, words, &frames, wanted)?;
        let left = vita.lm().max_length().saturating_sub(prompt.len);
        let options = GenerateOptions {
            sampling: settings.sampling,
            max_new_tokens: wanted.min(left).max(2),
            // The verdict is the dialogue's.
            stop_at_noise: false,
            keep_special: false,
        };
        let id = scheduler.submit(Job {
            prompt: prompt.segments,
            writer: vita.writer(&options)?,
            logit_bias: settings.logit_bias.clone(),
            hold: true,
        })?;
        self.slots[index(slot)] = Some(Live {
            id,
            turn,
            generation: None,
            question_tokens: prompt.question_tokens,
            submitted: self.now(),
            has_begun: false,
        });
        Ok(())
    }

    fn generate(
        &mut self,
        slot: Slot,
        turn: TurnId,
        generation: GenerationId,
        scheduler: &mut Scheduler,
    ) {
        let state = self.words.get(&turn).map(Words::state);
        let live = self.slots[index(slot)]
            .as_mut()
            .filter(|live| live.turn == turn);
        let resumed = state.zip(live).is_some_and(|(state, live)| {
            live.generation = Some(generation);
            scheduler.resume(live.id, Some(state_token(state, &self.vita)))
        });
        if !resumed {
            let reason = "the judged sequence is gone".to_owned();
            self.duplex
                .ended(self.now(), generation, AnswerEnd::Failed(reason));
        }
    }

    fn judged(
        &mut self,
        id: SequenceId,
        states: vita_model::generate::StateProbabilities,
        tokens: Tokens,
    ) {
        let now = self.now();
        let Some(live) = self.slots.iter().flatten().find(|live| live.id == id) else {
            return;
        };
        let (turn, question_tokens) = (live.turn, live.question_tokens);
        let prefill_ms = now.saturating_sub(live.submitted).as_millis();
        let Tokens { prompt, cached, .. } = tokens;
        tracing::debug!(
            turn = turn.0,
            prompt,
            cached,
            prefill_ms,
            "a question is judged"
        );
        if let Some(record) = self.turns.get_mut(turn) {
            record.judged(now, states, tokens);
        }
        let probabilities = StateProbabilities {
            query: states.query as f32,
            noise: states.noise as f32,
            text: states.text as f32,
        };
        self.duplex
            .judged(now, turn, probabilities, question_tokens);
    }

    fn delta(&mut self, id: SequenceId, delta: &Delta, scheduler: &mut Scheduler) {
        let now = self.now();
        let Some(place) = self.place(id) else { return };
        let Some(live) = self.slots[place].as_mut() else {
            return;
        };
        let Some(generation) = live.generation else {
            return;
        };
        let (turn, is_word) = (live.turn, std::mem::replace(&mut live.has_begun, true));
        if delta.stop.is_some() {
            self.slots[place] = None;
        }
        if let Some(record) = self.turns.get_mut(turn).filter(|_| is_word) {
            record.token(now);
        }
        self.duplex.delta(generation, &delta.text, 1);
        if is_word && delta.stop.is_none() {
            self.keep_pace(id, now, scheduler);
        }
        let end = match delta.stop {
            None => return,
            Some(Stop::End) => AnswerEnd::EndOfSequence,
            // Noise is no end of ours; a full context is the limit that was the nearer one.
            Some(Stop::MaxTokens | Stop::ContextFull | Stop::Noise) => AnswerEnd::MaxTokens,
        };
        self.duplex.ended(now, generation, end);
    }

    /// Puts the next token off. In a paced room a token takes a step anyway.
    fn keep_pace(&mut self, id: SequenceId, now: Duration, scheduler: &mut Scheduler) {
        let interval = self.settings.token_interval;
        if interval.is_zero() || !matches!(self.clock, Clock::Wall { .. }) {
            return;
        }
        self.paused = Some((id, now + interval));
        scheduler.pause(id, true);
    }

    fn sequence_failed(&mut self, id: SequenceId, reason: &str) {
        let now = self.now();
        let Some(live) = self.place(id).and_then(|place| self.slots[place].take()) else {
            return;
        };
        match live.generation {
            Some(generation) => {
                let end = AnswerEnd::Failed(reason.to_owned());
                self.duplex.ended(now, generation, end);
            }
            None => self.duplex.failed(now, live.turn, reason),
        }
    }

    fn place(&self, id: SequenceId) -> Option<usize> {
        let is_it = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.id == id);
        self.slots.iter().position(is_it)
    }

    fn publish(&mut self, notice: Notice) {
        let now = self.now();
        let ends_turn = matches!(
            notice,
            Notice::Answer(_) | Notice::Noise { .. } | Notice::Cancelled { .. } | Notice::Reset
        );
        if let Some(event) = self.turns.event(notice, now) {
            self.tell(event);
        }
        if ends_turn {
            let history = self.duplex.history();
            let turns = &self.turns;
            self.words
                .retain(|id, _| turns.is_open(*id) || history.turns().any(|turn| turn.id == *id));
        }
    }

    fn tell(&mut self, kind: EventKind) {
        let stream_time = {
            let mut state = self.inbox.lock();
            // Who hears of it finds it in the status.
            self.describe(&mut state.status);
            state.position
        };
        (self.on_event)(Event { stream_time, kind });
    }
}

fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}
