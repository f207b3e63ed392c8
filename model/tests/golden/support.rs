//! The folder, the comparisons and their report.

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use vita_model::Result;
use vita_model::checkpoint::{ModelConfig, Shards};
use vita_model::nn::Weights;

pub const EXACT: f32 = 0.0;
pub const FBANK: f32 = 5e-3;
pub const RESAMPLE: f32 = 1e-5;
/// Everything from the first layer of the language model on.
pub const LOGITS: f32 = 1e-3;
/// Encoders, connectors and merged embeddings.
pub const STAGE: f32 = 1e-4;

pub struct Folder {
    pub root: PathBuf,
}

impl Folder {
    pub fn find() -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = match std::env::var_os("VITA_GOLDEN_DIR") {
            None => workspace.join("tests/golden"),
            // a relative path is meant from where cargo was called, which tests cannot know
            Some(dir) => [PathBuf::from(&dir), workspace.join(&dir)]
                .into_iter()
                .find(|dir| dir.is_dir())
                .unwrap_or_else(|| panic!("VITA_GOLDEN_DIR: no folder {}", dir.display())),
        };
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn tensors(&self, name: &str) -> Option<Tensors> {
        let path = self.path(name);
        path.is_file().then(|| Tensors::load(&path))
    }

    pub fn json(&self, name: &str) -> Option<Value> {
        let path = self.path(name);
        let text = path.is_file().then(|| std::fs::read(&path))?;
        Some(serde_json::from_slice(&text.unwrap()).unwrap_or_else(|e| panic!("{name}: {e}")))
    }

    /// What stands between prefix and suffix in the names of the files that have both.
    pub fn files(&self, prefix: &str, suffix: &str) -> Vec<String> {
        let names = std::fs::read_dir(&self.root).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let middle =
            names.filter_map(|n| Some(n.strip_prefix(prefix)?.strip_suffix(suffix)?.to_string()));
        let mut middle: Vec<_> = middle.collect();
        middle.sort();
        middle
    }

    pub fn picture(&self, name: &str) -> Option<image::RgbImage> {
        let path = self.path("inputs").join(name);
        path.is_file().then(|| image::open(path).unwrap().to_rgb8())
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.path("checkpoint")
    }

    pub fn model(&self) -> (ModelConfig, Weights) {
        open_model(&self.checkpoint())
    }

    /// The checkpoint with the demo's configs laid over it, as the demo's recipe does.
    pub fn demo_checkpoint(&self) -> Option<tempfile::TempDir> {
        let demo = self.path("demo_layout");
        if !demo.join("config.json").is_file() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for source in [self.checkpoint(), demo] {
            copy_folder(&source, folder.path());
        }
        Some(folder)
    }
}

