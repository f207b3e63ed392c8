use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::watch::render;
use crate::launch;
use crate::rooms::{Script, compare, play};
use crate::terminal::plain;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Scripts of rooms, TOML files as in tests/rooms
    #[arg(required = true, value_name = "FILE")]
    scripts: Vec<PathBuf>,
    /// Print all that was told, one line a message
    #[arg(long)]
    show: bool,
    /// Print all that was told, as JSON
    #[arg(long, conflicts_with = "show")]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    launch::init().context("GStreamer cannot be initialised; is it installed?")?;
    let mut failed = false;
    for path in &args.scripts {
        let script = Script::read(path)?;
        let told = play(&script).with_context(|| path.display().to_string())?;
        for body in &told {
            if args.show {
                println!("{}", plain(&render::body(body)));
            } else if args.json {
                println!("{}", serde_json::json!({ body.kind().name(): body }));
            }
        }
        let differences = compare(&script, &told)?;
        for difference in &differences {
            eprintln!("{}: {}", path.display(), plain(&difference.to_string()));
        }
        let verdict = if differences.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        eprintln!("{verdict:<8}{}  {}", path.display(), plain(&script.about));
        failed |= !differences.is_empty();
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
