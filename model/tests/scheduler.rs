//! The scheduler on tiny models with random weights, every backbone: what is decoded together, from a remembered prefix or
//! after a cancellation is what would have been decoded alone.

mod common;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, Tensor};
use common::{VOCABULARY, backbones, ids};
use proptest::prelude::*;
use vita_model::ErrorKind;
use vita_model::generate::{StateProbabilities, Writer};
use vita_model::lm::LanguageModel;
use vita_model::prompt::{Detokenizer, Media, MediaKind, Segment, Tokenizer};
use vita_model::sampling::{Sampler, SamplingParams, Stop, StopRules};
use vita_model::scheduler::{Job, Limits, Output, Scheduler, SequenceId};

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint/tokenizer.json");
    Arc::new(Tokenizer::load(&path).expect("the tokenizer loads"))
});

fn writer(max_new_tokens: usize, end: Vec<u32>) -> Writer {
    let rules = StopRules {
        end,
        silent_first: None,
        max_new_tokens,
    };
    let sampler = Sampler::new(SamplingParams::default()).expect("greedy");
    let states = TOKENIZER.state_tokens().expect("state tokens");
    Writer::new(
        sampler,
        rules,
        Detokenizer::new(TOKENIZER.clone(), true),
        states,
    )
}

fn job(prompt: Vec<u32>, max_new_tokens: usize) -> Job {
    Job {
        prompt: vec![Segment::Ids(prompt)],
        writer: writer(max_new_tokens, Vec::new()),
        logit_bias: Vec::new(),
        hold: false,
    }
}

fn media(key: u64, vectors: Tensor) -> Segment {
    Segment::Media(Media {
        kind: MediaKind::Audio,
        key,
        vectors,
        transcript: None,
    })
}

/// Everything that came out, by sequence.
#[derive(Default)]
struct Heard {
    tokens: HashMap<SequenceId, Vec<u32>>,
    text: HashMap<SequenceId, String>,
    states: HashMap<SequenceId, StateProbabilities>,
    cached: HashMap<SequenceId, usize>,
    stopped: HashMap<SequenceId, Stop>,
    failed: HashMap<SequenceId, String>,
}

impl Heard {
    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Prefilled {
                    id,
                    states,
                    cached_tokens,
                    ..
                } => {
                    self.states.insert(id, states);
                    self.cached.insert(id, cached_tokens);
                }
                Output::Delta { id, delta } => {
                    self.tokens.entry(id).or_default().push(delta.id);
                    self.text.entry(id).or_default().push_str(&delta.text);
                    if let Some(stop) = delta.stop {
                        assert!(
                            self.stopped.insert(id, stop).is_none(),
                            "{id:?} stopped twice"
                        );
                    }
                }
                Output::Failed { id, error } => {
                    assert!(
                        self.failed.insert(id, error.to_string()).is_none(),
                        "{id:?} failed twice"
                    );
                }
            }
        }
    }
}

fn run(scheduler: &mut Scheduler) -> Heard {
    let mut heard = Heard::default();
    while scheduler.has_work() {
        heard.take(scheduler.step());
    }
    heard
}

fn alone(model: &Arc<LanguageModel>, job: Job) -> Vec<u32> {
    let mut scheduler = Scheduler::new(model.clone(), Limits::default());
    let id = scheduler.submit(job).expect("it fits");
    run(&mut scheduler).tokens.remove(&id).unwrap_or_default()
}

#[test]
fn batched_equals_single() {
    for (name, model) in backbones() {
        let jobs: Vec<Job> = (0..6)
            .map(|i| job(ids(i, 5 + 40 * i as usize), 12 + i as usize))
            .collect();
        let single: Vec<Vec<u32>> = jobs.iter().map(|job| alone(&model, job.clone())).collect();
        let mut scheduler = Scheduler::new(
            model,
            Limits {
                prefill_rows: 64,
                ..Limits::default()
            },
        );
        let submitted: Vec<SequenceId> = jobs
            .into_iter()
            .map(|job| scheduler.submit(job).expect("it fits"))
            .collect();
        let heard = run(&mut scheduler);
        for (id, expected) in submitted.iter().zip(single) {
            assert_eq!(heard.tokens[id], expected, "{name}");
            assert_eq!(heard.stopped[id], Stop::MaxTokens);
        }
    }
}

