//! The program's log: on standard error, for people or as JSON.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Filter directives as in `info,vita_stream::run=debug`.
pub const ENV: &str = "VITA_LOG";
/// The client's own account of its connections is for those who look for it.
const DEFAULT: &str = "info,async_nats=warn";

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// For the whole process; call it once.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let directives = std::env::var(ENV)
        .ok()
        .filter(|directives| !directives.is_empty());
    let directives = directives.as_deref().unwrap_or(DEFAULT);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        anyhow::anyhow!("{ENV}: {error}; write it like info,vita_stream::run=debug")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    match format {
        LogFormat::Human => log
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))
}
