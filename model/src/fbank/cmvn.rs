//! Mean and variance normalisation with the statistics of the training set (model specification 4.3).

use std::path::Path;

use serde::Deserialize;

use super::Error;

/// Smallest variance, so that a bin that never changes does not divide by zero.
const VARIANCE_FLOOR: f64 = 1e-20;

/// Per-bin mean and inverse standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Cmvn {
    mean: Vec<f32>,
    istd: Vec<f32>,
}

/// `global_cmvn`, Kaldi's accumulated statistics as JSON.
#[derive(Deserialize)]
struct Stats {
    mean_stat: Vec<f64>,
    var_stat: Vec<f64>,
    frame_num: f64,
}

impl Cmvn {
    /// From sums of values and of squares over `frame_num` frames, in the JSON form that VITA's checkpoints have.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let error = |problem: String| Error::Cmvn {
            file: file.display().to_string(),
            problem,
        };
        let text = std::fs::read_to_string(file).map_err(|e| error(e.to_string()))?;
        let stats: Stats = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
        Self::from_sums(&stats.mean_stat, &stats.var_stat, stats.frame_num).map_err(error)
    }

    /// From values that are finished: one of each a mel bin.
    pub(crate) fn from_values(mean: Vec<f32>, istd: Vec<f32>) -> Self {
        Self { mean, istd }
    }

    /// From sums of values and of squares over a number of frames.
    pub(crate) fn from_sums(sums: &[f64], squares: &[f64], frames: f64) -> Result<Self, String> {
        if sums.is_empty() || sums.len() != squares.len() {
            return Err(format!(
                "mean_stat has {} values and var_stat {}, expected as many as mel bins in both",
                sums.len(),
                squares.len()
            ));
        }
        if frames <= 0.0 {
            return Err(format!("frame_num is {frames}, expected more than 0"));
        }
        let means = sums.iter().map(|sum| sum / frames);
        let istds = means
            .clone()
            .zip(squares)
            .map(|(mean, square)| 1.0 / (square / frames - mean * mean).max(VARIANCE_FLOOR).sqrt());
        Ok(Self {
            mean: means.map(|x| x as f32).collect(),
            istd: istds.map(|x| x as f32).collect(),
        })
    }

    /// One value a mel bin.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Inverse standard deviation, one value a mel bin.
    pub fn istd(&self) -> &[f32] {
        &self.istd
    }

    /// `(x − mean) · istd` in place, on whole frames (`[frames, bins]`, row-major). Apply it exactly once.
    ///
    /// # Panics
    /// If `frames` is no whole number of frames of this many bins.
    pub fn apply(&self, frames: &mut [f32]) {
        let bins = self.mean.len();
        assert_eq!(
            frames.len() % bins,
            0,
            "cmvn over {bins} bins needs whole frames"
        );
        for frame in frames.chunks_exact_mut(bins) {
            for ((x, mean), istd) in frame.iter_mut().zip(&self.mean).zip(&self.istd) {
                *x = (*x - mean) * istd;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("global_cmvn");
        let problem = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Cmvn::read(&file).unwrap_err().to_string()
        };
        assert!(
            problem(r#"{"mean_stat":[1,2],"var_stat":[1],"frame_num":3}"#)
                .contains("mean_stat has 2")
        );
        assert!(
            problem(r#"{"mean_stat":[1],"var_stat":[1],"frame_num":0}"#).contains("frame_num is 0")
        );
        assert!(problem(r#"{"mean_stat":[1],"frame_num":1}"#).contains("var_stat"));
        assert!(
            Cmvn::read(&folder.path().join("absent"))
                .unwrap_err()
                .to_string()
                .contains("absent")
        );
    }

    #[test]
    fn a_constant_bin_stays_finite() {
        let cmvn = Cmvn::from_sums(&[6.0], &[12.0], 3.0).unwrap();
        let mut frames = [2.0];
        cmvn.apply(&mut frames);
        assert_eq!(frames, [0.0]);
    }
}
