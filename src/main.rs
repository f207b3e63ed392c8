use std::process::ExitCode;

use clap::Parser;
use vita_stream::commands::Command;

#[derive(Parser, Debug)]
#[command(name = "vita", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vita: {error:#}");
            ExitCode::FAILURE
        }
    }
}
