//! `vita watch` against a real broker.

mod lines;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lines::{PATIENCE, Program};
use vita_messages::kinds::{Lost, LostCause, Source, SourceReason, SourceReasonKind, SourceStatus};
use vita_messages::testing::NatsServer;
use vita_messages::{Message, Options, Publisher, ServerUrl, SourceName, WallTime};

fn vita_watch(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
    command.args(["watch", "--url", url]).args(args);
    command
}

async fn publisher(server: &NatsServer, dir: &Path) -> Publisher {
    let publisher = Publisher::connect(Options::new(
        ServerUrl::parse_list(&server.url()).unwrap(),
        dir.join("spool"),
    ))
    .await;
    let publisher = publisher.unwrap();
    publisher
        .status()
        .wait_for(|status| status.server.is_some())
        .await
        .unwrap();
    publisher
}

fn ends_well(program: &mut Program) -> bool {
    let end = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < end {
        if let Some(status) = program.child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn down(number: u64, text: &str) -> Message {
    let reason = Some(SourceReason {
        kind: SourceReasonKind::Refused,
        text: text.into(),
    });
    let down = Source {
        state: SourceStatus::Down,
        reason,
        attempt: number,
        next_retry: None,
        media: Vec::new(),
    };
    Message::now(&SourceName::new("door").unwrap(), down)
}

/// Publishes until the program has printed a line: only it knows when it listens.
async fn line_while_publishing(
    program: &Program,
    client: &async_nats::Client,
    payload: String,
) -> String {
    let end = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < end {
        client
            .publish("vita.door.event.source", payload.clone().into())
            .await
            .unwrap();
        client.flush().await.unwrap();
        if let Some(line) = program.line_within(Duration::from_millis(100)) {
            return line;
        }
    }
    panic!("no output; on standard error: {:?}", program.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_printed_as_it_came_and_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let publisher = publisher(&server, dir.path()).await;
    let messages: Vec<Message> = (1..=3)
        .map(|number| down(number, "connection refused"))
        .collect();
    publisher.publish(&messages[0]).unwrap();
    publisher.publish(&messages[1]).unwrap();
    let mut watch = Program::start(&mut vita_watch(
        &server.url(),
        &["--since", "1h", "--json", "--count", "3"],
    ));
    assert_eq!(watch.line(), messages[0].to_json());
    assert_eq!(watch.line(), messages[1].to_json());
    publisher.publish(&messages[2]).unwrap();
    assert_eq!(watch.line(), messages[2].to_json());
    assert!(ends_well(&mut watch));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_subject_leaves_the_rest_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let publisher = publisher(&server, dir.path()).await;
    let time = WallTime::now();
    let lost = Lost {
        count: 5,
        cause: LostCause::QueueFull,
        first_time: time,
        last_time: time,
    };
    publisher.publish(&down(1, "x")).unwrap();
    publisher
        .publish(&Message::now(&SourceName::new("door").unwrap(), lost))
        .unwrap();
    let mut watch = Program::start(&mut vita_watch(
        &server.url(),
        &["vita.*.event.lost", "--since", "1h", "--count", "1"],
    ));
    let line = watch.line();
    assert!(
        line.ends_with("door  5 messages lost here: queue full"),
        "{line}"
    );
    assert!(ends_well(&mut watch));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_the_broker_was_away_and_prints_nothing_dangerous() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(dir.path()).unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut watch = Program::start(&mut vita_watch(&server.url(), &["--count", "2"]));
    let line = line_while_publishing(&watch, &client, down(1, "gone\u{1b}[2J").to_json()).await;
    assert!(
        line.ends_with("door  down: gone\\u{1b}[2J (refused)"),
        "{line}"
    );
    server.kill().unwrap();
    watch.error_with("the broker is away");
    server.restart().unwrap();
    watch.error_with("the broker is back");
    let client = async_nats::connect(server.url()).await.unwrap();
    let line = line_while_publishing(&watch, &client, "no message of ours".into()).await;
    // Messages of the first kind may still have been on their way.
    assert!(line.contains("door"), "{line}");
    assert!(ends_well(&mut watch));
}

#[test]
fn without_a_broker_it_says_so_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::absent(dir.path(), "").unwrap();
    let url = server.url().replace("//", "//anna:s3cret@");
    let output = vita_watch(&url, &[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("connection refused") && text.contains("is the broker running"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn it_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let output = vita_watch(&server.url(), &["--for", "1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_stream_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let output = vita_watch(&server.url(), &["--since", "1h", "--stream", "NONE"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("stream NONE"),
        "{text}"
    );
}
