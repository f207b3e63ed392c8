//! The sink alone with a broker: a real `nats-server`, a plain subscriber, commands, outages.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use futures::StreamExt as _;
use gst::prelude::*;
use tokio::runtime::Runtime;
use vita_messages::kinds::{CutOffReason, QuestionKind, SourceReasonKind, SourceStatus, State};
use vita_messages::service::{AskReply, ResetReply, StatusReply};
use vita_messages::testing::NatsServer;
use vita_messages::{Body, Message};

use crate::bench::*;

/// Longer than going down takes on any machine, and shorter than any time-out of a broker's connection.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

fn settings(server: &NatsServer, dir: &Path, more: &str) -> String {
    format!(
        "nats-url={} subject-prefix=site source-name=door spool-dir={}/spool {more}",
        server.url(),
        dir.display()
    )
}

/// Sends a command until somebody is there to take it.
async fn command(client: &async_nats::Client, name: &str, payload: &str) -> serde_json::Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = async_nats::Request::new()
            .payload(payload.to_owned().into())
            .timeout(Some(PATIENCE));
        match client
            .send_request(format!("site.door.{name}"), request)
            .await
        {
            Ok(reply) => {
                let read = serde_json::from_slice(&reply.payload);
                return read.unwrap_or_else(|error| panic!("{name}: {error}: {:?}", reply.headers));
            }
            Err(error) => assert!(Instant::now() < deadline, "{name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All that JetStream has kept, once `is_enough` says so.
async fn kept(server: &NatsServer, is_enough: impl Fn(&[Body]) -> bool) -> Vec<Body> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(client);
    let deadline = Instant::now() + PATIENCE;
    let stream = loop {
        match context.get_stream("VITA").await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let ordered = consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(ordered).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut bodies = Vec::new();
    while !is_enough(&bodies) {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.unwrap_or_else(|_| panic!("no more after {bodies:#?}"));
        let message = message.unwrap().unwrap();
        bodies.push(Message::from_json(&message.payload).unwrap().body);
    }
    bodies
}

fn kinds(bodies: &[Body]) -> Vec<&'static str> {
    bodies.iter().map(|body| body.kind().name()).collect()
}

fn answers(bodies: &[Body]) -> usize {
    kinds(bodies)
        .into_iter()
        .filter(|kind| *kind == "answer")
        .count()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_told_is_published_and_commands_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    let mut arriving = runtime.block_on(client.subscribe("site.>")).unwrap();
    runtime.block_on(client.flush()).unwrap();

    let more = format!("max-tokens=10 logit-bias={QUERY_ENDLESS}");
    let mut bench = Bench::play(&["video", "audio"], &settings(&server, dir.path(), &more));
    bench.show(10, 1500);
    // Frames and utterances come by different threads.
    wait_for("the frame", || bench.stat("frames") == 1);
    bench.say(5, 3000);
    bench.until("vita-answer");
    let question = r#"{"text":"Who is there?","wait":true}"#;
    let asked = runtime.block_on(command(&client, "ask", question));
    let asked: AskReply = serde_json::from_value(asked).unwrap();
    let reset = runtime.block_on(command(&client, "reset", ""));
    let reset: ResetReply = serde_json::from_value(reset).unwrap();
    bench.until("vita-reset");
    let status = runtime.block_on(command(&client, "status", ""));
    let status: StatusReply = serde_json::from_value(status).unwrap();
    assert_eq!(status.source, Some(SourceStatus::Up));
    assert_eq!((status.queries, status.answers), (2, 2));
    assert_eq!(status.session_id, Some(asked.session_id));
    assert_eq!(reset.session_id, asked.session_id);
    bench.end(&["video", "audio"]);
    bench.until_end();

    let mut bodies = Vec::new();
    while !matches!(bodies.last(), Some(Body::Source(source)) if source.state == SourceStatus::Down)
    {
        let next =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, arriving.next()).await });
        let message = next
            .unwrap_or_else(|_| panic!("no more after {bodies:#?}"))
            .unwrap();
        // Requests and their replies go by there, too.
        if let Ok(read) = Message::from_json(&message.payload) {
            assert_eq!(read.source.as_str(), "door");
            bodies.push(read.body);
        }
    }
    let durable: Vec<Body> = bodies
        .iter()
        .filter(|body| body.kind().place().is_durable())
        .cloned()
        .collect();
    let expected = [
        "source",
        "query",
        "roles_swapped",
        "answer",
        "query",
        "roles_swapped",
        "answer",
        "reset",
        "source",
    ];
    assert_eq!(kinds(&durable), expected);
    let [Body::Answer(spoken), Body::Answer(typed)] = [&durable[3], &durable[6]] else {
        unreachable!()
    };
    assert_eq!(
        (spoken.state, spoken.question.kind),
        (State::Query, QuestionKind::Speech)
    );
    assert_eq!(spoken.question.utterance_id, Some(5));
    assert_eq!(spoken.verdict.frames[0].stream_time_ns, 1_500_000_000);
    assert_eq!(spoken.model.as_deref(), checkpoint().to_str());
    assert_eq!(typed.question.text.as_deref(), Some("Who is there?"));
    assert_eq!(asked.answer.as_ref(), Some(typed));
    // Live ones may be lost before there is a connection, and then only.
    let words: String = bodies
        .iter()
        .filter_map(|body| match body {
            Body::Delta(delta) if delta.turn_id == typed.turn_id => Some(delta.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(words, typed.text);
    let Some(Body::Source(down)) = durable.last() else {
        unreachable!()
    };
    assert_eq!(down.reason.as_ref().unwrap().kind, SourceReasonKind::Ended);
    wait_for("all is acknowledged", || bench.stat("nats-pending") == 0);
    assert_eq!(bench.stat("nats-acknowledged"), durable.len() as u64);
}

#[test]
fn what_is_told_while_the_broker_is_away_arrives_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(dir.path()).unwrap();
    let runtime = Runtime::new().unwrap();
    let more = format!("max-tokens=5 logit-bias={QUERY_ENDLESS}");
    let mut bench = Bench::play(&["text"], &settings(&server, dir.path(), &more));
    assert_eq!(bench.ask("One?"), 1);
    bench.until("vita-answer");
    wait_for("the broker has it", || bench.stat("nats-acknowledged") == 3);
    server.kill().unwrap();
    for _ in 0..3 {
        bench.ask("Is anybody there?");
        bench.until("vita-answer");
    }
    assert!(bench.stat("nats-acknowledged") < 12);
    server.restart().unwrap();
    bench.ask("And now?");
    let told = bench.until("vita-answer");
    let bodies = runtime.block_on(kept(&server, |bodies| answers(bodies) == 5));
    assert_eq!(
        kinds(&bodies),
        ["query", "roles_swapped", "answer"].repeat(5)
    );
    let turns: Vec<u64> = bodies
        .iter()
        .filter_map(|body| match body {
            Body::Answer(answer) => Some(answer.turn_id),
            _ => None,
        })
        .collect();
    assert_eq!(turns, [1, 2, 3, 4, 5]);
    assert_eq!(told.get("turn"), Ok(5u64));
    wait_for("nothing is left", || bench.stat("nats-pending") == 0);
    assert_eq!(bench.stat("nats-lost"), 0);
}

#[test]
fn a_frozen_broker_holds_up_neither_media_nor_the_way_down() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let runtime = Runtime::new().unwrap();
    let more = format!("max-tokens=20 logit-bias={QUERY_ENDLESS}");
    let mut bench = Bench::play(&["video", "audio"], &settings(&server, dir.path(), &more));
    bench.say(1, 2000);
    bench.until("vita-answer");
    wait_for("the broker has it", || bench.stat("nats-acknowledged") == 4);
    server.freeze().unwrap();
    // The sink goes on, whatever the broker does.
    for second in 3..10 {
        bench.show(50, second * 1000);
        bench.say(second, second * 1000 + 500);
        assert_eq!(bench.until("vita-query").get("utterance-id"), Ok(second));
    }
    let started = Instant::now();
    bench.pipeline.set_state(gst::State::Null).unwrap();
    assert!(started.elapsed() < DOWN_WITHIN, "{:?}", started.elapsed());
    server.thaw().unwrap();

    // The next session sends what is left, before its own.
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    bench.say(20, 20_000);
    bench.until("vita-query");
    let bodies = runtime.block_on(kept(&server, |bodies| {
        bodies.iter().any(
            |body| matches!(body, Body::Query(query) if query.question.utterance_id == Some(20)),
        )
    }));
    let heard: Vec<u64> = bodies
        .iter()
        .filter_map(|body| match body {
            Body::Query(query) => query.question.utterance_id,
            _ => None,
        })
        .collect();
    assert_eq!(heard, [1, 3, 4, 5, 6, 7, 8, 9, 20]);
    let ups = bodies.iter().filter(|body| matches!(body, Body::Source(_)));
    assert_eq!(ups.count(), 3, "up, down, up");
    let sessions = |utterance| {
        bodies.iter().find_map(|body| match body {
            Body::Query(query) if query.question.utterance_id == Some(utterance) => {
                Some(query.session_id)
            }
            _ => None,
        })
    };
    assert!(sessions(1) < sessions(20));
}

