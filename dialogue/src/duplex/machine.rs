use std::collections::VecDeque;
use std::time::Duration;

use super::{
    Answer, CancelReason, Command, CutOff, End, GenerationId, Interval, NoiseReason, Notice,
    Question, Settings, Slot, TurnId,
};
use crate::history::{History, Turn};
use crate::state::{State, StateProbabilities};

/// The dialogue of one room. See the [module](super).
#[derive(Debug)]
pub struct Duplex {
    settings: Settings,
    history: History,
    /// The slot in which the next question is judged; the other one speaks.
    listening: Slot,
    speaking: Option<Speaking>,
    judging: Option<Asked>,
    waiting: VecDeque<Asked>,
    commands: VecDeque<Command>,
    next_turn: u64,
    next_generation: u64,
    late: u64,
    overdue: u64,
}

#[derive(Debug)]
struct Asked {
    turn: TurnId,
    question: Question,
    /// When it ended.
    at: Duration,
}

#[derive(Debug)]
struct Speaking {
    turn: TurnId,
    generation: GenerationId,
    question: Question,
    state: State,
    probabilities: StateProbabilities,
    said: String,
    tokens: usize,
    sequence: u64,
    started: Duration,
}

impl Speaking {
    /// The turn as it stands in the history; an answer without a word is no turn.
    fn turn(&self, cut_off: bool) -> Option<Turn> {
        (!self.said.is_empty()).then(|| Turn {
            id: self.turn,
            question: self.question.clone(),
            said: self.said.clone(),
            cut_off,
            tokens: self.tokens,
        })
    }
}

impl Duplex {
    pub fn new(settings: Settings) -> Self {
        Self {
            history: History::new(settings.history_tokens),
            settings,
            listening: Slot::A,
            speaking: None,
            judging: None,
            waiting: VecDeque::new(),
            commands: VecDeque::new(),
            next_turn: 1,
            next_generation: 1,
            late: 0,
            overdue: 0,
        }
    }

    /// The next thing to do, if any.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::tick`] has something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let answer = self
            .speaking
            .as_ref()
            .map(|s| s.started + self.settings.maximum_answer);
        let open = self.judging.iter().chain(&self.waiting);
        let verdict = open.filter_map(|asked| self.settings.deadline(asked.at));
        verdict.chain(answer).min()
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// The answer that is running.
    pub fn speaking(&self) -> Option<GenerationId> {
        self.speaking.as_ref().map(|s| s.generation)
    }

    /// Questions that wait for the listening slot.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is being answered, judged or waiting.
    pub fn is_idle(&self) -> bool {
        self.speaking.is_none() && self.judging.is_none() && self.waiting.is_empty()
    }

    /// Reports that came for a turn or a generation which was over: harmless, and counted.
    pub fn late_reports(&self) -> u64 {
        self.late
    }

    /// Questions that had no verdict in time.
    pub fn overdue(&self) -> u64 {
        self.overdue
    }

    /// An utterance ended at `end` of the media, which was at `at` of the clock of `now`. It is judged as soon as the
    /// listening slot is free.
    pub fn utterance_ended(
        &mut self,
        now: Duration,
        at: Duration,
        utterance: u64,
        (start, end): (Duration, Duration),
    ) -> TurnId {
        let question = Question::Speech {
            utterance,
            start,
            end,
        };
        let turn = self.new_turn();
        if end.saturating_sub(start) < self.settings.minimum_utterance {
            self.publish(Notice::Noise {
                turn,
                question,
                reason: NoiseReason::TooShort,
            });
        } else {
            self.enqueue(now, Asked { turn, question, at });
        }
        turn
    }

    /// An utterance was given up before it could be heard.
    pub fn utterance_lost(
        &mut self,
        utterance: u64,
        (start, end): (Duration, Duration),
        reason: CancelReason,
    ) -> TurnId {
        let question = Question::Speech {
            utterance,
            start,
            end,
        };
        let turn = self.new_turn();
        self.overdue += u64::from(reason == CancelReason::Stale);
        self.publish(Notice::Cancelled {
            turn,
            question,
            reason,
        });
        turn
    }

    /// Somebody typed a question. It goes the same way as a spoken one and is always accepted.
    /// `at`: how far the media have come.
    pub fn ask(&mut self, now: Duration, at: Duration, text: impl Into<String>) -> TurnId {
        let turn = self.new_turn();
        let text = text.into();
        let question = Question::Text { text, at };
        let asked = Asked {
            turn,
            question,
            at: now,
        };
        self.enqueue(now, asked);
        turn
    }

