//! What a deployment comes down to once its config is parsed, checked and resolved: all that the supervisor knows of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use vita_engine::models::{DeviceSpec, Precision};
use vita_messages::{Broker, ServerUrl, ServerUrlError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A whole deployment.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nats: NatsPlan,
    pub sources: Vec<SourcePlan>,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub struct NatsPlan {
    pub server: NatsServer,
    /// First tokens of every subject.
    pub prefix: String,
    /// Where durable messages wait while the broker is away.
    pub spool_dir: PathBuf,
    pub spool_max_bytes: u64,
}

#[derive(Clone, Debug)]
pub enum NatsServer {
    /// A child process of ours on loopback, with JetStream, that ends with us.
    Embedded {
        store_dir: PathBuf,
        /// 0: a free one.
        port: u16,
        /// The `nats-server` program; `None`: the set-up's, else the one on `PATH`.
        program: Option<PathBuf>,
    },
    Remote {
        url: Secret,
        credentials_file: Option<PathBuf>,
        token: Option<Secret>,
        tls_ca_file: Option<PathBuf>,
    },
}

impl NatsServer {
    /// How to reach it. `None`: it is ours to start.
    pub fn broker(&self) -> Option<Result<Broker, ServerUrlError>> {
        let Self::Remote {
            url,
            credentials_file,
            token,
            tls_ca_file,
        } = self
        else {
            return None;
        };
        Some(ServerUrl::parse_list(url.reveal()).map(|servers| Broker {
            credentials_file: credentials_file.clone(),
            token: token.as_ref().map(|token| token.reveal().to_owned()),
            tls_ca_file: tls_ca_file.clone(),
            ..Broker::new(servers)
        }))
    }
}

/// One source: one GStreamer pipeline under supervision.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// A subject token: letters, digits, `-` and `_`.
    pub name: String,
    /// The gst-launch text. Secret, because camera passwords stand in it.
    pub launch: Secret,
    pub video: Wanted,
    pub audio: Wanted,
    /// What answers in it; `None`: nothing does.
    pub model: Option<ModelPlan>,
    /// Certificates for the media source to trust; no gst-launch text can say that.
    pub tls_ca_file: Option<PathBuf>,
    pub at_end: AtEnd,
    /// No buffer from the source for this long means that it stalled.
    pub stall_timeout: Duration,
    pub retry: Retry,
}

/// A model as the elements of a pipeline open it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelPlan {
    /// A folder, or a name in the cache.
    pub name: String,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: DeviceSpec,
    pub precision: Precision,
}

/// Whether a medium is taken from a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// If the source has it.
    #[default]
    Auto,
    /// A source without it has failed.
    On,
    /// It is neither asked for nor decoded.
    Off,
}

/// What the end of the stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// A live source does not end: it is announced as down and tried again.
    Retry,
    /// A file that plays once.
    Finish,
    /// A file that plays for ever.
    Loop,
}

/// Back-off between attempts: doubled from `initial` up to `max`, each multiplied by a random 1 ± `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    pub initial: Duration,
    pub max: Duration,
    pub jitter: f64,
}

/// Text that is never printed: `Debug` and `Display` say only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
