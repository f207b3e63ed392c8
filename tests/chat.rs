//! `vita chat` without camera and microphone, with the golden checkpoint.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn chat(args: &[&str], typed: &str) -> Output {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vita"))
        .args(["chat", "--model"])
        .arg(checkpoint)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn typed_lines_are_questions_and_their_end_is_the_end() {
    let output = chat(&["--no-video", "--no-audio"], "Who are you?\n\nAnd I?\n");
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{error}");
    for question in ["question 1: “Who are you?”", "question 2: “And I?”"] {
        assert!(said.contains(question), "{said}{error}");
    }
    for answer in ["answer 1: ", "answer 2: "] {
        assert!(said.contains(answer), "{said}{error}");
    }
}

#[test]
fn a_file_that_is_played_to_its_end_ends_it() {
    let question = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/media/q1.wav");
    let output = chat(&[question.to_str().unwrap()], "");
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{error}");
    assert!(said.contains("up: audio"), "{said}{error}");
    let is_judged = said.contains("question 1: speech") || said.contains("not answered: speech");
    assert!(is_judged, "{said}{error}");
}

#[test]
fn what_is_in_the_way_is_told() {
    let output = chat(&["/nowhere.mp4"], "");
    let error = text(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("/nowhere.mp4 is no file"), "{error}");
}
