//! `vita chat` without a camera, with the golden checkpoint. Its microphone is what a sound server of the test's own plays.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::process::{Process, wait_until};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn start(args: &[&str], set: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
    command.args(["chat", "--model"]);
    command.arg(repository().join("tests/golden/checkpoint"));
    command.args(args);
    for pipe in [Command::stdin, Command::stdout, Command::stderr] {
        pipe(&mut command, Stdio::piped());
    }
    set(&mut command);
    command.spawn().unwrap()
}

fn chat(args: &[&str], typed: &str) -> Output {
    let mut child = start(args, |_| ());
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
    let question = repository().join("tests/media/q1.wav");
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

/// A PulseAudio server with one output that goes nowhere, `room`, and its monitor as a microphone.
struct Sound {
    _server: Process,
    folder: tempfile::TempDir,
}

impl Sound {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("native");
        let protocol = format!(
            "module-native-protocol-unix auth-anonymous=1 socket={}",
            socket.display()
        );
        let mut command = Command::new("pulseaudio");
        command.args([
            "-n",
            "--daemonize=no",
            "--use-pid-file=no",
            "--exit-idle-time=-1",
        ]);
        command.args(["--disable-shm=yes", "-L", &protocol]);
        command.args(["-L", "module-null-sink sink_name=room"]);
        for home in ["HOME", "XDG_RUNTIME_DIR"] {
            command.env(home, folder.path());
        }
        let server = Process(command.stderr(Stdio::null()).spawn().unwrap());
        wait_until("a sound server", || socket.exists());
        Self {
            _server: server,
            folder,
        }
    }

    fn address(&self) -> String {
        format!("unix:{}/native", self.folder.path().display())
    }

    fn play(&self, wav: &Path) {
        let mut command = Command::new("paplay");
        command.env("PULSE_SERVER", self.address());
        let played = command.arg("--device=room").arg(wav).status().unwrap();
        assert!(played.success());
    }
}

#[test]
fn what_is_said_to_the_microphone_is_judged_and_ctrl_c_ends_it() {
    let sound = Sound::start();
    let mut child = start(&["--no-video", "--microphone", "room.monitor"], |command| {
        command.env("PULSE_SERVER", sound.address());
    });
    let said = BufReader::new(child.stdout.take().unwrap());
    let mut said = said.lines().map_while(Result::ok);
    // open, or it would end with it
    let _stdin = child.stdin.take();
    let mut child = Process(child);
    let is_up = said.by_ref().any(|line| line.contains("up: audio"));
    assert!(is_up, "it ended");
    sound.play(&repository().join("tests/media/q1.wav"));
    let is_judged = said
        .by_ref()
        .any(|line| line.contains("question 1: speech") || line.contains("not answered: speech"));
    assert!(is_judged, "it ended");
    child.signal("INT");
    assert!(child.wait().success());
}
