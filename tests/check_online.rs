//! `vita check` with a real nats-server.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct NatsServer {
    child: Child,
    port: u16,
}

impl NatsServer {
    /// On a free port of loopback, for those who know the token.
    fn start(token: &str) -> Self {
        let cache = vita_stream::nats_server::cache_dir().unwrap();
        let port = free_port();
        let mut command = Command::new(cache.join("bin/nats-server"));
        command
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "--auth", token])
            .stderr(Stdio::null());
        let server = Self {
            child: command.spawn().expect("nats-server of the set-up"),
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn check(port: u16, token: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.toml");
    let text = format!(
        "version = 1\nnats = {{ url = \"nats://127.0.0.1:{port}\", token = \"${{env:VITA_TEST_TOKEN}}\" }}\n\
         [[source]]\nname = \"a\"\ntype = \"test\"\n"
    );
    std::fs::write(&path, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_vita"))
        .arg("check")
        .arg(path)
        .env("VITA_TEST_TOKEN", token)
        .output()
        .unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, what: &str) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(
        stdout.contains("nats.url: broker nats://127.0.0.1:") && stdout.contains(what),
        "{stdout}"
    );
    assert!(!stdout.contains("s3cret"), "{stdout}");
}

#[test]
fn a_broker_that_answers_is_in_order() {
    let server = NatsServer::start("s3cret-token");
    let output = check(server.port, "s3cret-token");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_wrong_token_is_told() {
    let server = NatsServer::start("s3cret-token");
    assert_refused(
        &check(server.port, "s3cret-but-wrong"),
        "authorization violation",
    );
}

#[test]
fn a_broker_that_is_not_there_is_told() {
    assert_refused(&check(free_port(), "s3cret-token"), "refused");
}
