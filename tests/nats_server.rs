//! The embedded broker, as a real process.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use common::process;
use vita_stream::nats_server::{EmbeddedNats, Error};

async fn stream_messages(url: &str) -> u64 {
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connect(url)
        .await
        .unwrap();
    let config = stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    let stream = jetstream::new(client)
        .get_or_create_stream(config)
        .await
        .unwrap();
    stream.cached_info().state.messages
}

async fn publish(url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    jetstream::new(client)
        .publish("kept", "x".into())
        .await
        .unwrap()
        .await
        .unwrap();
}

/// The process that listens on the port, by way of its ports file.
fn server_pid(store: &Path) -> u32 {
    let names = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pids = names.filter_map(|name| {
        name.strip_suffix(".ports")?
            .rsplit_once('_')?
            .1
            .parse()
            .ok()
    });
    pids.next().expect("a ports file")
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_store_and_its_port_when_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let nats = EmbeddedNats::start(dir.path(), 0, None).await.unwrap();
    assert_eq!(stream_messages(nats.url()).await, 0);
    publish(nats.url()).await;

    let first = server_pid(dir.path());
    assert!(
        Command::new("sh")
            .args(["-c", &format!("kill -KILL {first}")])
            .status()
            .unwrap()
            .success()
    );
    process::wait_until("it is gone", || !process::is_running(first));
    assert_eq!(
        stream_messages(nats.url()).await,
        1,
        "on the same address, with what was kept"
    );
    let second = server_pid(dir.path());
    assert_ne!(first, second);

    let url = nats.url().to_owned();
    nats.stop().await;
    assert!(!process::is_running(second));
    assert!(async_nats::connect(&url).await.is_err());

    let again = EmbeddedNats::start(dir.path(), 0, None).await.unwrap();
    assert_eq!(stream_messages(again.url()).await, 1);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_belongs_to_one_broker() {
    let dir = tempfile::tempdir().unwrap();
    let nats = EmbeddedNats::start(dir.path(), 0, None).await.unwrap();
    let error = EmbeddedNats::start(dir.path(), 0, None).await.unwrap_err();
    assert!(
        matches!(&error, Error::StoreInUse { dir: in_use } if in_use == dir.path()),
        "{error}"
    );
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = EmbeddedNats::start(dir.path(), port, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("address already in use"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_broker_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = EmbeddedNats::start(dir.path(), 0, Some(Path::new("/bin/true")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
}

#[test]
fn it_ends_with_its_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nats = runtime
        .block_on(EmbeddedNats::start(dir.path(), 0, None))
        .unwrap();
    let pid = server_pid(dir.path());
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(nats);
    process::wait_until("it is gone", || !process::is_running(pid));
}
