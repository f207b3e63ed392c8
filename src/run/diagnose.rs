//! Why an RTSP server could not be reached: `rtspsrc` has one error for everything from a misspelt name to a camera without power.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::{Host, Url};
use vita_messages::kinds::{SourceReason, SourceReasonKind};

use super::reason;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const RTSP_PORT: u16 = 554;
const RTSPS_PORT: u16 = 322;

/// `None`: no RTSP address.
pub async fn diagnose(uri: &str) -> Option<SourceReason> {
    let url = Url::parse(uri).ok()?;
    let is_tls = url.scheme().starts_with("rtsps");
    if !url.scheme().starts_with("rtsp") {
        return None;
    }
    let host = match Host::parse(url.host_str()?).ok()? {
        Host::Ipv6(address) => address.to_string(),
        host => host.to_string(),
    };
    let port = url
        .port()
        .unwrap_or(if is_tls { RTSPS_PORT } else { RTSP_PORT });
    let (kind, text) = match timeout(CONNECT_WITHIN, connect(&host, port)).await {
        Err(_) => (SourceReasonKind::TimedOut, "no answer".to_owned()),
        Ok(Err((kind, error))) => (kind, error.to_string()),
        Ok(Ok(())) if is_tls => (
            SourceReasonKind::Tls,
            "no secure connection; is its certificate trusted?".to_owned(),
        ),
        Ok(Ok(())) => (
            SourceReasonKind::Protocol,
            "it listens but does not answer in RTSP".to_owned(),
        ),
    };
    Some(reason::new(kind, format!("{host}:{port}: {text}")))
}

async fn connect(host: &str, port: u16) -> Result<(), (SourceReasonKind, io::Error)> {
    let addresses: Vec<_> = match lookup_host((host, port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err((SourceReasonKind::NameNotFound, error)),
    };
    let connected = TcpStream::connect(addresses.as_slice()).await;
    connected.map(drop).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => SourceReasonKind::Refused,
            io::ErrorKind::TimedOut => SourceReasonKind::TimedOut,
            _ => SourceReasonKind::Unreachable,
        };
        (kind, error)
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn kind(uri: &str) -> Option<SourceReasonKind> {
        diagnose(uri).await.map(|reason| reason.kind)
    }

    #[tokio::test]
    async fn what_rtspsrc_does_not_tell_apart_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            kind(&format!("rtsp://me:pw@127.0.0.1:{port}/x")).await,
            Some(SourceReasonKind::Protocol)
        );
        assert_eq!(
            kind(&format!("rtsps://127.0.0.1:{port}/x")).await,
            Some(SourceReasonKind::Tls)
        );
        drop(listener);
        assert_eq!(
            kind(&format!("rtsp://127.0.0.1:{port}/x")).await,
            Some(SourceReasonKind::Refused)
        );
        assert_eq!(
            kind("rtsp://no-such-host.invalid/x").await,
            Some(SourceReasonKind::NameNotFound)
        );
        assert_eq!(kind("file:///etc/passwd").await, None);
    }

    #[tokio::test]
    async fn a_password_is_not_told() {
        let reason = diagnose("rtsp://me:hunter2@127.0.0.1:9/x").await.unwrap();
        assert_eq!(
            reason.text,
            "127.0.0.1:9: Connection refused (os error 111)"
        );
    }
}
