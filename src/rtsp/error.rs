use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio_rustls::rustls;

/// How far a probe came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The address is read.
    Address,
    /// Name look-up and TCP.
    Connect,
    Tls,
    Options,
    Describe,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeErrorKind {
    /// The address cannot be read.
    Address,
    NameNotFound,
    Refused,
    NoRoute,
    TimedOut,
    Tls,
    /// Somebody answers, in another protocol.
    NotRtsp,
    /// The peer hung up.
    Closed,
    /// No such path.
    NotFound,
    /// A login is wanted and none was given.
    LoginWanted,
    /// The login was refused.
    WrongLogin,
    /// Another status than 200.
    Status,
    Redirect,
    /// The description cannot be read.
    Description,
    /// The answer is larger than anything sensible.
    TooLarge,
    Other,
}

/// What went wrong, where, and what to do. Holds no secret.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{}: {text}; {remedy}", step.name())]
pub struct ProbeError {
    pub kind: ProbeErrorKind,
    pub step: Step,
    pub text: String,
    pub remedy: String,
}

impl ProbeError {
    pub(super) fn new(kind: ProbeErrorKind, text: String, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            step: Step::Address,
            text,
            remedy: remedy.into(),
        }
    }

    pub(super) fn at(mut self, step: Step) -> Self {
        self.step = step;
        self
    }

    pub(super) fn address(text: String) -> Self {
        Self::new(
            ProbeErrorKind::Address,
            text,
            "write it like rtsp://user:password@camera:554/path",
        )
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        let text = format!("no answer within {} s", after.as_secs_f64());
        Self::new(
            ProbeErrorKind::TimedOut,
            text,
            "check address, port and firewall, that the server is alive, and whether it wants rtsps://",
        )
    }

    pub(super) fn name_not_found(host: &str, error: &io::Error) -> Self {
        let text = format!("host {host} is not known ({error})");
        Self::new(
            ProbeErrorKind::NameNotFound,
            text,
            "check its spelling and DNS, or give an IP address",
        )
    }

    pub(super) fn connect(error: &io::Error) -> Self {
        let (kind, remedy) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                ProbeErrorKind::Refused,
                "check the port, and that the server runs",
            ),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => (
                ProbeErrorKind::NoRoute,
                "check the address, the network and VLAN, and the routes of this machine",
            ),
            io::ErrorKind::TimedOut => {
                (ProbeErrorKind::TimedOut, "check address, port and firewall")
            }
            _ => (ProbeErrorKind::Other, "check address and network"),
        };
        Self::new(kind, error.to_string(), remedy)
    }

    pub(super) fn tls(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let remedy = match inner {
            Some(rustls::Error::InvalidCertificate(error)) => certificate_remedy(error),
            Some(rustls::Error::InvalidMessage(_)) => {
                "the server does not speak TLS on this port; try rtsp://, or the port for rtsps"
            }
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the server hung up; it may not speak TLS on this port"
            }
            _ => "check which versions of TLS the server has",
        };
        Self::new(
            ProbeErrorKind::Tls,
            format!("no secure connection: {error}"),
            remedy,
        )
    }

    pub(super) fn tls_files(text: String) -> Self {
        Self::new(ProbeErrorKind::Tls, text, "give a PEM file of certificates").at(Step::Tls)
    }

    pub(super) fn closed() -> Self {
        let remedy = "check that the port is the one for RTSP; rtsps:// is for TLS";
        Self::new(
            ProbeErrorKind::Closed,
            "the server hung up without an answer".into(),
            remedy,
        )
    }

    pub(super) fn not_rtsp(what: &str) -> Self {
        let text = format!("this is not an RTSP server: {what}");
        Self::new(
            ProbeErrorKind::NotRtsp,
            text,
            "check the port; RTSP is usually 554 or 8554, rtsps 322",
        )
    }

    pub(super) fn too_large(bytes: usize) -> Self {
        let text = format!("the answer is larger than {bytes} bytes");
        Self::new(
            ProbeErrorKind::TooLarge,
            text,
            "check that the address is that of a camera",
        )
    }

    pub(super) fn not_found() -> Self {
        let text = "the server does not know this path (404)".into();
        Self::new(
            ProbeErrorKind::NotFound,
            text,
            "look up the path of the stream in the camera's manual or web page",
        )
    }

    pub(super) fn status(status: u16, reason: &str) -> Self {
        let remedy = match status {
            403 => "the server forbids it to this user or address; see its settings",
            453 | 503 => "the server is at its limit; close other viewers and try again",
            500..=599 => "see the server's log",
            _ => "see the server's manual",
        };
        Self::new(
            ProbeErrorKind::Status,
            format!("the server answers {status} {reason}"),
            remedy,
        )
    }

    pub(super) fn redirect(text: String) -> Self {
        Self::new(
            ProbeErrorKind::Redirect,
            text,
            "give the address where it leads",
        )
        .at(Step::Describe)
    }

    pub(super) fn description(text: String) -> Self {
        Self::new(
            ProbeErrorKind::Description,
            text,
            "check that the path is that of a stream",
        )
        .at(Step::Describe)
    }
}

fn certificate_remedy(error: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    match error {
        UnknownIssuer => {
            "nobody trusted here signed the certificate; give its authority with --ca-file, or take any with --insecure"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "the certificate is for another name; use that name, or take any with --insecure"
        }
        Expired | ExpiredContext { .. } => {
            "renew the certificate, and check the clocks of both machines"
        }
        _ => "give its authority with --ca-file, or take any with --insecure",
    }
}
