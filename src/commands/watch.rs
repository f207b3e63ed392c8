mod dialogue;
pub(super) mod render;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::{Client, ConnectOptions, Event};
use futures::future::Either;
use futures::stream::{self, BoxStream, StreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vita_messages::Message;

pub use self::screen::Screen;
use super::broker::BrokerArgs;
use crate::terminal::plain;

/// Present on what JetStream keeps.
const MESSAGE_ID: &str = "Nats-Msg-Id";

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to listen to, with * and > as wildcards of NATS
    #[arg(default_value = "vita.>")]
    subject: String,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print each message as one line of JSON, as it came
    #[arg(long)]
    json: bool,
    /// First what the broker has kept since then: a duration (90s, 15m, 2h, 1d) or a time (2026-11-23T08:00:00Z)
    #[arg(long, value_parser = parse_since, value_name = "WHEN")]
    since: Option<Since>,
    /// The JetStream stream that --since reads
    #[arg(long, default_value = "VITA")]
    stream: String,
    /// End after so many messages
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECS")]
    for_secs: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Ago(Duration),
    Time(OffsetDateTime),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Since::Time(time));
    }
    let secs = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(24 * 3600),
        _ => None,
    };
    let ago = || {
        let unit = text.chars().last()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(secs(unit)?)?))
    };
    ago().map(Since::Ago).ok_or_else(|| {
        "write a duration like 90s, 15m, 2h or 1d, or a time like 2026-11-23T08:00:00Z".into()
    })
}

struct Received {
    subject: String,
    payload: bytes::Bytes,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(watch(args))
}

async fn watch(args: &Args) -> anyhow::Result<ExitCode> {
    let client = args
        .broker
        .broker()?
        .connect_with(report_connection)
        .await?;
    let mut messages = messages(args, client)
        .await?
        .take(args.count.map_or(usize::MAX, |count| {
            usize::try_from(count).unwrap_or(usize::MAX)
        }));
    let end = args.for_secs.map_or_else(
        || Either::Left(futures::future::pending()),
        |secs| Either::Right(tokio::time::sleep(Duration::from_secs(secs))),
    );
    let mut end = std::pin::pin!(end);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut screen = Screen::new(io::stdout().is_terminal());
    loop {
        tokio::select! {
            received = messages.next() => {
                let Some(received) = received else { return Ok(ExitCode::SUCCESS) };
                match print(args, &mut screen, &received?) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    printed => printed.context("cannot write to standard output")?,
                }
            }
            () = &mut end => return Ok(ExitCode::SUCCESS),
            _ = &mut interrupt => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Says on standard error when the connection goes and comes; it is made anew by itself.
fn report_connection(options: ConnectOptions) -> ConnectOptions {
    let was_lost = std::sync::atomic::AtomicBool::new(false);
    options.event_callback(move |event| {
        match event {
            Event::Disconnected => {
                was_lost.store(true, std::sync::atomic::Ordering::Relaxed);
                eprintln!("vita: the broker is away; waiting for it");
            }
            Event::Connected if was_lost.swap(false, std::sync::atomic::Ordering::Relaxed) => {
                eprintln!("vita: the broker is back")
            }
            Event::ServerError(error) => {
                eprintln!("vita: the broker says: {}", plain(&error.to_string()))
            }
            Event::SlowConsumer(_) => {
                eprintln!("vita: messages come faster than they can be printed; some are missing")
            }
            _ => {}
        }
        std::future::ready(())
    })
}

async fn messages(
    args: &Args,
    client: Client,
) -> anyhow::Result<BoxStream<'static, anyhow::Result<Received>>> {
    let subject = || format!("cannot subscribe to {}", plain(&args.subject));
    let live = client
        .subscribe(args.subject.clone())
        .await
        .with_context(subject)?;
    let is_replaying = args.since.is_some();
    // With a replay, what is kept comes from there, before and from now on.
    let live = live.filter(move |message| {
        let is_kept = message
            .headers
            .as_ref()
            .is_some_and(|headers| headers.get(MESSAGE_ID).is_some());
        std::future::ready(!(is_replaying && is_kept))
    });
    let live = live.map(|message| {
        Ok(Received {
            subject: message.subject.to_string(),
            payload: message.payload,
        })
    });
    let Some(since) = args.since else {
        client.flush().await.with_context(subject)?;
        return Ok(live.boxed());
    };
    Ok(stream::select(kept(args, since, client).await?, live).boxed())
}

async fn kept(
    args: &Args,
    since: Since,
    client: Client,
) -> anyhow::Result<BoxStream<'static, anyhow::Result<Received>>> {
    let start_time = match since {
        Since::Ago(ago) => OffsetDateTime::now_utc()
            .checked_sub(ago.try_into()?)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH),
        Since::Time(time) => time,
    };
    let no_stream = || {
        format!(
            "cannot read what the stream {} has kept; --stream names another",
            plain(&args.stream)
        )
    };
    let stream = async_nats::jetstream::new(client)
        .get_stream(&args.stream)
        .await
        .with_context(no_stream)?;
    let config = OrderedConfig {
        filter_subject: args.subject.clone(),
        deliver_policy: DeliverPolicy::ByStartTime { start_time },
        ..OrderedConfig::default()
    };
    let consumer = stream
        .create_consumer(config)
        .await
        .with_context(no_stream)?;
    let messages = consumer.messages().await.with_context(no_stream)?;
    let received = messages.map(|message| {
        let message = message.context("cannot go on reading what the broker has kept")?;
        Ok(Received {
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
        })
    });
    Ok(received.boxed())
}

