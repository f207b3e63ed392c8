//! InternViT (spec 2.5): pre-norm blocks with layer scale, learned positions, no final norm.

use super::position::interpolate_positions;
use crate::nn::{LayerNorm, Linear, Probe, Weights, attend};
use crate::{Error, Result};
use candle_core::{DType, IndexOp, Tensor};
use serde::Deserialize;
use std::path::Path;
use vita_kernels::Activation;

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct InternVitConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    #[serde(default = "three")]
    pub num_channels: usize,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    #[serde(default)]
    pub qk_normalization: bool,
    #[serde(default = "layer_norm")]
    pub norm_type: String,
    #[serde(default = "gelu")]
    pub hidden_act: String,
}

fn three() -> usize {
    3
}
fn layer_norm_eps() -> f64 {
    1e-6
}
fn yes() -> bool {
    true
}
fn layer_norm() -> String {
    "layer_norm".into()
}
fn gelu() -> String {
    "gelu".into()
}

impl InternVitConfig {
    /// Reads the tower's `config.json`.
    pub fn load(path: &Path) -> Result<Self> {
        let config: Self = crate::checkpoint::read_json(path)?;
        config.validate(path)?;
        Ok(config)
    }

    /// Refuses what no tensor could have, and the variants of the family that are not InternViT-300M's.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let at_least_one = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("patch_size", self.patch_size),
            ("image_size", self.image_size),
        ];
        crate::checkpoint::check_sizes(path, &at_least_one)?;
        let fail = |key: &str, expected: &str, found: String| {
            Err(Error::config(path, key, expected, found))
        };
        if self.num_channels != 3 {
            return fail("num_channels", "3", self.num_channels.to_string());
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size {}", self.hidden_size);
            return fail(
                "num_attention_heads",
                &expected,
                self.num_attention_heads.to_string(),
            );
        }
        if !self.grid().is_multiple_of(2) || self.grid() == 0 {
            let expected = "an even number of patches per side";
            return fail("image_size", expected, format!("{} patches", self.grid()));
        }
        if self.qk_normalization {
            return fail("qk_normalization", "false", "true".into());
        }
        if self.norm_type != layer_norm() {
            return fail("norm_type", "layer_norm", self.norm_type.clone());
        }
        if self.hidden_act != gelu() {
            return fail("hidden_act", "gelu", self.hidden_act.clone());
        }
        Ok(())
    }

    /// Patches along one side of a picture of the native size.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }
}

/// Class token, patches and positions.
#[derive(Debug, Clone)]
struct Embeddings {
    class: Tensor,
    patch: Linear,
    /// `[1 + grid², hidden]`, f32.
    positions: Tensor,
    config: InternVitConfig,
}

impl Embeddings {
    fn new(config: &InternVitConfig, w: &Weights) -> Result<Self> {
        let (hidden, size) = (config.hidden_size, config.patch_size);
        let w_patch = w.pp("patch_embedding");
        let kernel = w_patch.matrix((hidden, config.num_channels, size, size), "weight")?;
        let patches = config.grid() * config.grid();
        Ok(Self {
            class: w.get((1, 1, hidden), "class_embedding")?,
            // a convolution whose stride is its size is one product per patch
            patch: Linear::from_tensors(
                kernel.reshape((hidden, config.num_channels * size * size))?,
                Some(w_patch.get(hidden, "bias")?),
            )?,
            positions: w
                .stored((1, 1 + patches, hidden), "position_embedding")?
                .to_dtype(DType::F32)?
                .i(0)?,
            config: config.clone(),
        })
    }

    /// `[n, 3, height, width]` → `[n, 1 + patches, hidden]`.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = pixels.dims4()?;
        let size = self.config.patch_size;
        let (rows, columns) = (height / size, width / size);
        if rows * columns == 0 || height % size != 0 || width % size != 0 {
            return Err(Error::Input(format!(
                "a picture of {width}×{height} has no whole number of {size}-pixel patches"
            )));
        }
        let patches = pixels
            .reshape(&[n, channels, rows, size, columns, size])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((n, rows * columns, channels * size * size))?;
        let patches = self.patch.forward(&patches)?;
        let hidden = self.config.hidden_size;
        let class = self.class.broadcast_as((n, 1, hidden))?;
        let positions = self.positions_for(rows, columns)?;
        let positions = positions
            .to_dtype(patches.dtype())?
            .to_device(patches.device())?;
        Ok(Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&positions)?)
    }

    fn positions_for(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let grid = self.config.grid();
        match (rows, columns) == (grid, grid) {
            true => Ok(self.positions.clone()),
            false => interpolate_positions(&self.positions, grid, rows, columns),
        }
    }
}

