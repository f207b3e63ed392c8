//! Where weights come from: a prefix into a [`Source`], in the vocabulary of candle's `VarBuilder`.

use crate::{Error, Result};
use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Shape, Tensor, Var};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A set of named tensors: a checkpoint, a GGUF file, random numbers.
pub trait Source: Send + Sync {
    /// The tensor, on the CPU, in the type in which it is stored. Errors name file and tensor.
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor>;

    /// The tensor in its quantised form, if it has one.
    fn quantised(
        &self,
        _name: &str,
        _expected: &Shape,
        _device: &Device,
    ) -> Result<Option<QTensor>> {
        Ok(None)
    }

    fn contains(&self, name: &str) -> bool;
}

/// A view into a [`Source`] under a prefix, with the device and types to load to.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn Source>,
    prefix: String,
    device: Device,
    stored: DType,
    compute: DType,
    packs: bool,
}

impl Weights {
    /// `stored` is the type in which matrices are kept, `compute` that of activations, norms and biases.
    pub fn new(source: Arc<dyn Source>, stored: DType, compute: DType, device: Device) -> Self {
        Self {
            source,
            prefix: String::new(),
            device,
            stored,
            compute,
            packs: true,
        }
    }

    /// Everything in f32 on the CPU.
    pub fn f32(source: Arc<dyn Source>) -> Self {
        Self::new(source, DType::F32, DType::F32, Device::Cpu)
    }

    /// For training: gradients pass every part. Matrices that learn stay candle's tensors, the others
    /// are kept in f32 on the CPU.
    pub fn for_training(self) -> Self {
        Self {
            packs: false,
            ..self
        }
    }

    /// Whether matrices may be packed for the CPU's kernels.
    pub fn packs(&self) -> bool {
        self.packs
    }

    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let mut next = self.clone();
        next.prefix = self.path(&name.to_string());
        next
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn compute_dtype(&self) -> DType {
        self.compute
    }

    pub fn contains(&self, name: &str) -> bool {
        self.source.contains(&self.path(name))
    }

    /// A vector or table in the type of the activations.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.load(shape.into(), name, self.compute)
    }

    /// A tensor on the CPU, in the type in which it is stored.
    pub fn stored(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.source.tensor(&self.path(name), &shape.into())
    }

    /// A matrix or convolution kernel in the type chosen for weights.
    pub fn matrix(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.load(shape.into(), name, self.stored)
    }

    /// A matrix in its quantised form, if it has one.
    pub fn quantised(&self, shape: impl Into<Shape>, name: &str) -> Result<Option<QTensor>> {
        self.source
            .quantised(&self.path(name), &shape.into(), &self.device)
    }

    fn load(&self, shape: Shape, name: &str, dtype: DType) -> Result<Tensor> {
        let tensor = self.source.tensor(&self.path(name), &shape)?;
        Ok(tensor.to_dtype(dtype)?.to_device(&self.device)?)
    }

    fn path(&self, name: &str) -> String {
        match self.prefix.as_str() {
            "" => name.to_string(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}

/// A source that reports the bytes read from it, for progress bars.
pub struct Watched {
    source: Arc<dyn Source>,
    bytes: AtomicU64,
    report: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Watched {
    pub fn new(source: Arc<dyn Source>, report: Arc<dyn Fn(u64) + Send + Sync>) -> Self {
        Self {
            source,
            bytes: AtomicU64::new(0),
            report,
        }
    }

    fn read(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        (self.report)(before + bytes as u64);
    }
}

impl Source for Watched {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let tensor = self.source.tensor(name, expected)?;
        self.read(tensor.elem_count() * tensor.dtype().size_in_bytes());
        Ok(tensor)
    }

    fn quantised(&self, name: &str, expected: &Shape, device: &Device) -> Result<Option<QTensor>> {
        let tensor = self.source.quantised(name, expected, device)?;
        self.read(tensor.as_ref().map_or(0, QTensor::storage_size_in_bytes));
        Ok(tensor)
    }

    fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }
}

/// Tensors that learn: those of a source whose name is chosen become variables in f32, one for each
/// name, however often it is asked for.
pub struct Variables {
    chosen: Box<dyn Fn(&str) -> bool + Send + Sync>,
    made: Mutex<BTreeMap<String, Var>>,
}

impl Variables {
    pub fn new(chosen: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self {
            chosen: Box::new(chosen),
            made: Mutex::default(),
        }
    }

    /// Those that were asked for so far, by name.
    pub fn made(&self) -> BTreeMap<String, Var> {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A source whose chosen tensors are variables of this set.
    pub fn of(self: &Arc<Self>, source: Arc<dyn Source>) -> Arc<dyn Source> {
        Arc::new(Learning {
            source,
            variables: self.clone(),
        })
    }
}

struct Learning {
    source: Arc<dyn Source>,
    variables: Arc<Variables>,
}

impl Source for Learning {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        if !(self.variables.chosen)(name) {
            return self.source.tensor(name, expected);
        }
        let mut made = self
            .variables
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(var) = made.get(name) {
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&self.source.tensor(name, expected)?.to_dtype(DType::F32)?)?;
        let tensor = var.as_tensor().clone();
        made.insert(name.to_string(), var);
        Ok(tensor)
    }

    fn quantised(&self, name: &str, expected: &Shape, device: &Device) -> Result<Option<QTensor>> {
        match (self.variables.chosen)(name) {
            true => Ok(None),
            false => self.source.quantised(name, expected, device),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }
}

/// Tensors held in memory, for models that are being made and for tests.
pub struct TensorMap(pub HashMap<String, Tensor>);

impl Source for TensorMap {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        let tensor = self.0.get(name).ok_or_else(|| Error::MissingTensor {
            file: "memory".into(),
            tensor: name.into(),
            expected: expected.dims().to_vec(),
        })?;
        if tensor.shape() != expected {
            return Err(Error::TensorShape {
                file: "memory".into(),
                tensor: name.into(),
                expected: expected.dims().to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        Ok(tensor.clone())
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Well-scaled random weights of any shape asked for: the same name and seed give the same numbers.
/// For benchmarks and for tests that need a model of a given size and no particular knowledge.
pub struct RandomSource {
    pub seed: u64,
}

impl Source for RandomSource {
    fn tensor(&self, name: &str, expected: &Shape) -> Result<Tensor> {
        use rand::{Rng, SeedableRng};
        use std::hash::{DefaultHasher, Hash, Hasher};

        let mut hasher = DefaultHasher::new();
        (self.seed, name).hash(&mut hasher);
        let mut rng = rand::rngs::StdRng::seed_from_u64(hasher.finish());
        let dims = expected.dims();
        let fan_in: usize = dims.iter().skip(1).product();
        // uniform with the variance 1/fan_in; vectors are norm weights or biases, near one
        let (centre, reach) = match dims.len() {
            0 | 1 => (1.0, 0.3),
            _ => (0.0, (3.0 / fan_in as f32).sqrt()),
        };
        let values: Vec<f32> = (0..expected.elem_count())
            .map(|_| centre + rng.random_range(-reach..=reach))
            .collect();
        Ok(Tensor::from_vec(values, expected, &Device::Cpu)?)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}
