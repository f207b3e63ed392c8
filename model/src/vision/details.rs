//! What eyes see beside the map of their last layer: a finer map, the colours of its places, and what may be people.

use super::Detection;
use crate::Result;
use candle_core::{DType, Device, Tensor};

/// Channels of the finer map, see [`super::efficientnet::FINE_FEATURES`].
pub const DETAIL_FEATURES: usize = super::efficientnet::FINE_FEATURES;

/// Hues around the circle, each once dark and once bright.
const HUES: usize = 12;
/// From black to white.
const GREYS: usize = 5;
/// Shares of hues and greys of a place's pixels, then their mean red, green and blue.
pub const DETAIL_COLOURS: usize = 2 * HUES + GREYS + 3;

/// People, or what may be some, that are told.
const PEOPLE: usize = 8;
/// Of each: probability, height and width.
const OF_PERSON: usize = 3;
pub const PEOPLE_NUMBERS: usize = PEOPLE * OF_PERSON;

/// What is given to connectors with details, of one picture or of several (with one more dimension in front).
#[derive(Debug, Clone)]
pub struct Details {
    /// `[rows, columns, DETAIL_FEATURES + DETAIL_COLOURS]`.
    pub fine: Tensor,
    /// `[PEOPLE_NUMBERS]`: the most probable first, zeros where there are fewer.
    pub people: Tensor,
}

impl Details {
    /// `features`: the finer maps `[n, rows, columns, DETAIL_FEATURES]`; `pixels`: `[n, 3, height, width]`, from 0 to 1; `people`:
    /// what may be some in each picture.
    pub fn of(features: &Tensor, pixels: &Tensor, people: &[Vec<Detection>]) -> Result<Self> {
        let (n, rows, columns, _) = features.dims4()?;
        let (_, _, height, width) = pixels.dims4()?;
        let values = pixels
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let area = height * width;
        let mut colours = Vec::with_capacity(n * rows * columns * DETAIL_COLOURS);
        for picture in values.chunks_exact(3 * area) {
            for place in 0..rows * columns {
                let (row, column) = (place / columns, place % columns);
                let down = row * height / rows..(row + 1) * height / rows;
                let across = column * width / columns..(column + 1) * width / columns;
                let pixels = down.flat_map(|y| across.clone().map(move |x| y * width + x));
                let pixels = pixels.map(|at| [0, 1, 2].map(|c| picture[c * area + at]));
                colours.extend(shares(pixels));
            }
        }
        let colours = Tensor::from_vec(colours, (n, rows, columns, DETAIL_COLOURS), &Device::Cpu)?;
        let colours = colours.to_dtype(features.dtype())?;
        let colours = colours.to_device(features.device())?;
        let people: Vec<f32> = people.iter().flat_map(|people| numbers(people)).collect();
        let people = Tensor::from_vec(people, (n, PEOPLE_NUMBERS), &Device::Cpu)?;
        Ok(Self {
            fine: Tensor::cat(&[features, &colours], 3)?,
            people: people
                .to_dtype(features.dtype())?
                .to_device(features.device())?,
        })
    }

    /// Of one of several pictures.
    pub fn get(&self, i: usize) -> Result<Self> {
        Ok(Self {
            fine: self.fine.get(i)?,
            people: self.people.get(i)?,
        })
    }

    /// Of several pictures.
    pub fn stack(all: &[&Self]) -> Result<Self> {
        let of = |part: fn(&Self) -> &Tensor| -> Result<Tensor> {
            let parts: Vec<_> = all.iter().map(|details| part(details)).collect();
            Ok(Tensor::stack(&parts, 0)?)
        };
        Ok(Self {
            fine: of(|details| &details.fine)?,
            people: of(|details| &details.people)?,
        })
    }
}

fn numbers(people: &[Detection]) -> [f32; PEOPLE_NUMBERS] {
    let mut numbers = [0.0; PEOPLE_NUMBERS];
    for (told, person) in numbers.chunks_exact_mut(OF_PERSON).zip(people) {
        let area = &person.area;
        let size = [area.bottom - area.top, area.right - area.left];
        told.copy_from_slice(&[person.probability, size[0], size[1]]);
    }
    numbers
}

