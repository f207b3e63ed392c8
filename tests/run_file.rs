//! `vita run` on files: played once, and for ever.

mod common;

use common::inbox::{Inbox, seconds};
use common::media::{self, SPEECH};
use common::vita::Vita;
use common::{assert_near, process::wait_until};
use vita_messages::kinds::{SourceStatus, SpeechEdge};

fn config(dir: &std::path::Path, does_loop: bool) -> String {
    format!(
        r#"
version = 1
[nats]
embedded = true
store_dir = "{dir}/store"
spool_dir = "{dir}/spool"
[[source]]
name = "clip"
type = "file"
path = "{clip}"
loop = {does_loop}
realtime = false
"#,
        dir = dir.display(),
        clip = media::street().display()
    )
}

#[test]
fn a_file_that_plays_once_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let mut vita = Vita::run(dir.path(), &config(dir.path(), false));
    assert!(vita.process.wait().success());
    wait_until("the last line", || {
        vita.log().iter().any(|line| line.contains("\"stopped\""))
    });
    let down = vita.wait_for_logs("down", 1);
    assert_eq!(down["reason"], "the file was played to its end");
    let starts = vita
        .log()
        .iter()
        .filter(|line| line.contains(r#""edge":"Start""#))
        .count();
    assert_eq!(starts, 40, "two utterances in each of 20 periods");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_loops_begins_again_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let vita = Vita::run(dir.path(), &config(dir.path(), true));
    let inbox = Inbox::open(&vita.broker()).await;
    let rounds = || {
        let speech = inbox.speech("clip", 0, SpeechEdge::Start);
        let firsts: Vec<f64> = speech
            .iter()
            .map(|speech| seconds(speech.stream_time_ns))
            .filter(|at| *at < 5.0)
            .collect();
        Some(firsts).filter(|firsts| firsts.len() >= 3)
    };
    for first in inbox.wait("the third round", rounds).await {
        assert_near(first, SPEECH[0].0, "the first utterance of a round");
    }
    let states: Vec<_> = inbox
        .states("clip", 0)
        .into_iter()
        .map(|source| source.state)
        .collect();
    assert_eq!(states, [SourceStatus::Up]);
}
