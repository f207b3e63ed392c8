//! Questions and their answers, in rooms that run freely.

use vita_dialogue::duplex::{CancelReason, CutOff, GenerationId, TurnId};
use vita_dialogue::state::State;
use vita_engine::room::event::EventKind;
use vita_engine::room::{Event, RoomSettings};
use vita_model::prompt::{Content, Modality, Role, Turn, user_turn};

use crate::bench::*;

const QUESTION: &str = "What is the biggest animal in the world?";

#[test]
fn a_typed_question_is_answered_as_the_model_does() {
    let mut bench = Bench::open(&engine(), settings(24));
    assert_eq!(bench.room.ask(QUESTION).unwrap(), TurnId(1));
    let answer = bench.answer();
    let expected = generated(
        vec![typed(QUESTION)],
        Modality::Lang,
        VITA.state_tokens().text,
        24,
    );
    assert_eq!(answer.text, expected);
    assert_eq!(words(&bench.told, 1), expected);
    assert_eq!(
        (answer.state, answer.generation),
        (State::Text, GenerationId(1))
    );
    assert_eq!(answer.turn.question.text.as_deref(), Some(QUESTION));
    assert_eq!(answer.turn.question.utterance_id, None);
    assert!(answer.tokens.prompt > 100 && answer.tokens.answer > 1);
    assert!(answer.timings.first_token >= Some(answer.verdict.judging));
    assert!(answer.timings.token.is_some());
    let kinds: Vec<_> = bench.told.iter().map(name).collect();
    assert_eq!(kinds[..3], ["query", "roles-swapped", "delta"]);
}

#[test]
fn a_spoken_question_is_answered_from_what_was_seen() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            logit_bias: bias(true, false),
            ..settings(16)
        },
    );
    let pictures = pictures();
    for (i, media) in pictures.iter().enumerate() {
        bench.room.frame(frame(media, ms(2000 + 1000 * i as u64)));
    }
    bench.room.utterance(utterance(7, ms(4500))).unwrap();
    let answer = bench.answer();

    // Of the interval, 1.5 to 4.5 s, the model's rule shows four: the last of three is repeated where it falls so.
    let seen = [0, 0, 1, 2].map(|i: usize| pictures[i].clone());
    let question = user_turn(seen.to_vec(), Some(speech()), None);
    let expected = generated(
        vec![question],
        Modality::Video,
        VITA.state_tokens().query,
        16,
    );
    let frames: Vec<_> = answer
        .verdict
        .frames
        .iter()
        .map(|f| (f.time, f.repeat, f.capture_time_ns))
        .collect();
    assert_eq!(
        frames,
        [
            (ms(2000), 2, Some(2_000_000_000)),
            (ms(3000), 1, Some(3_000_000_000)),
            (ms(4000), 1, Some(4_000_000_000))
        ]
    );
    assert_eq!(answer.text, expected);
    assert_eq!(answer.state, State::Query);
    assert_eq!(answer.verdict.staleness, Some(ms(500)));
    assert!(answer.verdict.states.query > answer.verdict.states.noise);
    let question = answer.turn.question;
    assert_eq!(question.utterance_id, Some(7));
    assert_eq!((question.start, question.end), (ms(3500), ms(4500)));
    assert_eq!(question.capture_time_ns, Some(1_700_000_000_000_000_007));
}

#[test]
fn noise_is_told_and_not_answered() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            logit_bias: bias(false, false),
            ..settings(16)
        },
    );
    bench.room.utterance(utterance(1, ms(2000))).unwrap();
    let EventKind::Noise { turn, verdict } = bench.next() else {
        panic!("{:?}", bench.told)
    };
    assert_eq!(turn.question.utterance_id, Some(1));
    assert!(verdict.unwrap().states.noise > 0.9);

    let mut short = utterance(2, ms(3000));
    short.start = ms(2900);
    bench.room.utterance(short).unwrap();
    let EventKind::Noise { turn, verdict } = bench.next() else {
        panic!("{:?}", bench.told)
    };
    assert_eq!((turn.id, verdict), (TurnId(2), None));
    bench.room.finish();
    assert_eq!(bench.next(), EventKind::Drained);
}

