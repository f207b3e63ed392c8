//! Turns a checkpoint folder into a quantised one: `model.gguf` in place of the safetensors files, every tensor under the
//! name that it had, and the side files as they are.
//!
//! One tensor is in memory at a time, so that a checkpoint larger than the machine's memory goes through.

mod format;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::{GgmlDType, QTensor};

pub use format::{LmFormat, TowerFormat};

use crate::checkpoint::{QUANTISED_FILE, Shards};
use crate::{Error, Result};
use writer::{GgufWriter, Planned};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizeOptions {
    /// Matrices of the language model.
    pub lm: LmFormat,
    /// Matrices of the towers and connectors.
    pub towers: TowerFormat,
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    pub tensor: &'a str,
    pub done: usize,
    pub total: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub tensors: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Quantises the checkpoint in `folder` into `out`, which must not exist or be empty.
///
/// # Errors
/// What [`Shards::open`] says of the checkpoint, [`Error::Input`] for an `out` that cannot be used, [`Error::Io`]. A failed
/// run leaves no `model.gguf` behind.
pub fn quantize(
    folder: &Path,
    out: &Path,
    options: QuantizeOptions,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report> {
    let shards = Shards::open(folder)?;
    let infos = shards.infos();
    claim(out)?;
    copy_side_files(folder, out)?;

    let planned: Vec<Planned> = infos
        .iter()
        .map(|info| Planned {
            name: info.name.clone(),
            shape: info.shape.clone(),
            format: options.format(&info.name, &info.shape),
        })
        .collect();
    let part = out.join(format!("{QUANTISED_FILE}.part"));
    let mut writer = GgufWriter::create(&part, &planned)?;
    for (done, Planned { name, format, .. }) in planned.iter().enumerate() {
        progress(Progress {
            tensor: name,
            done,
            total: planned.len(),
        });
        writer.append(&convert(&shards, name, *format)?)?;
    }
    let bytes_after = writer.finish()?;
    rename(&part, &out.join(QUANTISED_FILE))?;
    Ok(Report {
        tensors: planned.len(),
        bytes_before: infos.iter().map(|info| info.bytes).sum(),
        bytes_after,
    })
}

fn convert(shards: &Shards, name: &str, format: GgmlDType) -> Result<QTensor> {
    let tensor = shards.read(name)?.to_dtype(DType::F32)?;
    Ok(QTensor::quantize(&tensor, format)?)
}

fn claim(out: &Path) -> Result<()> {
    fs::create_dir_all(out).map_err(|e| io(out, e))?;
    let mut entries = fs::read_dir(out).map_err(|e| io(out, e))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Input(format!(
            "{} is not empty: name a folder of its own for the quantised model",
            out.display()
        ))),
    }
}

/// Everything but weights: configs, tokenizer, side files, and the folders that hold them.
fn copy_side_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(|e| io(from, e))? {
        let path = entry.map_err(|e| io(from, e))?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if path.is_dir() {
            // Guards against an `out` inside the checkpoint folder.
            if to.starts_with(&path) {
                continue;
            }
            fs::create_dir_all(&target).map_err(|e| io(&target, e))?;
            copy_side_files(&path, &target)?;
        } else if !is_weights(&path) {
            fs::copy(&path, &target).map_err(|e| io(&path, e))?;
        }
    }
    Ok(())
}

fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let endings = [
        ".safetensors",
        ".safetensors.index.json",
        ".gguf",
        ".bin",
        ".pt",
        ".pth",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn rename(from: &Path, to: &PathBuf) -> Result<()> {
    fs::rename(from, to).map_err(|e| io(to, e))
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