pub fn open_model(folder: &Path) -> (ModelConfig, Weights) {
    let config = ModelConfig::load(folder).unwrap_or_else(|e| panic!("{e}"));
    let shards = Shards::open(folder).unwrap_or_else(|e| panic!("{e}"));
    (config, Weights::f32(std::sync::Arc::new(shards)))
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All tensors of one file.
pub struct Tensors(pub BTreeMap<String, Tensor>);

impl Tensors {
    fn load(path: &Path) -> Self {
        let shards = Shards::from_file(path).unwrap_or_else(|e| panic!("{e}"));
        let names = shards.infos().into_iter().map(|info| info.name);
        Self(
            names
                .map(|n| (n.clone(), shards.read(&n).unwrap()))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Names of the form `<prefix><rest>`, and the rest.
    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.0
            .iter()
            .filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }
}

/// Collects differences, so that one run shows all of them.
pub struct Report {
    section: &'static str,
    compared: usize,
    failures: Vec<String>,
}

impl Report {
    pub fn new(section: &'static str) -> Self {
        Self {
            section,
            compared: 0,
            failures: Vec::new(),
        }
    }

    /// Compares numbers; the largest absolute difference must not exceed the tolerance.
    pub fn close(&mut self, name: &str, ours: &Tensor, golden: &Tensor, tolerance: f32) {
        let name = format!("{}/{name}", self.section);
        if ours.dims() != golden.dims() {
            self.fail(format!(
                "{name}: shape {:?}, expected {:?}",
                ours.dims(),
                golden.dims()
            ));
            return;
        }
        let difference = max_difference(ours, golden);
        self.line(
            &name,
            &format!("{:?}", golden.dims()),
            difference,
            tolerance,
        );
    }

    /// Compares a computation that may have failed.
    pub fn try_close(&mut self, name: &str, ours: Result<Tensor>, golden: &Tensor, tolerance: f32) {
        match ours {
            Ok(ours) => self.close(name, &ours, golden, tolerance),
            Err(e) => self.fail(format!("{}/{name}: {e}", self.section)),
        }
    }

    /// Compares tables, texts and ids, entry by entry; the difference is the number of wrong ones.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, ours: &[T], golden: &[T]) {
        let wrong = ours.iter().zip(golden).position(|(a, b)| a != b);
        let wrong = wrong.or((ours.len() != golden.len()).then_some(ours.len().min(golden.len())));
        let name = format!("{}/{name}", self.section);
        let count = usize::from(wrong.is_some());
        self.line(&name, &format!("[{}]", golden.len()), count as f32, EXACT);
        if let Some(at) = wrong {
            let (ours, golden) = (ours.get(at), golden.get(at));
            self.fail(format!(
                "{name}: entry {at} is {ours:?}, expected {golden:?}"
            ));
        }
    }

    pub fn fail(&mut self, what: String) {
        self.compared += 1;
        say(&what);
        self.failures.push(what);
    }

    fn line(&mut self, name: &str, shape: &str, difference: f32, tolerance: f32) {
        self.compared += 1;
        // not `difference > tolerance`: NaN must fail
        let good = difference <= tolerance;
        let verdict = if good { "ok" } else { "TOO FAR" };
        say(&format!(
            "{name:<44} {shape:<20} {difference:<12.3e} {tolerance:<8.0e} {verdict}"
        ));
        if !good {
            self.failures.push(format!(
                "{name}: differs by {difference:e}, tolerance {tolerance:e}"
            ));
        }
    }

    #[track_caller]
    pub fn finish(self) {
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
        assert!(
            self.compared > 0,
            "{}: nothing could be compared",
            self.section
        );
    }
}

/// Written past the test harness's capture, so that passing tests show it too.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub fn max_difference(ours: &Tensor, golden: &Tensor) -> f32 {
    let values = |t: &Tensor| {
        let t = t.to_dtype(DType::F32).and_then(|t| t.flatten_all());
        t.and_then(|t| t.to_vec1::<f32>()).unwrap()
    };
    let pairs = values(ours).into_iter().zip(values(golden));
    // infinities of the same sign are equal; NaN stays and fails the comparison
    pairs.fold(0.0, |worst: f32, (a, b)| {
        let difference = if a == b { 0.0 } else { (a - b).abs() };
        if difference.is_nan() || worst.is_nan() {
            f32::NAN
        } else {
            worst.max(difference)
        }
    })
}

/// A picture as the vectors store it: `[height, width, 3]`, u8.
pub fn picture_tensor(picture: &image::RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    let shape = (height as usize, width as usize, 3);
    Tensor::from_vec(picture.as_raw().clone(), shape, &Device::Cpu).unwrap()
}

/// Collects what the model shows of its inside.
#[derive(Default)]
pub struct Seen(pub BTreeMap<String, Tensor>);

impl Seen {
    pub fn during<T>(&mut self, work: impl FnOnce(&mut vita_model::nn::Probe) -> T) -> T {
        let mut keep = |name: &str, value: &Tensor| {
            self.0.insert(name.to_string(), value.clone());
        };
        work(&mut vita_model::nn::Probe::new(&mut keep))
    }
}

#[test]
fn golden_folder_has_a_checkpoint_and_vectors() {
    let folder = Folder::find();
    say(&format!("golden vectors in {}", folder.root.display()));
    assert!(
        folder.checkpoint().join("config.json").is_file(),
        "no checkpoint/config.json"
    );
    let is_vectors = |name: &str| name.ends_with(".safetensors") || name.ends_with(".json");
    let names = std::fs::read_dir(&folder.root).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names
            .filter(|n| is_vectors(n) && n != "MANIFEST.json")
            .count()
            > 0,
        "no vectors"
    );
}
