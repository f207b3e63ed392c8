use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use vita_engine::models;
use vita_model::{LoadOptions, Vita};
use vita_training::{Places, Recipe, Stage, StageOptions, align, data, features, hear, instruct};

use super::progress;

/// `vita train`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The recipe, a TOML
    recipe: PathBuf,

    /// Only this stage: data, pictures, align-audio, align-ctc, features, align-vision or instruct
    #[arg(long, value_parser = stage)]
    stage: Option<Stage>,

    /// Go on with a run of the stage instruct that was begun
    #[arg(long)]
    resume: bool,

    /// Stop each stage after so many minutes; what is done is kept
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,

    /// Train nothing: say how the newest checkpoint does on the items of the split valid
    #[arg(long)]
    validate: bool,

    /// Train nothing: write what the newest checkpoint has learnt into this file (safetensors, f16)
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

fn stage(name: &str) -> Result<Stage, String> {
    let known = Stage::ALL.into_iter().find(|stage| stage.name() == name);
    known.ok_or_else(|| {
        let [others @ .., last] = Stage::ALL.map(Stage::name);
        format!("expected {} or {last}", others.join(", "))
    })
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe).context("cannot read the recipe")?;
    let places = places(&recipe, &args.recipe)?;
    if let Some(file) = &args.export {
        let step = instruct::export(&recipe, &places, file).context("cannot export")?;
        println!("{}: what was learnt in {step} updates", file.display());
        return Ok(ExitCode::SUCCESS);
    }
    if args.validate {
        let run = instruct::Run::open(&recipe, &places).context("cannot validate")?;
        println!("{}", run.measure()?);
        return Ok(ExitCode::SUCCESS);
    }
    let limit = args
        .minutes
        .map(|minutes| Duration::from_secs(60 * minutes));
    for stage in Stage::ALL {
        if args.stage.is_none_or(|wanted| wanted == stage) {
            run_stage(stage, &recipe, &places, args.resume, limit)
                .with_context(|| format!("stage {}", stage.name()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_stage(
    stage: Stage,
    recipe: &Recipe,
    places: &Places,
    resume: bool,
    stop_after: Option<Duration>,
) -> anyhow::Result<()> {
    let options = StageOptions {
        stop_after,
        progress: true,
    };
    match stage {
        Stage::Data => make_data(recipe, places),
        Stage::Pictures => make_pictures(recipe, places),
        Stage::Features => {
            let summary = features::run(recipe, places, &options)?;
            let (before, now, missing) = (summary.before, summary.now, summary.missing);
            println!("features: {now} files, {before} of them from earlier; {missing} missing");
            Ok(())
        }
        Stage::AlignAudio => {
            if recipe.align_audio.is_none() {
                return Ok(());
            }
            let summary = hear::run(recipe, places, &options)?;
            let (updates, measures) = (summary.updates, summary.measures);
            println!("align-audio: {updates} updates; split valid: {measures}");
            println!("tuned ears: {}", summary.file.display());
            Ok(())
        }
        Stage::AlignCtc => {
            if recipe.align_ctc.is_none() {
                return Ok(());
            }
            let summary = hear::ctc::run(recipe, places, &options)?;
            let (updates, tokens) = (summary.updates, summary.vocabulary);
            println!(
                "align-ctc: {updates} updates, {tokens} tokens; split valid: {}",
                summary.measures
            );
            println!("reader: {}", summary.file.display());
            Ok(())
        }
        Stage::AlignVision => {
            if recipe.align_vision.is_none() {
                return Ok(());
            }
            let summary = align::run(recipe, places, &options)?;
            println!("align-vision: {} updates", summary.updates);
            println!("nearest word right: {}", align::shown(&summary.measures));
            println!("aligned weights: {}", summary.file.display());
            Ok(())
        }
        Stage::Instruct => {
            let options = instruct::Options {
                resume,
                stop_after,
                progress: true,
                ..instruct::Options::default()
            };
            let summary = instruct::run(recipe, places, &options)?;
            let (updates, items) = (summary.updates, summary.items);
            println!("instruct: {updates} updates, {items} sequences");
            if let Some(measures) = summary.measures {
                println!("{measures}");
            }
            println!("curves and log: {}", summary.folder.display());
            Ok(())
        }
    }
}

fn make_data(recipe: &Recipe, places: &Places) -> anyhow::Result<()> {
    let Some(config) = &recipe.data else {
        return Ok(());
    };
    let bar = progress::steps()?;
    let summary = data::make(config, &places.cache, &places.folder, &|step| {
        show(&bar, step)
    })?;
    bar.finish_and_clear();
    for ((split, group), count) in &summary.items {
        println!("{split:6} {group:16} {count:6}");
    }
    println!("data: {:.0} minutes of speech", summary.spoken_secs / 60.0);
    for note in &summary.notes {
        println!("note: {note}");
    }
    if let Some(reason) = &summary.first_failure {
        println!(
            "{} clips could not be made; the first: {reason}",
            summary.failed
        );
    }
    Ok(())
}

fn make_pictures(recipe: &Recipe, places: &Places) -> anyhow::Result<()> {
    let Some(config) = &recipe.data else {
        return Ok(());
    };
    let vita = Vita::load(&places.model, &LoadOptions::default())?;
    let eyes = vita.eyes()?;
    let named = |picture: &Path| data::pictures::main_thing(eyes, picture);
    let bar = progress::steps()?;
    let folders = (places.cache.as_path(), places.folder.as_path());
    let made = data::pictures::make(config, folders, &named, &|step| show(&bar, step));
    bar.finish_and_clear();
    let summary = made?;
    for ((split, group), count) in &summary.items {
        println!("{split:6} {group:16} {count:6}");
    }
    println!("pictures: {}", summary.pictures);
    for note in &summary.notes {
        println!("note: {note}");
    }
    Ok(())
}

fn show(bar: &ProgressBar, step: data::Progress) {
    bar.set_length(step.total as u64);
    bar.set_position(step.done as u64);
    bar.set_message(step.what);
}

fn places(recipe: &Recipe, path: &Path) -> anyhow::Result<Places> {
    let cache = models::cache_dir().context("no cache: neither VITA_CACHE nor HOME is set")?;
    let model =
        models::folder(&recipe.model).with_context(|| format!("{}: model", path.display()))?;
    let folder = cache.join("training").join(&recipe.name);
    // items of another recipe (`../nano/items.jsonl`) are reached through it
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Places {
        cache: cache.clone(),
        folder,
        model,
    })
}
