//! Pictures to pixel tensors, exactly as the model was trained: tiling, Pillow's resampling, the
//! CLIP-style processor (spec sections 2.1–2.4).

mod processor;
mod resize;
mod tiling;

pub use self::processor::{FrameFit, ImageProcessor};
pub use self::resize::resize_bicubic;
pub use self::tiling::{Tiling, TilingRule};

use ::image::{Rgb, RgbImage, imageops};

/// Mirrors left and right, as the live demo does to undo a webcam's mirror image.
pub fn flip_horizontal(image: &RgbImage) -> RgbImage {
    imageops::flip_horizontal(image)
}

/// Puts the picture in the middle of a square of the longer side (offsets rounded down).
pub fn pad_to_square(image: &RgbImage, colour: [u8; 3]) -> RgbImage {
    let side = image.width().max(image.height());
    let mut canvas = RgbImage::from_pixel(side, side, Rgb(colour));
    let x = (side - image.width()) / 2;
    let y = (side - image.height()) / 2;
    imageops::replace(&mut canvas, image, x.into(), y.into());
    canvas
}
