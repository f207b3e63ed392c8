use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::broker::BrokerArgs;
use crate::config;
use crate::doctor::{self, Asked, Finding, Level};
use crate::plan::NatsServer;
use crate::terminal::plain;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A config, whose broker is asked
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    gst::init().context("GStreamer cannot be initialised; is it installed?")?;
    gstvita::plugin_register_static().context("the elements of vita cannot be registered")?;
    let asked = asked(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let findings = runtime.block_on(doctor::examine(asked));
    // A device list that hangs does not hold up the end.
    runtime.shutdown_background();
    let is_missing = findings
        .iter()
        .any(|finding| finding.level == Level::Missing);
    if args.json {
        let report = serde_json::json!({ "ok": !is_missing, "findings": findings });
        println!(
            "{}",
            serde_json::to_string_pretty(&report)
                .context("the findings cannot be written as JSON")?
        );
    } else {
        findings.iter().for_each(print);
    }
    Ok(if is_missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn asked(args: &Args) -> anyhow::Result<Asked> {
    let Some(path) = &args.config else {
        return Ok(if args.broker.is_given() {
            Asked::Remote(args.broker.broker()?)
        } else {
            Asked::Nothing
        });
    };
    let server = config::plan(path)?.nats.server;
    let broker = server.broker().transpose().context("nats.url")?;
    Ok(match (broker, server) {
        (Some(broker), _) => Asked::Remote(broker),
        (None, NatsServer::Embedded { program, .. }) => Asked::Embedded(program),
        (None, NatsServer::Remote { .. }) => Asked::Nothing,
    })
}

fn print(finding: &Finding) {
    let sign = match finding.level {
        Level::Present => "ok",
        Level::Absent => "–",
        Level::Missing => "MISSING",
    };
    println!(
        "{sign:<8}{:<18}{}",
        plain(&finding.name),
        plain(&finding.detail)
    );
    if let Some(remedy) = &finding.remedy {
        println!("{:<26}{}", "", plain(remedy));
    }
}
