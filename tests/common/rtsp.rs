//! The example `rtsp_server` in a process of its own, to be killed, frozen and started again.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::media;
use super::process::Process;

pub struct RtspServer {
    process: Process,
    args: Vec<String>,
    /// `rtsp://127.0.0.1:<port>`.
    pub address: String,
}

impl RtspServer {
    pub fn start(args: &[&str]) -> Self {
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (process, address) = spawn(&args);
        let port = address.rsplit(':').next().unwrap();
        args.extend(["--port".into(), port.into()]);
        Self {
            process,
            args,
            address,
        }
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// On the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.args).0;
    }

    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.signal("CONT");
    }
}

fn spawn(args: &[String]) -> (Process, String) {
    let mut child = Command::new(program())
        .arg(media::street())
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example rtsp_server");
    let stdout = child.stdout.take().unwrap();
    let process = Process(child);
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address).unwrap();
    assert!(
        address.starts_with("rtsp"),
        "the server ended before it listened"
    );
    (process, address.trim().to_owned())
}

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_vita"))
        .with_file_name("examples")
        .join("rtsp_server");
    assert!(
        program.exists(),
        "{} is missing: `cargo build --workspace --examples`",
        program.display()
    );
    program
}

/// A certificate of its own and its key, in PEM.
pub fn self_signed(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null())
        .status()
        .expect("openssl");
    assert!(status.success());
    (cert, key)
}
