//! A real `nats-server` for tests: on a port of its own with JetStream, stopped, frozen and started again on the same store.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start or stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The set-up's program in `VITA_CACHE`, or its default place.
pub fn cache_dir() -> PathBuf {
    let from = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("VITA_CACHE").unwrap_or_else(|| {
        let caches =
            from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        caches.unwrap_or_default().join("vita-stream")
    })
}

/// Ended when dropped.
pub struct NatsServer {
    dir: PathBuf,
    port: u16,
    config: String,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts one with its store and log in `dir`.
    pub fn start(dir: &Path) -> io::Result<Self> {
        Self::start_with(dir, "")
    }

    /// With further lines for its configuration.
    pub fn start_with(dir: &Path, config: &str) -> io::Result<Self> {
        let mut server = Self::absent(dir, config)?;
        server.restart()?;
        Ok(server)
    }

    /// Only chooses its port; [`restart`](Self::restart) starts it.
    pub fn absent(dir: &Path, config: &str) -> io::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Ok(Self {
            dir: dir.to_owned(),
            port,
            config: config.to_owned(),
            child: None,
        })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it where it does not run, on the same port and store, and waits until it takes connections.
    pub fn restart(&mut self) -> io::Result<()> {
        let (config, log) = (self.dir.join("nats.conf"), self.dir.join("nats.log"));
        let (port, store) = (self.port, self.dir.join("store"));
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n{}\n",
            self.config
        );
        fs::write(&config, text)?;
        let log_file = fs::File::create(&log)?;
        let mut command = Command::new(cache_dir().join("bin/nats-server"));
        command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        self.child = Some(command.spawn()?);
        self.wait_until(|log| log.contains("Server is ready"), &log)
    }

    fn wait_until(&mut self, is_reached: impl Fn(&str) -> bool, log: &Path) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let text = fs::read_to_string(log).unwrap_or_default();
            if is_reached(&text) {
                return Ok(());
            }
            if self
                .child
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
            {
                return Err(io::Error::other(format!("nats-server ended: {text}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// Stops it from running (SIGSTOP): connections stay and nothing answers.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets it run again (SIGCONT).
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let id = self
            .child
            .as_ref()
            .map(Child::id)
            .ok_or(io::ErrorKind::NotConnected)?;
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill -{name} failed")))
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// PEM files of an authority of its own and a certificate that it signed.
pub struct Certificate {
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Certificate {
    /// For a name such as `IP:127.0.0.1` or `DNS:camera.example`, with the program `openssl`.
    pub fn make(dir: &Path, name: &str) -> io::Result<Self> {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            dir,
            &format!(
                "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority -addext basicConstraints=critical,CA:TRUE"
            ),
        )?;
        openssl(
            dir,
            &format!("req {key} -keyout key.pem -out request.pem -subj /CN=server"),
        )?;
        fs::write(dir.join("names"), format!("subjectAltName={name}"))?;
        let sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names";
        openssl(dir, sign)?;
        let [ca_file, cert_file, key_file] =
            ["ca.pem", "cert.pem", "key.pem"].map(|file| dir.join(file));
        Ok(Self {
            ca_file,
            cert_file,
            key_file,
        })
    }
}

fn openssl(dir: &Path, args: &str) -> io::Result<()> {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(args.split(' '))
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("openssl {args}: {text}")))
}
