//! The command service on a real broker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{Client, Message};
use vita_messages::kinds::{
    Answer, CancelReason, Cancelled, Question, QuestionKind, State, StateProbabilities, Timings,
    Tokens, Verdict,
};
use vita_messages::service::{
    AskReply, Asked, CommandService, MAX_WAITING, Outcomes, Refusal, RefusalCode, ResetReply, Room,
    SERVICE_NAME, Served, StatusReply,
};
use vita_messages::testing::NatsServer;
use vita_messages::{Body, Broker, Prefix, ServerUrl, SourceName};

/// Nothing here takes long; a busy machine may.
const PATIENCE: Duration = Duration::from_secs(120);

const SESSION: u64 = 1_764_000_000_000;

/// A dialogue that remembers what it was asked; the test answers.
#[derive(Default)]
struct Memory {
    asked: Mutex<Vec<String>>,
    resets: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

impl Room for Memory {
    fn ask(&self, text: &str) -> Result<Asked, Refusal> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let mut asked = self.asked.lock().unwrap();
        asked.push(text.to_owned());
        Ok(Asked {
            session_id: SESSION,
            turn_id: asked.len() as u64,
        })
    }

    fn reset(&self) -> Result<u64, Refusal> {
        self.resets.fetch_add(1, Ordering::Relaxed);
        Ok(SESSION)
    }

    fn status(&self) -> StatusReply {
        StatusReply {
            session_id: Some(SESSION),
            queries: self.asked.lock().unwrap().len() as u64,
            ..StatusReply::default()
        }
    }
}

