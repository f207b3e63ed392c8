use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

/// Address of a broker with what it asks for to be let in. Never printed with it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Without user info.
    address: Url,
    login: Login,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    None,
    Token(String),
    Password { user: String, password: String },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    #[error("no broker address; give one like nats://localhost:4222")]
    Empty,
    #[error("{address:?} is no broker address: {why}; write it like nats://localhost:4222")]
    Malformed { address: String, why: String },
    #[error("{address:?} has scheme {scheme:?}; a broker is reached by nats, tls, ws or wss")]
    Scheme { address: String, scheme: String },
}

impl ServerUrl {
    /// `[nats://][user:password@|token@]host[:port]`; user, password and token may be percent-encoded.
    pub fn parse(text: &str) -> Result<Self, ServerUrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ServerUrlError::Empty);
        }
        let malformed = |why: &str| ServerUrlError::Malformed {
            address: redact(text),
            why: why.into(),
        };
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("nats://{text}")
        };
        let mut address =
            Url::parse(&with_scheme).map_err(|error| malformed(&error.to_string()))?;
        if !matches!(address.scheme(), "nats" | "tls" | "ws" | "wss") {
            let scheme = address.scheme().to_owned();
            return Err(ServerUrlError::Scheme {
                address: redact(text),
                scheme,
            });
        }
        if address.host_str().is_none_or(str::is_empty) {
            return Err(malformed("no host"));
        }
        let decode = |part: &str| {
            let text = percent_decode_str(part).decode_utf8();
            text.map(String::from)
                .map_err(|_| malformed("user info is not UTF-8"))
        };
        let login = match (address.username(), address.password()) {
            ("", None) => Login::None,
            (token, None) => Login::Token(decode(token)?),
            (user, Some(password)) => Login::Password {
                user: decode(user)?,
                password: decode(password)?,
            },
        };
        // Both fail only for addresses that cannot have user info, and these have none.
        let _ = address.set_password(None);
        let _ = address.set_username("");
        Ok(Self { address, login })
    }

    /// One or more of them, separated by commas.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ServerUrlError> {
        text.split(',').map(Self::parse).collect()
    }

    pub(crate) fn address(&self) -> &Url {
        &self.address
    }

    pub(crate) fn login(&self) -> &Login {
        &self.login
    }
}

/// The address alone.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

/// The text with `***` in place of the user info of every URL in it.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let end = rest[start..]
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | ',' | '"' | '\'' | '?' | '#'));
        let end = end.map_or(rest.len(), |at| start + at);
        clean.push_str(&rest[..start]);
        match rest[start..end].rfind('@') {
            Some(at) => {
                clean.push_str("***");
                clean.push_str(&rest[start + at..end]);
            }
            None => clean.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    // An address without a scheme: `user:password@host`.
    if clean.is_empty()
        && let Some(at) = rest.rfind('@')
    {
        clean.push_str("***");
        rest = &rest[at..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_from_the_address_and_never_printed() {
        let url = ServerUrl::parse("nats://anna:p%40ss%2Fword@broker.example:4223").unwrap();
        assert!(
            url.login
                == Login::Password {
                    user: "anna".into(),
                    password: "p@ss/word".into()
                }
        );
        assert_eq!(url.to_string(), "nats://broker.example:4223");
        assert_eq!(format!("{url:?}"), "ServerUrl(nats://broker.example:4223)");
        let url = ServerUrl::parse("s3cret@localhost").unwrap();
        assert!(url.login == Login::Token("s3cret".into()));
        assert_eq!(url.to_string(), "nats://localhost");
    }

    #[test]
    fn several_addresses_are_a_list() {
        let urls = ServerUrl::parse_list("nats://a:1, tls://b:2").unwrap();
        assert_eq!(
            urls.iter().map(ServerUrl::to_string).collect::<Vec<_>>(),
            ["nats://a:1", "tls://b:2"]
        );
        assert_eq!(
            ServerUrl::parse_list("nats://a,"),
            Err(ServerUrlError::Empty)
        );
    }

    #[test]
    fn errors_hold_no_secret() {
        for text in [
            "http://u:s3cret@host",
            "nats://u:s3cret@ho st",
            "nats://u:s3cret@",
            "u:s3cret@host:99999",
        ] {
            let error = ServerUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn redaction_takes_every_login_out() {
        assert_eq!(
            redact("tried nats://u:p@a:1, then rtsp://x:y@z/1?k=v"),
            "tried nats://***@a:1, then rtsp://***@z/1?k=v"
        );
        assert_eq!(redact("nats://a:1"), "nats://a:1");
        assert_eq!(redact("nats://u:p@ss@a"), "nats://***@a");
    }
}
