//! Prints what vita-stream says, as a program of yours might read it. Words of an answer that is over are passed over.
//!
//! ```sh
//! cargo run --example subscribe                      # vita.> at nats://localhost:4222
//! NATS_URL=nats://broker cargo run --example subscribe -- 'vita.*.event.speech'
//! ```

use std::collections::HashMap;

use futures::StreamExt;
use vita_messages::kinds::SpeechEdge;
use vita_messages::{Body, Message, ParseError, SourceName};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://localhost:4222".into());
    let subject = std::env::args().nth(1).unwrap_or_else(|| "vita.>".into());
    let client = async_nats::connect(url).await?;
    let mut messages = client.subscribe(subject.clone()).await?;
    client.flush().await?;
    eprintln!("listening to {subject}");
    let mut newest = Newest::default();
    while let Some(message) = messages.next().await {
        match Message::from_json(&message.payload) {
            Ok(event) if newest.is_stale(&event) => {}
            Ok(event) => println!("{} {}: {}", event.time, event.source, describe(&event.body)),
            // A newer version may say more; a reader of today goes on.
            Err(ParseError::UnknownType(kind)) => {
                println!("{}: something of type {kind}", message.subject)
            }
            Err(error) => eprintln!("{}: {error}", message.subject),
        }
    }
    Ok(())
}

/// The newest answer of each source: (session, generation).
#[derive(Default)]
struct Newest(HashMap<SourceName, (u64, u64)>);

impl Newest {
    /// Words of an answer older than one that was already met.
    fn is_stale(&mut self, event: &Message) -> bool {
        let generation = match &event.body {
            Body::Delta(delta) => (delta.session_id, delta.generation_id),
            Body::Query(query) => (query.session_id, query.generation_id),
            _ => return false,
        };
        let newest = self.0.entry(event.source.clone()).or_default();
        *newest = generation.max(*newest);
        generation < *newest
    }
}

fn describe(body: &Body) -> String {
    match body {
        Body::Speech(speech) if speech.edge == SpeechEdge::Start => {
            format!("speech {} starts", speech.utterance_id)
        }
        Body::Speech(speech) => format!("speech {} ends", speech.utterance_id),
        Body::Source(source) => format!("source is {:?}", source.state),
        Body::Query(query) => format!("question {} is taken", query.turn_id),
        Body::Delta(delta) => format!("answer {}... {}", delta.generation_id, delta.text),
        Body::Answer(answer) => {
            let cut_off = answer.cut_off.as_ref().map(|_| " (cut off)");
            let cut_off = cut_off.unwrap_or_default();
            format!("answer {}: {}{cut_off}", answer.generation_id, answer.text)
        }
        other => format!("{other:?}"),
    }
}
