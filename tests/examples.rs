//! Each example is run, with a real broker, real messages and the built plugin.

mod lines;
mod plugin;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lines::{PATIENCE, Program};
use vita_messages::kinds::{Delta, Source, SourceStatus};
use vita_messages::testing::{NatsServer, cache_dir};
use vita_messages::{Message, Options, Publisher, ServerUrl, SourceName};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's folder for this profile, where libraries and examples are.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_vita"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Prints the message that it is sent, and goes on when it meets what it does not know.
fn prints_what_arrives(command: &mut Command) {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let program = Program::start(command.env("NATS_URL", server.url()));
    program.error_with("listening to vita.>");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let up = Source {
        state: SourceStatus::Up,
        reason: None,
        attempt: 1,
        next_retry: None,
        media: Vec::new(),
    };
    let message = Message::now(&SourceName::new("door").unwrap(), up);
    let unknown = message.to_json().replace("vita.source.v1", "vita.mood.v1");
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    // Only the broker knows when it has heard of the subscription.
    let end = Instant::now() + PATIENCE;
    let line = loop {
        let payload = unknown.clone().into();
        let sent = runtime.block_on(client.publish("vita.door.event.mood", payload));
        sent.unwrap();
        match program.line_within(Duration::from_millis(100)) {
            Some(line) => break line,
            None => assert!(Instant::now() < end, "{:?}", program.errors()),
        }
    };
    assert!(line.contains("vita.mood.v1"), "{line}");
    let options = Options::new(
        ServerUrl::parse_list(&server.url()).unwrap(),
        dir.path().join("spool"),
    );
    let publisher = runtime.block_on(Publisher::connect(options)).unwrap();
    publisher.publish(&message).unwrap();
    let line = std::iter::repeat_with(|| program.line())
        .find(|line| !line.contains("vita.mood.v1"))
        .unwrap();
    let ends_with_up = line.to_lowercase().ends_with("up");
    assert!(line.contains(" door: source is ") && ends_with_up, "{line}");
    for (generation_id, text) in [(2, "new"), (1, "stale"), (2, "words")] {
        publisher.publish(&delta(generation_id, text)).unwrap();
    }
    for expected in [" door: answer 2... new", " door: answer 2... words"] {
        let line = program.line();
        assert!(line.ends_with(expected), "{line}");
    }
}

fn delta(generation_id: u64, text: &str) -> Message {
    let delta = Delta {
        session_id: 1_764_000_000_000,
        turn_id: generation_id,
        generation_id,
        sequence: 0,
        text: text.into(),
        stream_time_ns: 0,
    };
    Message::now(&SourceName::new("door").unwrap(), delta)
}

#[test]
fn the_rust_subscriber_prints_what_arrives() {
    prints_what_arrives(&mut Command::new(target_dir().join("examples/subscribe")));
}

#[test]
fn the_python_subscriber_prints_what_arrives() {
    let mut command = Command::new("python3");
    prints_what_arrives(
        command
            .arg(root().join("examples/subscribe.py"))
            .env("PYTHONPATH", cache_dir().join("python")),
    );
}

#[test]
fn the_javascript_subscriber_prints_what_arrives() {
    // Modules are looked for beside the file and above it.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        root().join("examples/subscribe.mjs"),
        dir.path().join("subscribe.mjs"),
    )
    .unwrap();
    std::os::unix::fs::symlink(
        cache_dir().join("node_modules"),
        dir.path().join("node_modules"),
    )
    .unwrap();
    prints_what_arrives(Command::new("node").arg(dir.path().join("subscribe.mjs")));
}

fn launch(script: &str, args: &[&str]) -> Output {
    let plugins = plugin::folder("examples-plugins");
    let registry = target_dir().join("gst-registry-examples.bin");
    let mut command = Command::new(root().join("examples").join(script));
    command
        .args(args)
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", registry)
        .output()
        .unwrap()
}

#[track_caller]
fn assert_prints(output: &Output, texts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in texts {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

#[test]
fn the_launch_lines_run() {
    let street = cache_dir().join("media/bikes.mp4");
    let question = root().join("tests/media/q1.wav");
    let (street, question) = (street.to_str().unwrap(), question.to_str().unwrap());
    assert_prints(
        &launch("speech.sh", &[question]),
        &["vita-speech-start", "vita-speech-end"],
    );
    assert_prints(&launch("frames.sh", &[street]), &["vita-frame", "Got EOS"]);
    assert_prints(
        &launch("mel.sh", &[question]),
        &["other/tensors", "Got EOS"],
    );
    assert!(!launch("mel.sh", &[]).status.success());
}
