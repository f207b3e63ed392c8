//! The program's log: on standard error, for people or as JSON.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Filter directives as in `info,vita_stream::run=debug`.
pub const ENV: &str = "VITA_LOG";

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
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var(ENV);
    let filter = filter.from_env().map_err(|error| {
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
