//! A connection that carries requests, one at a time, and reads no more than an answer may have.

use std::sync::Arc;

use rtsp_types::headers::CSEQ;
use rtsp_types::{Empty, Message, ParseError, Request, Response, Url};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::ProbeError;
use crate::terminal::plain;

/// Descriptions have a few KiB.
const MAX_ANSWER_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 16 << 10;
const RTSP_PORT: u16 = 554;
const RTSPS_PORT: u16 = 322;
/// How an answer of RTSP starts.
const START: &[u8] = b"RTSP/";

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    cseq: u32,
}

pub(super) async fn connect(url: &Url) -> Result<TcpStream, ProbeError> {
    let default_port = if url.scheme() == "rtsps" {
        RTSPS_PORT
    } else {
        RTSP_PORT
    };
    // The brackets of an IPv6 address belong to the URL.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let addresses = tokio::net::lookup_host((host, url.port().unwrap_or(default_port))).await;
    let addresses = addresses.map_err(|error| ProbeError::name_not_found(host, &error))?;
    let mut failure = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(ProbeError::connect(&failure))
}

impl Connection {
    pub fn plain(stream: TcpStream) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            cseq: 0,
        }
    }

    pub async fn secure(
        stream: TcpStream,
        url: &Url,
        config: Arc<ClientConfig>,
    ) -> Result<Self, ProbeError> {
        let host = url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let name = ServerName::try_from(host)
            .map_err(|error| ProbeError::address(format!("no host name for TLS: {error}")))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| ProbeError::tls(&error))?;
        Ok(Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            cseq: 0,
        })
    }

    pub async fn exchange(
        &mut self,
        mut request: Request<Empty>,
    ) -> Result<Response<Vec<u8>>, ProbeError> {
        self.cseq += 1;
        request.insert_header(CSEQ, self.cseq.to_string());
        let mut bytes = Vec::new();
        let written = request.write(&mut bytes);
        written.map_err(|error| {
            ProbeError::address(format!("the request cannot be written: {error}"))
        })?;
        self.stream
            .write_all(&bytes)
            .await
            .map_err(|_| ProbeError::closed())?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Response<Vec<u8>>, ProbeError> {
        loop {
            if let Some(message) = self.parse()? {
                match message {
                    // One to a request of ours that was given up would be older; there is only one at a time.
                    Message::Response(response) => return Ok(response),
                    // What a server sends unasked is no answer.
                    Message::Request(_) | Message::Data(_) => continue,
                }
            }
            if self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(ProbeError::too_large(MAX_ANSWER_BYTES));
            }
            // Each piece is parsed from the start, so few and large ones.
            self.buffer.reserve(READ_BYTES);
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|_| ProbeError::closed())?;
            if read == 0 {
                return Err(if self.buffer.is_empty() {
                    ProbeError::closed()
                } else {
                    ProbeError::not_rtsp(&self.greeting())
                });
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Message<Vec<u8>>>, ProbeError> {
        let blank = self
            .buffer
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.buffer.drain(..blank);
        let Some(first) = self.buffer.first() else {
            return Ok(None);
        };
        let is_data = *first == b'$';
        let is_method = self.cseq > 1 && first.is_ascii_uppercase();
        let compared = self.buffer.len().min(START.len());
        if !is_data && !is_method && self.buffer[..compared] != START[..compared] {
            return Err(ProbeError::not_rtsp(&self.greeting()));
        }
        match Message::parse(&self.buffer) {
            Ok((message, consumed)) => {
                self.buffer.drain(..consumed);
                Ok(Some(message))
            }
            Err(ParseError::Incomplete(_)) => Ok(None),
            Err(ParseError::Error) => Err(ProbeError::not_rtsp(&self.greeting())),
        }
    }

    /// What it says instead.
    fn greeting(&self) -> String {
        match self.buffer.as_slice() {
            [b'H', b'T', b'T', b'P', b'/', ..] => "it answers in HTTP".into(),
            [b'S', b'S', b'H', b'-', ..] => "it is an SSH server".into(),
            [0x15, 0x03, ..] => "it speaks TLS; try rtsps://".into(),
            bytes => {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
                format!("it answers \"{}\"", plain(start.trim_end()))
            }
        }
    }
}
