//! `vita run` with a model: what is said aloud and typed becomes messages, and commands reach the dialogue.

mod common;

use std::path::Path;

use common::inbox::Inbox;
use common::rtsp::RtspServer;
use common::vita::Vita;
use common::{PATIENCE, assert_near};
use vita_messages::Body;
use vita_messages::kinds::{QuestionKind, SourceStatus, State};
use vita_messages::service::{AskReply, ResetReply, StatusReply};

const DOOR: &str = "door";

fn checkpoint() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden/checkpoint").display().to_string()
}

fn config(uri: &str, dir: &Path) -> String {
    format!(
        r#"
version = 1
[nats]
embedded = true
store_dir = "{dir}/store"
spool_dir = "{dir}/spool"
[model]
name = "{}"
max_tokens = 24
# Random numbers have no opinion of whether they are spoken to.
query_threshold = 0.0
noise_threshold = 0.0
[[source]]
name = "{DOOR}"
type = "rtsp"
uri = "{uri}/aac"
"#,
        checkpoint(),
        dir = dir.display(),
    )
}

async fn request<T: serde::de::DeserializeOwned>(
    client: &async_nats::Client,
    command: &str,
    payload: &str,
) -> T {
    let request = async_nats::Request::new()
        .payload(payload.to_owned().into())
        .timeout(Some(PATIENCE));
    let subject = format!("vita.{DOOR}.{command}");
    let reply = client.send_request(subject, request).await.unwrap();
    serde_json::from_slice(&reply.payload)
        .unwrap_or_else(|error| panic!("{command}: {error}: {:?}", reply.headers))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_aloud_and_in_text_is_answered_on_nats() {
    let dir = tempfile::tempdir().unwrap();
    let door = RtspServer::start(&[]);
    let mut vita = Vita::run(dir.path(), &config(&door.address, dir.path()));
    let broker = vita.broker();
    let inbox = Inbox::open(&broker).await;
    inbox.state(DOOR, 0, SourceStatus::Up).await;
    let spoken = inbox
        .wait("an answer to a spoken question", || {
            inbox.of(DOOR, 0).into_iter().find_map(|body| match body {
                Body::Answer(answer) if answer.question.kind == QuestionKind::Speech => {
                    Some(answer)
                }
                _ => None,
            })
        })
        .await;
    assert_eq!(spoken.state, State::Query);
    assert_eq!(spoken.model, Some(checkpoint()));
    assert!(!spoken.text.is_empty() && spoken.tokens.prompt > 0);
    let newest = spoken.verdict.frames.last().expect("frames of the camera");
    let end = spoken.question.end_stream_time_ns;
    assert!(newest.stream_time_ns <= end + 1_000_000_000);
    assert_near(
        spoken.verdict.staleness_ns.unwrap() as f64 / 1e9,
        end.saturating_sub(newest.stream_time_ns) as f64 / 1e9,
        "staleness",
    );

    let client = async_nats::connect(&broker).await.unwrap();
    let asked: AskReply = request(&client, "ask", r#"{"text":"Who is there?","wait":true}"#).await;
    let kept = |turn: u64, session: u64| {
        inbox.of(DOOR, 0).into_iter().find(|body| match body {
            Body::Answer(answer) => (answer.turn_id, answer.session_id) == (turn, session),
            Body::Cancelled(cancelled) => {
                (cancelled.turn_id, cancelled.session_id) == (turn, session)
            }
            _ => false,
        })
    };
    let end = inbox
        .wait("the end of the typed question", || {
            kept(asked.turn_id, asked.session_id)
        })
        .await;
    let answer = asked.answer.expect("an answer");
    assert_eq!(answer.session_id, spoken.session_id);
    assert_eq!(end, Body::Answer(answer.clone()));
    assert_eq!(answer.question.text.as_deref(), Some("Who is there?"));

    let reset: ResetReply = request(&client, "reset", "").await;
    assert_eq!(reset.session_id, asked.session_id);
    inbox
        .wait("a reset", || {
            let all = inbox.of(DOOR, 0);
            all.into_iter().find(|body| matches!(body, Body::Reset(_)))
        })
        .await;
    let status: StatusReply = request(&client, "status", "").await;
    assert_eq!(status.source, Some(SourceStatus::Up));
    assert_eq!(status.model, Some(checkpoint()));
    assert!(status.queries >= 2 && status.answers >= 2, "{status:?}");

    vita.process.signal("INT");
    assert!(vita.process.wait().success());
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_run_with_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(Path::new(&checkpoint()).join(file), model.join(file)).unwrap();
    }
    let text = config("rtsp://127.0.0.1:1", dir.path());
    let text = text.replace(&checkpoint(), &model.display().to_string());
    let mut vita = Vita::run(dir.path(), &text);
    assert!(!vita.process.wait().success());
    let log = vita.log().join("\n");
    assert!(
        log.contains("model.name") && log.contains(&model.display().to_string()),
        "{log}"
    );
    assert!(!log.contains("broker ready"), "{log}");
}
