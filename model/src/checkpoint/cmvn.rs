//! Where a checkpoint keeps the normalisation of its features (spec sections 1.2 and 4.3).

use super::ModelConfig;
use crate::audio::whale::GlobalCmvn;
use crate::fbank::Cmvn;
use crate::nn::Weights;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::Deserialize;
use std::path::Path;

/// Largest relative difference that rounding to bf16 can make.
const BF16_ROUNDING: f32 = 1.0 / 128.0;

/// `global_cmvn` of the training layout: sums over frames, as JSON or as Kaldi's text matrix.
pub(super) fn read_statistics(path: &Path, json: bool, bins: usize) -> Result<Cmvn> {
    let cmvn = match json {
        true => Cmvn::read(path).map_err(|e| Error::format(path, e))?,
        false => read_kaldi(path)?,
    };
    checked(path, bins, cmvn)
}

/// The demo's feature extractor carries the finished values.
#[derive(Deserialize)]
struct FeatureExtractor {
    cmvn_means: Vec<f32>,
    cmvn_istds: Vec<f32>,
}

/// `feature_extractor/preprocessor_config.json` of the demo layout.
pub(super) fn read_feature_extractor(path: &Path, bins: usize) -> Result<Cmvn> {
    let file: FeatureExtractor = super::read_json(path)?;
    checked(
        path,
        bins,
        Cmvn::from_values(file.cmvn_means, file.cmvn_istds),
    )
}

fn checked(path: &Path, bins: usize, cmvn: Cmvn) -> Result<Cmvn> {
    for (key, values) in [("means", cmvn.mean()), ("deviations", cmvn.istd())] {
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
    Ok(cmvn)
}

/// `[ sums count ; squares 0 ]`.
fn read_kaldi(path: &Path) -> Result<Cmvn> {
    let bytes = crate::error::read_file(path)?;
    let numbers: Vec<f64> = String::from_utf8_lossy(&bytes)
        .split(|c: char| c.is_whitespace() || c == '[' || c == ']')
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse()
                .map_err(|e| Error::format(path, format!("{word:?}: {e}")))
        })
        .collect::<Result<_>>()?;
    let (sums, squares) = numbers.split_at(numbers.len() / 2);
    let (Some((&frames, sums)), Some((_, squares))) = (sums.split_last(), squares.split_last())
    else {
        return Err(Error::format(path, "expected a matrix of two rows"));
    };
    Cmvn::from_sums(sums, squares, frames).map_err(|e| Error::format(path, e))
}

/// The normalisation that the checkpoint was trained with: its own tensors, or the side file where
/// the tensors are absent or were rounded to 16 bits with the rest.
pub fn load_cmvn(config: &ModelConfig, weights: &Weights) -> Result<GlobalCmvn> {
    let w = weights.pp("model.audio_encoder.encoder.global_cmvn");
    let bins = config.audio.input_dim;
    if !w.contains("mean")
        && let Some(side) = &config.cmvn
    {
        return to_tensors(side, weights);
    }
    let mean = w.stored(bins, "mean")?;
    let istd = w.stored(bins, "istd")?;
    let rounded = mean.dtype() != DType::F32;
    let values = |t: &Tensor| t.to_dtype(DType::F32)?.to_vec1();
    let stored = Cmvn::from_values(values(&mean)?, values(&istd)?);
    match &config.cmvn {
        Some(side) if rounded && near(side, &stored) => to_tensors(side, weights),
        _ => to_tensors(&stored, weights),
    }
}

fn to_tensors(cmvn: &Cmvn, weights: &Weights) -> Result<GlobalCmvn> {
    let device = weights.device();
    let mean = Tensor::new(cmvn.mean(), device)?;
    Ok(GlobalCmvn::new(mean, Tensor::new(cmvn.istd(), device)?))
}

/// Could the one be the other, rounded?
fn near(exact: &Cmvn, rounded: &Cmvn) -> bool {
    let near = |a: &[f32], b: &[f32]| {
        let mut pairs = a.iter().zip(b);
        pairs.all(|(a, b)| (a - b).abs() <= BF16_ROUNDING * a.abs())
    };
    near(exact.mean(), rounded.mean()) && near(exact.istd(), rounded.istd())
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
        let json = read_statistics(&json, true, 2).unwrap();
        assert_eq!(json, read_statistics(&text, false, 2).unwrap());
        assert_eq!(json.mean(), [2.5, -1.0]);
        assert!((json.istd()[0] - 1.0 / 8.75f32.sqrt()).abs() < 1e-6);
        assert!(read_statistics(&text, false, 3).is_err());
    }
}
