//! `vita ask` on real files, with the golden checkpoint: what it says is what the model crate says of the same media.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vita_dialogue::state::{State, StateProbabilities, StateRule};
use vita_model::generate::prefill;
use vita_model::prompt::{Conversation, Modality, system_text, user_turn};
use vita_model::{LoadOptions, Vita};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn file(name: &str) -> PathBuf {
    root().join("tests/media").join(name)
}

fn checkpoint() -> PathBuf {
    root().join("tests/golden/checkpoint")
}

fn vita_ask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
    command.arg("ask").arg("--model").arg(checkpoint());
    command
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[track_caller]
fn replies(command: &mut Command) -> Vec<Value> {
    let output = run(command.arg("--json"));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn reply(command: &mut Command) -> Value {
    let mut replies = replies(command);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

/// The verdict of the model crate on an utterance.
fn verdict(samples: &[f32]) -> (StateProbabilities, State) {
    let vita = Vita::load(&checkpoint(), &LoadOptions::default()).unwrap();
    let heard = vita.hear(samples).unwrap();
    let conversation = Conversation {
        system: Some(system_text(Modality::Lang, "VITA")),
        turns: vec![user_turn(Vec::new(), Some(heard), None)],
    };
    let prompt = vita.embed(&vita.prompt(&conversation).unwrap()).unwrap();
    let logits = prefill(vita.lm(), &prompt, &mut vita.lm().cache()).unwrap();
    let states = vita_model::generate::StateProbabilities::of(&logits, &vita.state_tokens());
    let states = StateProbabilities {
        query: states.query as f32,
        noise: states.noise as f32,
        text: states.text as f32,
    };
    (states, StateRule::default().judge_speech(&states, false))
}

#[test]
fn a_spoken_question_is_judged_as_the_model_judges_it() {
    let reply = reply(
        vita_ask()
            .args(["--max-tokens", "8", "--audio"])
            .arg(file("q1.wav")),
    );
    let samples = vita_model::wav::read(&file("q1.wav")).unwrap().samples;
    let (expected, state) = verdict(&samples);
    for (key, expected) in [
        ("query", expected.query),
        ("noise", expected.noise),
        ("text", expected.text),
    ] {
        let found = reply["state_probabilities"][key].as_f64().unwrap();
        // 16-bit samples to floats and back is exact; the rest is the order of sums.
        assert!(
            (found - f64::from(expected)).abs() < 1e-6,
            "{key}: {found}, expected {expected}"
        );
    }
    let is_silent = state == State::Noise;
    assert_eq!(reply["state"], if is_silent { "noise" } else { "query" });
    assert_eq!(reply["answer"].is_null(), is_silent);
    assert_eq!(reply["model"], "checkpoint");
    assert_eq!(reply["frames"], serde_json::json!([]));
    for timing in ["load", "decode", "encode", "prefill"] {
        assert!(
            reply["timings_ms"][timing].as_f64().unwrap() > 0.0,
            "{timing}"
        );
    }
}

#[test]
fn a_typed_question_about_a_video_is_answered_from_the_frames_of_the_rule() {
    let mut command = vita_ask();
    command.args(["--max-tokens", "5", "what is it?", "--video"]);
    let reply = reply(command.arg(file("demo_1.mp4")));
    assert_eq!(reply["state"], "text");
    assert!(reply["answer"].is_string());
    assert_eq!(reply["answer_tokens"], 5);
    assert_eq!(reply["cut_off"], "max_tokens");
    assert!(reply["timings_ms"]["first_token"].as_f64() > reply["timings_ms"]["prefill"].as_f64());
    assert!(reply["timings_ms"]["per_token"].as_f64().unwrap() > 0.0);
    let expected = std::fs::read_to_string(file("demo_1_frames.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let indices = expected["indices_1fps_max16"].as_array().unwrap();
    let frames = reply["frames"].as_array().unwrap();
    assert_eq!(frames.len(), indices.len());
    for (frame, index) in frames.iter().zip(indices) {
        let seconds = frame["stream_time_ns"].as_f64().unwrap() / 1e9;
        let expected = index.as_f64().unwrap() / expected["avg_fps"].as_f64().unwrap();
        // Candidates of a long clip are the frames next to whole seconds.
        assert!(
            (seconds - expected).abs() < 0.1,
            "{seconds}, expected {expected}"
        );
        assert_eq!(frame["repeat"], 1);
    }
}

#[test]
fn a_picture_is_seen_and_the_same_question_has_the_same_answer() {
    let ask = || {
        let mut command = vita_ask();
        command.args(["--max-tokens", "6", "what is it?", "--image"]);
        reply(command.arg(root().join("tests/golden/inputs/image_a.png")))
    };
    let (first, second) = (ask(), ask());
    assert_eq!(first["answer"], second["answer"]);
    assert_eq!(first["state_probabilities"], second["state_probabilities"]);
    assert_eq!(first["frames"].as_array().unwrap().len(), 1);
    let blind = reply(vita_ask().args(["--max-tokens", "6", "what is it?"]));
    assert_ne!(first["state_probabilities"], blind["state_probabilities"]);
}

#[test]
fn utterances_of_a_file_are_questions_of_their_own() {
    let speech = vita_messages::testing::cache_dir().join("media/jfk.wav");
    let mut command = vita_ask();
    command.args(["--vad", "--max-tokens", "1", "--audio"]);
    let cut = replies(command.arg(&speech));
    let mut command = vita_ask();
    command.args(["--max-tokens", "1", "--audio"]);
    let whole = reply(command.arg(&speech));
    assert!(cut.len() > 1, "{} utterances", cut.len());
    for reply in &cut {
        assert!(reply["prompt_tokens"].as_u64() < whole["prompt_tokens"].as_u64());
    }
}

#[test]
fn the_sound_of_a_video_is_a_question() {
    let mut command = vita_ask();
    command.args(["--max-tokens", "1", "--audio"]);
    let reply = reply(command.arg(file("demo_1.mp4")));
    // 31.77 s at 12.5 vectors a second, and the words around them.
    assert!(reply["prompt_tokens"].as_u64() > Some(390), "{reply}");
}

#[test]
fn people_are_told_the_answer_and_beside_it_the_facts() {
    let output = run(vita_ask().args(["--max-tokens", "3", "who are you?"]));
    let facts = String::from_utf8(output.stderr).unwrap();
    assert!(
        facts.contains("query 0.") && facts.contains("load "),
        "{facts}"
    );
    assert!(facts.contains("cut off: max tokens"), "{facts}");
    assert!(output.stdout.ends_with(b"\n"));
}

#[track_caller]
fn assert_fails(command: &mut Command, texts: &[&str]) {
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{error}");
    for text in texts {
        assert!(error.contains(text), "no {text:?} in {error}");
    }
}

#[test]
fn what_cannot_be_asked_is_told_with_what_to_do() {
    assert_fails(&mut vita_ask(), &["--audio", "TEXT"]);
    let missing = vita_ask().args(["--audio", "/nowhere.wav"]).output();
    let error = String::from_utf8(missing.unwrap().stderr).unwrap();
    assert!(
        error.contains("/nowhere.wav") && error.contains("No such file"),
        "{error}"
    );
    assert_fails(
        vita_ask().args(["hello", "--video"]).arg(file("q1.wav")),
        &["q1.wav: no video"],
    );
    assert_fails(
        vita_ask()
            .arg("--audio")
            .arg(root().join("tests/golden/tiles_448.png")),
        &["tiles_448.png: no sound"],
    );
    assert_fails(
        vita_ask().arg("--audio").arg(file("README.md")),
        &["README.md: no sound"],
    );
}

#[test]
fn a_model_that_is_not_there_is_told_with_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let ask = |model: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
        command.args(["ask", "--model", model, "hello"]);
        command.env("VITA_CACHE", cache.path());
        command
    };
    assert_fails(&mut ask("nano"), &["models/nano", "vita model build nano"]);
    assert_fails(&mut ask("/nowhere"), &["/nowhere: no such model folder"]);
    assert_fails(
        &mut ask(root().join("tests/media").to_str().unwrap()),
        &["config.json", "vita model inspect"],
    );
}
