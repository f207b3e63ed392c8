use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use vita_engine::models;
use vita_model::{LoadOptions, Vita};
use vita_training::data::ITEMS_FILE;
use vita_training::data::pictures::PICTURES_FILE;
use vita_training::eval::{self, Options};

use super::progress;

/// `vita eval`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a folder, or a name in the cache
    model: String,

    /// The items to measure with, of which only the split test is used; may be given several times [default: those of nano's data in the cache]
    #[arg(long, value_name = "FILE")]
    items: Vec<PathBuf>,

    /// At most so many items a row, drawn by the seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Decides which items are drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Only these rows, by the keys that the JSON has; `chat` is the comparison with the base model
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    rows: Vec<String>,

    /// Write the table here as JSON too, with examples of what went wrong
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write everything that the rows count as wrong here, one item a line (JSON): what was said, heard, expected and answered
    #[arg(long, value_name = "FILE")]
    wrong: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cache = models::cache_dir().context("no cache: neither VITA_CACHE nor HOME is set")?;
    let folder = models::folder(&args.model).context("no such model")?;
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let base = cache.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let options = Options {
        items: match args.items.is_empty() {
            true => nanos_items(&cache.join("training/nano")),
            false => args.items.clone(),
        },
        base: base.is_file().then_some(base),
        limit: args.limit,
        seed: args.seed,
        only: args.rows.clone(),
        name,
        cache,
    };
    let vita = Vita::load(&folder, &LoadOptions::default()).context("cannot load the model")?;
    let bar = progress::steps()?;
    let report = eval::run(vita, &options, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let report = report.context("cannot evaluate")?;
    print!("{report}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.wrong {
        let lines = report.wrong.iter().map(serde_json::to_string);
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those with pictures may not have been made.
fn nanos_items(folder: &Path) -> Vec<PathBuf> {
    let pictures = folder.join(PICTURES_FILE);
    let pictures = Some(pictures).filter(|file| file.is_file());
    [folder.join(ITEMS_FILE)]
        .into_iter()
        .chain(pictures)
        .collect()
}
