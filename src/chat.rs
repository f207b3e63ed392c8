//! A conversation in a terminal: a deployment of one source with a broker of its own, of which this is the subscriber.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use async_nats::{Client, Request};
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vita_messages::kinds::SourceStatus;
use vita_messages::service::{AskRequest, Command, MAX_WAIT_MS};
use vita_messages::{Body, Message, Prefix, SourceName};

use crate::commands::Screen;
use crate::nats_server::EmbeddedNats;
use crate::plan::{NatsServer, Plan, Secret};

/// Name of the one source.
pub const SOURCE: &str = "chat";

/// What a conversation needs.
pub struct Chat {
    pub plan: Plan,
    /// Of the broker.
    pub store_dir: PathBuf,
    /// Typed questions; closed at their end.
    pub lines: mpsc::Receiver<String>,
    /// Otherwise the end of the lines, once they are answered, is the end of the conversation.
    pub has_media: bool,
    /// Somebody types: a line interrupts the answer to the one before. Otherwise it waits for it.
    pub is_interactive: bool,
    /// Words are appended to the line as they come.
    pub streams_words: bool,
}

/// Until it is interrupted, the source ends, or nobody can ask any more.
pub async fn run(chat: Chat, print: impl FnMut(&str) -> io::Result<()>) -> anyhow::Result<()> {
    let Chat {
        mut plan,
        store_dir,
        lines,
        has_media,
        is_interactive,
        streams_words,
    } = chat;
    let broker = EmbeddedNats::start(&store_dir, 0, None).await?;
    plan.nats.server = NatsServer::Remote {
        url: Secret::new(broker.url()),
        credentials_file: None,
        token: None,
        tls_ca_file: None,
    };
    plan.nats.spool_dir = store_dir.with_file_name("spool");
    let prefix = Prefix::new(&plan.nats.prefix)?;
    let client = async_nats::connect(broker.url()).await?;
    let mut messages = client.subscribe(format!("{prefix}.{SOURCE}.>")).await?;
    client.flush().await?;
    let (stop, stopped) = watch::channel(false);
    let mut deployment = tokio::spawn(crate::run::run(plan, stopped));
    let mut talk = Talk {
        client,
        has_media,
        is_interactive,
        subject: Command::Ask.subject(&prefix, &SourceName::new(SOURCE)?),
        screen: Screen::new(streams_words),
        print,
    };
    let ended = tokio::select! {
        ended = &mut deployment => ended?,
        ended = talk.go_on(&mut messages, lines) => {
            // The deployment may have ended already.
            let _ = stop.send(true);
            ended.and(deployment.await?)
        }
    };
    talk.last_words(&mut messages).await?;
    broker.stop().await;
    ended
}

struct Talk<P> {
    client: Client,
    has_media: bool,
    is_interactive: bool,
    subject: String,
    screen: Screen,
    print: P,
}

impl<P: FnMut(&str) -> io::Result<()>> Talk<P> {
    async fn go_on(
        &mut self,
        messages: &mut async_nats::Subscriber,
        mut lines: mpsc::Receiver<String>,
    ) -> anyhow::Result<()> {
        let mut asked = JoinSet::new();
        let (mut is_up, mut is_over) = (false, false);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            if is_over && asked.is_empty() && !self.has_media {
                return Ok(());
            }
            let may_ask = is_up && !is_over && (self.is_interactive || asked.is_empty());
            let shown = tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let Ok(message) = Message::from_json(&message.payload) else { continue };
                    if let Body::Source(source) = &message.body {
                        is_up = source.state == SourceStatus::Up;
                    }
                    self.show(&message)
                }
                // Nobody listens before it is up.
                line = lines.recv(), if may_ask => match line {
                    Some(line) => {
                        asked.spawn(ask(self.client.clone(), self.subject.clone(), line));
                        continue;
                    }
                    None => {
                        is_over = true;
                        continue;
                    }
                },
                Some(refused) = asked.join_next() => match refused? {
                    Some(refused) => self.screen.line(&refused),
                    None => continue,
                },
                _ = &mut interrupt => return Ok(()),
            };
            match (self.print)(&shown) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                printed => printed.context("cannot write to standard output")?,
            }
        }
    }

    /// What was told before the deployment ended and is still on its way.
    async fn last_words(&mut self, messages: &mut async_nats::Subscriber) -> anyhow::Result<()> {
        self.client.flush().await?;
        while let Some(Some(message)) = messages.next().now_or_never() {
            if let Ok(message) = Message::from_json(&message.payload) {
                let shown = self.show(&message);
                // Nobody may be reading any more.
                let _ = (self.print)(&shown);
            }
        }
        Ok(())
    }

    /// What people want to know of.
    fn show(&mut self, message: &Message) -> String {
        match message.body {
            Body::Frame(_) | Body::Speech(_) | Body::RolesSwapped(_) | Body::Interrupted(_) => {
                String::new()
            }
            _ => self.screen.show(message),
        }
    }
}

/// Returns when the question has its end, with what is in its way if it was not taken.
async fn ask(client: Client, subject: String, text: String) -> Option<String> {
    let request = AskRequest {
        text,
        wait: true,
        timeout_ms: Some(MAX_WAIT_MS),
    };
    let payload = match serde_json::to_vec(&request) {
        Ok(payload) => payload,
        Err(error) => return Some(error.to_string()),
    };
    let request = Request::new()
        .payload(payload.into())
        .timeout(Some(Duration::from_millis(2 * MAX_WAIT_MS)));
    match client.send_request(subject, request).await {
        Ok(reply) => {
            let error = reply.headers.as_ref()?;
            let error = error.get(async_nats::service::NATS_SERVICE_ERROR)?;
            Some(error.to_string())
        }
        Err(error) => Some(format!("the question is lost: {error}")),
    }
}
