//! How to reach a broker, and what can go wrong on the way.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::rustls;
use async_nats::{Client, ConnectErrorKind, ConnectOptions};

use crate::server_url::{Login, ServerUrl, redact};

/// How to reach a broker.
#[derive(Clone)]
pub struct Broker {
    /// Tried in this order.
    pub servers: Vec<ServerUrl>,
    /// A `.creds` file: user JWT and key.
    pub credentials_file: Option<PathBuf>,
    /// Used where the address has no login of its own.
    pub token: Option<String>,
    /// PEM file of further certificate authorities to trust.
    pub tls_ca_file: Option<PathBuf>,
    /// How the broker lists us.
    pub client_name: String,
    /// For TCP, TLS and greeting together.
    pub connect_timeout: Duration,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("servers", &self.servers)
            .field("credentials_file", &self.credentials_file)
            .field("token", &self.token.as_ref().map(|_| "<secret>"))
            .field("tls_ca_file", &self.tls_ca_file)
            .field("client_name", &self.client_name)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerErrorKind {
    /// Nobody listens there.
    Refused,
    Unreachable,
    NameNotFound,
    /// Somebody may listen, but does not answer as a broker in time.
    TimedOut,
    /// Wrong or missing credentials.
    Unauthorized,
    Tls,
    /// The credentials or certificate file cannot be used.
    File,
    /// The broker has no JetStream, or none for this account.
    JetStream,
    /// Connected, and something else went wrong.
    Other,
}

/// Without secrets, whatever the address held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerError {
    pub kind: BrokerErrorKind,
    pub what: String,
    /// What to do about it, where that is known.
    pub remedy: Option<&'static str>,
}

impl std::error::Error for BrokerError {}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl BrokerError {
    pub(crate) fn new(
        kind: BrokerErrorKind,
        what: impl AsRef<str>,
        remedy: Option<&'static str>,
    ) -> Self {
        Self {
            kind,
            what: redact(what.as_ref()),
            remedy,
        }
    }

    fn file(path: &Path, error: &dyn fmt::Display) -> Self {
        let what = format!("{}: {error}", path.display());
        let remedy = "check the path, and that this user may read it";
        Self::new(BrokerErrorKind::File, what, Some(remedy))
    }

    fn connect(server: &ServerUrl, error: &async_nats::ConnectError) -> Self {
        use BrokerErrorKind as Kind;
        let kind = connect_error_kind(error);
        let (what, remedy) = match kind {
            Kind::Refused => (
                "connection refused",
                "is the broker running, and is the port right?",
            ),
            Kind::Unreachable => ("no way to that host", "check address, network and firewall"),
            Kind::NameNotFound => ("host name not found", "check its spelling and DNS"),
            Kind::TimedOut => (
                "no answer in time",
                "is it a NATS port, and is the broker alive?",
            ),
            Kind::Unauthorized => (
                "not let in (authorization violation)",
                "check user, password, token or credentials file",
            ),
            Kind::Tls => (
                "no secure connection",
                "check the certificate, its host name and the CA file",
            ),
            _ => ("cannot connect", "see the broker's log"),
        };
        let source = std::error::Error::source(error)
            .map(|source| format!(" ({source})"))
            .unwrap_or_default();
        Self::new(
            kind,
            format!("broker {server}: {what}{source}"),
            Some(remedy),
        )
    }
}

impl Broker {
    pub fn new(servers: Vec<ServerUrl>) -> Self {
        Self {
            servers,
            credentials_file: None,
            token: None,
            tls_ca_file: None,
            client_name: "vita".into(),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// A connection that is made anew whenever it breaks. The first one has to succeed.
    pub async fn connect(&self) -> Result<Client, BrokerError> {
        self.connect_with(|options| options).await
    }

    /// [`connect`](Self::connect) with options of the caller's on top.
    pub async fn connect_with(
        &self,
        adapt: impl Fn(ConnectOptions) -> ConnectOptions,
    ) -> Result<Client, BrokerError> {
        self.try_each(&[], adapt).await
    }

    /// With further addresses for the client to know; the first server that lets us in.
    pub(crate) async fn try_each(
        &self,
        further: &[&str],
        adapt: impl Fn(ConnectOptions) -> ConnectOptions,
    ) -> Result<Client, BrokerError> {
        let mut failure = BrokerError::new(BrokerErrorKind::Other, "no broker address", None);
        for server in &self.servers {
            let options = adapt(self.options(server).await?);
            // The address has no login in it: async-nats writes addresses to its log.
            let addresses = [&[server.address().as_str()], further].concat();
            match options.connect(addresses.as_slice()).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = BrokerError::connect(server, &error),
            }
        }
        Err(failure)
    }

    async fn options(&self, server: &ServerUrl) -> Result<ConnectOptions, BrokerError> {
        let mut options = ConnectOptions::new()
            .name(&self.client_name)
            .connection_timeout(self.connect_timeout)
            .ping_interval(Duration::from_secs(10));
        if let Some(path) = &self.credentials_file {
            let credentials = tokio::fs::read_to_string(path)
                .await
                .map_err(|error| BrokerError::file(path, &error))?;
            // Its error would quote the file.
            options = options.credentials(&credentials).map_err(|_| {
                BrokerError::file(path, &"not a credentials file of NATS (user JWT and key)")
            })?;
        }
        if let Some(path) = &self.tls_ca_file {
            tokio::fs::metadata(path)
                .await
                .map_err(|error| BrokerError::file(path, &error))?;
            options = options.add_root_certificates(path.clone());
        }
        Ok(match (server.login(), &self.token) {
            (Login::Password { user, password }, _) => {
                options.user_and_password(user.clone(), password.clone())
            }
            (Login::Token(token), _) | (Login::None, Some(token)) => options.token(token.clone()),
            (Login::None, None) => options,
        })
    }
}

fn connect_error_kind(error: &async_nats::ConnectError) -> BrokerErrorKind {
    match error.kind() {
        ConnectErrorKind::Dns => BrokerErrorKind::NameNotFound,
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            BrokerErrorKind::Unauthorized
        }
        ConnectErrorKind::TimedOut => BrokerErrorKind::TimedOut,
        ConnectErrorKind::Tls => BrokerErrorKind::Tls,
        _ => io_error_kind(error),
    }
}

fn io_error_kind(error: &async_nats::ConnectError) -> BrokerErrorKind {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<rustls::Error>() {
            return BrokerErrorKind::Tls;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // An io::Error around another error is not in the chain of sources.
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>())
            {
                return BrokerErrorKind::Tls;
            }
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return BrokerErrorKind::Refused,
                io::ErrorKind::TimedOut => return BrokerErrorKind::TimedOut,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    return BrokerErrorKind::Unreachable;
                }
                _ => {}
            }
        }
        source = error.source();
    }
    BrokerErrorKind::Other
}
