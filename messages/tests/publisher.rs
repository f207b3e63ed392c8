//! The publisher against a real broker that comes late, goes, freezes and comes back.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, assert_flow, numbers, options, publish, speech, stored, wait_for};
use futures::StreamExt;
use vita_messages::kinds::{
    Frame, FrameReason, LostCause, Source, SourceReason, SourceReasonKind, SourceStatus,
};
use vita_messages::testing::{Certificate, NatsServer};
use vita_messages::{Body, Message, Options, PublishError, Publisher, ServerUrl, SourceName};

fn frame() -> Message {
    let frame = Frame {
        stream_time_ns: 1,
        running_time_ns: 1,
        capture_time: None,
        reason: FrameReason::Rate,
        kept: 1,
        keyframe: true,
    };
    Message::now(&SourceName::new("door").unwrap(), frame)
}

fn source_down(text: String) -> Message {
    let reason = Some(SourceReason {
        kind: SourceReasonKind::Other,
        text,
    });
    let down = Source {
        state: SourceStatus::Down,
        reason,
        attempt: 1,
        next_retry: None,
        media: Vec::new(),
    };
    Message::now(&SourceName::new("door").unwrap(), down)
}

async fn all_arrived(publisher: &Publisher, count: u64) {
    wait_for(publisher, "arrival of all", |stats| {
        stats.accepted >= count && stats.pending == 0
    })
    .await;
}

#[tokio::test]
async fn messages_published_before_the_broker_is_there_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    for number in 0..300 {
        publish(&publisher, &speech(number)).await;
    }
    wait_for(&publisher, "attempt", |stats| stats.pending == 300).await;
    publisher
        .status()
        .wait_for(|status| status.error.is_some())
        .await
        .unwrap();
    assert!(
        publisher
            .status()
            .borrow()
            .error
            .as_ref()
            .unwrap()
            .contains("connection refused")
    );
    server.restart().unwrap();
    all_arrived(&publisher, 300).await;
    assert_flow(&stored(&server).await, 300);
    assert_eq!(publisher.stats().lost, 0);
}

#[tokio::test]
async fn a_broker_that_is_killed_in_mid_flow_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start_with(dir.path(), "").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    for number in 0..3000 {
        publish(&publisher, &speech(number)).await;
        if number % 1000 == 500 {
            wait_for(&publisher, "flow", |stats| stats.acknowledged > number / 2).await;
            server.kill().unwrap();
        }
        if number % 1000 == 700 {
            server.restart().unwrap();
        }
    }
    all_arrived(&publisher, 3000).await;
    assert_flow(&stored(&server).await, 3000);
    assert!(
        publisher.stats().connections >= 4,
        "{:?}",
        publisher.stats()
    );
}

#[tokio::test]
async fn a_frozen_broker_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let mut options = options(&server, dir.path());
    options.ack_timeout = Duration::from_millis(300);
    let publisher = Publisher::connect(options).await.unwrap();
    for number in 0..500 {
        publish(&publisher, &speech(number)).await;
        if number == 250 {
            wait_for(&publisher, "flow", |stats| stats.acknowledged > 100).await;
            server.freeze().unwrap();
        }
    }
    publisher
        .status()
        .wait_for(|status| status.error.is_some())
        .await
        .unwrap();
    assert!(publisher.stats().pending > 0);
    server.thaw().unwrap();
    all_arrived(&publisher, 500).await;
    assert_flow(&stored(&server).await, 500);
}

