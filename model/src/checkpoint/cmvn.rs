//! Normalisation constants of the filterbank from their side files (spec 4.3).

use super::ModelConfig;
use crate::audio::whale::GlobalCmvn;
use crate::nn::Weights;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::Deserialize;
use std::path::Path;

/// Smallest variance that is believed.
const MIN_VARIANCE: f64 = 1e-20;

/// Per-bin mean and inverse standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct CmvnValues {
    pub mean: Vec<f32>,
    pub istd: Vec<f32>,
}

#[derive(Deserialize)]
struct Statistics {
    mean_stat: Vec<f64>,
    var_stat: Vec<f64>,
    frame_num: f64,
}

/// The demo's feature extractor carries the finished values.
#[derive(Deserialize)]
struct FeatureExtractor {
    cmvn_means: Vec<f64>,
    cmvn_istds: Vec<f64>,
}

impl CmvnValues {
    /// `global_cmvn`: sums over frames, as JSON or as Kaldi's text matrix.
    pub fn load_statistics(path: &Path, json: bool, bins: usize) -> Result<Self> {
        let bytes = crate::error::read_file(path)?;
        let statistics = match json {
            true => serde_json::from_slice(&bytes).map_err(|e| Error::format(path, e))?,
            false => kaldi_statistics(path, &String::from_utf8_lossy(&bytes))?,
        };
        let Statistics {
            mean_stat,
            var_stat,
            frame_num,
        } = statistics;
        if frame_num.is_nan() || frame_num <= 0.0 {
            return Err(Error::config(path, "frame_num", "more than 0", frame_num));
        }
        let mean: Vec<f64> = mean_stat.iter().map(|sum| sum / frame_num).collect();
        let istd = var_stat
            .iter()
            .zip(&mean)
            .map(|(sum, mean)| 1.0 / (sum / frame_num - mean * mean).max(MIN_VARIANCE).sqrt())
            .collect();
        Self::checked(path, bins, mean, istd)
    }

    /// `feature_extractor/preprocessor_config.json` of the demo layout.
    pub fn load_feature_extractor(path: &Path, bins: usize) -> Result<Self> {
        let file: FeatureExtractor = super::read_json(path)?;
        Self::checked(path, bins, file.cmvn_means, file.cmvn_istds)
    }

    fn checked(path: &Path, bins: usize, mean: Vec<f64>, istd: Vec<f64>) -> Result<Self> {
        for (key, values) in [("means", &mean), ("deviations", &istd)] {
            if values.len() != bins {
                return Err(Error::config(
                    path,
                    key,
                    format!("{bins} values"),
                    values.len(),
                ));
            }
            if let Some(value) = values.iter().find(|v| !v.is_finite()) {
                return Err(Error::config(path, key, "finite values", value));
            }
        }
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        Ok(Self {
            mean: narrow(mean),
            istd: narrow(istd),
        })
    }
}

/// `[ sums count ; squares 0 ]`.
fn kaldi_statistics(path: &Path, text: &str) -> Result<Statistics> {
    let numbers: Vec<f64> = text
        .split(|c: char| c.is_whitespace() || c == '[' || c == ']')
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse()
                .map_err(|e| Error::format(path, format!("{word:?}: {e}")))
        })
        .collect::<Result<_>>()?;
    let (sums, squares) = numbers.split_at(numbers.len() / 2);
    match (sums.split_last(), squares.split_last()) {
        (Some((&frame_num, sums)), Some((_, squares))) if sums.len() == squares.len() => {
            Ok(Statistics {
                mean_stat: sums.to_vec(),
                var_stat: squares.to_vec(),
                frame_num,
            })
        }
        _ => Err(Error::format(path, "expected a matrix of two rows")),
    }
}

/// Largest relative difference that rounding to bf16 can make.
const BF16_ROUNDING: f32 = 1.0 / 128.0;

/// The normalisation that the checkpoint was trained with: its own tensors, or the side file where
/// the tensors are absent or were rounded to 16 bits with the rest.
pub fn load_cmvn(config: &ModelConfig, weights: &Weights) -> Result<GlobalCmvn> {
    let w = weights.pp("model.audio_encoder.encoder.global_cmvn");
    let bins = config.audio.input_dim;
    if !w.contains("mean")
        && let Some(side) = &config.cmvn
    {
        return side.to_tensors(weights);
    }
    let mean = w.stored(bins, "mean")?;
    let istd = w.stored(bins, "istd")?;
    let stored = CmvnValues {
        mean: mean.to_dtype(DType::F32)?.to_vec1()?,
        istd: istd.to_dtype(DType::F32)?.to_vec1()?,
    };
    match &config.cmvn {
        Some(side) if mean.dtype() != DType::F32 && side.rounds_to(&stored) => side,
        _ => &stored,
    }
    .to_tensors(weights)
}

impl CmvnValues {
    fn to_tensors(&self, weights: &Weights) -> Result<GlobalCmvn> {
        let device = weights.device();
        let mean = Tensor::new(self.mean.as_slice(), device)?;
        Ok(GlobalCmvn::new(
            mean,
            Tensor::new(self.istd.as_slice(), device)?,
        ))
    }

    fn rounds_to(&self, rounded: &Self) -> bool {
        let near = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .all(|(a, b)| (a - b).abs() <= BF16_ROUNDING * a.abs())
        };
        near(&self.mean, &rounded.mean) && near(&self.istd, &rounded.istd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kaldi_text_as_it_reads_json() {
        let dir = tempfile::tempdir().unwrap();
        let (json, text) = (dir.path().join("json"), dir.path().join("text"));
        let stats = r#"{"mean_stat": [10.0, -4.0], "var_stat": [60.0, 9.0], "frame_num": 4}"#;
        std::fs::write(&json, stats).unwrap();
        std::fs::write(&text, " [\n  10.0 -4.0 4\n  60.0 9.0 0 ]\n").unwrap();
        let json = CmvnValues::load_statistics(&json, true, 2).unwrap();
        assert_eq!(json, CmvnValues::load_statistics(&text, false, 2).unwrap());
        assert_eq!(json.mean, [2.5, -1.0]);
        assert!((json.istd[0] - 1.0 / 8.75f32.sqrt()).abs() < 1e-6);
    }
}
