//! `vita run` with a broker that goes away and comes back.

mod common;

use common::inbox::Inbox;
use common::rtsp::RtspServer;
use common::vita::Vita;
use vita_messages::Body;
use vita_messages::kinds::{SourceReasonKind, SourceStatus, SpeechEdge};
use vita_messages::testing::NatsServer;

const DOOR: &str = "door";

/// What a reader needs to know of a message, in short.
fn digest(body: &Body) -> Option<String> {
    match body {
        Body::Source(source) => Some(format!("{:?}", source.state)),
        Body::Speech(speech) => Some(format!("{:?} {}", speech.edge, speech.utterance_id)),
        Body::Lost(lost) => Some(format!("{lost:?}")),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_broker_was_away_arrives_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = NatsServer::start(dir.path()).unwrap();
    let mut door = RtspServer::start(&[]);
    let config = format!(
        r#"
version = 1
[nats]
embedded = false
url = "{}"
spool_dir = "{}/spool"
[[source]]
name = "{DOOR}"
type = "rtsp"
uri = "{}/pcmu"
stall_timeout_secs = 10
retry = {{ initial_secs = 0.2, max_secs = 1 }}
"#,
        broker.url(),
        dir.path().display(),
        door.address
    );
    let mut vita = Vita::run(dir.path(), &config);
    let inbox = Inbox::open(&broker.url()).await;
    inbox
        .wait("speech", || {
            inbox.speech(DOOR, 0, SpeechEdge::Start).first().cloned()
        })
        .await;

    broker.kill().unwrap();
    // In the meantime: an utterance that is cut off, an outage, an utterance to its end.
    door.kill();
    vita.wait_for_logs("down", 1);
    door.restart();
    vita.wait_for_logs("up", 2);
    let ends = || {
        vita.log()
            .iter()
            .filter(|line| line.contains(r#""edge":"End""#))
            .count()
    };
    common::process::wait_until("the end of an utterance", || ends() >= 2);
    broker.restart().unwrap();

    let inbox = Inbox::open(&broker.url()).await;
    inbox
        .wait("the last utterance", || {
            inbox.speech(DOOR, 0, SpeechEdge::End).get(1).cloned()
        })
        .await;
    vita.process.signal("TERM");
    assert!(vita.process.wait().success());
    let stopped = || {
        let states = inbox.states(DOOR, 0);
        states
            .last()
            .and_then(|last| last.reason.clone())
            .filter(|reason| reason.kind == SourceReasonKind::Stopped)
    };
    inbox.wait("the last word", stopped).await;

    let ids: Vec<String> = inbox.kept().into_iter().map(|message| message.id).collect();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "none twice");
    let mut said: Vec<String> = inbox
        .kept()
        .iter()
        .filter_map(|message| digest(&message.body))
        .collect();
    // How often it was refused on the way is a matter of chance.
    said.dedup_by(|second, first| second == "Down" && first == "Down");
    // It was stopped at any point of the clip, so of the last utterances only the first is certain.
    let last = said.pop().unwrap();
    assert_eq!(
        said[..7],
        ["Up", "Start 1", "End 1", "Down", "Up", "Start 1", "End 1"],
        "{said:?}"
    );
    assert_eq!(last, format!("{:?}", SourceStatus::Down));
    let times: Vec<_> = inbox.kept().iter().map(|message| message.time).collect();
    assert!(times.is_sorted(), "in order: {times:?}");
}
