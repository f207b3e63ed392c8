//! Durable messages a second, acknowledged: the publisher beside plain async-nats with the same number of acknowledgements in flight.
//!
//! ```sh
//! cargo run --workspace --release --example publish_rate -- [MESSAGES] [ROUNDS]
//! ```

use std::time::{Duration, Instant};

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;
use futures::stream::{FuturesUnordered, StreamExt};
use vita_messages::kinds::{Speech, SpeechEdge};
use vita_messages::testing::NatsServer;
use vita_messages::{Message, Options, Prefix, Publisher, ServerUrl, SourceName};

const IN_FLIGHT: usize = 512;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let number = |index, default| {
        std::env::args()
            .nth(index)
            .map_or(Ok(default), |text| text.parse())
    };
    let (count, rounds) = (number(1, 50_000)?, number(2, 5)?);
    let messages = messages(count)?;
    println!(
        "{count} messages of {} bytes, {IN_FLIGHT} acknowledgements in flight",
        messages[0].to_json().len()
    );
    for round in 0..=rounds {
        // The first one warms up. Each has a broker and a store of its own.
        let (plain, published) = (plain(&messages).await?, published(&messages).await?);
        let rate = |time: Duration| f64::from(count) / time.as_secs_f64();
        if round > 0 {
            println!(
                "round {round}: async-nats {:.0}/s, publisher {:.0}/s",
                rate(plain),
                rate(published)
            );
        }
    }
    Ok(())
}

fn messages(count: u32) -> Result<Vec<Message>> {
    let source = SourceName::new("front-door")?;
    let message = |number| {
        let speech = Speech {
            edge: SpeechEdge::Start,
            utterance_id: u64::from(number),
            stream_time_ns: 0,
            running_time_ns: 0,
            capture_time: None,
            start_stream_time_ns: None,
            duration_ns: None,
            accepted: None,
            reason: None,
            probability: 0.5,
        };
        Message::now(&source, speech)
    };
    Ok((0..count).map(message).collect())
}

async fn plain(messages: &[Message]) -> Result<Duration> {
    let dir = tempfile::tempdir()?;
    let server = NatsServer::start(dir.path())?;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    let prefix = Prefix::default();
    let config = Config {
        name: "VITA".into(),
        subjects: prefix.durable_subjects(),
        ..Config::default()
    };
    context.create_stream(config).await?;
    let start = Instant::now();
    let mut acks = FuturesUnordered::new();
    for message in messages {
        let publish = PublishMessage::build()
            .payload(message.to_json().into())
            .message_id(&message.id);
        acks.push(
            context
                .send_publish(message.subject(&prefix), publish)
                .await?
                .into_future(),
        );
        if acks.len() == IN_FLIGHT {
            acks.next().await.transpose()?;
        }
    }
    while acks.next().await.transpose()?.is_some() {}
    Ok(start.elapsed())
}

async fn published(messages: &[Message]) -> Result<Duration> {
    let dir = tempfile::tempdir()?;
    let server = NatsServer::start(dir.path())?;
    let mut options = Options::new(
        ServerUrl::parse_list(&server.url())?,
        dir.path().join("spool"),
    );
    options.max_in_flight = IN_FLIGHT;
    let publisher = Publisher::connect(options).await?;
    publisher
        .status()
        .wait_for(|status| status.server.is_some())
        .await?;
    let start = Instant::now();
    for message in messages {
        while publisher.room() == 0 {
            tokio::task::yield_now().await;
        }
        publisher.publish(message)?;
    }
    let drained = publisher.close(Duration::from_secs(600)).await;
    assert_eq!(drained.remaining, 0, "{:?}", publisher.stats());
    Ok(start.elapsed())
}
