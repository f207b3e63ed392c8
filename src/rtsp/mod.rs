//! Asks an RTSP server what it serves, and says where and why it fails: what `vita probe` and `vita check` need before any pipeline runs.

mod auth;
mod connection;
mod error;
mod media;
mod parameter_sets;
mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rtsp_types::headers::{
    ACCEPT, AUTHORIZATION, CONTENT_BASE, CONTENT_LOCATION, LOCATION, PUBLIC, SERVER, USER_AGENT,
};
use rtsp_types::{Method, Request, Response, StatusCode, Url, Version};
use serde::Serialize;
use vita_messages::redact;

use crate::plan::Secret;
use auth::Login;
use connection::Connection;
pub use error::{ProbeError, ProbeErrorKind, Step};
pub use media::ProbedMedia;

/// Redirections followed before giving up.
const MAX_REDIRECTS: usize = 5;

#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// `rtsp://` or `rtsps://`, with or without `user:password@`.
    pub url: Secret,
    /// Instead of what the address holds.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Take any certificate.
    pub is_insecure: bool,
    /// For each step: connecting, TLS, each request.
    pub step_timeout: Duration,
}

impl ProbeOptions {
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            user: None,
            password: None,
            tls_ca_file: None,
            is_insecure: false,
            step_timeout: Duration::from_secs(5),
        }
    }
}

/// What a server serves at an address. Holds no secret.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Where it was found, after redirections.
    pub url: String,
    /// Addresses that sent us on.
    pub redirected_from: Vec<String>,
    /// What the server calls itself.
    pub server: Option<String>,
    /// Methods that it offers.
    pub methods: Vec<String>,
    /// How it wanted us to log in: `Basic` or `Digest`.
    pub login: Option<&'static str>,
    pub session_name: Option<String>,
    pub media: Vec<ProbedMedia>,
    pub steps: Vec<StepTime>,
}

/// How long a step took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepTime {
    pub step: Step,
    pub millis: f64,
}

/// Connects, asks for the options and the description, and reads it.
pub async fn probe(options: &ProbeOptions) -> Result<ProbeReport, ProbeError> {
    let mut prober = Prober {
        options,
        steps: Vec::new(),
    };
    let (mut url, mut login) = prober.target()?;
    let mut redirected_from = Vec::new();
    loop {
        let mut session = prober.connect(&url, login).await?;
        let (methods, server) = prober.ask_options(&mut session, &url).await?;
        let response = prober
            .exchange(Step::Describe, Method::Describe, &mut session, &url)
            .await?;
        if response.status().is_redirection() {
            if redirected_from.len() == MAX_REDIRECTS {
                return Err(ProbeError::redirect(format!(
                    "more than {MAX_REDIRECTS} redirections"
                )));
            }
            redirected_from.push(redact(url.as_str()));
            (url, login) = redirected(&url, session.login, &response)?;
            continue;
        }
        let description = described(&response, &session.login)?;
        let base = base_url(&response, &url);
        let (session_name, media) = media::read(&description, &base)?;
        return Ok(ProbeReport {
            url: redact(url.as_str()),
            redirected_from,
            server: header(&response, &SERVER).or(server),
            methods,
            login: session.login.scheme(),
            session_name,
            media,
            steps: prober.steps,
        });
    }
}

struct Session {
    connection: Connection,
    login: Login,
}

struct Prober<'a> {
    options: &'a ProbeOptions,
    steps: Vec<StepTime>,
}