#[test]
fn a_second_question_interrupts_the_answer() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            logit_bias: bias(true, true),
            ..settings(4000)
        },
    );
    bench.room.ask(QUESTION).unwrap();
    bench.first_delta();
    bench.room.utterance(utterance(1, ms(2000))).unwrap();
    let first = bench.answer();
    assert_eq!(first.cut_off, Some(CutOff::Interrupted { by: TurnId(2) }));
    assert_eq!(first.text, words(&bench.told, 1));
    let interrupted = bench.told.iter().rev().nth(1).unwrap();
    assert_eq!(
        interrupted.kind,
        EventKind::Interrupted {
            turn: TurnId(1),
            generation: GenerationId(1),
            by: TurnId(2)
        }
    );
    let query = bench.next();
    assert!(
        matches!(&query, EventKind::Query { generation, .. } if generation.0 == 2),
        "{query:?}"
    );
    assert!(matches!(bench.next(), EventKind::RolesSwapped { .. }));
    bench.first_delta();
    let before = bench.told.len();
    bench.room.reset().unwrap();
    let second = bench.answer();
    assert_eq!(second.cut_off, Some(CutOff::Reset));
    assert_eq!(
        words(&bench.told[before - 1..], 1),
        "",
        "the first is silent"
    );
    assert_eq!(bench.next(), EventKind::Reset);
    assert_eq!(bench.room.status().history_turns, 0);
}

#[test]
fn noise_leaves_a_running_answer_untouched() {
    let engine = engine();
    let endless = RoomSettings {
        logit_bias: bias(true, true),
        ..settings(3000)
    };
    let mut quiet = Bench::open(&engine, endless.clone());
    quiet.room.ask(QUESTION).unwrap();
    let expected = quiet.answer();

    let mut bench = Bench::open(&engine, endless);
    bench.room.ask(QUESTION).unwrap();
    bench.first_delta();
    bench.room.set_logit_bias(bias(false, true)).unwrap();
    for id in 1..=2 {
        bench.room.utterance(utterance(id, ms(2000 * id))).unwrap();
    }
    let answer = bench.answer();
    let noise = |event: &&Event| matches!(event.kind, EventKind::Noise { .. });
    assert_eq!(bench.told.iter().filter(noise).count(), 2);
    assert_eq!(answer.text, expected.text);
    assert_eq!(answer.cut_off, Some(CutOff::MaxTokens));
    assert_eq!(answer.tokens.answer, 3000);
}

#[test]
fn an_answer_knows_what_was_said_before() {
    let mut bench = Bench::open(
        &engine(),
        RoomSettings {
            logit_bias: bias(true, false),
            ..settings(12)
        },
    );
    bench.room.utterance(utterance(1, ms(2000))).unwrap();
    let first = bench.answer();
    bench.room.frame(frame(&pictures()[0], ms(2500)));
    bench.room.ask("And where?").unwrap();
    let second = bench.answer();

    let states = VITA.state_tokens();
    let said = Turn {
        role: Role::Bot,
        content: vec![Content::Token(states.query), Content::Text(first.text)],
    };
    // The pictures of the question stand in front of the first turn.
    let seen = vec![pictures()[0].clone(); 4];
    let turns = vec![
        user_turn(seen, Some(speech()), None),
        said,
        typed("And where?"),
    ];
    let expected = generated(turns, Modality::Video, states.text, 12);
    assert_eq!(second.text, expected);
    assert_eq!(bench.room.status().history_turns, 2);

    bench.room.flush();
    bench.room.ask("And when?").unwrap();
    let third = bench.answer();
    assert_eq!(third.verdict.frames.len(), 0, "the frame is forgotten");
    assert!(third.tokens.cached > 0, "the first turn was remembered");
}

