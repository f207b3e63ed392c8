use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use toml::{Table, Value};

use crate::chat::{self, Chat};
use crate::config::{self, Problem};
use crate::launch;
use crate::models;
use crate::plan::Plan;

/// Typed lines that may wait to be asked.
const LINES: usize = 16;

/// The template of camera and microphone together.
const DESK: &str = include_str!("../../pipelines/desk.launch");

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Instead of camera and microphone: an rtsp:// address, or a media file, played as if it were live
    source: Option<String>,
    /// A model's folder, or its name in the cache
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Instead of the model's own system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The camera's device file [default: /dev/video0]
    #[arg(long, value_name = "DEVICE", conflicts_with = "source")]
    camera: Option<String>,
    /// The microphone's name, as `pactl list short sources` shows it [default: the desktop's]
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    microphone: Option<String>,
    /// Look at nothing
    #[arg(long)]
    no_video: bool,
    /// Listen to nothing
    #[arg(long)]
    no_audio: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    launch::init().context("GStreamer cannot be initialised; is it installed?")?;
    let dir = std::env::temp_dir().join(format!("vita-chat-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let ended = talk(args, &dir);
    // What is left of it is of no use to anybody.
    let _ = std::fs::remove_dir_all(&dir);
    ended.map(|()| ExitCode::SUCCESS)
}

fn talk(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let plan = plan(args, dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let chat = Chat {
        plan,
        store_dir: dir.join("nats"),
        lines: lines(),
        has_media: !(args.no_video && args.no_audio),
        is_interactive: io::stdin().is_terminal(),
        streams_words: io::stdout().is_terminal(),
    };
    if io::stdin().is_terminal() {
        eprintln!("type a question, or ask it aloud; Ctrl-C ends");
    }
    let ended = runtime.block_on(chat::run(chat, |text| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }));
    // A thread that waits for a line does not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Lines of standard input as they are typed; closed at its end.
fn lines() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, lines) = tokio::sync::mpsc::channel(LINES);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let is_question = !line.trim().is_empty();
            if is_question && sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// A deployment of one source. Its server is put in later.
fn plan(args: &Args, dir: &Path) -> anyhow::Result<Plan> {
    let loaded = config::parse(&dir.join("chat"), &config(args)?.to_string(), &|name| {
        std::env::var(name).ok()
    });
    let errors = loaded.problems.iter().filter(|problem| problem.is_error());
    let errors: Vec<String> = errors.map(in_words).collect();
    match loaded.deployment {
        Some(deployment) if errors.is_empty() => Ok(deployment.plan()),
        _ => anyhow::bail!("{}", errors.join("\n")),
    }
}

/// Without the place in a config that nobody wrote.
fn in_words(problem: &Problem) -> String {
    format!("{}; {}", problem.what, problem.remedy)
}

fn config(args: &Args) -> anyhow::Result<Table> {
    let mut model = Table::new();
    // A path is meant from here, not from the config's folder.
    let name = match args.model.contains('/') {
        true => absolute(&args.model)?,
        false => args.model.clone(),
    };
    model.insert("name".into(), name.into());
    model.insert("device".into(), args.device.clone().into());
    if let Some(system) = &args.system {
        model.insert("system_prompt".into(), system.clone().into());
    }
    let mut source = source(args)?;
    source.insert("name".into(), chat::SOURCE.into());
    for (key, is_off) in [("video", args.no_video), ("audio", args.no_audio)] {
        if is_off && !source.contains_key(key) {
            source.insert(key.into(), "off".into());
        }
    }
    let mut config = Table::new();
    config.insert("version".into(), 1.into());
    config.insert("model".into(), model.into());
    config.insert("source".into(), Value::Array(vec![source.into()]));
    Ok(config)
}

fn source(args: &Args) -> anyhow::Result<Table> {
    let mut source = Table::new();
    let mut set = |key: &str, value: &str| source.insert(key.into(), value.into());
    match &args.source {
        _ if args.no_video && args.no_audio => {
            // Time has to pass, also for those who only type.
            set("type", "test");
            set("wave", "silence");
            set("video", "off");
            set("audio", "on");
        }
        Some(uri) if uri.starts_with("rtsp://") || uri.starts_with("rtsps://") => {
            set("type", "rtsp");
            set("uri", uri);
        }
        Some(path) => {
            set("type", "file");
            set("path", &absolute(path)?);
        }
        None => {
            set("type", "launch");
            set("text", DESK);
            let given = [("camera", &args.camera), ("microphone", &args.microphone)];
            let mut parameters = Table::new();
            for (key, value) in given {
                if let Some(value) = value {
                    parameters.insert(key.into(), value.clone().into());
                }
            }
            source.insert("parameters".into(), parameters.into());
        }
    }
    Ok(source)
}

fn absolute(path: &str) -> anyhow::Result<String> {
    let path: PathBuf = std::path::absolute(path).with_context(|| path.to_owned())?;
    Ok(path.display().to_string())
}