#[test]
fn without_a_broker_it_says_so_and_keeps_all_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::absent(dir.path(), "").unwrap();
    let runtime = Runtime::new().unwrap();
    let more = format!("max-tokens=100000 logit-bias={QUERY_ENDLESS}");
    let settings = settings(&server, dir.path(), &more);
    // Who plays may be a task of a runtime itself.
    let mut bench = runtime.block_on(async { Bench::play(&["text"], &settings) });
    let bus = bench.pipeline.bus().unwrap();
    bench.ask("Who is there?");
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let warning = bus.timed_pop_filtered(patience, &[gst::MessageType::Warning]);
    let gst::MessageView::Warning(warning) = warning.as_ref().unwrap().view() else {
        unreachable!()
    };
    let text = warning.error().to_string();
    assert!(text.contains("connection refused"), "{text}");
    bench.until("vita-delta");
    runtime.block_on(async { bench.pipeline.set_state(gst::State::Ready).unwrap() });

    server.restart().unwrap();
    bench.pipeline.set_state(gst::State::Playing).unwrap();
    let bodies = runtime.block_on(kept(&server, |bodies| answers(bodies) == 1));
    assert_eq!(kinds(&bodies), ["query", "roles_swapped", "answer"]);
    let Body::Answer(answer) = &bodies[2] else {
        unreachable!()
    };
    assert_eq!(
        answer.cut_off.as_ref().unwrap().reason,
        CutOffReason::Closed
    );
}
