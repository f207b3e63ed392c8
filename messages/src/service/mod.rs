//! The command service: a micro service of NATS with the endpoints `ask`, `reset` and `status` of each source.
//!
//! Nothing here waits for a model: a [`Room`] takes or refuses at once, and who asked to wait is replied to by a task of
//! its own, of which there are [`MAX_WAITING`] a source at most.

mod commands;
mod outcomes;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::service::{Request, Service, ServiceExt, endpoint::Endpoint, error};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

pub use commands::{
    AskReply, AskRequest, Command, MAX_QUESTION_BYTES, MAX_WAIT_MS, Refusal, RefusalCode,
    ResetReply, ResetRequest, StatusReply, StatusRequest, WAIT_MS,
};
pub use outcomes::Outcomes;

use crate::broker::Broker;
use crate::subject::{Prefix, SourceName};
use outcomes::{Listener, Outcome};

/// Name of the service, as `nats service list` shows it.
pub const SERVICE_NAME: &str = "vita";
/// Questions of one source whose askers wait for the answer.
pub const MAX_WAITING: usize = 32;

const RETRY_INITIAL: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// A source's dialogue, as the service commands it. No method may wait.
pub trait Room: Send + Sync {
    /// Takes a typed question.
    fn ask(&self, text: &str) -> Result<Asked, Refusal>;

    /// Empties the dialogue, and tells its session.
    fn reset(&self) -> Result<u64, Refusal>;

    fn status(&self) -> StatusReply;
}

/// A question that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub session_id: u64,
    pub turn_id: u64,
}

/// A source with its commands.
#[derive(Clone)]
pub struct Served {
    pub source: SourceName,
    pub room: Arc<dyn Room>,
    /// Is told every message of the source.
    pub outcomes: Outcomes,
}

/// Serves commands until it is dropped.
#[derive(Debug)]
pub struct CommandService(JoinHandle<()>);

impl CommandService {
    /// Starts on the current tokio runtime. The broker may come later, go and come back.
    pub fn start(broker: Broker, prefix: Prefix, served: Vec<Served>) -> Self {
        Self(tokio::spawn(run(broker, prefix, served)))
    }
}

