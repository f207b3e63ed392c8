//! Prints what vita-stream says, as a program of yours might read it.
//!
//! ```sh
//! cargo run --example subscribe                      # vita.> at nats://localhost:4222
//! NATS_URL=nats://broker cargo run --example subscribe -- 'vita.*.event.speech'
//! ```

use futures::StreamExt;
use vita_messages::kinds::SpeechEdge;
use vita_messages::{Body, Message, ParseError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://localhost:4222".into());
    let subject = std::env::args().nth(1).unwrap_or_else(|| "vita.>".into());
    let client = async_nats::connect(url).await?;
    let mut messages = client.subscribe(subject.clone()).await?;
    client.flush().await?;
    eprintln!("listening to {subject}");
    while let Some(message) = messages.next().await {
        match Message::from_json(&message.payload) {
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

fn describe(body: &Body) -> String {
    match body {
        Body::Speech(speech) if speech.edge == SpeechEdge::Start => {
            format!("speech {} starts", speech.utterance_id)
        }
        Body::Speech(speech) => format!("speech {} ends", speech.utterance_id),
        Body::Source(source) => format!("source is {:?}", source.state),
        other => format!("{other:?}"),
    }
}