#[derive(Debug, Clone)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(config: &InternVitConfig, w: &Weights) -> Result<Self> {
        let hidden = config.hidden_size;
        let w_qkv = w.pp("qkv");
        Ok(Self {
            qkv: match config.qkv_bias {
                true => Linear::new(hidden, 3 * hidden, &w_qkv)?,
                false => Linear::no_bias(hidden, 3 * hidden, &w_qkv)?,
            },
            proj: Linear::new(hidden, hidden, &w.pp("proj"))?,
            heads: config.num_attention_heads,
        })
    }

    /// The heads' results side by side, before the projection.
    fn mix(&self, xs: &Tensor) -> Result<Tensor> {
        let (n, tokens, hidden) = xs.dims3()?;
        let head_dim = hidden / self.heads;
        let qkv = self
            .qkv
            .forward(xs)?
            .reshape((n, tokens, 3, self.heads, head_dim))?
            .permute((2, 0, 3, 1, 4))?;
        let scale = (head_dim as f64).powf(-0.5);
        let ys = attend(&qkv.i(0)?, &qkv.i(1)?, &qkv.i(2)?, scale, None)?;
        Ok(ys.transpose(1, 2)?.reshape((n, tokens, hidden))?)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Tensor,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    ls2: Tensor,
}

impl Layer {
    fn new(config: &InternVitConfig, w: &Weights) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let eps = config.layer_norm_eps;
        Ok(Self {
            norm1: LayerNorm::new(hidden, eps, &w.pp("norm1"))?,
            attn: Attention::new(config, &w.pp("attn"))?,
            ls1: w.get(hidden, "ls1")?,
            norm2: LayerNorm::new(hidden, eps, &w.pp("norm2"))?,
            fc1: Linear::new(hidden, inner, &w.pp("mlp.fc1"))?,
            fc2: Linear::new(inner, hidden, &w.pp("mlp.fc2"))?,
            ls2: w.get(hidden, "ls2")?,
        })
    }

    fn forward(&self, xs: &Tensor, index: usize, probe: &mut Probe) -> Result<Tensor> {
        let mixed = self.attn.mix(&self.norm1.forward(xs)?)?;
        if probe.sees() {
            probe.see(
                format_args!("layer{index}_attn"),
                &self.attn.proj.forward(&mixed)?,
            );
        }
        let xs = self.attn.proj.forward_onto(xs, &mixed, Some(&self.ls1))?;
        let inner = self
            .fc1
            .forward_with(&self.norm2.forward(&xs)?, Activation::Gelu)?;
        if probe.sees() {
            probe.see(format_args!("layer{index}_mlp"), &self.fc2.forward(&inner)?);
        }
        let xs = self.fc2.forward_onto(&xs, &inner, Some(&self.ls2))?;
        probe.see(format_args!("layer{index}_out"), &xs);
        Ok(xs)
    }
}

#[derive(Debug, Clone)]
pub struct InternVit {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    config: InternVitConfig,
}

impl InternVit {
    pub fn new(config: &InternVitConfig, w: &Weights) -> Result<Self> {
        Ok(Self {
            embeddings: Embeddings::new(config, &w.pp("embeddings"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, &w.pp("encoder.layers").pp(i)))
                .collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &InternVitConfig {
        &self.config
    }

    /// Class token, patches and positions only: `[n, 3, height, width]` → `[n, 1 + patches, hidden]`.
    pub fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        self.embeddings.forward(pixels)
    }

    /// Features of the last block on the patch grid, class token dropped:
    /// `[n, 3, height, width]` → `[n, rows, columns, hidden]`.
    pub fn forward(&self, pixels: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let (n, _, height, width) = pixels.dims4()?;
        let mut xs = self.embed(pixels)?;
        probe.see(format_args!("embeddings"), &xs);
        for (index, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, index, probe)?;
        }
        let size = self.config.patch_size;
        let patches = xs.narrow(1, 1, xs.dim(1)? - 1)?;
        Ok(patches.reshape((n, height / size, width / size, self.config.hidden_size))?)
    }
}
