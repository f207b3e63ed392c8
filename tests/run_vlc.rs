//! The same against an RTSP server that is none of ours: VLC. It sends over UDP only.

mod common;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::inbox::{Inbox, seconds};
use common::process::Process;
use common::vita::Vita;
use common::{assert_near, media};
use vita_messages::kinds::{MediaKind, SourceStatus, SpeechEdge};

/// Debian's user and group without rights: VLC refuses to run as root.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Serves the clip again and again, whoever listens.
fn vlc(home: &Path, port: u16) -> Process {
    let clip = home.join("street.mp4");
    fs::copy(media::street(), &clip).unwrap();
    fs::set_permissions(home, Permissions::from_mode(0o777)).unwrap();
    let is_root = fs::metadata("/proc/self")
        .map(|me| std::os::unix::fs::MetadataExt::uid(&me))
        .unwrap()
        == 0;
    let mut command = if is_root {
        Command::new("setpriv")
    } else {
        Command::new("env")
    };
    if is_root {
        command.args(NOBODY);
    }
    let sout = format!("#gather:rtp{{sdp=rtsp://127.0.0.1:{port}/street}}");
    let child = command
        .args([
            "vlc",
            "-I",
            "dummy",
            "--quiet",
            "--loop",
            "--sout-keep",
            "--sout",
            &sout,
        ])
        .arg(clip)
        .env("HOME", home)
        .stdin(Stdio::null())
        .spawn()
        .expect("vlc, of `make setup`");
    Process(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_others_is_seen_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _vlc = vlc(home.path(), port);
    let config = format!(
        r#"
version = 1
[nats]
embedded = true
store_dir = "{dir}/store"
spool_dir = "{dir}/spool"
[[source]]
name = "vlc"
type = "rtsp"
uri = "rtsp://127.0.0.1:{port}/street"
transport = "udp"
stall_timeout_secs = 20
retry = {{ initial_secs = 0.2, max_secs = 1 }}
"#,
        dir = dir.path().display()
    );
    let vita = Vita::run(dir.path(), &config);
    let inbox = Inbox::open(&vita.broker()).await;
    let (up, mark) = inbox.state("vlc", 0, SourceStatus::Up).await;
    let media: Vec<_> = up
        .media
        .iter()
        .map(|media| (media.kind, media.codec.as_str()))
        .collect();
    assert!(media.contains(&(MediaKind::Video, "h264")), "{media:?}");
    assert!(media.contains(&(MediaKind::Audio, "aac")), "{media:?}");

    // Where in the clip we came in is VLC's affair: what is known is how long the utterances and the pauses are. The first may
    // have begun before us.
    let ends = || Some(inbox.speech("vlc", mark, SpeechEdge::End)).filter(|ends| ends.len() >= 4);
    let ends = inbox.wait("four utterances", ends).await;
    let times = |end: &vita_messages::kinds::Speech| {
        (
            seconds(end.start_stream_time_ns.unwrap()),
            seconds(end.stream_time_ns),
        )
    };
    for pair in ends[1..].windows(2) {
        let ((start, end), (next, _)) = (times(&pair[0]), times(&pair[1]));
        let one = |(start, end): (f64, f64)| end - start;
        let is_first = next - start < 6.0;
        let (length, pause) = if is_first {
            (
                one(media::SPEECH[0]),
                media::SPEECH[1].0 - media::SPEECH[0].1,
            )
        } else {
            (
                one(media::SPEECH[1]),
                media::PERIOD + media::SPEECH[0].0 - media::SPEECH[1].1,
            )
        };
        assert_near(end - start, length, "how long the utterance is");
        assert_near(next - end, pause, "how long the pause is");
    }
    let frames = || Some(inbox.frames("vlc", mark)).filter(|frames| frames.len() >= 5);
    let frames = inbox.wait("frames", frames).await;
    let spacing = seconds(frames[4].stream_time_ns - frames[1].stream_time_ns);
    assert_near(spacing, 3.0, "three frames further");
}
