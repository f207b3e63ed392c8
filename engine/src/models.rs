//! Models opened once per process and shared.
//!
//! A model stays open as long as somebody holds it. Who opens one that is being loaded waits for that load and gets its
//! result, model or error. A load that failed is not remembered: the next to ask tries again.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::encode::Encoder;
use candle_core::{DType, Device};
use vita_model::scheduler::Limits;
use vita_model::{LoadOptions, Progress, Vita};

use crate::Engine;
use crate::room::{OnEvent, Room, RoomSettings};

/// What sort of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A model, device or precision was named in a way that means nothing.
    Name,
    /// There is no such folder.
    NotFound,
    /// The device is not there, or this build cannot use it.
    Device,
    /// The folder holds no model that can be loaded.
    Load,
}

/// Why a model could not be opened. Cheap to clone: all who waited for one load get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the model has no name: give the path of its folder, or a name such as nano")]
    NoName,
    #[error(
        "model {0}: no cache folder to look in: set VITA_CACHE or HOME, or give the path of the model's folder"
    )]
    NoCache(String),
    #[error("device {0}: expected cpu, cuda or cuda:N")]
    DeviceName(String),
    #[error("precision {0}: expected f32, f16 or bf16")]
    PrecisionName(String),
    #[error("{}: no such model folder: give its path, or the name of a folder in {}", path.display(), models.display())]
    NotFound { path: PathBuf, models: PathBuf },
    #[error("device {device}: {source}")]
    Device {
        device: DeviceSpec,
        source: Arc<candle_core::Error>,
    },
    /// Says the file itself.
    #[error(transparent)]
    Load(Arc<vita_model::Error>),
    #[error("{}: loading the model panicked: {reason}", path.display())]
    Panicked { path: PathBuf, reason: String },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoName | Self::NoCache(_) | Self::DeviceName(_) | Self::PrecisionName(_) => {
                ErrorKind::Name
            }
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Device { .. } => ErrorKind::Device,
            Self::Load(_) | Self::Panicked { .. } => ErrorKind::Load,
        }
    }
}

/// Where a model computes. Written `cpu`, `cuda` (the first) or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    #[default]
    Cpu,
    Cuda(usize),
}

impl DeviceSpec {
    /// # Errors
    /// Where the device is not there, or this build cannot use it.
    pub fn device(self) -> Result<Device, Error> {
        let device = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(ordinal) => Device::new_cuda(ordinal),
        };
        device.map_err(|source| Error::Device {
            device: self,
            source: Arc::new(source),
        })
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::DeviceName(text.to_owned());
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", ordinal)) => Ok(Self::Cuda(ordinal.parse().map_err(|_| unknown())?)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// Type in which a model's matrices are kept; those that are quantised in their file stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    #[default]
    F32,
    F16,
    Bf16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::PrecisionName(text.to_owned())),
        }
    }
}

/// Which model, and how it is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelSpec {
    pub path: PathBuf,
    pub device: DeviceSpec,
    pub precision: Precision,
}

impl ModelSpec {
    /// The model of that name or path, on the CPU in f32.
    ///
    /// # Errors
    /// Those of [`folder`].
    pub fn named(name_or_path: &str) -> Result<Self, Error> {
        Ok(Self {
            path: folder(name_or_path)?,
            device: DeviceSpec::default(),
            precision: Precision::default(),
        })
    }

    /// The same with its path as the file system has it, so that two ways to one folder are one model.
    fn canonical(&self) -> Result<Self, Error> {
        match self.path.canonicalize() {
            Ok(path) => Ok(Self {
                path,
                ..self.clone()
            }),
            Err(_) => Err(Error::NotFound {
                path: self.path.clone(),
                models: models_dir().unwrap_or_else(|| "$VITA_CACHE/models".into()),
            }),
        }
    }
}

/// The set-up's folder: `VITA_CACHE`, else `vita-stream` in the user's cache folder.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("VITA_CACHE").or_else(|| {
        let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        base.map(|base| base.join("vita-stream"))
    })
}

fn models_dir() -> Option<PathBuf> {
    cache_dir().map(|cache| cache.join("models"))
}