#[tokio::test]
async fn what_the_spool_has_no_room_for_is_counted_and_announced_where_the_gap_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let mut options = options(&server, dir.path());
    options.spool.max_bytes = 64 << 10;
    let publisher = Publisher::connect(options).await.unwrap();
    for number in 0..1000 {
        publish(&publisher, &speech(number)).await;
    }
    wait_for(&publisher, "spool", |stats| stats.accepted == 1000).await;
    let before = publisher.stats();
    assert!(
        before.lost > 0 && before.pending + before.lost == 1000,
        "{before:?}"
    );
    assert!(before.spool_bytes <= 64 << 10);
    server.restart().unwrap();
    all_arrived(&publisher, 1000).await;
    // The notice comes with the rest, and is not counted as pending.
    wait_for(&publisher, "notice", |stats| {
        stats.acknowledged == before.pending + 1
    })
    .await;
    let stored = stored(&server).await;
    let Body::Lost(lost) = &stored[0].body else {
        panic!("{:?}", stored[0])
    };
    assert_eq!(
        (lost.count, lost.cause),
        (before.lost, LostCause::SpoolFull)
    );
    assert_eq!(numbers(&stored), (before.lost..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_queue_has_no_room_for_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let mut options = options(&server, dir.path());
    options.durable_queue = 4;
    let publisher = Publisher::connect(options).await.unwrap();
    // On this single thread the task cannot run in between.
    let refused = (0..10)
        .filter(|number| publisher.publish(&speech(*number)).is_err())
        .count();
    assert_eq!(refused, 6);
    wait_for(&publisher, "notice", |stats| stats.acknowledged == 5).await;
    let stored = stored(&server).await;
    let lost = stored.iter().find_map(|message| match &message.body {
        Body::Lost(lost) => Some((lost.count, lost.cause)),
        _ => None,
    });
    assert_eq!(lost, Some((6, LostCause::QueueFull)));
    assert_eq!(numbers(&stored), [0, 1, 2, 3]);
    assert_eq!(publisher.stats().lost, 6);
}

#[tokio::test]
async fn a_message_that_the_broker_finds_too_large_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start_with(dir.path(), "max_payload: 2048").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    publish(&publisher, &speech(0)).await;
    publish(&publisher, &source_down("x".repeat(4096))).await;
    publish(&publisher, &speech(1)).await;
    wait_for(&publisher, "notice", |stats| {
        stats.acknowledged == 3 && stats.pending == 0
    })
    .await;
    let stored = stored(&server).await;
    assert_eq!(numbers(&stored), [0, 1]);
    assert!(stored.iter().any(
        |message| matches!(&message.body, Body::Lost(lost) if lost.cause == LostCause::TooLarge)
    ));
    let far_too_large = publisher.publish(&source_down("x".repeat(2 << 20)));
    assert!(matches!(far_too_large, Err(PublishError::TooLarge { .. })));
}

#[tokio::test]
async fn transient_messages_go_out_now_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    publisher.publish(&frame()).unwrap();
    wait_for(&publisher, "drop", |stats| stats.live_dropped == 1).await;
    server.restart().unwrap();
    publisher
        .status()
        .wait_for(|status| status.server.is_some())
        .await
        .unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut subscription = client.subscribe("vita.door.frame").await.unwrap();
    let sent = frame();
    // Only the broker knows when it has heard of the subscription.
    let mut tries = 0;
    let received = loop {
        publisher.publish(&sent).unwrap();
        tries += 1;
        let next = tokio::time::timeout(Duration::from_millis(100), subscription.next()).await;
        match next {
            Ok(message) => break message.unwrap(),
            Err(_) => assert!(tries < 1000, "{:?}", publisher.stats()),
        }
    };
    assert_eq!(Message::from_json(&received.payload).unwrap(), sent);
    wait_for(&publisher, "count", |stats| stats.live_sent == tries).await;
    assert_eq!(publisher.stats().live_dropped, 1);
}

#[tokio::test]
async fn closing_sends_what_is_there_and_gives_the_spool_free() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    for number in 0..200 {
        publish(&publisher, &speech(number)).await;
    }
    assert_eq!(publisher.close(PATIENCE).await.remaining, 0);
    assert_eq!(publisher.publish(&speech(200)), Err(PublishError::Closed));
    assert_flow(&stored(&server).await, 200);
    Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
}

#[tokio::test]
async fn closing_without_a_broker_is_bounded_and_leaves_the_rest_to_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    for number in 0..50 {
        publish(&publisher, &speech(number)).await;
    }
    assert_eq!(
        publisher.close(Duration::from_millis(50)).await.remaining,
        50
    );
    server.restart().unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    wait_for(&publisher, "arrival", |stats| stats.acknowledged == 50).await;
    assert_flow(&stored(&server).await, 50);
}

#[tokio::test]
async fn a_spool_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::absent(dir.path(), "").unwrap();
    let _first = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    let second = Publisher::connect(options(&server, dir.path()))
        .await
        .err()
        .unwrap();
    assert!(
        second.to_string().contains("in use by another process"),
        "{second}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_told_without_telling_it() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        NatsServer::start_with(dir.path(), "authorization { user: anna, password: right }")
            .unwrap();
    let url = format!("nats://anna:wr0ng@127.0.0.1:{}", server.port());
    let publisher = Publisher::connect(Options::new(
        vec![ServerUrl::parse(&url).unwrap()],
        dir.path().join("spool"),
    ))
    .await
    .unwrap();
    publisher.publish(&speech(0)).unwrap();
    let error = publisher
        .status()
        .wait_for(|status| status.error.is_some())
        .await
        .unwrap()
        .error
        .clone()
        .unwrap();
    assert!(
        error.contains("not let in") && !error.contains("wr0ng"),
        "{error}"
    );

    let url = format!("nats://anna:right@127.0.0.1:{}", server.port());
    publisher.close(Duration::ZERO).await;
    let publisher = Publisher::connect(Options::new(
        vec![ServerUrl::parse(&url).unwrap()],
        dir.path().join("spool"),
    ))
    .await
    .unwrap();
    wait_for(&publisher, "arrival", |stats| stats.acknowledged == 1).await;
}

