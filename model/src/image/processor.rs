//! The CLIP-style image processor of the vision tower's folder (spec 2.3).

use super::{pad_to_square, resize_bicubic};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use image::{RgbImage, imageops};
use serde::Deserialize;
use std::path::Path;

/// What is done with a video frame that is not square (spec 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameFit {
    /// Shortest side to size, centre crop: the training scripts' "square".
    #[default]
    Crop,
    /// Onto a square canvas of the mean colour first: "pad".
    Pad,
    /// Resized without regard for its shape, as the live demo does with at most one tile per picture.
    Squash,
}

/// Resize of the shortest side, centre crop, rescale, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    pub shortest_side: u32,
    pub crop: u32,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    mean_colour: [u8; 3],
}

#[derive(Deserialize)]
struct File {
    size: Size,
    crop_size: Size,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    #[serde(default = "bicubic")]
    resample: u32,
}

fn bicubic() -> u32 {
    3
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Size {
    Side(u32),
    Shortest { shortest_edge: u32 },
    Box { height: u32, width: u32 },
}

impl Size {
    fn side(self) -> Option<u32> {
        match self {
            Self::Side(side) => Some(side),
            Self::Shortest { shortest_edge } => Some(shortest_edge),
            Self::Box { height, width } if height == width => Some(height),
            Self::Box { .. } => None,
        }
        .filter(|side| (1..=1 << 14).contains(side))
    }
}

impl ImageProcessor {
    pub fn new(side: u32, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self {
            shortest_side: side,
            crop: side,
            mean: mean.map(|m| m as f32),
            std: std.map(|s| s as f32),
            mean_colour: mean.map(|m| (255.0 * m) as u8),
        }
    }

    /// Resizes the shortest side to more than the crop keeps.
    pub fn with_margin(self, shortest_side: u32) -> Self {
        Self {
            shortest_side: shortest_side.max(self.crop),
            ..self
        }
    }

    /// Reads `preprocessor_config.json`.
    pub fn load(path: &Path) -> Result<Self> {
        let file: File = serde_json::from_slice(&crate::error::read_file(path)?)
            .map_err(|e| Error::format(path, e))?;
        if file.resample != bicubic() {
            return Err(Error::config(
                path,
                "resample",
                "3 (bicubic)",
                file.resample,
            ));
        }
        let side = |key: &str, size: Size| {
            size.side()
                .ok_or_else(|| Error::config(path, key, "one side of 1 to 16384", "another size"))
        };
        let shortest_side = side("size", file.size)?;
        let crop = side("crop_size", file.crop_size)?;
        if crop > shortest_side {
            return Err(Error::config(
                path,
                "crop_size",
                format!("at most {shortest_side}"),
                crop,
            ));
        }
        Ok(Self {
            shortest_side,
            crop,
            ..Self::new(crop, file.image_mean, file.image_std)
        })
    }

    /// The colour of padding: the mean, truncated to 8 bits.
    pub fn mean_colour(&self) -> [u8; 3] {
        self.mean_colour
    }

    /// One picture of any size to `[3, crop, crop]`, f32.
    pub fn pixels(&self, image: &RgbImage) -> Result<Tensor> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::Input(format!(
                "the picture is empty: {width}×{height}"
            )));
        }
        let (width, height) = self.resized(width, height);
        let resized = resize_bicubic(image, width, height);
        let (left, top) = ((width - self.crop) / 2, (height - self.crop) / 2);
        let cropped = imageops::crop_imm(&resized, left, top, self.crop, self.crop).to_image();
        self.normalise(&cropped)
    }

    /// Many pictures to `[n, 3, crop, crop]`.
    pub fn batch(&self, images: &[RgbImage]) -> Result<Tensor> {
        let pixels = images
            .iter()
            .map(|image| self.pixels(image))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&pixels, 0)?)
    }

    /// One video frame to `[3, crop, crop]`.
    pub fn frame(&self, image: &RgbImage, fit: FrameFit) -> Result<Tensor> {
        match fit {
            FrameFit::Crop => self.pixels(image),
            FrameFit::Pad => self.pixels(&pad_to_square(image, self.mean_colour)),
            FrameFit::Squash => self.pixels(&resize_bicubic(image, self.crop, self.crop)),
        }
    }

    fn resized(&self, width: u32, height: u32) -> (u32, u32) {
        let side = self.shortest_side;
        let long =
            |long: u32, short: u32| (f64::from(side) * f64::from(long) / f64::from(short)) as u32;
        match width <= height {
            true => (side, long(height, width)),
            false => (long(width, height), side),
        }
    }

    fn normalise(&self, image: &RgbImage) -> Result<Tensor> {
        let area = (self.crop * self.crop) as usize;
        let mut values = vec![0f32; 3 * area];
        for (channel, plane) in values.chunks_exact_mut(area).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            // 256 possible values: the reference rescales in f64, then normalises in f32
            let table: Vec<f32> = (0..=255u8)
                .map(|v| ((f64::from(v) * (1.0 / 255.0)) as f32 - mean) / std)
                .collect();
            for (value, pixel) in plane.iter_mut().zip(image.pixels()) {
                *value = table[usize::from(pixel.0[channel])];
            }
        }
        let side = self.crop as usize;
        Ok(Tensor::from_vec(values, (3, side, side), &Device::Cpu)?)
    }
}
