//! Basic and Digest, as the server wants.

use http_auth::{PasswordClient, PasswordParams};
use rtsp_types::headers::WWW_AUTHENTICATE;
use rtsp_types::{Method, Response, Url};

use super::error::{ProbeError, ProbeErrorKind, Step};
use crate::plan::Secret;
use crate::terminal::plain;

/// A server may say once that its nonce has run out.
const MAX_ATTEMPTS: u32 = 3;

/// User name and password, and what the server asked for.
#[derive(Default)]
pub(super) struct Login {
    credentials: Option<(String, Secret)>,
    client: Option<PasswordClient>,
}

impl Login {
    pub fn set(&mut self, user: String, password: Secret) {
        self.credentials = Some((user, password));
    }

    pub fn is_given(&self) -> bool {
        self.credentials.is_some()
    }

    /// For another server.
    pub fn anew(self) -> Self {
        Self {
            client: None,
            ..self
        }
    }

    /// How the server wanted it.
    pub fn scheme(&self) -> Option<&'static str> {
        match self.client.as_ref()? {
            PasswordClient::Basic(_) => Some("Basic"),
            PasswordClient::Digest(_) => Some("Digest"),
            _ => None,
        }
    }

    /// The header for the next request, once the server has asked.
    pub fn authorization(
        &mut self,
        method: &Method,
        url: &Url,
    ) -> Result<Option<String>, ProbeError> {
        let (Some(client), Some((username, password))) = (&mut self.client, &self.credentials)
        else {
            return Ok(None);
        };
        let method: &str = method.into();
        let params = PasswordParams {
            username,
            password: password.reveal(),
            uri: url.as_str(),
            method,
            body: Some(&[]),
        };
        client
            .respond(&params)
            .map(Some)
            .map_err(|error| unusable(&error))
    }

    /// The server wants a login. Whether to ask again with one.
    pub fn challenged(
        &mut self,
        response: &Response<Vec<u8>>,
        attempts: u32,
    ) -> Result<bool, ProbeError> {
        let challenges = challenges(response);
        let is_stale = schemes(&challenges).iter().any(|(_, is_stale)| *is_stale);
        let is_first = self.client.is_none();
        if !self.is_given() || attempts >= MAX_ATTEMPTS || !(is_first || is_stale) {
            return Ok(false);
        }
        let client = PasswordClient::builder().challenges(&challenges).build();
        self.client = Some(client.map_err(|error| unusable(&error))?);
        Ok(true)
    }

    /// Why a 401 is the end.
    pub fn refused(&self, response: &Response<Vec<u8>>) -> ProbeError {
        let names: Vec<String> = schemes(&challenges(response))
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let names = if names.is_empty() {
            "no scheme".to_owned()
        } else {
            plain(&names.join(", ")).into_owned()
        };
        if self.is_given() {
            let text = format!("the server refuses the user name or password (401, {names})");
            ProbeError::new(
                ProbeErrorKind::WrongLogin,
                text,
                "check both; cameras often have users of their own for RTSP",
            )
        } else {
            let text = format!("the server wants a login (401, {names})");
            ProbeError::new(
                ProbeErrorKind::LoginWanted,
                text,
                "give one with --user and --password, or in the address",
            )
        }
    }
}

fn unusable(error: &str) -> ProbeError {
    let text = format!(
        "the login that the server wants cannot be made: {}",
        plain(error)
    );
    ProbeError::new(
        ProbeErrorKind::LoginWanted,
        text,
        "set the server to Basic or Digest",
    )
    .at(Step::Describe)
}

fn challenges(response: &Response<Vec<u8>>) -> String {
    response
        .header(&WWW_AUTHENTICATE)
        .map(|value| value.as_str().to_owned())
        .unwrap_or_default()
}

/// Names of the schemes, and whether only the nonce has run out.
fn schemes(challenges: &str) -> Vec<(String, bool)> {
    let parsed = http_auth::parse_challenges(challenges).unwrap_or_default();
    let is_stale = |name: &str, value: String| {
        name.eq_ignore_ascii_case("stale") && value.eq_ignore_ascii_case("true")
    };
    let scheme = |challenge: &http_auth::ChallengeRef<'_>| {
        let is_stale = challenge
            .params
            .iter()
            .any(|(name, value)| is_stale(name, value.to_unescaped()));
        (challenge.scheme.to_owned(), is_stale)
    };
    parsed.iter().map(scheme).collect()
}