    /// The prefill of `turn` is done. `prompt_tokens`: tokens of the question itself, media included, history excluded.
    pub fn judged(
        &mut self,
        now: Duration,
        turn: TurnId,
        probabilities: StateProbabilities,
        prompt_tokens: usize,
    ) {
        let Some(asked) = self.take_judging(turn) else {
            return;
        };
        let state = match asked.question {
            Question::Text { .. } => State::Text,
            Question::Speech { .. } => self
                .settings
                .state_rule
                .judge_speech(&probabilities, self.speaking.is_some()),
        };
        if state == State::Noise {
            self.commands.push_back(Command::Cancel {
                slot: self.listening,
                turn,
            });
            self.publish(Notice::Noise {
                turn,
                question: asked.question,
                reason: NoiseReason::Judged(probabilities),
            });
        } else {
            self.answer(now, asked, state, probabilities, prompt_tokens);
        }
        self.judge_next(now);
    }

    /// The prefill of `turn` could not be done.
    pub fn failed(&mut self, now: Duration, turn: TurnId, reason: impl Into<String>) {
        let Some(asked) = self.take_judging(turn) else {
            return;
        };
        self.drop_judged(asked, CancelReason::Failed(reason.into()));
        self.judge_next(now);
    }

    /// `tokens` more tokens of `generation`, which read `text`. The text may be empty.
    pub fn delta(&mut self, generation: GenerationId, text: &str, tokens: usize) {
        let Some(speaking) = self
            .speaking
            .as_mut()
            .filter(|s| s.generation == generation)
        else {
            self.late += 1;
            return;
        };
        speaking.tokens += tokens;
        if text.is_empty() {
            return;
        }
        speaking.said.push_str(text);
        let delta = Notice::Delta {
            generation,
            turn: speaking.turn,
            sequence: speaking.sequence,
            text: text.to_owned(),
        };
        speaking.sequence += 1;
        self.publish(delta);
    }

    /// The engine ended `generation`.
    pub fn ended(&mut self, now: Duration, generation: GenerationId, end: End) {
        if self.speaking() != Some(generation) {
            self.late += 1;
            return;
        }
        let cut_off = match end {
            End::EndOfSequence => None,
            End::MaxTokens => Some(CutOff::MaxTokens),
            End::Failed(reason) => Some(CutOff::Failed(reason)),
        };
        self.finish_answer(now, cut_off);
    }

    /// Enforces the limits of time.
    pub fn tick(&mut self, now: Duration) {
        if let Some(speaking) = &self.speaking
            && now >= speaking.started + self.settings.maximum_answer
        {
            self.stop_speaking(now, CutOff::MaxDuration);
        }
        let settings = &self.settings;
        if let Some(asked) = self
            .judging
            .take_if(|asked| settings.is_overdue(now, asked.at))
        {
            self.overdue += 1;
            self.drop_judged(asked, CancelReason::JudgingTimedOut);
        }
        for asked in std::mem::take(&mut self.waiting) {
            match self.settings.is_overdue(now, asked.at) {
                true => self.drop_overdue(asked),
                false => self.waiting.push_back(asked),
            }
        }
        self.judge_next(now);
    }

    /// Stops what runs, cancels what waits, forgets everything that was said (unlike the reference, whose reset leaves
    /// speech and engines running: spec section 7.6, item 13).
    pub fn reset(&mut self, now: Duration) {
        self.stop_all(now, &CutOff::Reset, &CancelReason::Reset);
        self.history.clear();
        self.publish(Notice::Reset);
    }

    /// The room is closed: every question that is still open gets its end.
    pub fn close(&mut self, now: Duration) {
        self.stop_all(now, &CutOff::Closed, &CancelReason::Closed);
    }

    fn stop_all(&mut self, now: Duration, cut_off: &CutOff, reason: &CancelReason) {
        if self.speaking.is_some() {
            self.stop_speaking(now, cut_off.clone());
        }
        if let Some(asked) = self.judging.take() {
            self.drop_judged(asked, reason.clone());
        }
        while let Some(asked) = self.waiting.pop_front() {
            self.cancel_asked(asked, reason.clone());
        }
    }

    fn new_turn(&mut self) -> TurnId {
        let turn = TurnId(self.next_turn);
        self.next_turn += 1;
        turn
    }

    fn publish(&mut self, notice: Notice) {
        self.commands.push_back(Command::Publish(notice));
    }

