//! Random orders of events against a simulated engine. Whatever happens: one speaker at a time, one end for every question,
//! generation ids that only grow, silence from dead generations, and a history of words that were really said.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use vita_dialogue::duplex::{
    CancelReason, Command, Duplex, End, GenerationId, Notice, Settings, Slot, TurnId,
};
use vita_dialogue::state::StateProbabilities;

#[derive(Clone, Debug)]
enum Step {
    /// `late`: seconds from its end until it is known.
    Utterance {
        millis: u64,
        late: u64,
    },
    /// An utterance that was dropped before.
    Lost,
    Ask,
    /// The engine's verdict on what it was last asked to prefill in a slot, in time or late.
    Judged {
        slot: bool,
        query: f32,
        noise: f32,
    },
    PrefillFailed {
        slot: bool,
    },
    /// A word of the answer with this number, alive or dead.
    Delta {
        generation: u64,
        empty: bool,
    },
    Ended {
        generation: u64,
        how: u8,
    },
    Reset,
    Wait {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..4000, 0u64..14).prop_map(|(millis, late)| Step::Utterance { millis, late }),
        1 => Just(Step::Lost),
        2 => Just(Step::Ask),
        6 => (any::<bool>(), 0f32..1.0, 0f32..1.0).prop_map(|(slot, query, noise)| Step::Judged { slot, query, noise }),
        1 => any::<bool>().prop_map(|slot| Step::PrefillFailed { slot }),
        6 => (0u64..12, any::<bool>()).prop_map(|(generation, empty)| Step::Delta { generation, empty }),
        2 => (0u64..12, 0u8..3).prop_map(|(generation, how)| Step::Ended { generation, how }),
        1 => Just(Step::Reset),
        2 => (0u64..40).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// What a perfect observer knows.
#[derive(Default)]
struct Observer {
    /// What the engine holds in each slot: a turn, and its generation once it speaks.
    slots: HashMap<Slot, (TurnId, Option<GenerationId>)>,
    /// How often each question was ended by a notice.
    ends: HashMap<TurnId, usize>,
    said: HashMap<GenerationId, String>,
    alive: Option<GenerationId>,
    newest: Option<GenerationId>,
}

impl Observer {
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Prefill { slot, turn, .. } => {
                let before = self.slots.insert(slot, (turn, None));
                assert!(
                    before.is_none_or(
                        |(_, generation)| generation != self.alive || generation.is_none()
                    ),
                    "prefill over a speaker"
                );
            }
            Command::Generate {
                slot,
                turn,
                generation,
            } => {
                assert_eq!(
                    self.slots.insert(slot, (turn, Some(generation))),
                    Some((turn, None)),
                    "generates what was judged"
                );
                assert!(
                    self.alive.is_none_or(|alive| alive == generation),
                    "one speaker at a time"
                );
            }
            Command::Cancel { slot, turn } => {
                assert_eq!(
                    self.slots.remove(&slot).map(|(t, _)| t),
                    Some(turn),
                    "cancels what is there"
                );
            }
            Command::Publish(notice) => self.hear(notice),
        }
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Query { generation, .. } => {
                assert!(Some(generation) > self.newest, "generation ids grow");
                assert_eq!(
                    self.alive, None,
                    "the old answer is over before the new one begins"
                );
                self.newest = Some(generation);
                self.alive = Some(generation);
                self.said.insert(generation, String::new());
            }
            Notice::Delta {
                generation,
                text,
                sequence,
                ..
            } => {
                assert_eq!(
                    self.alive,
                    Some(generation),
                    "a dead generation says nothing"
                );
                let said = self.said.get_mut(&generation).expect("it was announced");
                assert_eq!(sequence as usize, said.matches(' ').count());
                said.push_str(&text);
            }
            Notice::Answer(answer) => {
                assert_eq!(self.alive.take(), Some(answer.generation));
                assert_eq!(self.said[&answer.generation], answer.text);
                *self.ends.entry(answer.turn).or_default() += 1;
            }
            Notice::Noise { turn, .. } | Notice::Cancelled { turn, .. } => {
                *self.ends.entry(turn).or_default() += 1
            }
            Notice::Interrupted { generation, .. } => assert_eq!(self.alive, Some(generation)),
            Notice::RolesSwapped { generation, .. } => assert_eq!(self.alive, Some(generation)),
            Notice::Reset => assert_eq!(self.alive, None),
        }
    }
}

fn apply(
    duplex: &mut Duplex,
    observer: &Observer,
    step: &Step,
    now: Duration,
    asked: &mut Vec<TurnId>,
) {
    let in_slot = |slot: bool| {
        observer
            .slots
            .get(if slot { &Slot::A } else { &Slot::B })
            .map(|(turn, _)| *turn)
    };
    match *step {
        Step::Utterance { millis, late } => {
            let end = now.saturating_sub(Duration::from_secs(late));
            let start = end.saturating_sub(Duration::from_millis(millis));
            asked.push(duplex.utterance_ended(now, end, asked.len() as u64, (start, end)));
        }
        Step::Lost => {
            let reason = CancelReason::QueueFull;
            asked.push(duplex.utterance_lost(asked.len() as u64, (now, now), reason));
        }
        Step::Ask => asked.push(duplex.ask(now, now, "what?")),
        Step::Judged { slot, query, noise } => {
            if let Some(turn) = in_slot(slot) {
                duplex.judged(
                    now,
                    turn,
                    StateProbabilities {
                        query,
                        noise,
                        text: 0.0,
                    },
                    7,
                );
            }
        }
        Step::PrefillFailed { slot } => {
            if let Some(turn) = in_slot(slot) {
                duplex.failed(now, turn, "out of memory");
            }
        }
        Step::Delta { generation, empty } => duplex.delta(
            GenerationId(generation),
            if empty { "" } else { "word " },
            1,
        ),
        Step::Ended { generation, how } => {
            let end = match how {
                0 => End::EndOfSequence,
                1 => End::MaxTokens,
                _ => End::Failed("lost".into()),
            };
            duplex.ended(now, GenerationId(generation), end);
        }
        Step::Reset => duplex.reset(now),
        Step::Wait { .. } => duplex.tick(now),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_question_ends_once_and_one_speaks_at_a_time(steps in prop::collection::vec(step(), 0..120)) {
        let settings = Settings { history_tokens: 40, ..Settings::default() };
        let mut duplex = Duplex::new(settings.clone());
        let mut observer = Observer::default();
        let mut asked = Vec::new();
        let mut now = Duration::from_secs(10);
        for step in &steps {
            now += match step {
                Step::Wait { seconds } => Duration::from_secs(*seconds),
                _ => Duration::from_millis(10),
            };
            apply(&mut duplex, &observer, step, now, &mut asked);
            while let Some(command) = duplex.next_command() {
                observer.carry_out(command);
            }
            prop_assert!(duplex.history().tokens() <= settings.history_tokens);
            for turn in duplex.history().turns() {
                prop_assert!(observer.said.values().any(|said| *said == turn.said), "{turn:?} was never said");
            }
            prop_assert_eq!(duplex.speaking(), observer.alive);
        }
        // Time alone ends everything.
        while let Some(deadline) = duplex.next_deadline() {
            now = now.max(deadline);
            duplex.tick(now);
            while let Some(command) = duplex.next_command() {
                observer.carry_out(command);
            }
        }
        for turn in asked {
            prop_assert_eq!(observer.ends.get(&turn), Some(&1), "{:?}", turn);
        }
    }
}