impl Prober<'_> {
    /// The address without login, and the login.
    fn target(&self) -> Result<(Url, Login), ProbeError> {
        let (url, mut login) = split_login(parse(self.options.url.reveal())?)?;
        if let Some(user) = &self.options.user {
            login.set(
                user.clone(),
                self.options
                    .password
                    .clone()
                    .unwrap_or_else(|| Secret::new("")),
            );
        }
        Ok((url, login))
    }

    async fn connect(&mut self, url: &Url, login: Login) -> Result<Session, ProbeError> {
        let stream = self.timed(Step::Connect, connection::connect(url)).await?;
        let connection = if url.scheme() == "rtsps" {
            let config = tls::config(self.options)?;
            self.timed(Step::Tls, Connection::secure(stream, url, config))
                .await?
        } else {
            Connection::plain(stream)
        };
        Ok(Session { connection, login })
    }

    /// Methods and name of the server. One that does not answer this may still describe.
    async fn ask_options(
        &mut self,
        session: &mut Session,
        url: &Url,
    ) -> Result<(Vec<String>, Option<String>), ProbeError> {
        let response = self
            .exchange(Step::Options, Method::Options, session, url)
            .await?;
        let methods = header(&response, &PUBLIC).unwrap_or_default();
        let methods = methods
            .split(',')
            .map(str::trim)
            .filter(|method| !method.is_empty())
            .map(String::from)
            .collect();
        Ok((methods, header(&response, &SERVER)))
    }

    /// Asks, and asks again with a login where one is wanted and there is one.
    async fn exchange(
        &mut self,
        step: Step,
        method: Method,
        session: &mut Session,
        url: &Url,
    ) -> Result<Response<Vec<u8>>, ProbeError> {
        let mut attempts = 0;
        loop {
            let request = request(&method, session, url)?;
            let response = self
                .timed(step, session.connection.exchange(request))
                .await?;
            attempts += 1;
            if response.status() != StatusCode::Unauthorized
                || !session.login.challenged(&response, attempts)?
            {
                return Ok(response);
            }
        }
    }

    async fn timed<T>(
        &mut self,
        step: Step,
        future: impl Future<Output = Result<T, ProbeError>>,
    ) -> Result<T, ProbeError> {
        let start = Instant::now();
        let result = tokio::time::timeout(self.options.step_timeout, future).await;
        let result =
            result.unwrap_or_else(|_| Err(ProbeError::timed_out(self.options.step_timeout)));
        self.steps.push(StepTime {
            step,
            millis: start.elapsed().as_secs_f64() * 1e3,
        });
        result.map_err(|error| error.at(step))
    }
}

fn request(
    method: &Method,
    session: &mut Session,
    url: &Url,
) -> Result<Request<rtsp_types::Empty>, ProbeError> {
    let mut request = Request::builder(method.clone(), Version::V1_0)
        .request_uri(url.clone())
        .header(USER_AGENT, concat!("vita/", env!("CARGO_PKG_VERSION")));
    if *method == Method::Describe {
        request = request.header(ACCEPT, "application/sdp");
    }
    if let Some(authorization) = session.login.authorization(method, url)? {
        request = request.header(AUTHORIZATION, authorization);
    }
    Ok(request.empty())
}

fn parse(text: &str) -> Result<Url, ProbeError> {
    let malformed =
        |why: &str| ProbeError::address(format!("{} is no RTSP address: {why}", redact(text)));
    let url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
    if !matches!(url.scheme(), "rtsp" | "rtsps") {
        return Err(malformed(&format!("its scheme is {}", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(malformed("it has no host"));
    }
    Ok(url)
}

fn split_login(mut url: Url) -> Result<(Url, Login), ProbeError> {
    let decode = |part: &str| {
        let text = percent_encoding::percent_decode_str(part).decode_utf8();
        text.map(String::from)
            .map_err(|_| ProbeError::address("the user name or password is not UTF-8".into()))
    };
    let mut login = Login::default();
    if !url.username().is_empty() || url.password().is_some() {
        login.set(
            decode(url.username())?,
            Secret::new(decode(url.password().unwrap_or_default())?),
        );
    }
    // Both fail only for addresses that cannot have user info.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    Ok((url, login))
}

/// Where a redirection leads. The login goes along to the same host only, and not from TLS to plain text.
fn redirected(
    from: &Url,
    login: Login,
    response: &Response<Vec<u8>>,
) -> Result<(Url, Login), ProbeError> {
    let status = u16::from(response.status());
    let location = header(response, &LOCATION);
    let location = location
        .ok_or_else(|| ProbeError::redirect(format!("status {status} without a location")))?;
    let (url, own_login) = split_login(parse(&location)?)?;
    let is_downgrade = from.scheme() == "rtsps" && url.scheme() == "rtsp";
    let login = if own_login.is_given() {
        own_login
    } else if url.host_str() == from.host_str() && !is_downgrade {
        login.anew()
    } else {
        Login::default()
    };
    Ok((url, login))
}

fn described(response: &Response<Vec<u8>>, login: &Login) -> Result<Vec<u8>, ProbeError> {
    match response.status() {
        StatusCode::Ok => Ok(response.body().clone()),
        StatusCode::Unauthorized => Err(login.refused(response)),
        StatusCode::NotFound | StatusCode::Gone => Err(ProbeError::not_found()),
        status => Err(ProbeError::status(
            u16::from(status),
            response.reason_phrase(),
        )),
    }
    .map_err(|error: ProbeError| error.at(Step::Describe))
}

/// What relative control addresses stand below.
fn base_url(response: &Response<Vec<u8>>, url: &Url) -> String {
    let base = header(response, &CONTENT_BASE).or_else(|| header(response, &CONTENT_LOCATION));
    base.filter(|base| Url::parse(base).is_ok())
        .unwrap_or_else(|| url.to_string())
}

fn header(response: &Response<Vec<u8>>, name: &rtsp_types::HeaderName) -> Option<String> {
    response
        .header(name)
        .map(|value| value.as_str().trim().to_owned())
}
