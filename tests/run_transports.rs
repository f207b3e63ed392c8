//! What cameras differ in: how packets travel, how a user is let in, what sound they send, and what they do not have.

mod common;

use std::fmt::Write as _;

use common::assert_near;
use common::inbox::{Inbox, seconds};
use common::media::SPEECH;
use common::rtsp::{RtspServer, self_signed};
use common::vita::Vita;
use vita_messages::kinds::{MediaKind, SourceReasonKind, SourceStatus, SpeechEdge};

struct Case {
    name: &'static str,
    /// Lines of the config.
    source: String,
    /// Codecs.
    video: Option<&'static str>,
    audio: Option<&'static str>,
}

fn case(name: &'static str, uri: String, more: &str, audio: Option<&'static str>) -> Case {
    Case {
        name,
        source: format!("uri = \"{uri}\"\n{more}\n"),
        video: Some("h264"),
        audio,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_camera_is_seen_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(dir.path());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let open = RtspServer::start(&[]);
    let basic = RtspServer::start(&["--user", "camera:basic secret!", "--auth", "basic"]);
    let digest = RtspServer::start(&["--user", "camera:digest-secret", "--auth", "digest"]);
    let tls = RtspServer::start(&["--tls-cert", cert, "--tls-key", key]);

    let at = |server: &RtspServer, path: &str| format!("{}/{path}", server.address);
    let login = |password: &str| format!("user = \"camera\"\npassword = \"{password}\"");
    let mut cases = vec![
        case(
            "tcp-aac",
            at(&open, "aac"),
            "transport = \"tcp\"",
            Some("aac"),
        ),
        case(
            "udp-pcmu",
            at(&open, "pcmu"),
            "transport = \"udp\"",
            Some("pcmu"),
        ),
        case(
            "auto-pcma",
            at(&open, "pcma"),
            "transport = \"auto\"",
            Some("pcma"),
        ),
        case("g722", at(&open, "g722"), "", Some("g722")),
        case("opus", at(&open, "opus"), "", Some("opus")),
        case("video-only", at(&open, "video"), "", None),
        case("no-audio-wanted", at(&open, "aac"), "audio = \"off\"", None),
        case(
            "basic",
            at(&basic, "pcma"),
            &login("basic secret!"),
            Some("pcma"),
        ),
        case(
            "digest",
            at(&digest, "pcmu"),
            &login("digest-secret"),
            Some("pcmu"),
        ),
        case(
            "tls",
            at(&tls, "aac"),
            &format!("tls_ca_file = \"{cert}\""),
            Some("aac"),
        ),
    ];
    cases.push(Case {
        video: None,
        ..case("audio-only", at(&open, "audio"), "", Some("aac"))
    });
    let failing = [
        (
            "wrong-password",
            at(&digest, "pcmu"),
            login("guess"),
            SourceReasonKind::Unauthorized,
        ),
        (
            "wrong-path",
            at(&open, "nothing"),
            String::new(),
            SourceReasonKind::NotFound,
        ),
        (
            "untrusted",
            at(&tls, "aac"),
            String::new(),
            SourceReasonKind::Tls,
        ),
        (
            "no-video",
            at(&open, "audio"),
            "video = \"on\"".to_owned(),
            SourceReasonKind::Media,
        ),
        (
            "refused",
            "rtsp://127.0.0.1:9/x".to_owned(),
            String::new(),
            SourceReasonKind::Refused,
        ),
    ];

    let mut config = format!(
        "version = 1\n[nats]\nembedded = true\nstore_dir = \"{0}/store\"\nspool_dir = \"{0}/spool\"\n",
        dir.path().display()
    );
    // The machine may be slow: packets that wait are not late.
    config.push_str("[defaults]\nstall_timeout_secs = 20\n");
    for case in &cases {
        let _ = write!(
            config,
            "[[source]]\nname = \"{}\"\ntype = \"rtsp\"\nlatency_ms = 1000\n{}",
            case.name, case.source
        );
    }
    for (name, uri, more, _) in &failing {
        let _ = write!(
            config,
            "[[source]]\nname = \"{name}\"\ntype = \"rtsp\"\nuri = \"{uri}\"\n{more}\n"
        );
    }
    let vita = Vita::run(dir.path(), &config);
    let inbox = Inbox::open(&vita.broker()).await;

    for case in &cases {
        let (up, _) = inbox.state(case.name, 0, SourceStatus::Up).await;
        let codec = |kind| {
            up.media
                .iter()
                .find(|media| media.kind == kind)
                .map(|media| media.codec.as_str())
        };
        assert_eq!(codec(MediaKind::Video), case.video, "{}", case.name);
        assert_eq!(codec(MediaKind::Audio), case.audio, "{}", case.name);
    }
    for case in &cases {
        if case.audio.is_some() {
            hears(&inbox, case.name).await;
        }
        if case.video.is_some() {
            sees(&inbox, case.name).await;
        }
    }
    for (name, _, _, kind) in &failing {
        let (down, _) = inbox.state(name, 0, SourceStatus::Down).await;
        let reason = down.reason.unwrap();
        assert_eq!(reason.kind, *kind, "{name}: {}", reason.text);
    }
    let said = format!("{:?}{:?}", inbox.all(), vita.log());
    for secret in ["basic secret!", "digest-secret"] {
        assert!(!said.contains(secret), "a password was told");
    }
}

async fn hears(inbox: &Inbox, source: &str) {
    let speech = |edge| move || inbox.speech(source, 0, edge).first().cloned();
    let (start, end) = SPEECH[0];
    let started = inbox
        .wait(
            &format!("{source}: speech starts"),
            speech(SpeechEdge::Start),
        )
        .await;
    assert_near(
        seconds(started.stream_time_ns),
        start,
        &format!("{source}: speech starts"),
    );
    let ended = inbox
        .wait(&format!("{source}: speech ends"), speech(SpeechEdge::End))
        .await;
    assert_near(
        seconds(ended.stream_time_ns),
        end,
        &format!("{source}: speech ends"),
    );
}

async fn sees(inbox: &Inbox, source: &str) {
    let frames = || Some(inbox.frames(source, 0)).filter(|frames| frames.len() >= 3);
    let frames = inbox.wait(&format!("{source}: frames"), frames).await;
    let spacing = seconds(frames[2].stream_time_ns - frames[1].stream_time_ns);
    assert_near(spacing, 1.0, &format!("{source}: from frame to frame"));
}