impl Drop for CommandService {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(broker: Broker, prefix: Prefix, served: Vec<Served>) {
    let mut wait = RETRY_INITIAL;
    loop {
        match serve(&broker, &prefix, &served).await {
            Ok(()) => tracing::debug!("the command service has lost its connection"),
            Err(error) => tracing::debug!(%error, "no command service yet"),
        }
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(RETRY_MAX);
    }
}

/// Until the connection is given up, which async-nats does not do by itself.
async fn serve(
    broker: &Broker,
    prefix: &Prefix,
    served: &[Served],
) -> Result<(), async_nats::Error> {
    let client: Client = broker.connect().await?;
    let service = client
        .service_builder()
        .description("Typed questions, reset and status of the sources of vita-stream")
        .start(SERVICE_NAME, env!("CARGO_PKG_VERSION"))
        .await?;
    let mut requests: Vec<BoxStream<'static, (Desk, Command, Request)>> = Vec::new();
    for served in served {
        let desk = Desk {
            served: served.clone(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        };
        for command in Command::ALL {
            let endpoint = endpoint(&service, prefix, &served.source, command).await?;
            let desk = desk.clone();
            let named = endpoint.map(move |request| (desk.clone(), command, request));
            requests.push(named.boxed());
        }
    }
    client.flush().await?;
    tracing::info!(sources = served.len(), "the command service is there");
    let mut requests = stream::select_all(requests);
    while let Some((desk, command, request)) = requests.next().await {
        desk.handle(command, request).await;
    }
    Ok(())
}

async fn endpoint(
    service: &Service,
    prefix: &Prefix,
    source: &SourceName,
    command: Command,
) -> Result<Endpoint, async_nats::Error> {
    let name = format!("{source}-{}", command.name());
    let builder = service.endpoint_builder().name(name);
    builder.add(command.subject(prefix, source)).await
}

/// Where a source's requests are dealt with.
#[derive(Clone)]
struct Desk {
    served: Served,
    waiting: Arc<Semaphore>,
}

impl Desk {
    async fn handle(&self, command: Command, request: Request) {
        let room = &self.served.room;
        let payload = &request.message.payload;
        let reply = match command {
            Command::Ask => match self.ask(payload) {
                Ok(Taken::Done(reply)) => json(&reply),
                Ok(Taken::Waiting(waiting)) => {
                    tokio::spawn(async move { respond(&request, waiting.reply().await).await });
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            Command::Reset => read::<ResetRequest>(command, payload)
                .and_then(|ResetRequest {}| room.reset())
                .and_then(|session_id| json(&ResetReply { session_id })),
            Command::Status => read::<StatusRequest>(command, payload)
                .and_then(|StatusRequest {}| json(&room.status())),
        };
        respond(&request, reply).await;
    }

    fn ask(&self, payload: &[u8]) -> Result<Taken, Refusal> {
        let AskRequest {
            text,
            wait,
            timeout_ms,
        } = read(Command::Ask, payload)?;
        check(&text, timeout_ms)?;
        let permit = match wait {
            true => Some(self.permit()?),
            false => None,
        };
        // Before the question is out: its answer may be quick.
        let listener = self.served.outcomes.listen();
        let asked = self.served.room.ask(&text)?;
        Ok(match permit {
            None => Taken::Done(Box::new(reply(asked, None))),
            Some(permit) => Taken::Waiting(Waiting {
                asked,
                listener,
                within: Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS)),
                _permit: permit,
            }),
        })
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.waiting).try_acquire_owned();
        permit.map_err(|_| {
            Refusal::new(
                RefusalCode::Busy,
                format!("ask: {MAX_WAITING} questions are waited for already"),
                "try again later, or ask without wait and subscribe to the answers",
            )
        })
    }
}

enum Taken {
    Done(Box<AskReply>),
    Waiting(Waiting),
}

struct Waiting {
    asked: Asked,
    listener: Listener,
    within: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Waiting {
    async fn reply(self) -> Result<Bytes, Refusal> {
        let Asked {
            session_id,
            turn_id,
        } = self.asked;
        let outcome = self.listener.outcome(session_id, turn_id, self.within);
        match outcome.await {
            Some(outcome) => json(&reply(self.asked, Some(outcome))),
            None => Err(Refusal::new(
                RefusalCode::TimedOut,
                format!("ask: question {turn_id} has no answer yet"),
                "it goes on; subscribe to the answers, or wait longer with timeout_ms",
            )),
        }
    }
}

fn reply(asked: Asked, outcome: Option<Outcome>) -> AskReply {
    let (answer, cancelled) = match outcome {
        Some(Outcome::Answer(answer)) => (Some(*answer), None),
        Some(Outcome::Cancelled(cancelled)) => (None, Some(*cancelled)),
        None => (None, None),
    };
    AskReply {
        session_id: asked.session_id,
        turn_id: asked.turn_id,
        answer,
        cancelled,
    }
}

fn check(text: &str, timeout_ms: Option<u64>) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::new(
            RefusalCode::BadRequest,
            "ask: text is empty",
            r#"send {"text": "your question"}"#,
        ));
    }
    if text.len() > MAX_QUESTION_BYTES {
        return Err(Refusal::new(
            RefusalCode::TooLong,
            format!(
                "ask: text has {} bytes, at most {MAX_QUESTION_BYTES} are taken",
                text.len()
            ),
            "shorten it",
        ));
    }
    if timeout_ms.is_some_and(|ms| ms > MAX_WAIT_MS) {
        return Err(Refusal::new(
            RefusalCode::BadRequest,
            format!("ask: timeout_ms is over {MAX_WAIT_MS}"),
            "ask without wait and subscribe to the answers",
        ));
    }
    Ok(())
}

/// A request; an empty one is `{}`.
fn read<T: DeserializeOwned>(command: Command, payload: &[u8]) -> Result<T, Refusal> {
    let payload = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|error| {
        Refusal::new(
            RefusalCode::BadRequest,
            format!("{}: {error}", command.name()),
            "send the JSON that the AsyncAPI document has for this command",
        )
    })
}

fn json(reply: &impl Serialize) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(reply);
    json.map(Bytes::from).map_err(|error| {
        Refusal::new(
            RefusalCode::Internal,
            format!("the reply cannot be written: {error}"),
            "tell the makers",
        )
    })
}

async fn respond(request: &Request, reply: Result<Bytes, Refusal>) {
    let reply = reply.map_err(|refusal| error::Error {
        code: refusal.code.number(),
        // A header is one line.
        status: refusal.to_string().replace(['\r', '\n'], " "),
    });
    // Who did not say where to reply wanted none.
    if let Err(error) = request.respond(reply).await {
        tracing::debug!(%error, "a command has no reply");
    }
}