struct Setup {
    server: NatsServer,
    client: Client,
    room: Arc<Memory>,
    outcomes: Outcomes,
    _service: CommandService,
    _dir: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = NatsServer::start(dir.path()).unwrap();
        let (room, outcomes) = (Arc::new(Memory::default()), Outcomes::default());
        let served = |name: &str| Served {
            source: SourceName::new(name).unwrap(),
            room: room.clone(),
            outcomes: outcomes.clone(),
        };
        let broker = Broker::new(ServerUrl::parse_list(&server.url()).unwrap());
        let service = CommandService::start(
            broker,
            Prefix::default(),
            vec![served("door"), served("hall")],
        );
        let client = async_nats::connect(server.url()).await.unwrap();
        let setup = Self {
            server,
            client,
            room,
            outcomes,
            _service: service,
            _dir: dir,
        };
        setup.request("status", "").await;
        setup
    }

    /// Asks again while nobody is there to reply.
    async fn request(&self, command: &str, payload: &str) -> Message {
        let subject = format!("vita.door.{command}");
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let request = self
                .client
                .request(subject.clone(), payload.to_owned().into());
            match request.await {
                Ok(reply) => return reply,
                Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[track_caller]
    fn end(&self, body: impl Into<Body>) {
        self.outcomes.tell(&body.into());
    }

    async fn asked(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.room.asked.lock().unwrap().len() < count {
            assert!(std::time::Instant::now() < end, "no question");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn question() -> Question {
    Question {
        kind: QuestionKind::Text,
        text: Some("who?".into()),
        utterance_id: None,
        start_stream_time_ns: 0,
        end_stream_time_ns: 0,
        capture_time: None,
    }
}

fn answer(turn_id: u64, text: &str) -> Answer {
    Answer {
        session_id: SESSION,
        turn_id,
        generation_id: turn_id,
        question: question(),
        state: State::Text,
        verdict: Verdict {
            state_probabilities: StateProbabilities {
                query: 0.0,
                noise: 0.0,
                text: 1.0,
            },
            judging_ns: 1,
            frames: Vec::new(),
            staleness_ns: None,
        },
        text: text.into(),
        cut_off: None,
        timings: Timings::default(),
        tokens: Tokens::default(),
        model: None,
        stream_time_ns: 0,
    }
}

fn parse<T: serde::de::DeserializeOwned>(reply: &Message) -> T {
    serde_json::from_slice(&reply.payload)
        .unwrap_or_else(|error| panic!("{error}: {:?}, headers {:?}", reply.payload, reply.headers))
}

#[track_caller]
fn assert_refused(reply: &Message, code: RefusalCode, text: &str) {
    let headers = reply.headers.as_ref().expect("headers of an error");
    let header = |name| headers.get(name).map(ToString::to_string);
    let found = header(NATS_SERVICE_ERROR_CODE).unwrap_or_default();
    assert_eq!(found, code.number().to_string());
    let error = header(NATS_SERVICE_ERROR).unwrap_or_default();
    assert!(error.contains(text) && error.contains("; "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_replied_to_at_once_with_its_number() {
    let setup = Setup::new().await;
    let reply = setup.request("ask", r#"{"text":"who is there?"}"#).await;
    let reply: AskReply = parse(&reply);
    assert_eq!((reply.session_id, reply.turn_id), (SESSION, 1));
    assert_eq!((reply.answer, reply.cancelled), (None, None));
    assert_eq!(*setup.room.asked.lock().unwrap(), ["who is there?"]);
    let status: StatusReply = parse(&setup.request("status", "{}").await);
    assert_eq!((status.session_id, status.queries), (Some(SESSION), 1));
    let reset: ResetReply = parse(&setup.request("reset", "").await);
    assert_eq!(reset.session_id, SESSION);
    assert_eq!(setup.room.resets.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_end_of_his_question_and_of_no_other() {
    let setup = Setup::new().await;
    let wait = r#"{"text":"a","wait":true}"#;
    let ends = async {
        setup.asked(2).await;
        setup.end(answer(77, "of another"));
        setup.end(answer(2, "second"));
        setup.end(Cancelled {
            session_id: SESSION,
            turn_id: 1,
            question: question(),
            reason: CancelReason::QueueFull,
            text: None,
            stream_time_ns: 0,
        });
    };
    let (a, b, ()) = tokio::join!(setup.request("ask", wait), setup.request("ask", wait), ends);
    let mut replies: [AskReply; 2] = [parse(&a), parse(&b)];
    replies.sort_by_key(|reply| reply.turn_id);
    let [first, second] = replies;
    assert_eq!(
        first.cancelled.map(|cancelled| cancelled.reason),
        Some(CancelReason::QueueFull)
    );
    assert_eq!(
        second.answer.map(|answer| answer.text).as_deref(),
        Some("second")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_and_the_question_goes_on() {
    let setup = Setup::new().await;
    let wait = r#"{"text":"a","wait":true,"timeout_ms":1}"#;
    let reply = setup.request("ask", wait).await;
    assert_refused(
        &reply,
        RefusalCode::TimedOut,
        "question 1 has no answer yet",
    );
    assert_eq!(setup.room.resets.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_limited() {
    let setup = Setup::new().await;
    let subject = "vita.door.ask";
    let payload = r#"{"text":"a","wait":true}"#;
    for _ in 0..MAX_WAITING {
        let inbox = setup.client.new_inbox();
        let sent = setup
            .client
            .publish_with_reply(subject, inbox, payload.into());
        sent.await.unwrap();
    }
    setup.asked(MAX_WAITING).await;
    let reply = setup.request("ask", payload).await;
    assert_refused(&reply, RefusalCode::Busy, "waited for already");
    assert_eq!(setup.room.asked.lock().unwrap().len(), MAX_WAITING);
    // Who does not wait is still served, and an end gives a place free.
    let reply: AskReply = parse(&setup.request("ask", r#"{"text":"b"}"#).await);
    assert_eq!(reply.turn_id, MAX_WAITING as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_out_is_refused_with_what_to_do() {
    let setup = Setup::new().await;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(9000));
    for (command, payload, code, text) in [
        (
            "ask",
            "hello",
            RefusalCode::BadRequest,
            "ask: expected value",
        ),
        ("ask", "", RefusalCode::BadRequest, "missing field `text`"),
        (
            "ask",
            r#"{"text":"a","wiat":true}"#,
            RefusalCode::BadRequest,
            "unknown field `wiat`",
        ),
        (
            "ask",
            r#"{"text":" "}"#,
            RefusalCode::BadRequest,
            "text is empty",
        ),
        (
            "ask",
            r#"{"text":"a","timeout_ms":900000}"#,
            RefusalCode::BadRequest,
            "timeout_ms",
        ),
        ("ask", &long, RefusalCode::TooLong, "9000 bytes"),
        (
            "reset",
            r#"{"all":1}"#,
            RefusalCode::BadRequest,
            "reset: unknown field",
        ),
        ("status", "[", RefusalCode::BadRequest, "status: "),
    ] {
        assert_refused(&setup.request(command, payload).await, code, text);
    }
    assert_eq!(setup.room.asked.lock().unwrap().len(), 0);
    let down = Refusal::new(RefusalCode::Down, "ask: door\nis down", "try later");
    *setup.room.refusal.lock().unwrap() = Some(down);
    let reply = setup.request("ask", r#"{"text":"a"}"#).await;
    assert_refused(&reply, RefusalCode::Down, "door is down; try later");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_found_as_a_service_and_survives_the_broker() {
    let mut setup = Setup::new().await;
    let info = |client: Client| async move {
        let reply = client.request(format!("$SRV.INFO.{SERVICE_NAME}"), "".into());
        let reply = reply.await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&reply.payload).unwrap()
    };
    let found = info(setup.client.clone()).await;
    let mut subjects: Vec<_> = found["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["subject"].as_str().unwrap())
        .collect();
    subjects.sort_unstable();
    let expected = ["door", "hall"]
        .map(|source| ["ask", "reset", "status"].map(|command| format!("vita.{source}.{command}")));
    assert_eq!(subjects, expected.concat());
    setup.server.kill().unwrap();
    setup.server.restart().unwrap();
    setup.client = async_nats::connect(setup.server.url()).await.unwrap();
    let reply: AskReply = parse(&setup.request("ask", r#"{"text":"again"}"#).await);
    assert_eq!(reply.turn_id, 1);
}
