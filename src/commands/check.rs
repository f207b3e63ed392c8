use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::config::{self, Deployment, Kind, Problem, Severity};
use crate::plan::NatsServer;

/// How long the broker may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The config
    config: PathBuf,
    /// Ask neither the broker nor the cameras
    #[arg(long)]
    offline: bool,
    /// Print the problems as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut loaded = config::load(&args.config);
    if let (false, Some(deployment)) = (args.offline, &loaded.deployment) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        loaded
            .problems
            .extend(runtime.block_on(ask(&args.config, deployment)));
    }
    let failed = loaded.problems.iter().any(Problem::is_error);
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&loaded.problems)
                .context("the problems cannot be written as JSON")?
        );
    } else {
        print(&args.config, &loaded.problems);
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print(config: &Path, problems: &[Problem]) {
    for problem in problems {
        println!("{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    match (errors, warnings) {
        (0, 0) => println!("{}: in order", config.display()),
        _ => println!("{}: {errors} errors, {warnings} warnings", config.display()),
    }
}

/// What only others can tell.
async fn ask(config: &Path, deployment: &Deployment) -> Vec<Problem> {
    broker(config, deployment).await.into_iter().collect()
}

async fn broker(config: &Path, deployment: &Deployment) -> Option<Problem> {
    let NatsServer::Remote {
        url,
        credentials_file,
        token,
        tls_ca_file,
    } = &deployment.nats.server
    else {
        return None;
    };
    let problem = |what: String, remedy: &str| Problem {
        severity: Severity::Error,
        kind: Kind::Broker,
        file: config.to_owned(),
        line: None,
        key: "nats.url".to_owned(),
        what,
        remedy: remedy.to_owned(),
    };
    let mut options = async_nats::ConnectOptions::new().connection_timeout(BROKER_TIMEOUT);
    if let Some(file) = credentials_file {
        options = match options.credentials_file(file).await {
            Ok(options) => options,
            Err(error) => {
                let what = format!(
                    "the credentials in {} cannot be used: {error}",
                    file.display()
                );
                return Some(problem(
                    what,
                    "write the file anew with `nsc generate creds`",
                ));
            }
        };
    }
    if let Some(token) = token {
        options = options.token(token.reveal().to_owned());
    }
    if let Some(file) = tls_ca_file {
        options = options.add_root_certificates(file.clone());
    }
    let servers: Vec<_> = url.reveal().split(',').map(str::trim).collect();
    match tokio::time::timeout(BROKER_TIMEOUT, options.connect(servers)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(problem(
            format!("the broker cannot be reached: {error}"),
            "start it, or correct the URL and how to log in",
        )),
        Err(_) => Some(problem(
            format!(
                "the broker did not answer within {} s",
                BROKER_TIMEOUT.as_secs()
            ),
            "see whether a firewall stands between, and whether the URL needs tls://",
        )),
    }
}
