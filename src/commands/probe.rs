use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::plan::Secret;
use crate::rtsp::{self, ProbeOptions, ProbeReport, ProbedMedia};
use crate::terminal::plain;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// rtsp://[user:password@]host[:port]/path, or rtsps://
    uri: Secret,
    /// User name, instead of the one in the address
    #[arg(long)]
    user: Option<String>,
    /// Password; better given in the environment, where other users of the machine do not see it
    #[arg(
        long,
        env = "VITA_RTSP_PASSWORD",
        hide_env_values = true,
        requires = "user"
    )]
    password: Option<Secret>,
    /// PEM file of certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    insecure: bool,
    /// How long each step may take
    #[arg(long, default_value_t = 5.0, value_name = "SECS", value_parser = parse_secs)]
    timeout: f64,
    /// Print what was found, or what went wrong, as JSON
    #[arg(long)]
    json: bool,
}

fn parse_secs(text: &str) -> Result<f64, String> {
    let secs = text
        .parse()
        .ok()
        .filter(|secs| (0.001..=3600.0).contains(secs));
    secs.ok_or_else(|| "give seconds, from 0.001 to 3600".into())
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = ProbeOptions {
        url: args.uri.clone(),
        user: args.user.clone(),
        password: args.password.clone(),
        tls_ca_file: args.ca_file.clone(),
        is_insecure: args.insecure,
        step_timeout: Duration::from_secs_f64(args.timeout),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(rtsp::probe(&options));
    // A name look-up that hangs does not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(report) if args.json => print_json(&report, ExitCode::SUCCESS),
        Ok(report) => {
            print!("{}", text(&report));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if args.json => {
            print_json(&serde_json::json!({ "error": error }), ExitCode::FAILURE)
        }
        Err(error) => anyhow::bail!("{}", plain(&error.to_string())),
    }
}

fn print_json(value: &impl serde::Serialize, code: ExitCode) -> anyhow::Result<ExitCode> {
    println!(
        "{}",
        serde_json::to_string_pretty(value).context("the report cannot be written as JSON")?
    );
    Ok(code)
}

fn text(report: &ProbeReport) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<9} {}", plain(value));
    };
    for url in &report.redirected_from {
        line("from", url);
    }
    line("address", &report.url);
    if let Some(server) = &report.server {
        line("server", server);
    }
    if let Some(name) = &report.session_name {
        line("name", name);
    }
    line("login", report.login.unwrap_or("none"));
    line("methods", &report.methods.join(" "));
    for media in &report.media {
        line(&media.kind, &media_text(media));
        line("", &media.control);
    }
    let steps: Vec<String> = report
        .steps
        .iter()
        .map(|step| format!("{} {:.1} ms", step.step.name(), step.millis))
        .collect();
    line("time", &steps.join(", "));
    text
}

fn media_text(media: &ProbedMedia) -> String {
    let mut text = media
        .codec
        .clone()
        .unwrap_or_else(|| format!("payload type {}", media.payload_type));
    if let (Some(width), Some(height)) = (media.width, media.height) {
        let _ = write!(text, " {width}×{height}");
    }
    if let Some(rate) = media.frame_rate {
        let _ = write!(text, " {rate:.2} fps");
    }
    if let Some(channels) = media.channels {
        let _ = write!(text, " {channels} ch");
    }
    if let Some(rate) = media.clock_rate_hz {
        let _ = write!(text, ", clock {rate} Hz");
    }
    format!("{text}, {}", media.transport)
}
