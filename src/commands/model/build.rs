use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vita_engine::models;
use vita_model::build::{self, Bases, Labels, Variant};
use vita_model::checkpoint::Shards;

/// What was trained for vita-nano, part of the program so that an installed one has it.
const TRAINED: &[u8] = include_bytes!("../../../models/nano/trained.safetensors");

/// The same for its variant nano-ctc.
const TRAINED_CTC: &[u8] = include_bytes!("../../../models/nano/ctc.safetensors");

/// Names of what the eyes know.
const LABELS: Labels = Labels {
    classes: include_str!("../../../models/nano/classes.txt"),
    objects: include_str!("../../../models/nano/objects.txt"),
};

const NOTICE: &str = include_str!("../../../models/nano/NOTICE");

/// Tells in the folder what it was made from, so that it is made once.
const STAMP_FILE: &str = "build.json";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The model: nano, or nano-ctc, whose ears read without a decoder
    #[arg(value_parser = ["nano", "nano-ctc"])]
    model: String,

    /// Folder to make, in place of `models/<MODEL>` in the cache
    #[arg(long)]
    out: Option<PathBuf>,

    /// Safetensors file of what was trained, in place of what the program brings along; of several, each has its
    /// parts (connector, ears, language model) in the place of those before it
    #[arg(long, value_name = "FILE")]
    trained: Vec<PathBuf>,

    /// Make it again, even where it is there and up to date
    #[arg(long)]
    force: bool,
}

/// What a folder was made from: the program's version, and of each input its SHA-256.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    program: String,
    inputs: BTreeMap<String, String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let out = match &args.out {
        Some(out) => out.clone(),
        None => models::folder(&args.model)?,
    };
    let cache = models::cache_dir().context("no cache: set VITA_CACHE or HOME")?;
    let bases = Bases::in_models(&cache.join("models"));
    if let Some(missing) = bases.missing().first() {
        bail!("{} is missing: run `make setup`", missing.display());
    }
    let (variant, own) = match args.model.as_str() {
        "nano-ctc" => (Variant::Ctc, TRAINED_CTC),
        _ => (Variant::Decoder, TRAINED),
    };
    let (trained_path, trained) = match args.trained.last() {
        Some(last) => (last.clone(), build::join(read_all(&args.trained)?)?),
        None => ("the program's trained parts".into(), own.to_vec()),
    };
    let stamp = stamp(&bases, &trained)?;
    if !args.force && up_to_date(&out, &stamp) {
        println!("{}: there and up to date", out.display());
        return Ok(ExitCode::SUCCESS);
    }
    let trained = Shards::from_bytes(&trained_path, trained)?;
    let report = in_place(&out, |folder| {
        let report = with_progress(|progress| {
            build::build(variant, &bases, &trained, LABELS, folder, progress)
        })?;
        fs::write(folder.join("NOTICE"), NOTICE)?;
        fs::write(folder.join(STAMP_FILE), serde_json::to_vec_pretty(&stamp)?)?;
        Ok(report)
    })?;
    println!(
        "{}: made in {:.1} s",
        out.display(),
        began.elapsed().as_secs_f64()
    );
    if !report.untrained.is_empty() {
        println!("not trained yet: {}", report.untrained.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.clone(), bytes))
    };
    paths.iter().map(read).collect()
}

fn with_progress(
    make: impl FnOnce(&mut dyn FnMut(build::Progress)) -> vita_model::Result<build::Report>,
) -> anyhow::Result<build::Report> {
    let bar = ProgressBar::new(1000).with_style(ProgressStyle::with_template(
        "{bar:30} {percent:>3} % {elapsed}  {wide_msg}",
    )?);
    let report = make(&mut |progress| {
        bar.set_position((1000.0 * progress.fraction) as u64);
        bar.set_message(progress.part);
    });
    bar.finish_and_clear();
    report.context("cannot make the model")
}

fn stamp(bases: &Bases, trained: &[u8]) -> anyhow::Result<Stamp> {
    let mut inputs = BTreeMap::from([
        (
            "trained".to_owned(),
            hex(Sha256::digest(trained).as_slice()),
        ),
        (
            "classes".to_owned(),
            hex(Sha256::digest(LABELS.classes).as_slice()),
        ),
        (
            "objects".to_owned(),
            hex(Sha256::digest(LABELS.objects).as_slice()),
        ),
    ]);
    for path in bases.files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        inputs.insert(name.into_owned(), sha256(&path)?);
    }
    let program = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Stamp { program, inputs })
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    copied.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(hasher.finalize().as_slice()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn up_to_date(folder: &Path, wanted: &Stamp) -> bool {
    let stamp = fs::read(folder.join(STAMP_FILE)).ok();
    let stamp = stamp.and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    stamp.as_ref() == Some(wanted)
}

/// Makes a folder beside its place and renames it, so that nobody ever meets half of one. What was there before goes,
/// if it is a model of this command or empty.
fn in_place<T>(place: &Path, make: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let occupied = fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !place.join(STAMP_FILE).is_file() {
        bail!(
            "{} is there and was not made by this command: name another folder",
            place.display()
        );
    }
    let name = place
        .file_name()
        .context("the folder to make has no name")?;
    let parent = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let beside = |ending: &str| {
        let name = name.to_string_lossy();
        parent.join(format!(".{name}.{}.{ending}", std::process::id()))
    };
    let (new, old) = (beside("new"), beside("old"));
    let cannot = |what: &Path| format!("cannot write {}", what.display());
    fs::create_dir_all(&new).with_context(|| cannot(&new))?;
    let swap = |made: T| -> anyhow::Result<T> {
        if place.exists() {
            fs::rename(place, &old).with_context(|| cannot(place))?;
        }
        fs::rename(&new, place).with_context(|| cannot(place))?;
        Ok(made)
    };
    let made = make(&new).and_then(swap);
    for leftover in [new, old].iter().filter(|folder| folder.exists()) {
        if let Err(error) = fs::remove_dir_all(leftover) {
            tracing::warn!(folder = %leftover.display(), %error, "cannot remove");
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("nano");
        let fill = |content: &'static str| {
            move |folder: &Path| {
                fs::write(folder.join(STAMP_FILE), content)?;
                Ok(())
            }
        };
        let content = || fs::read_to_string(place.join(STAMP_FILE)).unwrap();
        in_place(&place, fill("one")).unwrap();
        in_place(&place, fill("two")).unwrap();
        assert_eq!(content(), "two");
        let failed: anyhow::Result<()> = in_place(&place, |folder| {
            fs::write(folder.join(STAMP_FILE), "three")?;
            bail!("half-way")
        });
        assert_eq!(failed.unwrap_err().to_string(), "half-way");
        assert_eq!(content(), "two");
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_folder_of_somebody_elses_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("letters.txt"), "dear").unwrap();
        let error = in_place(parent.path(), |_| Ok(())).unwrap_err();
        assert!(
            error.to_string().contains("not made by this command"),
            "{error}"
        );
    }
}
