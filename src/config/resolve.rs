//! From the config as written to what runs: references looked up, defaults applied, templates filled in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::{Kind, Problems};
use super::source;
use super::text::{Text, Unresolved};
use super::types::{Config, Nats};
use crate::launch::{Line, Piece, Value, secrets};
use crate::plan::{
    AtEnd, ModelPlan, NatsPlan, NatsServer, Plan, Retry, Secret, SourcePlan, Wanted,
};

/// A config, resolved.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub nats: NatsPlan,
    pub sources: Vec<SourceDeployment>,
}

/// A source, resolved: what runs, and how it came to be.
#[derive(Clone, Debug)]
pub struct SourceDeployment {
    pub name: String,
    /// Where it stands in the config: `source[0]`.
    pub key: String,
    /// File name of its template.
    pub template: String,
    /// Every parameter of the template that has a value.
    pub settings: Vec<Setting>,
    pub line: Line,
    /// What to ask whether it is there; `None` if it is no server.
    pub endpoint: Option<Endpoint>,
    pub video: Wanted,
    pub audio: Wanted,
    /// What answers; `None`: nothing does.
    pub model: Option<ModelPlan>,
    pub tls_ca_file: Option<PathBuf>,
    pub at_end: AtEnd,
    pub stall_timeout: Duration,
    pub retry: Retry,
}

/// A parameter of a template with its value.
#[derive(Clone, Debug)]
pub struct Setting {
    pub parameter: String,
    pub value: Value,
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The source's own keys.
    Source,
    /// The section `[defaults]`.
    Defaults,
    /// The section `[model]`.
    Model,
    /// The template.
    Template,
}

/// An RTSP server and how to log in.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub uri: Secret,
    pub user: Option<Secret>,
    pub password: Option<Secret>,
    pub tls_verify: bool,
    pub tls_ca_file: Option<PathBuf>,
}

/// What resolving needs to know of the world.
pub(super) struct Context<'a, 'p> {
    /// What relative paths are relative to.
    pub base: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub problems: &'a mut Problems<'p>,
}

impl Deployment {
    pub fn plan(&self) -> Plan {
        Plan {
            nats: self.nats.clone(),
            sources: self.sources.iter().map(SourceDeployment::plan).collect(),
        }
    }
}

impl SourceDeployment {
    fn plan(&self) -> SourcePlan {
        SourcePlan {
            name: self.name.clone(),
            launch: self.line.text(),
            video: self.video,
            audio: self.audio,
            model: self.model.clone(),
            tls_ca_file: self.tls_ca_file.clone(),
            at_end: self.at_end,
            stall_timeout: self.stall_timeout,
            retry: self.retry,
        }
    }
}

