//! What the tests with a broker share.

use std::time::{Duration, Instant};

use futures::StreamExt;
use vita_messages::kinds::{Speech, SpeechEdge};
use vita_messages::testing::NatsServer;
use vita_messages::{Body, Message, Options, Publisher, ServerUrl, SourceName, Stats, WallTime};

/// Nothing here takes long; a busy machine may.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn options(server: &NatsServer, dir: &std::path::Path) -> Options {
    let mut options = Options::new(
        ServerUrl::parse_list(&server.url()).unwrap(),
        dir.join("spool"),
    );
    options.retry_initial = Duration::from_millis(20);
    options.retry_max = Duration::from_millis(200);
    options.broker.connect_timeout = Duration::from_secs(2);
    options
}

/// The `number`th message of a flow.
pub fn speech(number: u64) -> Message {
    let start = Speech {
        edge: SpeechEdge::Start,
        utterance_id: number,
        stream_time_ns: number * 20_000_000,
        running_time_ns: number * 20_000_000,
        capture_time: None,
        start_stream_time_ns: None,
        duration_ns: None,
        accepted: None,
        reason: None,
        probability: 0.75,
    };
    Message::new(
        &SourceName::new("door").unwrap(),
        WallTime::from_unix_ns(1_764_000_000_000_000_000 + number),
        start,
    )
}

pub async fn wait_for(publisher: &Publisher, what: &str, is_reached: impl Fn(&Stats) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_reached(&publisher.stats()) {
        assert!(
            Instant::now() < end,
            "no {what}: {:?}, {:?}",
            publisher.stats(),
            *publisher.status().borrow()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publishes, waiting where the queue is full.
pub async fn publish(publisher: &Publisher, message: &Message) {
    while publisher.room() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    publisher.publish(message).unwrap();
}

/// Everything that the stream keeps, in its order.
pub async fn stored(server: &NatsServer) -> Vec<Message> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("VITA")
        .await
        .unwrap();
    let count = usize::try_from(stream.cached_info().state.messages).unwrap();
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    messages
        .map(|message| Message::from_json(&message.unwrap().payload).unwrap())
        .collect()
        .await
}

pub fn numbers(messages: &[Message]) -> Vec<u64> {
    let number = |message: &Message| match &message.body {
        Body::Speech(speech) => Some(speech.utterance_id),
        _ => None,
    };
    messages.iter().filter_map(number).collect()
}

/// Nothing lost, nothing twice, all in order.
#[track_caller]
pub fn assert_flow(messages: &[Message], count: u64) {
    assert_eq!(numbers(messages), (0..count).collect::<Vec<_>>());
}
