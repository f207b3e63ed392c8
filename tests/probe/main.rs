//! Probing real servers, and what is none.

mod server;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gst_rtsp_server::gst_rtsp::RTSPAuthMethod;
use server::{PASSWORD, Server, Setup, USER};
use vita_messages::testing::Certificate;
use vita_stream::plan::Secret;
use vita_stream::rtsp::{ProbeError, ProbeErrorKind, ProbeOptions, ProbeReport, Step, probe};

const ENCODED_PASSWORD: &str = "s3cret%2Fword";

fn options(url: impl Into<String>) -> ProbeOptions {
    let mut options = ProbeOptions::new(Secret::new(url));
    options.step_timeout = Duration::from_secs(60);
    options
}

fn run(options: &ProbeOptions) -> Result<ProbeReport, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(probe(options))
}

#[track_caller]
fn assert_fails(options: &ProbeOptions, kind: ProbeErrorKind, step: Step, text: &str) {
    let error = run(options).unwrap_err();
    assert_eq!((error.kind, error.step), (kind, step), "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(!error.remedy.is_empty());
    let everything = format!("{error} {error:?} {options:?}");
    assert!(
        !everything.contains(PASSWORD) && !everything.contains(ENCODED_PASSWORD),
        "{everything}"
    );
}

#[test]
fn an_open_server_is_described() {
    let server = Server::start(Setup::default());
    let report = run(&options(format!("rtsp://127.0.0.1:{}/cam", server.port))).unwrap();
    assert_eq!(report.login, None);
    assert_eq!(report.server.as_deref(), Some("GStreamer RTSP server"));
    assert!(
        report.methods.iter().any(|method| method == "DESCRIBE"),
        "{:?}",
        report.methods
    );
    let [video, audio] = report.media.as_slice() else {
        panic!("{:?}", report.media)
    };
    assert_eq!(
        (
            video.kind.as_str(),
            video.codec.as_deref(),
            video.clock_rate_hz
        ),
        ("video", Some("h264"), Some(90_000))
    );
    assert_eq!((video.width, video.height), (Some(320), Some(180)));
    assert_eq!(
        video.control,
        format!("rtsp://127.0.0.1:{}/cam/stream=0", server.port)
    );
    assert_eq!(
        (audio.codec.as_deref(), audio.clock_rate_hz, audio.channels),
        (Some("pcmu"), Some(8000), Some(1))
    );
    let steps: Vec<Step> = report.steps.iter().map(|time| time.step).collect();
    assert_eq!(steps, [Step::Connect, Step::Options, Step::Describe]);
}

#[test]
fn basic_and_digest_logins_are_made_and_their_failures_told_apart() {
    for (method, scheme) in [
        (RTSPAuthMethod::Basic, "Basic"),
        (RTSPAuthMethod::Digest, "Digest"),
    ] {
        let server = Server::start(Setup {
            login: Some(method),
            ..Setup::default()
        });
        let at = |login: &str| options(format!("rtsp://{login}127.0.0.1:{}/cam", server.port));
        let report = run(&at(&format!("{USER}:{ENCODED_PASSWORD}@"))).unwrap();
        assert_eq!(report.login, Some(scheme));
        assert!(
            !serde_json::to_string(&report).unwrap().contains("s3cret"),
            "{report:?}"
        );
        let mut given_apart = at("");
        given_apart.user = Some(USER.into());
        given_apart.password = Some(Secret::new(PASSWORD));
        assert_eq!(run(&given_apart).unwrap().login, Some(scheme));
        assert_fails(&at(""), ProbeErrorKind::LoginWanted, Step::Describe, scheme);
        assert_fails(
            &at(&format!("{USER}:wr0ng{ENCODED_PASSWORD}@")),
            ProbeErrorKind::WrongLogin,
            Step::Describe,
            "401",
        );
        assert_fails(
            &at(&format!("{ENCODED_PASSWORD}:x@")),
            ProbeErrorKind::WrongLogin,
            Step::Describe,
            "401",
        );
    }
}

#[test]
fn a_wrong_path_is_told() {
    let server = Server::start(Setup::default());
    let options = options(format!(
        "rtsp://anna:{ENCODED_PASSWORD}@127.0.0.1:{}/none",
        server.port
    ));
    assert_fails(&options, ProbeErrorKind::NotFound, Step::Describe, "404");
}

/// An authority, and a server with a certificate of it for `name`.
fn secure_server(dir: &Path, name: &str) -> (PathBuf, Server) {
    let certificate = Certificate::make(dir, name).unwrap();
    let setup = Setup {
        certificate: Some((certificate.cert_file, certificate.key_file)),
        ..Setup::default()
    };
    (certificate.ca_file, Server::start(setup))
}

#[test]
fn tls_is_made_where_the_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, server) = secure_server(dir.path(), "IP:127.0.0.1");
    let mut options = options(format!("rtsps://127.0.0.1:{}/cam", server.port));
    assert_fails(&options, ProbeErrorKind::Tls, Step::Tls, "--ca-file");
    options.is_insecure = true;
    assert_eq!(run(&options).unwrap().media.len(), 2);
    options.is_insecure = false;
    options.tls_ca_file = Some(ca_file);
    let report = run(&options).unwrap();
    assert!(report.steps.iter().any(|time| time.step == Step::Tls));
    options.tls_ca_file = Some(dir.path().join("names"));
    assert_fails(
        &options,
        ProbeErrorKind::Tls,
        Step::Tls,
        "no certificate in it",
    );

    // Plain text at a port for TLS: how the server takes it is its own affair.
    let mut plain = self::options(format!("rtsp://127.0.0.1:{}/cam", server.port));
    plain.step_timeout = Duration::from_secs(2);
    let error = run(&plain).unwrap_err();
    let kinds = [
        ProbeErrorKind::NotRtsp,
        ProbeErrorKind::Closed,
        ProbeErrorKind::TimedOut,
    ];
    assert!(kinds.contains(&error.kind), "{error}");
    assert!(
        error.remedy.contains("rtsps") || error.text.contains("rtsps"),
        "{error}"
    );
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, server) = secure_server(dir.path(), "DNS:other.example");
    let mut options = options(format!("rtsps://127.0.0.1:{}/cam", server.port));
    options.tls_ca_file = Some(ca_file);
    assert_fails(&options, ProbeErrorKind::Tls, Step::Tls, "another name");
}