pub fn resolve(
    config: &Config,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Deployment {
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let base = std::path::absolute(&base).unwrap_or(base);
    let context = &mut Context {
        base: &base,
        env,
        problems,
    };
    let nats = nats(&config.nats, path, context);
    let mut first_places = HashMap::new();
    for (index, source) in config.sources.iter().enumerate() {
        let key = format!("source[{index}].name");
        check_token(&source.name, &key, context.problems);
        if let Some(first) = first_places.insert(&source.name, index) {
            let what = format!("`{}` is also the name of source[{first}]", source.name);
            context.problems.error(
                Kind::DuplicateName,
                &key,
                what,
                "give each source a name of its own",
            );
        }
    }
    if config.sources.is_empty() {
        let remedy = "add a `[[source]]` with `name` and `type`";
        context
            .problems
            .error(Kind::MissingKey, "", "there is no source", remedy);
    }
    let sources = config.sources.iter().enumerate();
    let sources =
        sources.filter_map(|(index, written)| source::resolve(written, config, index, context));
    Deployment {
        nats,
        sources: sources.collect(),
    }
}

impl Context<'_, '_> {
    /// Looks up the references in a text.
    pub fn value(&mut self, text: &Text, key: &str) -> Value {
        let problems = &mut *self.problems;
        text.resolve(self.base, self.env, |unresolved| match unresolved {
            Unresolved::Env { name } => problems.error(
                Kind::MissingVariable,
                key,
                format!("the environment variable {name} is not set"),
                format!("set it: export {name}=…, or give a default: ${{env:{name}:default}}"),
            ),
            Unresolved::File { path, error } => problems.error(
                Kind::MissingFile,
                key,
                format!("{} cannot be read: {error}", path.display()),
                "create the file, readable for the user that runs vita",
            ),
        })
    }

    /// As [`Self::value`]; a secret in plain text is reported, and treated as the variable that it should stand in, so that
    /// it is printed nowhere.
    pub fn secret_if(
        &mut self,
        is_secret: impl Fn(&str) -> bool,
        text: &Text,
        key: &str,
        owner: &str,
    ) -> Value {
        let value = self.value(text, key);
        let Some(plain) = value.plain().filter(|plain| is_secret(plain)) else {
            return value;
        };
        let variable = secrets::variable(owner, key.rsplit('.').next().unwrap_or(key));
        self.problems.warning(
            Kind::PlainSecret,
            key,
            "holds a secret in plain text",
            format!("write \"${{env:{variable}}}\" and set that variable, or {{ file = \"…\" }}"),
        );
        Value::new(vec![Piece::Env {
            name: variable,
            default: None,
            value: Some(Secret::new(plain)),
        }])
    }

    /// The path, relative to the config; it must be a file.
    pub fn file(&mut self, path: &Path, key: &str) -> PathBuf {
        let path = self.base.join(path);
        if !path.is_file() {
            let what = format!("{} is no file", path.display());
            let remedy =
                "create it, or correct the path; relative paths start at the folder of the config";
            self.problems.error(Kind::MissingFile, key, what, remedy);
        }
        path
    }
}

fn nats(nats: &Nats, path: &Path, context: &mut Context) -> NatsPlan {
    let state = state_dir(path, context.env);
    let dir = |given: &Option<PathBuf>, name: &str| match given {
        Some(dir) => context.base.join(dir),
        None => state.join(name),
    };
    let (spool_dir, store_dir) = (dir(&nats.spool_dir, "spool"), dir(&nats.store_dir, "nats"));
    let prefix = nats.prefix.clone().unwrap_or_else(|| "vita".to_owned());
    for token in prefix.split('.') {
        check_token(token, "nats.prefix", context.problems);
    }
    let server = match &nats.url {
        Some(_) if nats.embedded == Some(true) => {
            let remedy =
                "remove `url` for a server of our own, or `embedded` for the one at the URL";
            context.problems.error(
                Kind::Conflict,
                "nats.embedded",
                "`embedded = true` and `url` exclude each other",
                remedy,
            );
            embedded(nats, store_dir)
        }
        Some(url) => {
            without_effect(
                context.problems,
                "only an embedded server has",
                &[
                    ("nats.port", nats.port.is_some()),
                    ("nats.store_dir", nats.store_dir.is_some()),
                ],
            );
            remote(nats, url, context)
        }
        None => {
            if nats.embedded == Some(false) {
                let remedy = "add `url = \"nats://…\"`, or `embedded = true`";
                context.problems.error(
                    Kind::MissingKey,
                    "nats",
                    "there is neither a `url` nor an embedded server",
                    remedy,
                );
            }
            without_effect(
                context.problems,
                "only a server with a `url` takes",
                &[
                    ("nats.credentials_file", nats.credentials_file.is_some()),
                    ("nats.token", nats.token.is_some()),
                    ("nats.tls_ca_file", nats.tls_ca_file.is_some()),
                ],
            );
            embedded(nats, store_dir)
        }
    };
    let spool_max_bytes = u64::from(nats.spool_max_mib.unwrap_or(256)) << 20;
    NatsPlan {
        server,
        prefix,
        spool_dir,
        spool_max_bytes,
    }
}

fn embedded(nats: &Nats, store_dir: PathBuf) -> NatsServer {
    NatsServer::Embedded {
        store_dir,
        port: nats.port.unwrap_or(0),
        program: None,
    }
}

fn remote(nats: &Nats, url: &Text, context: &mut Context) -> NatsServer {
    let url = context
        .secret_if(secrets::has_password, url, "nats.url", "nats")
        .reveal();
    for url in url.reveal().split(',') {
        check_url(
            url.trim(),
            "nats.url",
            &["nats", "tls", "ws", "wss"],
            context.problems,
        );
    }
    NatsServer::Remote {
        url,
        credentials_file: nats
            .credentials_file
            .as_ref()
            .map(|file| context.file(file, "nats.credentials_file")),
        token: nats.token.as_ref().map(|token| {
            context
                .secret_if(|_| true, token, "nats.token", "nats")
                .reveal()
        }),
        tls_ca_file: nats
            .tls_ca_file
            .as_ref()
            .map(|file| context.file(file, "nats.tls_ca_file")),
    }
}

fn without_effect(problems: &mut Problems, why: &str, keys: &[(&str, bool)]) {
    for (key, _) in keys.iter().filter(|(_, given)| *given) {
        let name = key.rsplit('.').next().unwrap_or(key);
        problems.error(
            Kind::Conflict,
            key,
            format!("has no effect: {why} a `{name}`"),
            "remove it",
        );
    }
}

/// The scheme, and that there is a host. The URL itself may hold a secret and is not repeated.
pub(super) fn check_url(url: &str, key: &str, schemes: &[&str], problems: &mut Problems) {
    if url.is_empty() {
        return;
    }
    let remedy = format!(
        "write {}",
        schemes
            .iter()
            .map(|scheme| format!("{scheme}://host…"))
            .collect::<Vec<_>>()
            .join(" or ")
    );
    match url::Url::parse(url) {
        Err(error) => problems.error(Kind::OutOfRange, key, format!("is no URL: {error}"), remedy),
        Ok(url) if !schemes.contains(&url.scheme()) || url.host().is_none() => {
            problems.error(
                Kind::OutOfRange,
                key,
                format!(
                    "is no URL with a host and one of these schemes: {}",
                    schemes.join(", ")
                ),
                remedy,
            );
        }
        Ok(_) => {}
    }
}

fn check_token(name: &str, key: &str, problems: &mut Problems) {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(valid) {
        let what = format!("`{name}` cannot be part of a subject");
        problems.error(Kind::BadName, key, what, "use letters, digits, `-` and `_`");
    }
}

/// `$XDG_STATE_HOME/vita-stream/<name of the config>`.
fn state_dir(config: &Path, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let state = gstvita::common::state_folder(env);
    let state = state.unwrap_or_else(|| std::env::temp_dir().join("vita-stream"));
    state.join(config.file_stem().unwrap_or("config".as_ref()))
}
