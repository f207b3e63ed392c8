//! Pillow's 8-bit bicubic resampling, reproduced to the bit (spec 2.2).

use image::RgbImage;

/// Fixed-point precision of Pillow's 8-bit weights.
const PRECISION_BITS: u32 = 22;
const CHANNELS: usize = 3;

/// Resizes as Pillow 10 does for RGB with `BICUBIC`: horizontal pass first, each pass rounded to u8,
/// a pass that changes nothing skipped. An empty target or picture gives an empty picture.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    if width == 0 || height == 0 || image.width() == 0 || image.height() == 0 {
        return RgbImage::new(width, height);
    }
    let wide = match width == image.width() {
        true => image.clone(),
        false => horizontal(image, width),
    };
    match height == image.height() {
        true => wide,
        false => vertical(&wide, height),
    }
}

/// For one output position: the first input position and its weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(input: u32, output: u32) -> Vec<Taps> {
    let scale = f64::from(input) / f64::from(output);
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..output)
        .map(|x| {
            let centre = (f64::from(x) + 0.5) * scale;
            let low = (centre - support + 0.5).max(0.0) as usize;
            let high = ((centre + support + 0.5) as usize).min(input as usize);
            let weights: Vec<f64> = (low..high)
                .map(|k| kernel((k as f64 - centre + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let weights = weights.iter().map(|w| quantise(w / sum)).collect();
            Taps {
                first: low,
                weights,
            }
        })
        .collect()
}

/// Cubic convolution with a = −0.5.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero.
fn quantise(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (scaled + 0.5f64.copysign(scaled)) as i32
}

fn to_u8(accumulated: i32) -> u8 {
    (accumulated >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn horizontal(image: &RgbImage, width: u32) -> RgbImage {
    let taps = taps(image.width(), width);
    let mut out = RgbImage::new(width, image.height());
    let rows_in = image
        .as_raw()
        .chunks_exact(image.width() as usize * CHANNELS);
    let rows_out = out.chunks_exact_mut(width as usize * CHANNELS);
    for (source, target) in rows_in.zip(rows_out) {
        for (pixel, tap) in target.chunks_exact_mut(CHANNELS).zip(&taps) {
            let mut sums = [HALF; CHANNELS];
            let inputs = source[tap.first * CHANNELS..].chunks_exact(CHANNELS);
            for (input, weight) in inputs.zip(&tap.weights) {
                for (sum, value) in sums.iter_mut().zip(input) {
                    *sum += i32::from(*value) * weight;
                }
            }
            for (value, sum) in pixel.iter_mut().zip(sums) {
                *value = to_u8(sum);
            }
        }
    }
    out
}

fn vertical(image: &RgbImage, height: u32) -> RgbImage {
    let row_len = image.width() as usize * CHANNELS;
    let source = image.as_raw();
    let mut out = RgbImage::new(image.width(), height);
    let mut sums = vec![0; row_len];
    let rows_out = out.chunks_exact_mut(row_len);
    for (target, tap) in rows_out.zip(taps(image.height(), height)) {
        sums.fill(HALF);
        let inputs = source[tap.first * row_len..].chunks_exact(row_len);
        for (input, weight) in inputs.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(input) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (value, sum) in target.iter_mut().zip(&sums) {
            *value = to_u8(*sum);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_flat_picture_flat_and_an_equal_size_untouched() {
        let flat = RgbImage::from_pixel(37, 21, image::Rgb([7, 200, 91]));
        for (w, h) in [(5, 90), (37, 21), (111, 3), (1, 1)] {
            let out = resize_bicubic(&flat, w, h);
            assert_eq!(out.dimensions(), (w, h));
            assert!(out.pixels().all(|p| p.0 == [7, 200, 91]));
        }
    }

    #[test]
    fn survives_empty_pictures() {
        assert_eq!(
            resize_bicubic(&RgbImage::new(0, 4), 3, 3).dimensions(),
            (3, 3)
        );
        assert_eq!(
            resize_bicubic(&RgbImage::new(4, 4), 0, 3).dimensions(),
            (0, 3)
        );
    }
}