#[test]
fn a_remembered_prefix_changes_nothing_but_the_work() {
    for (name, model) in backbones() {
        let vectors = Tensor::randn(0f32, 1.0, (10, 32), &Device::Cpu).expect("random embeddings");
        let system = ids(1, 60);
        let prompt = |question: u32| Job {
            prompt: vec![
                Segment::Ids(system.clone()),
                media(77, vectors.clone()),
                Segment::Ids(ids(question, 9)),
            ],
            ..job(Vec::new(), 10)
        };
        let mut scheduler = Scheduler::new(model.clone(), Limits::default());
        let first = scheduler.submit(prompt(5)).expect("it fits");
        let heard = run(&mut scheduler);
        assert_eq!(heard.cached[&first], 0);
        let second = scheduler.submit(prompt(6)).expect("it fits");
        let third = scheduler.submit(prompt(6)).expect("it fits");
        let heard = run(&mut scheduler);
        assert_eq!(
            heard.cached[&second], 70,
            "{name}: system prompt and media were remembered"
        );
        assert_eq!(heard.tokens[&second], alone(&model, prompt(6)), "{name}");
        assert_eq!(heard.tokens[&third], heard.tokens[&second], "{name}");
        let other = Job {
            prompt: vec![
                Segment::Ids(system.clone()),
                media(78, vectors.clone()),
                Segment::Ids(vec![1]),
            ],
            ..job(Vec::new(), 1)
        };
        let other = scheduler.submit(other).expect("it fits");
        assert_eq!(
            run(&mut scheduler).cached[&other],
            60,
            "another key is other media"
        );
    }
}

#[test]
fn cancelled_and_continued_equals_never_cancelled() {
    for (name, model) in backbones() {
        let prompt = ids(4, 30);
        let whole = alone(&model, job(prompt.clone(), 24));
        let mut scheduler = Scheduler::new(model, Limits::default());
        let id = scheduler.submit(job(prompt.clone(), 24)).expect("it fits");
        let mut heard = Heard::default();
        while heard.tokens.get(&id).map_or(0, Vec::len) < 10 {
            heard.take(scheduler.step());
        }
        assert!(scheduler.cancel(id));
        assert!(!scheduler.cancel(id), "once");
        assert!(!scheduler.has_work());
        let said = heard.tokens[&id].clone();
        assert_eq!(said, whole[..10], "{name}");

        let told: Vec<u32> = prompt.iter().chain(&said).copied().collect();
        let again = scheduler.submit(job(told.clone(), 14)).expect("it fits");
        let heard = run(&mut scheduler);
        assert_eq!(heard.tokens[&again], whole[10..], "{name}");
        assert_eq!(
            heard.cached[&again],
            told.len() - 1,
            "{name}: nothing but the last token was run again"
        );
    }
}

#[test]
fn a_held_sequence_waits_and_goes_on_with_the_given_token() {
    for (name, model) in backbones() {
        let prompt = ids(2, 20);
        let mut forced = prompt.clone();
        forced.push(33);
        let expected = alone(&model, job(forced, 7));

        let mut scheduler = Scheduler::new(model, Limits::default());
        let held = scheduler
            .submit(Job {
                hold: true,
                ..job(prompt, 8)
            })
            .expect("it fits");
        let beside = scheduler.submit(job(ids(3, 5), 5)).expect("it fits");
        assert!(!scheduler.resume(held, None), "not prefilled yet");
        let heard = run(&mut scheduler);
        let states = heard.states[&held];
        assert!(
            [states.query, states.noise, states.text]
                .iter()
                .all(|p| (0.0..=1.0).contains(p))
        );
        assert_eq!(heard.tokens.get(&held), None, "{name}: it waits");
        assert_eq!(
            heard.tokens[&beside].len(),
            5,
            "{name}: the other one does not"
        );

        assert!(scheduler.resume(held, Some(33)));
        assert!(!scheduler.resume(held, Some(33)), "once");
        let tokens = run(&mut scheduler)
            .tokens
            .remove(&held)
            .expect("it went on");
        assert_eq!(tokens[0], 33);
        assert_eq!(tokens[1..], expected, "{name}");
    }
}

#[test]
fn a_stop_token_ends_the_answer_and_is_not_written() {
    let (_, model) = backbones().remove(0);
    let answer = alone(&model, job(ids(1, 20), 16));
    let stop = answer[9];
    let first = answer.iter().position(|t| *t == stop).expect("it is there");
    let mut scheduler = Scheduler::new(model, Limits::default());
    let job = Job {
        writer: writer(16, vec![stop]),
        ..job(ids(1, 20), 16)
    };
    let id = scheduler.submit(job).expect("it fits");
    let heard = run(&mut scheduler);
    assert_eq!(heard.tokens[&id], answer[..=first]);
    assert_eq!(heard.stopped[&id], Stop::End);
    let mut detokenizer = Detokenizer::new(TOKENIZER.clone(), true);
    let mut text: String = answer[..first]
        .iter()
        .map(|id| detokenizer.push(*id))
        .collect();
    text += &detokenizer.finish();
    assert_eq!(heard.text[&id], text);
}