#[tokio::test]
async fn an_existing_stream_keeps_what_its_operator_has_set() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "VITA".into(),
        subjects: vec!["other.>".into()],
        max_messages_per_subject: 77,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    publish(&publisher, &speech(0)).await;
    wait_for(&publisher, "arrival", |stats| stats.acknowledged == 1).await;
    let config = context
        .get_stream("VITA")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(
        config.subjects,
        ["other.>", "vita.*.event.>", "vita.*.answer"]
    );
    assert_eq!(config.max_messages_per_subject, 77);
    assert_eq!(config.duplicate_window, Duration::from_secs(600));
}

/// The process that the next test kills.
#[tokio::test]
#[ignore = "a process of its own, run by a_process_killed_with_a_full_spool"]
async fn publish_until_killed() {
    let (Ok(url), Ok(dir)) = (std::env::var("TEST_NATS_URL"), std::env::var("TEST_SPOOL")) else {
        return;
    };
    let publisher = Publisher::connect(Options::new(vec![ServerUrl::parse(&url).unwrap()], dir))
        .await
        .unwrap();
    for number in 0.. {
        publish(&publisher, &speech(number)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn start_publishing(url: &str, spool: &std::path::Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "publish_until_killed", "--ignored"])
        .env("TEST_NATS_URL", url)
        .env("TEST_SPOOL", spool)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn wait_for_spool(spool: &std::path::Path, bytes: u64) {
    let size = || {
        let entries = std::fs::read_dir(spool).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .map(|data| data.len())
            .sum::<u64>()
    };
    let end = std::time::Instant::now() + PATIENCE;
    while size() < bytes {
        assert!(
            std::time::Instant::now() < end,
            "spool has {} bytes",
            size()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_process_killed_with_a_full_spool_loses_nothing_that_it_had_written() {
    for is_broker_there in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = NatsServer::absent(dir.path(), "").unwrap();
        if is_broker_there {
            server.restart().unwrap();
        }
        let spool = dir.path().join("spool");
        let mut child = start_publishing(&server.url(), &spool);
        wait_for_spool(&spool, 60_000).await;
        child.kill().unwrap();
        child.wait().unwrap();
        if !is_broker_there {
            server.restart().unwrap();
        }
        let publisher = Publisher::connect(options(&server, dir.path()))
            .await
            .unwrap();
        wait_for(&publisher, "arrival", |stats| {
            stats.connections > 0 && stats.pending == 0
        })
        .await;
        let stored = stored(&server).await;
        assert!(stored.len() > 100, "{}", stored.len());
        assert_flow(&stored, stored.len() as u64);
    }
}

#[tokio::test]
async fn a_torn_record_is_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    for number in 0..10 {
        publish(&publisher, &speech(number)).await;
    }
    publisher.close(Duration::ZERO).await;
    let entries = std::fs::read_dir(dir.path().join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = entries
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "spool")
        })
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap();
    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    server.restart().unwrap();
    let publisher = Publisher::connect(options(&server, dir.path()))
        .await
        .unwrap();
    publish(&publisher, &speech(9)).await;
    wait_for(&publisher, "arrival", |stats| stats.acknowledged == 10).await;
    assert_flow(&stored(&server).await, 10);
    assert_eq!(publisher.stats().spool_damaged, 1);
}

#[tokio::test]
async fn tls_is_made_where_the_authority_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), "IP:127.0.0.1").unwrap();
    let config = format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}",
        certificate.cert_file, certificate.key_file
    );
    let server = NatsServer::start_with(dir.path(), &config).unwrap();
    let mut options = options(&server, dir.path());
    let publisher = Publisher::connect(options.clone()).await.unwrap();
    publisher.publish(&speech(0)).unwrap();
    let mut status = publisher.status();
    let error = status.wait_for(|status| status.error.is_some()).await;
    let error = error.unwrap().error.clone().unwrap();
    assert!(error.contains("no secure connection"), "{error}");
    publisher.close(Duration::ZERO).await;

    options.broker.tls_ca_file = Some(certificate.ca_file);
    let publisher = Publisher::connect(options).await.unwrap();
    wait_for(&publisher, "arrival", |stats| stats.acknowledged == 1).await;
}
