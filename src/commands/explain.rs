use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::config::{self, Kind, Origin, Problem, SourceDeployment, Text, write};
use crate::launch::shell;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The config
    #[arg(required_unless_present = "toml")]
    config: Option<PathBuf>,
    /// Only the source of this name; with --toml: the name to give it
    #[arg(long)]
    source: Option<String>,
    /// The way back: print the TOML source that becomes this gst-launch command (or the commands in a file, or - for those
    /// on standard input)
    #[arg(
        long,
        value_name = "COMMAND",
        conflicts_with = "config",
        allow_hyphen_values = true
    )]
    toml: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match (&args.config, &args.toml) {
        (_, Some(command)) => back(command, args.source.as_deref()),
        (Some(config), None) => explain(config, args.source.as_deref()),
        (None, None) => bail!("give a config, or --toml with a command"),
    }
}

fn explain(config: &Path, only: Option<&str>) -> anyhow::Result<ExitCode> {
    let loaded = config::load(config);
    // Lines can be shown where the secrets are not.
    let in_the_way =
        |problem: &&Problem| problem.is_error() && problem.kind != Kind::MissingVariable;
    let problems: Vec<_> = loaded.problems.iter().filter(in_the_way).collect();
    for problem in &problems {
        eprintln!("{problem}");
    }
    let Some(deployment) = loaded.deployment else {
        return Ok(ExitCode::FAILURE);
    };
    let wanted = |source: &&SourceDeployment| only.is_none_or(|only| source.name == only);
    let texts: Vec<_> = deployment.sources.iter().filter(wanted).map(text).collect();
    if let (Some(only), true) = (only, texts.is_empty()) {
        bail!("{} has no source `{only}`", config.display());
    }
    print!("{}", texts.join("\n"));
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The source's command, and above it where each value comes from.
pub fn text(source: &SourceDeployment) -> String {
    let mut text = format!(
        "# {}{}, by {}\n",
        write::NAME_COMMENT,
        source.name,
        source.template
    );
    let rows = source.settings.iter().map(|setting| {
        let value = serde_json::to_value(Text::from(&setting.value)).unwrap_or_default();
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
        let origin = match setting.origin {
            Origin::Source => "source",
            Origin::Defaults => "[defaults]",
            Origin::Model => "[model]",
            Origin::Template => "template",
        };
        (setting.parameter.as_str(), value, origin)
    });
    let rows: Vec<_> = rows.collect();
    let names = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    let values = rows
        .iter()
        .map(|(_, value, _)| value.len())
        .max()
        .unwrap_or(0);
    for (name, value, origin) in &rows {
        text.push_str(&format!("#   {name:names$}  {value:values$}  {origin}\n"));
    }
    text.push_str(&source.line.command());
    text.push('\n');
    text
}

fn back(command: &str, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let text = read(command)?;
    let commands = shell::commands(&text).context("the command cannot be read")?;
    if commands.is_empty() {
        bail!("there is no command in it");
    }
    let sources = commands.iter().enumerate().map(|(index, command)| {
        let own = write::name_of(command).map(str::to_owned);
        let name = name
            .map(str::to_owned)
            .or(own)
            .unwrap_or_else(|| format!("source-{}", index + 1));
        write::source(command, &name).map_err(anyhow::Error::msg)
    });
    print!(
        "{}",
        sources.collect::<anyhow::Result<Vec<_>>>()?.join("\n")
    );
    Ok(ExitCode::SUCCESS)
}

fn read(command: &str) -> anyhow::Result<String> {
    if command == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
        return Ok(text);
    }
    match std::fs::read_to_string(command) {
        Ok(text) => Ok(text),
        // No file of that name: it is the command itself.
        Err(_) => Ok(command.to_owned()),
    }
}