#[test]
fn a_bias_decides_the_outcome() {
    let (_, model) = backbones().remove(0);
    let noise = TOKENIZER.state_tokens().expect("state tokens").noise;
    let mut scheduler = Scheduler::new(model, Limits::default());
    let job = Job {
        logit_bias: vec![(noise, 100.0)],
        ..job(ids(1, 20), 1)
    };
    let id = scheduler.submit(job).expect("it fits");
    let heard = run(&mut scheduler);
    assert_eq!(heard.tokens[&id], [noise]);
    assert!(heard.states[&id].noise > 0.999);
}

#[test]
fn a_long_prompt_never_keeps_an_answer_waiting() {
    let (_, model) = backbones().remove(1);
    let mut scheduler = Scheduler::new(
        model,
        Limits {
            prefill_rows_beside_decode: 16,
            ..Limits::default()
        },
    );
    let speaks = scheduler.submit(job(ids(1, 10), 100)).expect("it fits");
    scheduler.step();
    let long = scheduler.submit(job(ids(2, 320), 5)).expect("it fits");
    let mut heard = Heard::default();
    let mut steps = 0;
    while !heard.states.contains_key(&long) {
        let before = heard.tokens.get(&speaks).map_or(0, Vec::len);
        heard.take(scheduler.step());
        assert_eq!(
            heard.tokens[&speaks].len(),
            before + 1,
            "a token in every step"
        );
        steps += 1;
    }
    assert_eq!(steps, 320 / 16);
}

#[test]
fn prompts_share_what_a_step_can_read() {
    let (_, model) = backbones().remove(0);
    let mut scheduler = Scheduler::new(
        model,
        Limits {
            prefill_rows: 60,
            ..Limits::default()
        },
    );
    let long = scheduler.submit(job(ids(1, 300), 1)).expect("it fits");
    let short = scheduler.submit(job(ids(2, 20), 1)).expect("it fits");
    let mut heard = Heard::default();
    heard.take(scheduler.step());
    assert!(
        heard.states.contains_key(&short),
        "the short prompt does not wait for the long one"
    );
    assert_eq!(
        scheduler.stats().prefilled_tokens,
        60,
        "and leaves it what it does not need"
    );
    assert!(!heard.states.contains_key(&long));
}