/// The folder of a model: a bare name means the folder of that name in `models` of the [cache](cache_dir), anything
/// with a separator in it (`./nano`) is a path. Whether it is there is not looked at.
///
/// # Errors
/// [`Error::NoName`] for an empty text, [`Error::NoCache`] where the environment names no cache.
pub fn folder(name_or_path: &str) -> Result<PathBuf, Error> {
    let is_path = name_or_path.contains('/') || [".", ".."].contains(&name_or_path);
    match name_or_path {
        "" => Err(Error::NoName),
        path if is_path => Ok(path.into()),
        name => models_dir()
            .map(|models| models.join(name))
            .ok_or_else(|| Error::NoCache(name.to_owned())),
    }
}

/// An open model, and what runs on it.
pub struct Model {
    spec: ModelSpec,
    vita: Arc<Vita>,
    encoder: Encoder,
    /// From the first room on.
    engine: Mutex<Option<Engine>>,
}

impl Model {
    fn load(spec: &ModelSpec, progress: Option<Progress>) -> Result<Self, Error> {
        let options = LoadOptions {
            device: spec.device.device()?,
            stored: spec.precision.dtype(),
            progress,
            variables: None,
        };
        let vita = Vita::load(&spec.path, &options).map_err(|e| Error::Load(Arc::new(e)))?;
        let vita = Arc::new(vita);
        Ok(Self {
            spec: spec.clone(),
            encoder: Encoder::new(vita.clone()),
            vita,
            engine: Mutex::default(),
        })
    }

    /// What was opened; the path is the canonical one.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn vita(&self) -> &Arc<Vita> {
        &self.vita
    }

    /// The encoding queue of all who use this model.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Opens a room, which keeps the model open. Its events go to `on_event`; see there what that may not do.
    ///
    /// # Errors
    /// For settings that cannot be, and where too many rooms are open.
    pub fn open_room(
        self: &Arc<Self>,
        settings: RoomSettings,
        on_event: OnEvent,
    ) -> Result<Room, crate::Error> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = match &mut *engine {
            Some(engine) => engine,
            none => none.insert(Engine::start(self.vita.clone(), Limits::default())?),
        };
        let mut room = engine.open_room(settings, on_event)?;
        room.keep(self.clone());
        Ok(room)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

type Outcome = Result<Arc<Model>, Error>;

enum Slot {
    /// Filled by the first who asked; the others wait for it.
    Loading(Arc<OnceLock<Outcome>>),
    Open(Weak<Model>),
}

static SLOTS: LazyLock<Mutex<HashMap<ModelSpec, Slot>>> = LazyLock::new(Mutex::default);

/// Each change under this lock is a single one, so a panic leaves a good map.
fn slots() -> MutexGuard<'static, HashMap<ModelSpec, Slot>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The model of this folder, device and precision: the open one if there is one, else loaded now, on this thread.
/// `progress` is told the bytes read, if it is this call that loads.
///
/// # Errors
/// Where the folder or the device is not there, or the folder holds no model that can be loaded.
pub fn open(spec: &ModelSpec, progress: Option<Progress>) -> Result<Arc<Model>, Error> {
    let spec = spec.canonical()?;
    let loading = match open_or_loading(&spec) {
        Ok(model) => return Ok(model),
        Err(loading) => loading,
    };
    let outcome = loading
        .get_or_init(|| load_caught(&spec, progress).map(Arc::new))
        .clone();
    settle(spec, &loading, &outcome);
    outcome
}

fn open_or_loading(spec: &ModelSpec) -> Result<Arc<Model>, Arc<OnceLock<Outcome>>> {
    let mut slots = slots();
    match slots.get(spec) {
        Some(Slot::Loading(loading)) => return Err(loading.clone()),
        Some(Slot::Open(model)) => {
            if let Some(model) = model.upgrade() {
                return Ok(model);
            }
        }
        None => (),
    }
    let loading = Arc::<OnceLock<_>>::default();
    slots.insert(spec.clone(), Slot::Loading(loading.clone()));
    Err(loading)
}

fn load_caught(spec: &ModelSpec, progress: Option<Progress>) -> Result<Model, Error> {
    // What a load leaves behind when it panics is dropped with it.
    let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(spec, progress)));
    loaded.unwrap_or_else(|panic| {
        Err(Error::Panicked {
            path: spec.path.clone(),
            reason: panic_text(&*panic),
        })
    })
}

