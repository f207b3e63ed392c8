//! `vita test` on each script of `tests/rooms`: what is expected is told, and the same media tell the same.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scripts() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("tests/rooms")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    paths
}

fn vita_test(args: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
    command.arg("test").args(args).arg(path).output().unwrap()
}

#[test]
fn every_room_tells_what_is_expected_and_the_same_again() {
    common::nano::build("nano");
    common::nano::build("nano-ctc");
    for path in scripts() {
        let first = vita_test(&["--json"], &path);
        let said = String::from_utf8_lossy(&first.stderr);
        assert!(first.status.success(), "{said}");
        let second = vita_test(&["--json"], &path);
        assert!(!first.stdout.is_empty(), "{said}");
        let [before, after] =
            [&first, &second].map(|output| String::from_utf8_lossy(&output.stdout));
        let mut lines = before.lines().zip(after.lines());
        let differs = lines.find(|(before, after)| before != after);
        assert_eq!(differs, None, "{}", path.display());
        assert_eq!(before.len(), after.len(), "{}", path.display());
    }
}

/// A script of `tests/rooms` with another text in it, run where its media are.
fn changed(name: &str, from: &str, to: &str) -> Output {
    let text = std::fs::read_to_string(root().join("tests/rooms").join(name)).unwrap();
    assert!(text.contains(from), "{from}");
    let dir = tempfile::tempdir().unwrap();
    for folder in ["media", "golden"] {
        let link = dir.path().join(folder);
        std::os::unix::fs::symlink(root().join("tests").join(folder), link).unwrap();
    }
    let rooms = dir.path().join("rooms");
    std::fs::create_dir(&rooms).unwrap();
    let path = rooms.join(name);
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    vita_test(&[], &path)
}

#[track_caller]
fn assert_fails(output: &Output, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(text), "no {text:?} in {said}");
}

#[test]
fn what_is_not_told_as_expected_fails_with_its_place() {
    assert_fails(
        &changed("reset.toml", "reason = \"reset\"", "reason = \"closed\""),
        "message 3: answer.cut_off.reason: expected \"closed\", came \"reset\"",
    );
    assert_fails(
        &changed("typed.toml", "at_secs = 1.04", "at_secs = 1.5"),
        "message 1: query: expected at 1.5 s ± 0.04 s, came at 1.040 s",
    );
}

#[test]
fn a_script_that_cannot_be_played_is_told() {
    for (from, to, text) in [
        (
            "seconds = 9.0",
            "seconds = -1",
            "seconds: expected more than 0",
        ),
        ("reset = true", "rset = true", "unknown field `rset`"),
        (
            "reset = true",
            "ask = \"a\"\nreset = true",
            "act at 2 s: expected one of",
        ),
        (
            "kind = \"reset\"",
            "kind = \"rest\"",
            "kind rest: expected one of",
        ),
        (
            "../golden/checkpoint",
            "../golden/nowhere",
            "no such model folder",
        ),
        (
            "</s>:-1000",
            "</s>",
            "logit-bias: </s>: expected token:value",
        ),
    ] {
        assert_fails(&changed("reset.toml", from, to), text);
    }
}
