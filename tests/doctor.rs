//! `vita doctor` on this machine, with and without a broker.

use std::process::{Command, Output};

use serde_json::Value;
use vita_messages::testing::NatsServer;

fn vita_doctor(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
    command
        .arg("doctor")
        .args(args)
        .env_remove("NATS_URL")
        .output()
        .unwrap()
}

#[track_caller]
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn a_machine_with_the_set_up_has_all_that_is_required() {
    let output = vita_doctor(&["--json"]);
    let report = report(&output);
    assert!(output.status.success() && report["ok"] == true, "{report}");
    assert!(
        finding(&report, "elements of vita")["detail"]
            .as_str()
            .unwrap()
            .contains("vitavad")
    );
    for name in [
        "gstreamer",
        "rtsp",
        "h264",
        "h265",
        "vp8",
        "vp9",
        "av1",
        "aac",
        "opus",
        "g711",
        "g722",
        "alsa",
        "nats-server",
    ] {
        assert_eq!(finding(&report, name)["level"], "present", "{report}");
    }
}

#[test]
fn a_broker_is_asked_for_its_version_and_jetstream() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let output = vita_doctor(&["--json", "--url", &server.url()]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(finding(&report, "broker")["level"], "present");
    assert_eq!(finding(&report, "jetstream")["level"], "present");
}

#[test]
fn a_broker_that_is_away_is_missing_and_its_secret_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::absent(dir.path(), "").unwrap();
    let output = vita_doctor(&["--url", &server.url().replace("//", "//anna:s3cret@")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("MISSING")
            && text.contains("is the broker running")
            && !text.contains("s3cret"),
        "{text}"
    );
}

#[test]
fn a_broker_without_jetstream_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = "accounts { A: { users: [{ user: anna, password: s3cret }] } }";
    let server = NatsServer::start_with(dir.path(), config).unwrap();
    let output = vita_doctor(&[
        "--json",
        "--url",
        &server.url().replace("//", "//anna:s3cret@"),
    ]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(finding(&report, "jetstream")["level"], "missing");
}
