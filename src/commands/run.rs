use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::logging::{self, LogFormat};
use crate::plan::Plan;

/// Threads of the runtime: it moves small messages, the media has threads of its own.
const RUNTIME_THREADS: usize = 2;
/// Threads for what may block come and go with the attempts.
const BLOCKING_THREADS_KEPT: Duration = Duration::from_secs(1);
/// How long threads that hang in a driver may hold up the end.
const THREADS_STOP_WITHIN: Duration = Duration::from_secs(2);
/// Of a process that was interrupted twice.
const INTERRUPTED: i32 = 130;

/// `vita run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The deployment, a TOML file
    config: PathBuf,
    /// Run only this source of it; may be given more than once
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    logging::init(args.log_format)?;
    gst::init().context("GStreamer")?;
    let mut plan = crate::config::plan(&args.config)?;
    choose(&mut plan, &args.sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_keep_alive(BLOCKING_THREADS_KEPT)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let stop = stop_on_signals()?;
        crate::run::run(plan, stop).await
    });
    runtime.shutdown_timeout(THREADS_STOP_WITHIN);
    result.map(|()| ExitCode::SUCCESS)
}

/// Leaves only the sources of these names; all of them when there is no name.
fn choose(plan: &mut Plan, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        if !plan.sources.iter().any(|source| source.name == *name) {
            let known: Vec<_> = plan
                .sources
                .iter()
                .map(|source| source.name.as_str())
                .collect();
            anyhow::bail!(
                "--source {name}: no such source; the config has {}",
                known.join(", ")
            );
        }
    }
    plan.sources
        .retain(|source| names.is_empty() || names.contains(&source.name));
    Ok(())
}

/// Turns true at the first SIGINT or SIGTERM; a second one ends the process there and then.
fn stop_on_signals() -> anyhow::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; interrupt again to end at once");
        // The receivers are gone only when nothing is left to stop.
        let _ = stop.send(true);
        next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(stopped)
}
