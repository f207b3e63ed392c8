//! `scripts/demo` as it is run, and the messages of that run.

mod common;

use std::path::Path;
use std::process::Command;

use vita_messages::kinds::{CutOffReason, QuestionKind, SourceStatus, State};
use vita_messages::{Body, Message};

#[test]
fn the_demo_shows_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let (root, record) = (
        Path::new(env!("CARGO_MANIFEST_DIR")),
        dir.path().join("told"),
    );
    let programs = Path::new(env!("CARGO_BIN_EXE_vita")).parent().unwrap();
    let output = Command::new(root.join("scripts/demo"))
        .arg("--bin")
        .arg(programs)
        .arg("--json")
        .arg(&record)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("all of it happened"), "{said}");

    let told = std::fs::read_to_string(&record).unwrap();
    let told = told
        .lines()
        .map(|line| Message::from_json(line.as_bytes()).unwrap());
    let told: Vec<Body> = told.map(|message| message.body).collect();
    assert!(
        matches!(&told[0], Body::Source(source) if source.state == SourceStatus::Up),
        "{:?}",
        told[0]
    );
    // A first answer gives the role of speaking away as well.
    let dialogue = told
        .iter()
        .filter(|body| body.kind().place().is_durable())
        .map(|body| body.kind().name())
        .filter(|kind| !["source", "speech"].contains(kind));
    let expected = [
        ["query", "roles_swapped", "answer"].as_slice(),
        &["noise"],
        &["query", "roles_swapped", "interrupted", "answer"],
        &["query", "roles_swapped", "answer"],
        &["query", "roles_swapped", "answer"],
    ];
    assert_eq!(dialogue.collect::<Vec<_>>(), expected.concat());

    let answers: Vec<_> = told
        .iter()
        .filter_map(|body| match body {
            Body::Answer(answer) => Some(answer),
            _ => None,
        })
        .collect();
    let [seen, counted, capital, typed] = answers[..] else {
        panic!("{answers:#?}")
    };
    for spoken in [seen, counted, capital] {
        assert_eq!(
            (spoken.state, spoken.question.kind),
            (State::Query, QuestionKind::Speech)
        );
        // A picture a second, and those of the last moments before it was said.
        let [from, to] = [
            spoken.question.start_stream_time_ns,
            spoken.question.end_stream_time_ns,
        ];
        let frames = &spoken.verdict.frames;
        assert!((2..=6).contains(&frames.len()), "{frames:?}");
        for frame in frames {
            let at = frame.stream_time_ns;
            assert!(
                at + 3_000_000_000 >= from && at <= to,
                "{at} for {from} to {to}"
            );
        }
    }
    let cut_off = counted.cut_off.as_ref().unwrap();
    assert_eq!(cut_off.reason, CutOffReason::Interrupted);
    assert_eq!(cut_off.by_turn_id, Some(capital.turn_id));
    assert_eq!(
        (typed.state, typed.question.kind),
        (State::Text, QuestionKind::Text)
    );
    for (answer, word) in [(counted, "One, two"), (capital, "Paris"), (typed, "Rome")] {
        assert!(answer.text.contains(word), "{word} in {:?}", answer.text);
    }
    let words = |generation| {
        let words = told.iter().filter_map(|body| match body {
            Body::Delta(delta) if delta.generation_id == generation => Some(delta.text.as_str()),
            _ => None,
        });
        words.collect::<String>()
    };
    assert_eq!(words(counted.generation_id), counted.text);
}
