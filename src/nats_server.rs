//! The embedded broker: `nats-server` as a child process on loopback, with JetStream and a store folder of its own.
//!
//! It never outlives us. A second child, a shell that waits at a pipe of ours, ends it when the pipe closes, which the
//! kernel sees to even when we are killed. (The parent-death signal of Linux is no help: it is tied to the thread that
//! spawned the child, and needs unsafe code.) It never shares its store: the server inherits a lock on the folder as its
//! standard input, so the lock is there as long as the server is, not as long as we are.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::plan::Retry;
use crate::run::backoff::Backoff;

pub use vita_engine::models::cache_dir;

/// How long a slow machine may take to replay a big store.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The server of a process that was killed needs a moment to let go of the store.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const RESTART: Retry = Retry {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(10),
    jitter: 0.1,
};
const LOG_TAIL_LINES: usize = 8;
const LOCK_FILE: &str = "vita.lock";
/// Ends process $0 once standard input is closed.
const GUARD: &str = r#"read -r _; kill -TERM "$0" 2>/dev/null"#;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no nats-server program: looked at {}; run `make setup`, or set `program` to where it is", list(.tried))]
    ProgramMissing { tried: Vec<PathBuf> },
    #[error("{path}: cannot keep the broker's store there: {source}", path = .path.display())]
    Store { path: PathBuf, source: io::Error },
    #[error("{dir}: in use by another broker; give each `vita run` a store folder of its own", dir = .dir.display())]
    StoreInUse { dir: PathBuf },
    #[error("{program}: cannot be started: {source}", program = .program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("nats-server ended at once ({status}): {log}")]
    Ended { status: ExitStatus, log: String },
    #[error("nats-server did not take connections within {} s: {log}", READY_WITHIN.as_secs())]
    NotReady { log: String },
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A running broker. Dropped without [`stop`](Self::stop), it is killed.
#[derive(Debug)]
pub struct EmbeddedNats {
    url: String,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl EmbeddedNats {
    /// Starts the server and returns once it takes connections. From then on it is started again, on the same port,
    /// whenever it dies.
    ///
    /// `port` 0 is a free one; `program` `None` is the set-up's, else the one on `PATH`.
    pub async fn start(store_dir: &Path, port: u16, program: Option<&Path>) -> Result<Self, Error> {
        let program = find_program(program)?;
        let lock = lock_store(store_dir).await?;
        let mut launcher = Launcher {
            program,
            store_dir: store_dir.to_owned(),
            port,
            lock,
        };
        let (server, url) = launcher.launch().await?;
        tracing::info!(url, store = %store_dir.display(), "broker ready");
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn(keep(launcher, server, stopped));
        Ok(Self { url, stop, keeper })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server in good order, within a bounded time.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if let Err(error) = self.keeper.await {
            tracing::error!(%error, "the broker's keeper failed");
        }
    }
}

/// Restarts the server until it is told to stop.
async fn keep(mut launcher: Launcher, mut server: Server, mut stopped: oneshot::Receiver<()>) {
    let mut backoff = Backoff::new(RESTART, StdRng::from_os_rng());
    backoff.succeeded(Instant::now());
    loop {
        tokio::select! {
            _ = &mut stopped => return server.stop().await,
            status = server.child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::error!(status, "the broker died, starting it again");
            }
        }
        server = loop {
            let wait = backoff.failed(Instant::now());
            tokio::select! {
                _ = &mut stopped => return,
                () = sleep(wait) => {}
            }
            match launcher.launch().await {
                Ok((server, url)) => {
                    tracing::info!(url, "broker ready again");
                    backoff.succeeded(Instant::now());
                    break server;
                }
                Err(error) => tracing::error!(%error, "the broker could not be started again"),
            }
        };
    }
}

struct Server {
    child: Child,
    // Before the leash: of a server that is dead, the guard must not end who has its process id now.
    guard: Child,
    /// Closing it ends the server.
    leash: ChildStdin,
    log: LogTail,
}

impl Server {
    async fn stop(mut self) {
        drop(self.leash);
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(_) => tracing::debug!("broker stopped"),
            Err(_) => {
                tracing::warn!(
                    "the broker did not stop within {} s, killing it",
                    STOP_WITHIN.as_secs()
                );
                let _ = self.child.kill().await;
            }
        }
        let _ = self.guard.kill().await;
    }
}

struct Launcher {
    program: PathBuf,
    store_dir: PathBuf,
    /// 0 until the first start has found a free one.
    port: u16,
    lock: File,
}

impl Launcher {
    async fn launch(&mut self) -> Result<(Server, String), Error> {
        let mut server = self.spawn()?;
        let url = timeout(READY_WITHIN, self.ready(&mut server)).await;
        match url.unwrap_or_else(|_| {
            Err(Error::NotReady {
                log: server.log.text(),
            })
        }) {
            Ok(url) => Ok((server, url)),
            Err(error) => {
                let _ = server.child.kill().await;
                let _ = server.guard.kill().await;
                Err(error)
            }
        }
    }

