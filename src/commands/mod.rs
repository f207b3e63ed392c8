//! One file a command.

use std::process::ExitCode;

mod ask;
mod broker;
mod chat;
mod check;
mod doctor;
mod eval;
mod explain;
mod model;
mod probe;
mod progress;
mod run;
mod test;
mod train;
mod watch;

pub use watch::Screen;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Run a deployment until it is interrupted
    Run(run::Args),
    /// Ask one question about files, without a broker
    Ask(ask::Args),
    /// Talk with a model through this machine's camera and microphone, or about a file or stream
    Chat(chat::Args),
    /// Say everything that is wrong with a config
    Check(check::Args),
    /// Show the gst-launch lines that a config becomes
    Explain(explain::Args),
    /// Say what this machine has and lacks
    Doctor(doctor::Args),
    /// Ask an RTSP server what it serves, and say where it fails
    Probe(probe::Args),
    /// Look at a model's files
    Model(model::Args),
    /// Measure a model on held-out voices, phrasings, recordings and pictures
    Eval(eval::Args),
    /// Train a model by a recipe, going on from where the last run stopped
    Train(train::Args),
    /// Play scripted rooms, and say where what they tell is not what was expected
    Test(test::Args),
    /// Subscribe and print what arrives
    Watch(watch::Args),
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(&args),
            Self::Ask(args) => ask::run(&args),
            Self::Chat(args) => chat::run(&args),
            Self::Check(args) => check::run(&args),
            Self::Explain(args) => explain::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Probe(args) => probe::run(&args),
            Self::Model(args) => model::run(&args),
            Self::Eval(args) => eval::run(&args),
            Self::Train(args) => train::run(&args),
            Self::Test(args) => test::run(&args),
            Self::Watch(args) => watch::run(&args),
        }
    }
}
