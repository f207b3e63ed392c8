//! From TOML to a [`Plan`]: every problem found on the way is collected, and they are reported together.
//!
//! `types` is the config as written; `schema` its JSON Schema; `shape` compares a document with it; `resolve` looks up
//! references and defaults, renders each source's template and leaves what can run.

mod given;
mod model;
mod pipeline;
mod problem;
mod resolve;
mod schema;
mod shape;
mod source;
pub mod spelling;
mod text;
mod types;
pub mod write;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use model::frontend;
pub use problem::{Kind, Problem, Problems, Severity};
pub use resolve::{Deployment, Endpoint, Origin, Setting, SourceDeployment};
pub use schema::schema;
pub use text::{Text, TextPiece};
use toml::de::DeTable;
pub use types::*;

use crate::plan::Plan;

const SERDE_REMEDY: &str = "docs/configuration.md shows how it is written";

/// A config, as far as it could be understood.
#[derive(Debug)]
pub struct Loaded {
    /// `None`: too much is wrong to say what would run.
    pub deployment: Option<Deployment>,
    pub problems: Vec<Problem>,
}

/// Reads a config and finds all that is wrong with it, short of asking the broker and the cameras.
pub fn load(path: &Path) -> Loaded {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &String::from_utf8_lossy(&bytes), &|name| {
            std::env::var(name).ok()
        }),
        Err(error) => {
            let mut problems = Problems::new(path);
            let remedy = "give the path of a config, such as configs/demo.toml";
            problems.error_at(
                Kind::Unreadable,
                None,
                format!("cannot be read: {error}"),
                remedy,
            );
            Loaded {
                deployment: None,
                problems: problems.finish(),
            }
        }
    }
}

/// As [`load`], for a text that stands at `path`, in the given environment.
pub fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    let mut problems = Problems::new(path);
    let deployment = read(text, &mut problems).map(|config| {
        let deployment = resolve::resolve(&config, path, env, &mut problems);
        pipeline::check(&deployment, &mut problems);
        deployment
    });
    Loaded {
        deployment,
        problems: problems.finish(),
    }
}

/// The plan of a config that has no errors; else all of them in one.
pub fn plan(path: &Path) -> anyhow::Result<Plan> {
    let loaded = load(path);
    let (errors, warnings): (Vec<_>, Vec<_>) = loaded
        .problems
        .iter()
        .partition(|problem| problem.is_error());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match loaded.deployment {
        Some(deployment) if errors.is_empty() => Ok(deployment.plan()),
        _ => {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow::bail!("the config cannot run:\n{}", errors.join("\n"))
        }
    }
}

fn read(text: &str, problems: &mut Problems) -> Option<Config> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map(|span| shape::line_of(text, span.start));
        problems.error_at(
            Kind::Syntax,
            line,
            error.message(),
            "correct the TOML there; https://toml.io shows how it is written",
        );
    }
    if !errors.is_empty() {
        return None;
    }
    shape::check(text, &table, problems);
    if problems.has_errors() {
        return None;
    }
    let config = toml::de::ValueDeserializer::from(table_value(table));
    match serde::Deserialize::deserialize(config) {
        Ok(config) => Some(config),
        Err(error) => {
            let error: toml::de::Error = error;
            let line = error.span().map(|span| shape::line_of(text, span.start));
            problems.error_at(Kind::Syntax, line, error.message(), SERDE_REMEDY);
            None
        }
    }
}

fn table_value(table: toml::Spanned<DeTable<'_>>) -> toml::Spanned<toml::de::DeValue<'_>> {
    let span = table.span();
    toml::Spanned::new(span, toml::de::DeValue::Table(table.into_inner()))
}