#[test]
fn memory_bounds_what_runs_and_what_is_remembered() {
    let (_, model) = backbones().remove(0);
    let budget = 2 * model.cache_shape().bytes_for(100);
    let limits = Limits {
        memory_bytes: budget,
        ..Limits::default()
    };
    let mut scheduler = Scheduler::new(model, limits);
    let ids: Vec<SequenceId> = (0..6)
        .map(|i| scheduler.submit(job(ids(i, 80), 20)).expect("it fits"))
        .collect();
    let mut heard = Heard::default();
    while scheduler.has_work() {
        heard.take(scheduler.step());
        let stats = scheduler.stats();
        assert!(stats.running <= 2);
        assert!(stats.memory_bytes <= budget && stats.memory_limit_bytes == budget);
    }
    assert!(
        ids.iter().all(|id| heard.tokens[id].len() == 20),
        "all had their turn"
    );
    assert!(scheduler.stats().evicted_prefixes > 0);

    let error = scheduler
        .submit(job(vec![1; 400], 100))
        .expect_err("it never fits");
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[test]
fn a_smaller_budget_gives_up_what_is_remembered_and_what_never_fits() {
    let (_, model) = backbones().remove(0);
    let shape = model.cache_shape();
    let mut scheduler = Scheduler::new(model, Limits::default());
    for i in 0..4 {
        scheduler.submit(job(ids(i, 80), 20)).expect("it fits");
    }
    run(&mut scheduler);
    assert_eq!(scheduler.stats().prefixes, 4);
    let long = scheduler.submit(job(ids(9, 300), 20)).expect("it fits");
    let short = scheduler.submit(job(ids(8, 80), 20)).expect("it fits");
    scheduler.set_memory_bytes(shape.bytes_for(100));
    let stats = scheduler.stats();
    assert!(stats.memory_bytes <= shape.bytes_for(100), "{stats:?}");
    let heard = run(&mut scheduler);
    assert!(heard.failed.contains_key(&long));
    assert_eq!(heard.tokens[&short].len(), 20);
}

#[test]
fn too_many_waiting_are_refused() {
    let (_, model) = backbones().remove(0);
    let mut scheduler = Scheduler::new(
        model,
        Limits {
            max_sequences: 1,
            max_waiting: 2,
            ..Limits::default()
        },
    );
    for i in 0..2 {
        scheduler
            .submit(job(ids(i, 10), 2))
            .expect("there is room to wait");
    }
    let error = scheduler
        .submit(job(ids(2, 10), 2))
        .expect_err("one too many");
    assert_eq!(error.kind(), ErrorKind::Busy);
    run(&mut scheduler);
    scheduler
        .submit(job(ids(2, 10), 2))
        .expect("there is room again");
}

#[test]
fn prompts_that_cannot_be_run_are_refused_at_once() {
    let (_, model) = backbones().remove(0);
    let mut scheduler = Scheduler::new(model, Limits::default());
    let wide = Tensor::zeros((2, 33), DType::F32, &Device::Cpu).expect("zeros");
    let with_media = |vectors| Job {
        prompt: vec![media(1, vectors)],
        ..job(Vec::new(), 1)
    };
    let outside = VOCABULARY as u32;
    let refused = [
        (job(Vec::new(), 1), "the prompt is empty".to_owned()),
        (
            job(vec![outside], 1),
            format!("token {outside} of a vocabulary of {VOCABULARY}"),
        ),
        (
            job(vec![1; 510], 3),
            "the prompt needs 513 positions, the model has 512: shorten it".to_owned(),
        ),
        (
            with_media(wide),
            "media vectors: expected shape [tokens, 32], found [2, 33]".to_owned(),
        ),
    ];
    for (job, message) in refused {
        assert_eq!(
            scheduler.submit(job).expect_err("refused").to_string(),
            message
        );
    }
    assert!(!scheduler.has_work());
}

#[test]
fn a_sequence_that_fails_does_not_disturb_its_batch() {
    let (_, model) = backbones().remove(0);
    let expected = alone(&model, job(ids(1, 20), 8));
    let mut scheduler = Scheduler::new(model, Limits::default());
    let before = scheduler.submit(job(ids(1, 20), 8)).expect("it fits");
    let poison = Tensor::full(f32::NAN, (4, 32), &Device::Cpu).expect("a tensor");
    let bad = Job {
        prompt: vec![media(9, poison)],
        ..job(Vec::new(), 4)
    };
    let bad = scheduler.submit(bad).expect("its shape is right");
    let after = scheduler.submit(job(ids(1, 20), 8)).expect("it fits");
    let heard = run(&mut scheduler);
    assert_eq!(heard.tokens[&before], expected);
    assert_eq!(heard.tokens[&after], expected);
    assert_eq!(heard.failed.len(), 1);
    assert!(
        heard.failed[&bad].contains("not a number"),
        "{:?}",
        heard.failed
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Submitted, cancelled and resumed in any order: each sequence ends exactly once, with the words that it would have
    /// said alone.
    #[test]
    fn each_sequence_ends_once_with_its_own_words(
        actions in prop::collection::vec((0u8..5, 0usize..8, 1u32..4), 1..60),
        max_sequences in 1usize..4,
        sequences_in_memory in 1usize..6,
    ) {
        let (_, model) = backbones().remove(0);
        let expected: Vec<Vec<u32>> = (1..4).map(|seed| alone(&model, job(ids(seed, 12 * seed as usize), 6))).collect();
        let memory_bytes = sequences_in_memory * model.cache_shape().bytes_for(42);
        let limits = Limits { max_sequences, memory_bytes, prefill_rows: 10, prefill_rows_beside_decode: 5, ..Limits::default() };
        let mut scheduler = Scheduler::new(model, limits);
        let mut submitted: Vec<(SequenceId, u32, bool)> = Vec::new();
        let mut cancelled = HashSet::new();
        let mut heard = Heard::default();
        for (action, which, seed) in actions {
            match action {
                0 | 1 => {
                    let hold = action == 1;
                    let id = scheduler.submit(Job { hold, ..job(ids(seed, 12 * seed as usize), 6) }).expect("it fits");
                    submitted.push((id, seed, hold));
                }
                2 => if let Some((id, ..)) = submitted.get(which) && scheduler.cancel(*id) {
                    cancelled.insert(*id);
                },
                3 => if let Some((id, ..)) = submitted.get(which) {
                    scheduler.resume(*id, None);
                },
                _ => heard.take(scheduler.step()),
            }
            prop_assert!(scheduler.stats().running <= max_sequences);
            prop_assert!(scheduler.stats().memory_bytes <= memory_bytes);
        }
        for _ in 0..10_000 {
            for (id, _, hold) in &submitted {
                if *hold {
                    scheduler.resume(*id, None);
                }
            }
            if !scheduler.has_work() {
                break;
            }
            heard.take(scheduler.step());
        }
        prop_assert!(heard.failed.is_empty());
        for (id, seed, _) in submitted {
            let expected = &expected[seed as usize - 1];
            let said = heard.tokens.get(&id).cloned().unwrap_or_default();
            if cancelled.contains(&id) {
                prop_assert!(expected.starts_with(&said) && !heard.stopped.contains_key(&id));
            } else {
                prop_assert_eq!(&said, expected);
                prop_assert!(heard.stopped.contains_key(&id));
            }
        }
    }
}