    fn spawn(&self) -> Result<Server, Error> {
        self.remove_ports_files();
        let start = |source| Error::Start {
            program: self.program.clone(),
            source,
        };
        let lock = self.lock.try_clone().map_err(start)?;
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        // Groups of their own: a Ctrl-C in the terminal is for us, and the last events still need the broker.
        let mut child = Command::new(&self.program)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port,
                "--name",
                "vita",
                "--logtime=false",
                "--jetstream",
            ])
            .arg("--store_dir")
            .arg(&self.store_dir)
            .arg("--ports_file_dir")
            .arg(&self.store_dir)
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, &child.id().unwrap_or_default().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start {
                program: "sh".into(),
                source,
            })?;
        let no_pipe = || start(io::Error::other("no pipe to it"));
        let leash = guard.stdin.take().ok_or_else(no_pipe)?;
        let log = LogTail::default();
        tokio::spawn(forward_log(
            child.stderr.take().ok_or_else(no_pipe)?,
            log.clone(),
        ));
        Ok(Server {
            child,
            leash,
            guard,
            log,
        })
    }

    /// The server's address, once it has said it in its ports file and a client could connect.
    async fn ready(&mut self, server: &mut Server) -> Result<String, Error> {
        let pid = server.child.id().unwrap_or_default();
        loop {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(Error::Ended {
                    status,
                    log: server.log.text(),
                });
            }
            let url = self
                .ports_files()
                .find_map(|(path, owner)| (owner == pid).then(|| read_url(&path))?);
            if let Some(url) = url
                && let Ok(client) = async_nats::connect(&url).await
            {
                self.port = client.server_info().port;
                return Ok(url);
            }
            sleep(POLL).await;
        }
    }

    /// `<program>_<pid>.ports` with the process id of each.
    fn ports_files(&self) -> impl Iterator<Item = (PathBuf, u32)> {
        let entries = fs::read_dir(&self.store_dir)
            .into_iter()
            .flatten()
            .flatten();
        entries.filter_map(|entry| {
            let path = entry.path();
            let name = path.file_name()?.to_str()?.strip_suffix(".ports")?;
            let pid = name.rsplit_once('_')?.1.parse().ok()?;
            Some((path, pid))
        })
    }

    /// A server that was killed leaves its file behind, and its process id may come again.
    fn remove_ports_files(&self) {
        for (path, _) in self.ports_files() {
            let _ = fs::remove_file(path);
        }
    }
}

/// The first client address in a ports file, which may be half written.
fn read_url(ports_file: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_slice(&fs::read(ports_file).ok()?).ok()?;
    ports.nats.into_iter().next()
}

async fn lock_store(store_dir: &Path) -> Result<File, Error> {
    let store = |path: &Path, source| Error::Store {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(store_dir).map_err(|source| store(store_dir, source))?;
    let path = store_dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path);
    let file = file.map_err(|source| store(&path, source))?;
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(Error::StoreInUse {
                    dir: store_dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(store(&path, source)),
        }
    }
}

/// The config's program, else the one in the set-up's cache, else the one on `PATH`.
pub fn find_program(configured: Option<&Path>) -> Result<PathBuf, Error> {
    let tried: Vec<PathBuf> = match configured {
        Some(program) => vec![program.to_owned()],
        None => {
            let path = env::var_os("PATH").unwrap_or_default();
            let on_path = env::split_paths(&path).map(|dir| dir.join("nats-server"));
            cache_dir()
                .map(|dir| dir.join("bin/nats-server"))
                .into_iter()
                .chain(on_path)
                .collect()
        }
    };
    let found = tried.iter().find(|program| program.is_file()).cloned();
    found.ok_or(Error::ProgramMissing { tried })
}

/// The last lines that the server said, for errors.
#[derive(Clone, Default)]
struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl LogTail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Errors if there are some, else everything.
    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let errors: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("[FTL]") || line.contains("[ERR]"))
            .collect();
        let said = if errors.is_empty() {
            lines.iter().collect()
        } else {
            errors
        };
        let said: Vec<_> = said.into_iter().map(|line| split_level(line).1).collect();
        if said.is_empty() {
            "it said nothing".to_owned()
        } else {
            said.join("; ")
        }
    }
}

async fn forward_log(stderr: impl AsyncRead + Unpin, tail: LogTail) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match split_level(&line) {
            ("ERR" | "FTL", text) => tracing::error!(target: "nats_server", "{text}"),
            ("WRN", text) => tracing::warn!(target: "nats_server", "{text}"),
            (_, text) => tracing::debug!(target: "nats_server", "{text}"),
        }
        tail.push(line);
    }
}

/// `[123] [INF] text` → `INF`, `text`.
fn split_level(line: &str) -> (&str, &str) {
    let level = line
        .split_once("] [")
        .and_then(|(_, rest)| rest.split_once("] "));
    level.unwrap_or(("", line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_taken_off_a_line() {
        assert_eq!(split_level("[22] [FTL] no port"), ("FTL", "no port"));
        assert_eq!(
            split_level("nats-server: no such flag"),
            ("", "nats-server: no such flag")
        );
    }

    #[test]
    fn a_missing_program_says_where_it_was_looked_for_and_what_to_do() {
        let error = find_program(Some(Path::new("/nowhere/nats-server")))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no nats-server program: looked at /nowhere/nats-server; run `make setup`, or set `program` to where it is"
        );
    }
}
