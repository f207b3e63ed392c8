//! Pictures as eyes take them.

use crate::{Error, Result, content_key};
use candle_core::Tensor;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Prepared pictures: pixels for the encoder, and for the detector where the eyes have one.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `[n, 3, side, side]`.
    pub pixels: Tensor,
    /// The same n pictures as the detector takes them.
    pub for_detector: Option<Tensor>,
}

impl From<Tensor> for Prepared {
    /// For eyes without a detector.
    fn from(pixels: Tensor) -> Self {
        Self {
            pixels,
            for_detector: None,
        }
    }
}

impl Prepared {
    /// Pictures.
    pub fn count(&self) -> Result<usize> {
        Ok(self.pixels.dim(0)?)
    }

    /// All one after the other.
    pub fn cat(all: &[&Self]) -> Result<Self> {
        let pixels: Vec<_> = all.iter().map(|one| &one.pixels).collect();
        let others = all.iter().filter_map(|one| one.for_detector.as_ref());
        let others: Vec<_> = others.collect();
        let for_detector = match others.len() {
            0 => None,
            n if n == all.len() => Some(Tensor::cat(&others, 0)?),
            _ => return Err(Error::Input("pictures prepared for different eyes".into())),
        };
        Ok(Self {
            pixels: Tensor::cat(&pixels, 0)?,
            for_detector,
        })
    }

    /// A key of each picture's content.
    pub fn keys(&self) -> Result<Vec<u64>> {
        let key = |i| {
            let key = content_key(&self.pixels.get(i)?)?;
            let Some(pixels) = &self.for_detector else {
                return Ok(key);
            };
            let mut hasher = DefaultHasher::new();
            (key, content_key(&pixels.get(i)?)?).hash(&mut hasher);
            Ok(hasher.finish())
        };
        (0..self.count()?).map(key).collect()
    }
}
