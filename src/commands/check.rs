use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use futures::future::join_all;

use crate::config::{self, Deployment, Kind, Problem, Severity, SourceDeployment};
use crate::rtsp::{self, ProbeOptions};
use crate::terminal::plain;

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
        _ => println!(
            "{}: {}, {}",
            config.display(),
            count(errors, "error"),
            count(warnings, "warning")
        ),
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What only others can tell.
async fn ask(config: &Path, deployment: &Deployment) -> Vec<Problem> {
    let cameras = deployment
        .sources
        .iter()
        .map(|source| camera(config, source));
    let (broker, cameras) = tokio::join!(broker(config, deployment), join_all(cameras));
    broker
        .into_iter()
        .chain(cameras.into_iter().flatten())
        .collect()
}

async fn broker(config: &Path, deployment: &Deployment) -> Option<Problem> {
    let remedy = "correct the URL, and how to log in";
    let (what, remedy) = match deployment.nats.server.broker()? {
        Ok(broker) => {
            let error = broker.connect().await.err()?;
            (error.what, error.remedy.unwrap_or(remedy))
        }
        Err(error) => (error.to_string(), remedy),
    };
    Some(problem(
        config,
        Kind::Broker,
        "nats.url".into(),
        &what,
        remedy,
    ))
}

async fn camera(config: &Path, source: &SourceDeployment) -> Option<Problem> {
    let endpoint = source.endpoint.as_ref()?;
    let options = ProbeOptions {
        user: endpoint.user.as_ref().map(|user| user.reveal().to_owned()),
        password: endpoint.password.clone(),
        tls_ca_file: endpoint.tls_ca_file.clone(),
        is_insecure: !endpoint.tls_verify,
        ..ProbeOptions::new(endpoint.uri.clone())
    };
    let error = rtsp::probe(&options).await.err()?;
    let what = format!("{}: {}", error.step.name(), error.text);
    Some(problem(
        config,
        Kind::Camera,
        source.key.clone(),
        &what,
        &error.remedy,
    ))
}

fn problem(config: &Path, kind: Kind, key: String, what: &str, remedy: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        kind,
        file: config.to_owned(),
        line: None,
        key,
        what: plain(what).into_owned(),
        remedy: plain(remedy).into_owned(),
    }
}