/// The first who comes back from a load ends the waiting for it.
fn settle(spec: ModelSpec, loading: &Arc<OnceLock<Outcome>>, outcome: &Outcome) {
    let mut slots = slots();
    let is_ours =
        matches!(slots.get(&spec), Some(Slot::Loading(current)) if Arc::ptr_eq(current, loading));
    if !is_ours {
        return;
    }
    match outcome {
        Ok(model) => slots.insert(spec, Slot::Open(Arc::downgrade(model))),
        Err(_) => slots.remove(&spec),
    };
    slots.retain(|_, slot| !matches!(slot, Slot::Open(model) if model.strong_count() == 0));
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no reason given".to_owned())
}

/// The golden checkpoint of the repository, for tests.
#[cfg(test)]
pub(crate) fn golden() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn spec(path: impl Into<PathBuf>) -> ModelSpec {
        ModelSpec {
            path: path.into(),
            device: DeviceSpec::Cpu,
            precision: Precision::F32,
        }
    }

    /// A copy that no other test opens.
    fn copy_of_golden(folder: &Path) {
        for entry in walk(&golden()) {
            let target = folder.join(entry.strip_prefix(golden()).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(entry, target).unwrap();
        }
    }

    fn walk(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .flat_map(|path| match path.is_dir() {
                true => walk(&path),
                false => vec![path],
            })
            .collect()
    }

    #[test]
    fn callers_at_the_same_time_share_one_load_and_the_last_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        copy_of_golden(folder.path());
        let spec = spec(folder.path().join("."));
        let started = std::sync::Barrier::new(4);
        let models = std::thread::scope(|scope| {
            let open_one = || {
                started.wait();
                open(&spec, None).unwrap()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open_one)).collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect::<Vec<_>>()
        });
        assert!(models.iter().all(|model| Arc::ptr_eq(model, &models[0])));
        let vita = Arc::downgrade(models[0].vita());
        drop(models);
        assert!(vita.upgrade().is_none());
        assert!(open(&spec, None).is_ok());
    }

    #[test]
    fn a_failed_load_has_one_text_for_all_and_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let texts = std::thread::scope(|scope| {
            let open_one = || open(&spec, None).unwrap_err();
            let threads = [scope.spawn(open_one), scope.spawn(open_one)];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(texts[0].kind(), ErrorKind::Load);
        assert_eq!(texts[0].to_string(), texts[1].to_string());
        assert!(texts[0].to_string().contains("config.json"), "{}", texts[0]);
        copy_of_golden(folder.path());
        assert!(open(&spec, None).is_ok());
    }

    #[test]
    fn only_the_call_that_loads_hears_of_progress() {
        let folder = tempfile::tempdir().unwrap();
        copy_of_golden(folder.path());
        let spec = spec(folder.path());
        let counter = || {
            let bytes = Arc::new(AtomicUsize::new(0));
            let told = bytes.clone();
            let progress: Progress = Arc::new(move |n| {
                told.fetch_add(n as usize, Ordering::SeqCst);
            });
            (bytes, progress)
        };
        let ((first, progress), (second, no_progress)) = (counter(), counter());
        let model = open(&spec, Some(progress)).unwrap();
        let again = open(&spec, Some(no_progress)).unwrap();
        assert!(Arc::ptr_eq(&model, &again));
        assert!(first.load(Ordering::SeqCst) > 1_000_000);
        assert_eq!(second.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn another_precision_is_another_copy() {
        let half = ModelSpec {
            precision: Precision::Bf16,
            ..spec(golden())
        };
        let (a, b) = (
            open(&spec(golden()), None).unwrap(),
            open(&half, None).unwrap(),
        );
        assert!(!Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn a_name_is_a_folder_of_the_cache_and_a_path_is_itself() {
        assert!(folder("nano").unwrap().ends_with("models/nano"));
        assert_eq!(folder("./nano").unwrap(), Path::new("./nano"));
        assert_eq!(folder("..").unwrap(), Path::new(".."));
        assert_eq!(folder("").unwrap_err().kind(), ErrorKind::Name);
        let error = open(&spec("/nowhere/at-all"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/at-all: no such model folder")
        );
    }

    #[test]
    fn devices_and_precisions_are_read_and_written() {
        for text in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:1"] {
            assert_eq!(
                text.parse::<DeviceSpec>().unwrap_err().kind(),
                ErrorKind::Name
            );
        }
        assert_eq!("bf16".parse::<Precision>().unwrap(), Precision::Bf16);
        assert!("q8".parse::<Precision>().is_err());
    }
}
