//! A program under test, whose output is read line by line.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Nothing here takes long; a busy machine may.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Ended when dropped.
pub struct Program {
    pub child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Program {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The next line of standard output, if one comes before the end or the time is over.
    pub fn line_within(&self, time: Duration) -> Option<String> {
        self.stdout.recv_timeout(time).ok()
    }

    #[track_caller]
    pub fn line(&self) -> String {
        self.line_within(PATIENCE)
            .unwrap_or_else(|| panic!("no output; on standard error: {:?}", self.errors()))
    }

    /// The next line of standard error that has this text.
    #[track_caller]
    pub fn error_with(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .stderr
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return line;
            }
        }
        panic!("nothing with {text:?} on standard error");
    }

    pub fn errors(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