#[test]
fn a_closed_room_says_so_and_disturbs_no_other() {
    let engine = engine();
    let endless = RoomSettings {
        logit_bias: bias(true, true),
        ..settings(600)
    };
    let mut stays = Bench::open(&engine, endless.clone());
    let mut goes = Bench::open(&engine, endless);
    stays.room.ask(QUESTION).unwrap();
    goes.room.ask("Why is the sky blue?").unwrap();
    goes.first_delta();
    for _ in 0..2 {
        goes.room.ask("And why not?").unwrap();
    }
    let told = goes.close();
    let open: Vec<_> = told
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Answer(answer) => Some((answer.turn.id, answer.cut_off.clone())),
            EventKind::Cancelled { turn, reason } => {
                assert_eq!(*reason, CancelReason::Closed);
                Some((turn.id, None))
            }
            _ => None,
        })
        .collect();
    let mut turns: Vec<_> = open.iter().map(|(turn, _)| turn.0).collect();
    turns.sort_unstable();
    assert_eq!(turns, [1, 2, 3], "every question has its end: {told:#?}");
    assert_eq!(told.last().unwrap().kind, EventKind::Closed);

    let answer = stays.answer();
    assert_eq!(answer.cut_off, Some(CutOff::MaxTokens));
    assert_eq!(answer.tokens.answer, 600);
    assert_eq!(engine.rooms(), 1);
}

#[test]
fn rooms_are_answered_in_one_batch() {
    let engine = engine();
    let endless = RoomSettings {
        logit_bias: bias(true, true),
        ..settings(100)
    };
    let questions = [
        "What is the biggest animal?",
        "Why is the sky blue?",
        "Who?",
    ];
    let alone: Vec<String> = questions
        .iter()
        .map(|question| {
            let mut bench = Bench::open(&engine, endless.clone());
            bench.room.ask(*question).unwrap();
            bench.answer().text
        })
        .collect();
    let engine = crate::bench::engine();
    let mut benches: Vec<Bench> = questions
        .iter()
        .map(|_| Bench::open(&engine, endless.clone()))
        .collect();
    for (bench, question) in benches.iter().zip(questions) {
        bench.room.ask(question).unwrap();
    }
    for (bench, expected) in benches.iter_mut().zip(&alone) {
        assert_eq!(&bench.answer().text, expected);
    }
    let stats = benches[2].room.status().scheduler;
    assert!(
        stats.steps < stats.decoded_tokens,
        "more than one room in a step: {stats:?}"
    );
}

#[test]
fn an_answer_keeps_to_its_pace_and_can_be_interrupted_between_two_tokens() {
    let engine = engine();
    let of = |interval| RoomSettings {
        logit_bias: bias(true, true),
        token_interval: interval,
        ..settings(12)
    };
    let mut quick = Bench::open(&engine, of(ms(0)));
    let mut slow = Bench::open(&engine, of(ms(20)));
    let started = std::time::Instant::now();
    slow.room.ask(QUESTION).unwrap();
    quick.room.ask(QUESTION).unwrap();
    let at_once = quick.answer();
    let slowly = slow.answer();
    assert_eq!(slowly.text, at_once.text);
    assert!(started.elapsed() >= 11 * ms(20), "{:?}", started.elapsed());

    // Nobody waits for a token that will not be said any more.
    let mut never = Bench::open(&engine, of(ms(3_600_000)));
    never.room.ask(QUESTION).unwrap();
    never.first_delta();
    let second = never.room.ask("And you?").unwrap();
    let cut_off = Some(CutOff::Interrupted { by: second });
    assert_eq!(never.answer().cut_off, cut_off);
    never.first_delta();
}

fn name(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Query { .. } => "query",
        EventKind::RolesSwapped { .. } => "roles-swapped",
        EventKind::Delta { .. } => "delta",
        _ => "other",
    }
}