    fn enqueue(&mut self, now: Duration, asked: Asked) {
        if self.settings.is_overdue(now, asked.at) {
            return self.drop_overdue(asked);
        }
        self.waiting.push_back(asked);
        self.judge_next(now);
        if self.waiting.len() > self.settings.queue
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.cancel_asked(oldest, CancelReason::QueueFull);
        }
    }

    /// Starts to judge the oldest waiting question if the listening slot is free.
    fn judge_next(&mut self, now: Duration) {
        if self.judging.is_some() {
            return;
        }
        let Some(asked) = self.next_in_time(now) else {
            return;
        };
        let (start, end) = match asked.question {
            Question::Speech { start, end, .. } => (start, end),
            Question::Text { at, .. } => (at, at),
        };
        let frames = Interval {
            start: start.saturating_sub(self.settings.look_back),
            end,
        };
        let running = self.speaking.as_ref().and_then(|s| s.turn(true));
        let history = self.history.turns().cloned().chain(running).collect();
        self.commands.push_back(Command::Prefill {
            slot: self.listening,
            turn: asked.turn,
            question: asked.question.clone(),
            frames,
            history,
        });
        self.judging = Some(asked);
    }

    /// The oldest waiting question for whose verdict there is time left; those before it are cancelled.
    fn next_in_time(&mut self, now: Duration) -> Option<Asked> {
        loop {
            let asked = self.waiting.pop_front()?;
            if !self.settings.is_overdue(now, asked.at) {
                return Some(asked);
            }
            self.drop_overdue(asked);
        }
    }

    fn take_judging(&mut self, turn: TurnId) -> Option<Asked> {
        let judging = self.judging.take_if(|asked| asked.turn == turn);
        if judging.is_none() {
            self.late += 1;
        }
        judging
    }

    /// The roles swap here and only here: when a question proved to be one.
    fn answer(
        &mut self,
        now: Duration,
        asked: Asked,
        state: State,
        probabilities: StateProbabilities,
        tokens: usize,
    ) {
        let Asked { turn, question, .. } = asked;
        if let Some(speaking) = &self.speaking {
            let interrupted = Notice::Interrupted {
                turn: speaking.turn,
                generation: speaking.generation,
                by: turn,
            };
            self.publish(interrupted);
            self.stop_speaking(now, CutOff::Interrupted { by: turn });
        }
        let generation = GenerationId(self.next_generation);
        self.next_generation += 1;
        let slot = self.listening;
        self.listening = slot.other();
        self.publish(Notice::Query {
            turn,
            generation,
            question: question.clone(),
            state,
            probabilities,
        });
        self.publish(Notice::RolesSwapped {
            turn,
            speaking: slot,
            generation,
        });
        self.commands.push_back(Command::Generate {
            slot,
            turn,
            generation,
        });
        self.speaking = Some(Speaking {
            turn,
            generation,
            question,
            state,
            probabilities,
            said: String::new(),
            tokens,
            sequence: 0,
            started: now,
        });
    }

    fn stop_speaking(&mut self, now: Duration, cut_off: CutOff) {
        if let Some(speaking) = &self.speaking {
            let cancel = Command::Cancel {
                slot: self.listening.other(),
                turn: speaking.turn,
            };
            self.commands.push_back(cancel);
        }
        self.finish_answer(now, Some(cut_off));
    }

    fn finish_answer(&mut self, now: Duration, cut_off: Option<CutOff>) {
        let Some(speaking) = self.speaking.take() else {
            return;
        };
        if let Some(turn) = speaking.turn(cut_off.is_some()) {
            self.history.push(turn);
        }
        self.publish(Notice::Answer(Answer {
            turn: speaking.turn,
            generation: speaking.generation,
            question: speaking.question,
            state: speaking.state,
            probabilities: speaking.probabilities,
            text: speaking.said,
            cut_off,
            started: speaking.started,
            ended: now,
        }));
    }

    fn drop_judged(&mut self, asked: Asked, reason: CancelReason) {
        self.commands.push_back(Command::Cancel {
            slot: self.listening,
            turn: asked.turn,
        });
        self.cancel_asked(asked, reason);
    }

    fn drop_overdue(&mut self, asked: Asked) {
        self.overdue += 1;
        self.cancel_asked(asked, CancelReason::Stale);
    }

    fn cancel_asked(&mut self, asked: Asked, reason: CancelReason) {
        self.publish(Notice::Cancelled {
            turn: asked.turn,
            question: asked.question,
            reason,
        });
    }
}
