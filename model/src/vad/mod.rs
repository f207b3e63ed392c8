//! Voice activity: the probability of speech, block by block (Silero VAD v6, 16 kHz).

mod dense;
mod network;
pub mod onnx;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use thiserror::Error;

pub use network::{SileroState, SileroVad};

/// Samples per second that the network was trained for.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples of one step, 32 ms.
pub const BLOCK_SAMPLES: usize = 512;

/// `models/silero-vad`: made by `model/examples/import_silero.rs` from the pinned ONNX, and compared with it by a test.
const EMBEDDED: &[u8] = include_bytes!("../../../models/silero-vad/silero_vad_16k.safetensors");

/// Why a voice activity network could not be loaded.
#[derive(Debug, Error)]
pub enum VadError {
    #[error(transparent)]
    Onnx(#[from] onnx::OnnxError),
    #[error("the weights are not those of silero vad v6 for 16 kHz: {0}")]
    Weights(#[from] candle_core::Error),
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot load {path}: {source}", path = path.display())]
    Load {
        path: PathBuf,
        source: Box<VadError>,
    },
}

/// The network of the given safetensors file, or the embedded one for `None`. Each is loaded once per process and
/// shared.
///
/// # Errors
/// Where the file cannot be read, or holds other tensors than [`SileroVad::from_safetensors`] needs.
pub fn shared(path: Option<&Path>) -> Result<Arc<SileroVad>, VadError> {
    static BY_DEFAULT: OnceLock<Arc<SileroVad>> = OnceLock::new();
    static OPENED: Mutex<Option<HashMap<PathBuf, Weak<SileroVad>>>> = Mutex::new(None);

    let Some(path) = path else {
        if let Some(network) = BY_DEFAULT.get() {
            return Ok(network.clone());
        }
        let network = Arc::new(SileroVad::from_safetensors(EMBEDDED)?);
        return Ok(BY_DEFAULT.get_or_init(|| network).clone());
    };

    let read = |source| VadError::Read {
        path: path.to_owned(),
        source,
    };
    let canonical = path.canonicalize().map_err(read)?;
    // Held while the file is read, so that two that ask at once get one copy.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    if let Some(network) = opened.get(&canonical).and_then(Weak::upgrade) {
        return Ok(network);
    }
    let bytes = std::fs::read(&canonical).map_err(read)?;
    let network = SileroVad::from_safetensors(&bytes).map_err(|source| VadError::Load {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let network = Arc::new(network);
    opened.retain(|_, network| network.strong_count() > 0);
    opened.insert(canonical, Arc::downgrade(&network));
    Ok(network)
}
