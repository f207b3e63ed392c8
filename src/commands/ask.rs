use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use vita_dialogue::state::StateRule;
use vita_engine::models::{DeviceSpec, Model};

use crate::ask::{self, Question, Reply, Seen, decode, ms};
use crate::models;
use crate::terminal::plain;

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("question").required(true).multiple(true).args(["text", "audio"])))]
pub struct Args {
    /// A typed question
    text: Option<String>,
    /// A spoken question: the sound of any media file, also of the one that --video names
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// A video to look at; the model's rule chooses up to 16 frames of it
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    video: Option<PathBuf>,
    /// A picture to look at
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Take each utterance of the sound for a question of its own, instead of the whole file for one
    #[arg(long, requires = "audio")]
    vad: bool,
    /// A model's folder, or its name in the cache
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceSpec,
    /// Instead of the model's own system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of the longest answer
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Print one JSON object a question: state, state_probabilities, answer (null when silent), timings_ms, frames, model and more
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    gst::init().context("GStreamer cannot be initialised; is it installed?")?;
    gstvita::plugin_register_static().context("the elements of vita cannot be registered")?;
    let begin = Instant::now();
    let questions = questions(args)?;
    let decoded = begin.elapsed();
    let begin = Instant::now();
    let model = models::open(&args.model, args.device)?;
    let loaded = begin.elapsed();
    for question in &questions {
        let spent = Spent { decoded, loaded };
        answer(args, &model, question, spent)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Before the question could be read.
#[derive(Clone, Copy)]
struct Spent {
    decoded: Duration,
    loaded: Duration,
}

/// The files, decoded. Several questions only with `--vad`.
fn questions(args: &Args) -> anyhow::Result<Vec<Question>> {
    let seen = match (&args.video, &args.image) {
        (Some(video), _) => Seen::Clip(decode::clip(video)?),
        (None, Some(image)) => Seen::Picture(decode::picture(image)?),
        (None, None) => Seen::Nothing,
    };
    let question = |sound| Question {
        seen: seen.clone(),
        sound,
        text: args.text.clone(),
    };
    let Some(file) = &args.audio else {
        return Ok(vec![question(None)]);
    };
    let sound = decode::sound(file, args.vad)?;
    if !args.vad {
        return Ok(vec![question(Some(sound.samples))]);
    }
    anyhow::ensure!(
        !sound.utterances.is_empty(),
        "{}: nobody speaks in it; without --vad the whole file is one question",
        file.display()
    );
    let utterances = sound.utterances.iter();
    Ok(utterances
        .map(|range| question(Some(sound.samples[range.clone()].to_vec())))
        .collect())
}

fn answer(args: &Args, model: &Model, question: &Question, spent: Spent) -> anyhow::Result<()> {
    let options = ask::Options {
        system: args.system.clone(),
        max_tokens: args.max_tokens as usize,
        rule: StateRule::default(),
    };
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let reply = ask::ask(model, question, &options, |words| {
        if !args.json && written.is_ok() {
            let words = plain_lines(words);
            written = out.write_all(words.as_bytes()).and_then(|()| out.flush());
        }
    });
    let mut reply = reply?;
    reply.timings_ms.load = ms(spent.loaded);
    reply.timings_ms.decode = ms(spent.decoded);
    if args.json {
        written = writeln!(out, "{}", serde_json::to_string(&reply)?);
    } else {
        if reply.answer.is_some() {
            written = written.and_then(|()| writeln!(out));
        }
        eprintln!("{}", plain(&facts(&reply)));
    }
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Safe for a terminal, with its line ends.
fn plain_lines(words: &str) -> String {
    let lines: Vec<_> = words.split('\n').map(plain).collect();
    lines.join("\n")
}

/// What to know of the answer, on one line.
fn facts(reply: &Reply) -> String {
    let states = &reply.state_probabilities;
    let timings = &reply.timings_ms;
    let mut facts = Vec::new();
    if reply.answer.is_none() {
        facts.push("silent: not addressed".to_owned());
    }
    if let Some(transcript) = &reply.transcript {
        facts.push(format!("heard “{transcript}”"));
    }
    facts.push(format!(
        "query {:.2}, noise {:.2}, text {:.2}",
        states.query, states.noise, states.text
    ));
    if !reply.frames.is_empty() {
        facts.push(format!("{} frames", reply.frames.len()));
    }
    facts.push(format!(
        "load {:.0} ms, decode {:.0} ms, encode {:.0} ms, prefill {:.0} ms ({} tokens)",
        timings.load, timings.decode, timings.encode, timings.prefill, reply.prompt_tokens
    ));
    if let Some(first) = timings.first_token {
        facts.push(format!("first token after {first:.0} ms"));
    }
    if let Some(token) = timings.per_token {
        facts.push(format!("{token:.1} ms a token"));
    }
    if let Some(cut_off) = reply.cut_off {
        facts.push(format!("cut off: {}", cut_off.replace('_', " ")));
    }
    facts.join("; ")
}