fn print(args: &Args, screen: &mut Screen, received: &Received) -> io::Result<()> {
    let text = if args.json {
        json_line(received) + "\n"
    } else {
        human_text(screen, received)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The message as it is where it is JSON; otherwise an object with its subject and text.
fn json_line(received: &Received) -> String {
    match serde_json::from_slice::<&serde_json::value::RawValue>(&received.payload) {
        // Control characters of JSON are white space, or stand in strings where `\u` may stand for them.
        Ok(json) => json
            .get()
            .chars()
            .map(|c| match c {
                '\n' | '\r' | '\t' => " ".to_owned(),
                c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect(),
        Err(_) => {
            let text = String::from_utf8_lossy(&received.payload);
            serde_json::json!({ "subject": received.subject, "payload": text }).to_string()
        }
    }
}

fn human_text(screen: &mut Screen, received: &Received) -> String {
    match Message::from_json(&received.payload) {
        Ok(message) => screen.show(&message),
        Err(_) => screen.line(&format!(
            "{}  {}",
            received.subject,
            String::from_utf8_lossy(&received.payload)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(payload: &'static str) -> Received {
        Received {
            subject: "vita.door.event.mood".into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(parse_since("15m"), Ok(Since::Ago(Duration::from_secs(900))));
        assert!(matches!(
            parse_since("2026-11-23T08:00:00Z"),
            Ok(Since::Time(_))
        ));
        for text in [
            "",
            "m",
            "5",
            "5y",
            "99999999999999999999d",
            "18446744073709551615d",
            "é",
        ] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_that_is_not_known_is_printed_as_it_is() {
        assert_eq!(
            human_text(&mut Screen::new(true), &received("hello\u{1b}[1m")),
            "vita.door.event.mood  hello\\u{1b}[1m\n"
        );
    }

    #[test]
    fn json_stays_json_on_one_line() {
        assert_eq!(
            json_line(&received("{\n \"a\": \"\u{9b}x\" }")),
            "{  \"a\": \"\\u009bx\" }"
        );
        assert_eq!(
            json_line(&received("no json")),
            r#"{"payload":"no json","subject":"vita.door.event.mood"}"#
        );
    }
}
