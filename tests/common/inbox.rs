//! A subscriber that keeps all that it gets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use futures::StreamExt as _;
use tokio::time::sleep;
use vita_messages::kinds::{Body, Frame, Source, SourceStatus, Speech, SpeechEdge};
use vita_messages::{Message, StreamOptions};

use super::PATIENCE;

/// Events come from JetStream, from the first one kept; frames as they come.
#[derive(Clone)]
pub struct Inbox {
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Inbox {
    /// Waits for the broker and for the stream, which `vita run` makes.
    pub async fn open(url: &str) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let client = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .connect(url)
            .await
            .unwrap();
        let mut frames = client.subscribe("vita.*.frame").await.unwrap();
        let kept = Arc::clone(&messages);
        tokio::spawn(async move {
            while let Some(frame) = frames.next().await {
                kept.lock()
                    .unwrap()
                    .push(Message::from_json(&frame.payload).unwrap());
            }
        });
        let context = jetstream::new(client);
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match context.get_stream(StreamOptions::default().name).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "no stream: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let ordered = consumer::pull::OrderedConfig {
            deliver_policy: consumer::DeliverPolicy::All,
            ..Default::default()
        };
        let mut events = stream
            .create_consumer(ordered)
            .await
            .unwrap()
            .messages()
            .await
            .unwrap();
        let kept = Arc::clone(&messages);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                // The consumer is made anew when the broker was away.
                if let Ok(event) = event {
                    kept.lock()
                        .unwrap()
                        .push(Message::from_json(&event.payload).unwrap());
                }
            }
        });
        Self { messages }
    }

    pub fn all(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// Those that JetStream keeps.
    pub fn kept(&self) -> Vec<Message> {
        let mut all = self.all();
        all.retain(|message| message.kind().place().is_durable());
        all
    }

    /// How many there are of all sources: a mark to look from later.
    pub fn mark(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// Those of a source since a mark.
    pub fn of(&self, source: &str, mark: usize) -> Vec<Body> {
        let messages = self.messages.lock().unwrap();
        messages[mark..]
            .iter()
            .filter(|message| message.source.as_str() == source)
            .map(|message| message.body.clone())
            .collect()
    }

    pub fn speech(&self, source: &str, mark: usize, edge: SpeechEdge) -> Vec<Speech> {
        let speech = |body| {
            if let Body::Speech(speech) = body {
                Some(speech)
            } else {
                None
            }
        };
        self.of(source, mark)
            .into_iter()
            .filter_map(speech)
            .filter(|speech| speech.edge == edge)
            .collect()
    }

    pub fn frames(&self, source: &str, mark: usize) -> Vec<Frame> {
        let frame = |body| {
            if let Body::Frame(frame) = body {
                Some(frame)
            } else {
                None
            }
        };
        self.of(source, mark)
            .into_iter()
            .filter_map(frame)
            .collect()
    }

    pub fn states(&self, source: &str, mark: usize) -> Vec<Source> {
        let state = |body| {
            if let Body::Source(state) = body {
                Some(state)
            } else {
                None
            }
        };
        self.of(source, mark)
            .into_iter()
            .filter_map(state)
            .collect()
    }

    /// Waits for a state of a source, and returns it with the mark behind it.
    pub async fn state(&self, source: &str, mark: usize, state: SourceStatus) -> (Source, usize) {
        let what = format!("{source} {state:?}");
        self.wait(&what, || {
            let messages = self.messages.lock().unwrap();
            messages
                .iter()
                .enumerate()
                .skip(mark)
                .find_map(|(at, message)| match &message.body {
                    Body::Source(body)
                        if body.state == state && message.source.as_str() == source =>
                    {
                        Some((body.clone(), at + 1))
                    }
                    _ => None,
                })
        })
        .await
    }

    /// Waits until something can be said of what came.
    pub async fn wait<T>(&self, what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = reached() {
                return value;
            }
            if Instant::now() > deadline {
                let all = self.all();
                let said: Vec<_> = all
                    .iter()
                    .filter(|message| !matches!(message.body, Body::Frame(_)))
                    .collect();
                panic!(
                    "not within {} s: {what}; {} messages, those kept: {said:#?}",
                    PATIENCE.as_secs(),
                    all.len()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
