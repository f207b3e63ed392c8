//! The built program at work.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::process::{Process, wait_until};

pub struct Vita {
    pub process: Process,
    log: Arc<Mutex<Vec<String>>>,
}

impl Vita {
    /// Runs a config that is written into `dir`.
    pub fn run(dir: &Path, config: &str) -> Self {
        let path = dir.join("config.toml");
        fs::write(&path, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vita"))
            .arg("run")
            .arg(path)
            .args(["--log-format", "json"])
            .env("VITA_LOG", "info,vita_stream=debug")
            // So that plugins are looked at once, not by each test.
            .env(
                "GST_REGISTRY",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("gst-registry.bin"),
            )
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Shown by the test harness when the test fails.
                println!("{line}");
                lines.lock().unwrap().push(line);
            }
        });
        Self {
            process: Process(child),
            log,
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for so many lines of the log with this message, and returns the last of them.
    #[track_caller]
    pub fn wait_for_logs(&self, message: &str, count: usize) -> Value {
        let find = || {
            let events = self.log().into_iter();
            let events = events.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            events
                .filter(|event| event["message"] == message)
                .nth(count - 1)
        };
        wait_until(&format!("{message:?} in the log"), || find().is_some());
        find().unwrap()
    }

    /// Address of the embedded broker.
    #[track_caller]
    pub fn broker(&self) -> String {
        self.wait_for_logs("broker ready", 1)["url"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
