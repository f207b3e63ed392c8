//! One connection to the broker, from greeting to end.
//!
//! async-nats can reconnect by itself, but then sends what is still in its queue on the new connection, while messages before it that were
//! lost with the old one are only missed at the ack time-out: they would arrive after later ones. So a link ends with its connection, all
//! acknowledgements that are out fail at once, and the publisher sends again from the first message that was not acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, Event, ReconnectToServer, ServerAddr};
use futures::FutureExt;
use tokio::sync::watch;

use super::{Options, stream};
use crate::broker::{BrokerError, BrokerErrorKind};
use crate::spool::Record;

/// Nothing listens on port 0, so a connection to it fails at once.
const NOWHERE: &str = "nats://127.0.0.1:0";

pub(super) struct Link {
    client: Client,
    context: Context,
    stream: String,
    state: watch::Receiver<State>,
}

#[derive(Clone, Default)]
struct State {
    is_down: bool,
    /// What the broker complained of last, such as a missing permission.
    complaint: Option<String>,
}

impl Link {
    /// Connects and sees to the stream.
    pub async fn open(options: &Options) -> Result<Self, BrokerError> {
        let (sender, state) = watch::channel(State::default());
        let capacity = options.max_in_flight + options.live_queue;
        let client = options
            .broker
            .try_each(&[NOWHERE], |connect| {
                one_connection(connect.client_capacity(capacity), sender.clone())
            })
            .await?;
        let context = ContextBuilder::new()
            .timeout(options.ack_timeout)
            .max_ack_inflight(options.max_in_flight)
            .build(client.clone());
        stream::ensure(&context, &options.stream, &options.prefix).await?;
        Ok(Self {
            client,
            context,
            stream: options.stream.name.clone(),
            state,
        })
    }

    /// Hands a message to the connection. `None`: it takes no more at the moment.
    pub fn publish(&self, record: &Record) -> Option<Result<PublishAckFuture, PublishError>> {
        let message = PublishMessage::build()
            .payload(record.payload.clone())
            .message_id(&record.id)
            .expected_stream(&self.stream);
        self.context
            .send_publish(record.subject.clone(), message)
            .now_or_never()
    }

    /// Whether the connection took it.
    pub fn publish_live(&self, subject: String, payload: bytes::Bytes) -> bool {
        matches!(
            self.client.publish(subject, payload).now_or_never(),
            Some(Ok(()))
        )
    }

    pub fn server(&self) -> String {
        self.client.server_info().server_name
    }

    /// Returns when the connection has ended, with what the broker had said.
    pub async fn ended(&mut self) -> BrokerError {
        // An error means that the connection's task is gone, which is an end as well.
        let _ = self.state.wait_for(|state| state.is_down).await;
        self.error("the connection ended")
    }

    /// An error of this link, with the broker's last complaint.
    pub fn error(&self, what: &str) -> BrokerError {
        let text = match &self.state.borrow().complaint {
            Some(complaint) => format!("{what}; the broker said: {complaint}"),
            None => what.to_owned(),
        };
        BrokerError::new(BrokerErrorKind::Other, text, None)
    }

    /// Waits until everything handed over is written to the broker.
    pub async fn flush(&self) {
        let _ = self.client.flush().await;
    }
}

fn one_connection(
    connect: async_nats::ConnectOptions,
    state: watch::Sender<State>,
) -> async_nats::ConnectOptions {
    let was_used = Arc::new(AtomicBool::new(false));
    connect
        .ignore_discovered_servers()
        .max_reconnects(1)
        .event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => {
                    state.send_modify(|state| state.is_down = true)
                }
                Event::ServerError(error) => {
                    state.send_modify(|state| state.complaint = Some(error.to_string()))
                }
                _ => {}
            }
            std::future::ready(())
        })
        .reconnect_to_server_callback(move |servers, _| {
            let is_first = !was_used.swap(true, Ordering::Relaxed);
            let nowhere = NOWHERE.parse::<ServerAddr>().ok();
            let real = servers
                .into_iter()
                .map(|server| server.addr)
                .find(|addr| Some(addr) != nowhere.as_ref());
            let addr = if is_first { real } else { nowhere };
            std::future::ready(addr.map(|addr| ReconnectToServer {
                addr,
                delay: Some(std::time::Duration::ZERO),
            }))
        })
}