/// Every pixel is shared out between the nearest hues, or greys, so that no share jumps.
fn shares(pixels: impl Iterator<Item = [f32; 3]>) -> [f32; DETAIL_COLOURS] {
    let mut shares = [0f32; DETAIL_COLOURS];
    let mut count = 0f32;
    for pixel in pixels {
        let [red, green, blue] = pixel.map(|c| c.clamp(0.0, 1.0));
        let (light, dark) = (red.max(green).max(blue), red.min(green).min(blue));
        let chroma = light - dark;
        // light and shade make a grey a little bluish or brownish
        let coloured = ((chroma - 0.08) / 0.14).clamp(0.0, 1.0);
        let grey = light * (GREYS - 1) as f32;
        for (i, part) in nearest(grey, GREYS, false) {
            shares[2 * HUES + i] += (1.0 - coloured) * part;
        }
        if coloured > 0.0 {
            let sixths = match () {
                () if light == red => ((green - blue) / chroma).rem_euclid(6.0),
                () if light == green => (blue - red) / chroma + 2.0,
                () => (red - green) / chroma + 4.0,
            };
            let bright = ((light - 0.45) / 0.3).clamp(0.0, 1.0);
            for (i, part) in nearest(sixths * HUES as f32 / 6.0, HUES, true) {
                shares[i] += coloured * part * (1.0 - bright);
                shares[HUES + i] += coloured * part * bright;
            }
        }
        for (sum, c) in shares[2 * HUES + GREYS..]
            .iter_mut()
            .zip([red, green, blue])
        {
            *sum += c;
        }
        count += 1.0;
    }
    shares.map(|share| share / count.max(1.0))
}

/// The two of `count` bins around a value, and how near it is to each.
fn nearest(value: f32, count: usize, around: bool) -> [(usize, f32); 2] {
    let first = value.floor();
    let share = value - first;
    let bin = |i: usize| if around { i % count } else { i.min(count - 1) };
    let first = first as usize;
    [(bin(first), 1.0 - share), (bin(first + 1), share)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::detector::Area;

    fn of(colour: [u8; 3]) -> [f32; DETAIL_COLOURS] {
        let pixel = colour.map(|c| f32::from(c) / 255.0);
        shares(std::iter::repeat_n(pixel, 9))
    }

    fn most(colour: [u8; 3]) -> usize {
        let shares = of(colour);
        let all = shares[..2 * HUES + GREYS].iter().enumerate();
        all.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0
    }

    #[test]
    fn colours_have_places_of_their_own() {
        assert_eq!(most([205, 30, 35]), HUES);
        assert_eq!(most([245, 130, 20]), HUES + 1);
        assert_eq!(most([250, 215, 30]), HUES + 2);
        // brown is a dark orange
        assert_eq!(most([90, 52, 26]), 1);
        assert_eq!(most([20, 20, 20]), 2 * HUES);
        assert_eq!(most([130, 130, 132]), 2 * HUES + 2);
        assert_eq!(most([250, 250, 250]), 2 * HUES + GREYS - 1);
        for colour in [[30, 80, 205], [130, 45, 165], [245, 120, 185], [0, 0, 0]] {
            let sum: f32 = of(colour)[..2 * HUES + GREYS].iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{colour:?} {sum}");
        }
    }

    #[test]
    fn each_place_has_the_colours_of_its_own_pixels() {
        let pixel = |i: usize| {
            if i % 4 < 2 {
                [1f32, 0.0, 0.0]
            } else {
                [0.0, 0.0, 1.0]
            }
        };
        let plane = |c: usize| (0..16).map(move |i| pixel(i)[c]);
        let values: Vec<f32> = (0..3).flat_map(plane).collect();
        let pixels = Tensor::from_vec(values, (1, 3, 4, 4), &Device::Cpu).unwrap();
        let features = Tensor::zeros((1, 2, 2, DETAIL_FEATURES), DType::F32, &Device::Cpu).unwrap();
        let person = Detection {
            label: 0,
            probability: 0.5,
            area: Area {
                left: 0.25,
                top: 0.0,
                right: 0.5,
                bottom: 1.0,
            },
        };
        let details = Details::of(&features, &pixels, &[vec![person]]).unwrap();
        assert_eq!(
            details.fine.dims(),
            [1, 2, 2, DETAIL_FEATURES + DETAIL_COLOURS]
        );
        let places = details
            .fine
            .flatten(0, 2)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for (i, place) in places.iter().enumerate() {
            let mean = &place[DETAIL_FEATURES + 2 * HUES + GREYS..];
            assert_eq!(mean, pixel(2 * (i % 2)), "place {i}");
        }
        let people = details.get(0).unwrap().people.to_vec1::<f32>().unwrap();
        assert_eq!(people[..6], [0.5, 1.0, 0.25, 0.0, 0.0, 0.0]);
    }
}
