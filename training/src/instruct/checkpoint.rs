//! The state of a run on disk.

use crate::sampler::Draws;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How many of the newest are kept.
const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";
/// The tensor that holds [`Progress`] as JSON.
const PROGRESS: &str = "progress";

/// Everything beside tensors that the next update depends on: generators begin anew for each draw,
/// from the recipe's seed and the draw's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates so far.
    pub step: u64,
    pub draws: Draws,
}

pub struct Checkpoint {
    pub progress: Progress,
    pub state: HashMap<String, Tensor>,
}

impl Checkpoint {
    /// The newest whole one.
    pub fn newest(folder: &Path) -> Result<Option<Self>> {
        match all(folder)?.pop() {
            Some((_, path)) => Self::load(&path).map(Some),
            None => Ok(None),
        }
    }

    fn load(path: &Path) -> Result<Self> {
        let mut state = candle_core::safetensors::load(path, &Device::Cpu)?;
        let missing = || Error::format(path, format!("expected a tensor {PROGRESS:?}"));
        let json = state
            .remove(PROGRESS)
            .ok_or_else(missing)?
            .to_vec1::<u8>()?;
        let progress = serde_json::from_slice(&json).map_err(|e| Error::format(path, e))?;
        Ok(Self { progress, state })
    }

    /// Written beside its place and renamed once it is on the disk, so that there is always a whole one.
    pub fn save(folder: &Path, progress: Progress, state: &HashMap<String, Tensor>) -> Result<()> {
        let path = folder.join(format!("{PREFIX}{:08}{SUFFIX}", progress.step));
        let mut tensors = state.clone();
        let json = serde_json::to_vec(&progress).map_err(|e| Error::format(&path, e))?;
        tensors.insert(PROGRESS.into(), Tensor::new(json, &Device::Cpu)?);
        let partial = folder.join("checkpoint.partial");
        candle_core::safetensors::save(&tensors, &partial)?;
        let synced = File::open(&partial).and_then(|file| file.sync_all());
        synced.map_err(Error::io(&partial))?;
        std::fs::rename(&partial, &path).map_err(Error::io(&path))?;
        let mut old = all(folder)?;
        old.truncate(old.len().saturating_sub(KEPT));
        for (_, path) in old {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }
}

/// Checkpoints with their updates, oldest first.
fn all(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}
