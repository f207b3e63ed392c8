//! Names of what a classifier recognises, for eyes that put what they see into words.

use crate::nn::{Linear, Weights};
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use serde::Deserialize;
use std::path::Path;

/// Which classes are named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NamesConfig {
    /// Names of the classes, one a line, in the classifier's order.
    pub file: String,
    /// At most so many.
    #[serde(default = "three")]
    pub top: usize,
    /// A class that is at least so probable is named as it is.
    #[serde(default = "likely")]
    pub likely_percent: u32,
    /// A class that is at least so probable, or the most probable, is named with a question mark.
    #[serde(default = "possible")]
    pub possible_percent: u32,
}

fn three() -> usize {
    3
}
fn likely() -> u32 {
    40
}
fn possible() -> u32 {
    8
}

impl NamesConfig {
    pub fn validate(&self, path: &Path) -> Result<()> {
        crate::checkpoint::check_sizes(path, &[("names.top", self.top)])?;
        match self.possible_percent <= self.likely_percent && self.likely_percent <= 100 {
            true => Ok(()),
            false => {
                let expected = "possible-percent ≤ likely-percent ≤ 100";
                Err(Error::config(path, "names", expected, format!("{self:?}")))
            }
        }
    }
}

/// A linear classifier over the mean of a feature map, and the names of its classes.
#[derive(Debug, Clone)]
pub struct ClassNames {
    classifier: Linear,
    names: Vec<String>,
    config: NamesConfig,
}

/// A class and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recognised {
    pub class: usize,
    pub probability: f32,
}

impl ClassNames {
    /// `text` is the content of `path`: a name a line; what follows a comma (synonyms) is left out.
    pub fn new(
        config: &NamesConfig,
        (path, text): (&Path, &str),
        inputs: usize,
        w: &Weights,
    ) -> Result<Self> {
        let first = |line: &str| {
            line.split(',')
                .next()
                .unwrap_or_default()
                .trim()
                .to_string()
        };
        let names: Vec<String> = text.lines().map(first).collect();
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(Error::format(path, "expected a name on every line"));
        }
        Ok(Self {
            classifier: Linear::new(inputs, names.len(), w)?,
            names,
            config: config.clone(),
        })
    }

    /// Feature maps `[n, rows, columns, channels]` → the best classes of each picture, the likeliest first.
    pub fn recognise(&self, maps: &Tensor) -> Result<Vec<Vec<Recognised>>> {
        let mean = maps.flatten(1, 2)?.mean(1)?;
        let logits = self.classifier.forward(&mean)?.to_dtype(DType::F32)?;
        let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
        Ok(probabilities.iter().map(|row| self.best(row)).collect())
    }

    fn best(&self, probabilities: &[f32]) -> Vec<Recognised> {
        let all = probabilities.iter().enumerate();
        let mut best: Vec<_> = all
            .map(|(class, &probability)| Recognised { class, probability })
            .collect();
        best.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        best.truncate(self.config.top);
        best
    }

    pub fn name(&self, class: usize) -> &str {
        self.names.get(class).map_or("", String::as_str)
    }

    /// The words for what was recognised: likely classes by their names, possible ones and the best in any case with a
    /// question mark, as in "espresso, cup?".
    pub fn words(&self, recognised: &[Recognised]) -> String {
        let percent = |r: &Recognised| 100.0 * r.probability;
        let named = recognised
            .iter()
            .enumerate()
            .filter(|(i, r)| *i == 0 || percent(r) >= self.config.possible_percent as f32)
            .map(|(_, r)| {
                let sure = percent(r) >= self.config.likely_percent as f32;
                let mark = if sure { "" } else { "?" };
                format!("{}{mark}", self.name(r.class))
            });
        named.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::TensorMap;
    use candle_core::Device;
    use std::sync::Arc;

    fn names() -> ClassNames {
        let config: NamesConfig = toml::from_str("file = \"names.txt\"\ntop = 2").unwrap();
        let weight = Tensor::new(&[[4f32, 0.0], [2.6, 0.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let bias = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let tensors = [("weight".to_string(), weight), ("bias".to_string(), bias)];
        let w = Weights::f32(Arc::new(TensorMap(tensors.into())));
        let text = "tench, Tinca tinca\ncock\nhen";
        ClassNames::new(&config, (Path::new("names.txt"), text), 2, &w).unwrap()
    }

    #[test]
    fn the_likely_are_named_and_the_possible_doubted() {
        let names = names();
        let maps = Tensor::ones((1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let recognised = names.recognise(&maps).unwrap();
        assert_eq!(
            recognised[0].iter().map(|r| r.class).collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(names.words(&recognised[0]), "tench, cock?");
        assert_eq!(names.words(&[]), "");
    }

    #[test]
    fn a_list_with_a_gap_is_refused() {
        let config = names().config;
        let w = Weights::f32(Arc::new(TensorMap(Default::default())));
        for text in ["", "tench\n\nhen"] {
            let error = ClassNames::new(&config, (Path::new("names.txt"), text), 2, &w);
            assert!(error.unwrap_err().to_string().contains("names.txt"));
        }
    }
}
