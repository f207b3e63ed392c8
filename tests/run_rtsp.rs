//! `vita run` against RTSP servers that are killed, frozen and started again in mid-stream.

mod common;

use std::time::Duration;

use common::inbox::{Inbox, seconds};
use common::media::SPEECH;
use common::process::{is_running, wait_until};
use common::rtsp::RtspServer;
use common::vita::Vita;
use common::{PATIENCE, assert_near};
use vita_messages::kinds::{
    MediaKind, SourceReasonKind, SourceStatus, SpeechEdge, SpeechEndReason,
};

const DOOR: &str = "door";
const YARD: &str = "yard";

fn config(door: &RtspServer, yard: &RtspServer, dir: &std::path::Path) -> String {
    format!(
        r#"
version = 1
[nats]
embedded = true
store_dir = "{dir}/store"
spool_dir = "{dir}/spool"
[defaults]
stall_timeout_secs = 5
retry = {{ initial_secs = 0.2, max_secs = 2 }}
[[source]]
name = "{DOOR}"
type = "rtsp"
uri = "{}/aac"
[[source]]
name = "{YARD}"
type = "rtsp"
uri = "{}/pcmu"
"#,
        door.address,
        yard.address,
        dir = dir.display()
    )
}

/// The first utterance of the clip, of which each new session gets the beginning.
async fn hears_the_first_utterance(inbox: &Inbox, source: &str, mark: usize) {
    let (start, end) = SPEECH[0];
    let heard = inbox
        .wait("speech starts", || {
            inbox
                .speech(source, mark, SpeechEdge::Start)
                .first()
                .cloned()
        })
        .await;
    assert_near(seconds(heard.stream_time_ns), start, "speech starts");
    let ended = inbox
        .wait("speech ends", || {
            inbox.speech(source, mark, SpeechEdge::End).first().cloned()
        })
        .await;
    assert_near(seconds(ended.stream_time_ns), end, "speech ends");
    assert_eq!(ended.utterance_id, heard.utterance_id);
    assert_eq!(
        (ended.accepted, ended.reason),
        (Some(true), Some(SpeechEndReason::Silence))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_outlives_its_server_and_does_not_disturb_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut door, yard) = (RtspServer::start(&[]), RtspServer::start(&[]));
    let mut vita = Vita::run(dir.path(), &config(&door, &yard, dir.path()));
    let inbox = Inbox::open(&vita.broker()).await;

    let (up, mark) = inbox.state(DOOR, 0, SourceStatus::Up).await;
    let media: Vec<_> = up
        .media
        .iter()
        .map(|media| (media.kind, media.codec.as_str()))
        .collect();
    assert_eq!(
        media,
        [(MediaKind::Video, "h264"), (MediaKind::Audio, "aac")]
    );
    assert_eq!(
        (up.media[0].width, up.media[0].height),
        (Some(640), Some(272))
    );
    assert_eq!(up.media[1].sample_rate_hz, Some(48_000));
    assert_eq!(up.attempt, 1);
    inbox.state(YARD, 0, SourceStatus::Up).await;
    hears_the_first_utterance(&inbox, DOOR, mark).await;
    hears_the_first_utterance(&inbox, YARD, 0).await;

    // One frame a second, each the key frame that the clip has there.
    let frames = inbox
        .wait("frames", || {
            Some(inbox.frames(DOOR, mark)).filter(|frames| frames.len() >= 5)
        })
        .await;
    for pair in frames.windows(2) {
        assert_near(
            seconds(pair[1].stream_time_ns - pair[0].stream_time_ns),
            1.0,
            "from frame to frame",
        );
    }

    // What the first round leaves open may stay open; no round may add to it.
    let mut used = None;
    for round in 0..4 {
        let mark = inbox.mark();
        door.kill();
        let (down, mark) = inbox.state(DOOR, mark, SourceStatus::Down).await;
        assert!(down.next_retry.is_some());
        door.restart();
        let (_, mark) = inbox.state(DOOR, mark, SourceStatus::Up).await;
        hears_the_first_utterance(&inbox, DOOR, mark).await;
        let (files, threads) =
            *used.get_or_insert((vita.process.open_files(), vita.process.threads()));
        wait_until(
            &format!("round {round}: no more than {files} files and {threads} threads"),
            || vita.process.open_files() <= files && vita.process.threads() <= threads,
        );
    }

    let mark = inbox.mark();
    door.freeze();
    let (stalled, mark) = inbox.state(DOOR, mark, SourceStatus::Stalled).await;
    let reason = stalled.reason.unwrap();
    assert_eq!(reason.kind, SourceReasonKind::Stalled, "{}", reason.text);
    let frames = inbox.frames(YARD, 0).len();
    inbox
        .wait("the other source goes on", || {
            (inbox.frames(YARD, 0).len() > frames + 2).then_some(())
        })
        .await;
    door.thaw();
    let (_, mark) = inbox.state(DOOR, mark, SourceStatus::Up).await;
    hears_the_first_utterance(&inbox, DOOR, mark).await;

    let yard_states: Vec<_> = inbox
        .states(YARD, 0)
        .into_iter()
        .map(|source| source.state)
        .collect();
    assert_eq!(
        yard_states,
        [SourceStatus::Up],
        "the other source noticed nothing"
    );
    vita.process.signal("TERM");
    assert!(vita.process.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_ends_with_a_killed_vita() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = RtspServer::start(&[]);
    let mut vita = Vita::run(dir.path(), &config(&nobody, &nobody, dir.path()));
    let url = vita.broker();
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", vita.process.id()))
            .unwrap_or_default();
    vita.process.kill();
    let connect = || async { async_nats::connect(&url).await.is_err() };
    tokio::time::timeout(PATIENCE, async {
        while !connect().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the broker is gone");
    for pid in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        wait_until("its children are gone", || !is_running(pid));
    }
    // And the store is free for the next one.
    let again = Vita::run(dir.path(), &config(&nobody, &nobody, dir.path()));
    again.broker();
}