#[test]
fn a_server_without_tls_is_told() {
    let server = Server::start(Setup::default());
    let options = options(format!("rtsps://127.0.0.1:{}/cam", server.port));
    assert_fails(&options, ProbeErrorKind::Tls, Step::Tls, "rtsp");
}

/// Answers so many connections with what `answer` makes of its port, after it has read something.
fn scripted_by(answer: impl FnOnce(u16) -> Vec<u8>, times: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer(port);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(times) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            // Whatever comes further is read, so that nothing of the answer is lost to a reset.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

fn scripted(answer: Vec<u8>) -> u16 {
    scripted_by(|_| answer, 1)
}

#[test]
fn nobody_there_is_told() {
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let at = |host: &str| options(format!("rtsp://anna:{ENCODED_PASSWORD}@{host}/cam"));
    assert_fails(
        &at(&format!("127.0.0.1:{port}")),
        ProbeErrorKind::Refused,
        Step::Connect,
        "refused",
    );
    assert_fails(
        &at("no-such-host.invalid"),
        ProbeErrorKind::NameNotFound,
        Step::Connect,
        "no-such-host.invalid",
    );
    // The kernel has no route for TCP to the broadcast address.
    assert_fails(
        &at("255.255.255.255"),
        ProbeErrorKind::NoRoute,
        Step::Connect,
        "route",
    );
}

#[test]
fn addresses_that_are_none_are_told_without_their_secret() {
    for url in [
        "http://anna:s3cret%2Fword@host/",
        "rtsp://anna:s3cret%2Fword@",
        "anna:s3cret%2Fword@host",
        "rtsp://a:s3cret%2Fword@h:99999/",
    ] {
        assert_fails(
            &options(url),
            ProbeErrorKind::Address,
            Step::Address,
            "RTSP address",
        );
    }
}

#[test]
fn what_is_no_rtsp_server_is_told() {
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (answer, text) in [
        (http, "it answers in HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "SSH server"),
        (b"\x15\x03\x01\x00\x02\x02\x46".to_vec(), "rtsps"),
        (
            b"220 \x1b[2Jmail ready\r\n".to_vec(),
            "220 \\u{1b}[2Jmail ready",
        ),
        (
            b"RTSP/1.0 two hundred\r\n\r\n".to_vec(),
            "RTSP/1.0 two hundred",
        ),
    ] {
        let options = options(format!("rtsp://127.0.0.1:{}/cam", scripted(answer)));
        assert_fails(&options, ProbeErrorKind::NotRtsp, Step::Options, text);
    }
    let options = options(format!("rtsp://127.0.0.1:{}/cam", scripted(Vec::new())));
    assert_fails(&options, ProbeErrorKind::Closed, Step::Options, "hung up");
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = |scheme: &str| {
        let mut options = options(format!(
            "{scheme}://127.0.0.1:{}/cam",
            listener.local_addr().unwrap().port()
        ));
        options.step_timeout = Duration::from_millis(200);
        options
    };
    assert_fails(
        &at("rtsp"),
        ProbeErrorKind::TimedOut,
        Step::Options,
        "0.2 s",
    );
    assert_fails(&at("rtsps"), ProbeErrorKind::TimedOut, Step::Tls, "0.2 s");
}

#[test]
fn an_answer_without_end_is_cut() {
    let header = [b"RTSP/1.0 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let body = [
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 9000000\r\n\r\n".to_vec(),
        vec![b'x'; 1 << 20],
    ]
    .concat();
    for answer in [header, body] {
        let options = options(format!("rtsp://127.0.0.1:{}/cam", scripted(answer)));
        assert_fails(&options, ProbeErrorKind::TooLarge, Step::Options, "larger");
    }
}

/// Answers to OPTIONS and then DESCRIBE with a redirection.
fn redirection(location: &str) -> Vec<u8> {
    let options = "RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS\r\n\r\n";
    format!("{options}RTSP/1.0 302 Found\r\nCSeq: 2\r\nLocation: {location}\r\n\r\n").into_bytes()
}

#[test]
fn redirections_are_followed_with_the_login_and_not_for_ever() {
    let server = Server::start(Setup {
        login: Some(RTSPAuthMethod::Digest),
        ..Setup::default()
    });
    let port = scripted(redirection(&format!(
        "rtsp://127.0.0.1:{}/cam",
        server.port
    )));
    let report = run(&options(format!(
        "rtsp://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{port}/old"
    )))
    .unwrap();
    assert_eq!(
        report.redirected_from,
        [format!("rtsp://127.0.0.1:{port}/old")]
    );
    assert_eq!(report.login, Some("Digest"));

    let to_localhost = scripted(redirection(&format!(
        "rtsp://localhost:{}/cam",
        server.port
    )));
    // Another host does not get the login.
    let options = options(format!(
        "rtsp://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{to_localhost}/"
    ));
    assert_fails(
        &options,
        ProbeErrorKind::LoginWanted,
        Step::Describe,
        "Digest",
    );
}

#[test]
fn a_circle_of_redirections_ends() {
    let port = scripted_by(|port| redirection(&format!("rtsp://127.0.0.1:{port}/")), 10);
    assert_fails(
        &options(format!("rtsp://127.0.0.1:{port}/")),
        ProbeErrorKind::Redirect,
        Step::Describe,
        "more than 5",
    );
}

fn vita_probe(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vita"))
        .arg("probe")
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn the_command_prints_for_people_and_for_programs() {
    let server = Server::start(Setup {
        login: Some(RTSPAuthMethod::Digest),
        ..Setup::default()
    });
    let url = format!(
        "rtsp://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{}/cam",
        server.port
    );
    let output = vita_probe(&[&url]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("h264 320×180")
            && text.contains("login     Digest")
            && !text.contains("s3cret"),
        "{text}"
    );

    let output = vita_probe(&[&url, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["media"][1]["codec"], "pcmu");

    let wrong = url.replace("cam", "none");
    let output = vita_probe(&[&wrong, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            report["error"]["kind"].as_str(),
            report["error"]["step"].as_str()
        ),
        (Some("not_found"), Some("describe"))
    );
    assert_eq!(output.status.code(), Some(1));
    let output = vita_probe(&[&wrong]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("does not know this path") && !text.contains("s3cret"),
        "{text}"
    );
}

#[test]
fn check_asks_the_cameras_of_a_config() {
    let server = Server::start(Setup::default());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("site.toml");
    let check = |path: &str| {
        let uri = format!("rtsp://127.0.0.1:{}/{path}", server.port);
        let text = format!(
            "version = 1\nnats = {{ embedded = true }}\n[[source]]\nname = \"door\"\ntype = \"rtsp\"\nuri = \"{uri}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vita"));
        command.arg("check").arg(&config).output().unwrap()
    };
    let output = check("cam");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let output = check("none");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("source[0]") && text.contains("does not know this path"),
        "{text}"
    );
}
