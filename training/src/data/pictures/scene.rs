//! Scenes: things on a ground, and what is known of them.

use super::sources::{Cutout, Sources};
use image::{Rgb, RgbImage, RgbaImage};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Of a picture, pixels.
pub const WIDTH: u32 = 224;
pub const HEIGHT: u32 = 168;

/// Eyes cut off a sixteenth at each side: nothing that is asked for stands there.
const MARGIN: f32 = 0.07;

/// A thing in a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// In [`Sources::things`].
    pub cutout: usize,
    /// In [`Sources::colours`]; none leaves it as it is.
    pub colour: Option<usize>,
    /// Left, top, right, bottom, as parts of the picture.
    pub area: [f32; 4],
    pub mirrored: bool,
}

impl Placed {
    pub fn middle(&self) -> f32 {
        0.5 * (self.area[0] + self.area[2])
    }

    fn overlaps(&self, other: &[f32; 4]) -> bool {
        let [left, top, right, bottom] = self.area;
        left < other[2] && other[0] < right && top < other[3] && other[1] < bottom
    }
}

/// Where a thing may stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Where {
    Anywhere,
    Left,
    Right,
}

impl Where {
    /// Range of the middle, parts of the width. Between the sides there is room, so that a side is beyond doubt.
    fn range(self) -> (f32, f32) {
        match self {
            Self::Anywhere => (0.0, 1.0),
            Self::Left => (0.0, 0.36),
            Self::Right => (0.64, 1.0),
        }
    }
}

/// Finds a free place for a cutout that is `height` of the picture tall (less where it is wide), beside what is there.
pub fn place(
    cutout: &Cutout,
    (height, side): (f32, Where),
    others: &[Placed],
    rng: &mut StdRng,
) -> Option<[f32; 4]> {
    let (width, picture_height) = (
        cutout.picture.width() as f32,
        cutout.picture.height() as f32,
    );
    let pixels = height * HEIGHT as f32;
    let most = 0.42 * WIDTH as f32;
    let scale = (pixels / picture_height).min(most.max(pixels) / width);
    let (w, h) = (
        scale * width / WIDTH as f32,
        scale * picture_height / HEIGHT as f32,
    );
    let (from, to) = side.range();
    let (from, to) = (from.max(MARGIN + 0.5 * w), to.min(1.0 - MARGIN - 0.5 * w));
    let (top, bottom) = (MARGIN, 1.0 - MARGIN - h);
    if from > to || top > bottom {
        return None;
    }
    for _ in 0..30 {
        let (x, y) = (
            rng.random_range(from..=to) - 0.5 * w,
            rng.random_range(top..=bottom),
        );
        // a gap, so that two are never taken for one
        let with_gap = [x - 0.02, y - 0.02, x + w + 0.02, y + h + 0.02];
        if !others.iter().any(|other| other.overlaps(&with_gap)) {
            return Some([x, y, x + w, y + h]);
        }
    }
    None
}

/// A window of a ground that fills the picture, at least `least` of what fits: left, top, width, height in its pixels.
pub fn window(ground: &RgbImage, least: f32, rng: &mut StdRng) -> [f32; 4] {
    let (width, height) = (ground.width() as f32, ground.height() as f32);
    let aspect = WIDTH as f32 / HEIGHT as f32;
    let most = width.min(height * aspect);
    let w = most * rng.random_range(least..=1.0);
    let h = w / aspect;
    [
        rng.random_range(0.0..=width - w),
        rng.random_range(0.0..=(height - h).max(0.0)),
        w,
        h,
    ]
}

/// A part of a picture, as large as all pictures are.
pub fn cut(picture: &RgbImage, [left, top, w, h]: [f32; 4]) -> RgbImage {
    let (sx, sy) = (w / WIDTH as f32, h / HEIGHT as f32);
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let at = (
            left + (x as f32 + 0.5) * sx - 0.5,
            top + (y as f32 + 0.5) * sy - 0.5,
        );
        let (width, height) = picture.dimensions();
        blend(at, (width, height), |x, y| {
            let [r, g, b] = picture.get_pixel(x, y).0;
            [r, g, b, 255].map(f32::from)
        })
        .into()
    })
}

/// How a picture covers a side of another: a line, from where on it does, and how softly it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cover {
    /// Down and across, of length one.
    towards: [f32; 2],
    /// From the middle, parts of the picture.
    from: f32,
    soft: f32,
}

impl Cover {
    pub fn random(rng: &mut StdRng) -> Self {
        let angle = rng.random_range(0.0..std::f32::consts::TAU);
        Self {
            towards: [angle.sin(), angle.cos()],
            from: rng.random_range(-0.3..0.3),
            soft: rng.random_range(0.005..0.25),
        }
    }

    /// Both as large as all pictures are.
    pub fn put(&self, over: &RgbImage, under: &mut RgbImage) {
        for (x, y, pixel) in under.enumerate_pixels_mut() {
            let down = (y as f32 + 0.5) / HEIGHT as f32 - 0.5;
            let across = (x as f32 + 0.5) / WIDTH as f32 - 0.5;
            let along = self.towards[0] * down + self.towards[1] * across - self.from;
            let share = (0.5 + along / self.soft).clamp(0.0, 1.0);
            for (value, over) in pixel.0.iter_mut().zip(over.get_pixel(x, y).0) {
                *value = (f32::from(*value) * (1.0 - share) + f32::from(over) * share) as u8;
            }
        }
    }
}

struct Sample([f32; 4]);

impl From<Sample> for Rgb<u8> {
    fn from(Sample(c): Sample) -> Self {
        Self([c[0] as u8, c[1] as u8, c[2] as u8])
    }
}

/// Bilinear, the edge beyond the edge.
fn blend(
    (x, y): (f32, f32),
    (width, height): (u32, u32),
    pixel: impl Fn(u32, u32) -> [f32; 4],
) -> Sample {
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (x0, y0) = (x as u32, y as u32);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let corners = [pixel(x0, y0), pixel(x1, y0), pixel(x0, y1), pixel(x1, y1)];
    let shares = [
        (1.0 - fx) * (1.0 - fy),
        fx * (1.0 - fy),
        (1.0 - fx) * fy,
        fx * fy,
    ];
    let mut out = [0.0; 4];
    for (corner, share) in corners.iter().zip(shares) {
        for (value, c) in out.iter_mut().zip(corner) {
            *value += share * c;
        }
    }
    Sample(out)
}

/// Paints a thing over a picture.
pub fn paint(picture: &mut RgbImage, placed: &Placed, sources: &Sources) {
    let cutout = &sources.things[placed.cutout].picture;
    let tint = placed
        .colour
        .map(|i| (sources.colours[i].1, lightness(cutout)));
    let pixel = |x: u32, y: u32| {
        let [r, g, b, a] = cutout.get_pixel(x, y).0.map(f32::from);
        let [r, g, b] = match tint {
            Some((colour, range)) => tinted([r, g, b], colour, range),
            None => [r, g, b],
        };
        // colours of clear pixels must not bleed into the edge
        [r * a, g * a, b * a, a]
    };
    let [left, top, right, bottom] = placed.area;
    let (left, right) = (left * WIDTH as f32, right * WIDTH as f32);
    let (top, bottom) = (top * HEIGHT as f32, bottom * HEIGHT as f32);
    let dimensions = cutout.dimensions();
    for y in (top.max(0.0) as u32)..(bottom.ceil() as u32).min(HEIGHT) {
        for x in (left.max(0.0) as u32)..(right.ceil() as u32).min(WIDTH) {
            let across = ((x as f32 + 0.5 - left) / (right - left)).clamp(0.0, 1.0);
            let across = if placed.mirrored {
                1.0 - across
            } else {
                across
            };
            let down = ((y as f32 + 0.5 - top) / (bottom - top)).clamp(0.0, 1.0);
            let at = (
                across * dimensions.0 as f32 - 0.5,
                down * dimensions.1 as f32 - 0.5,
            );
            let Sample([r, g, b, a]) = blend(at, dimensions, pixel);
            let share = a / 255.0;
            let under = picture.get_pixel_mut(x, y);
            for (value, over) in under.0.iter_mut().zip([r, g, b]) {
                *value = (f32::from(*value) * (1.0 - share) + over / 255.0).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// Darkest and lightest tenth.
fn lightness(cutout: &RgbaImage) -> (f32, f32) {
    let solid = cutout.pixels().filter(|p| p.0[3] > 128).step_by(5);
    let mut all: Vec<f32> = solid
        .map(|p| luma([p.0[0], p.0[1], p.0[2]].map(f32::from)))
        .collect();
    all.sort_by(f32::total_cmp);
    match all.is_empty() {
        true => (0.0, 255.0),
        false => (all[all.len() / 10], all[all.len() * 9 / 10]),
    }
}

/// The pixel's light and shade in another colour.
fn tinted(pixel: [f32; 3], colour: [u8; 3], (dark, light): (f32, f32)) -> [f32; 3] {
    // around the middle, so that what is all of one lightness does not become dark
    let middle = 0.5 * (dark + light);
    let along = (0.5 + (luma(pixel) - middle) / (light - dark).max(40.0)).clamp(-0.3, 1.3);
    let shade = 0.55 + 0.55 * along;
    let colour = colour.map(f32::from);
    let near_grey = colour[0] == colour[1] && colour[1] == colour[2];
    colour.map(|c| {
        match shade {
            _ if near_grey => c * (0.75 + 0.3 * along),
            shade if shade <= 1.0 => c * shade,
            shade => c + (255.0 - c) * (shade - 1.0),
        }
        .clamp(0.0, 255.0)
    })
}

/// Light and noise of a camera: frames of one clip differ by these alone.
pub fn expose(picture: &mut RgbImage, rng: &mut StdRng) {
    let gain = rng.random_range(0.94..1.06f32);
    let noise = rng.random_range(0.0..6.0f32);
    for pixel in picture.pixels_mut() {
        let grain = noise * (rng.random::<f32>() - 0.5);
        for value in &mut pixel.0 {
            *value = (f32::from(*value) * gain + grain).clamp(0.0, 255.0) as u8;
        }
    }
}

/// A colour by chance.
pub fn colour(sources: &Sources, rng: &mut StdRng) -> Option<usize> {
    let all: Vec<usize> = (0..sources.colours.len()).collect();
    all.choose(rng).copied()
}

/// Separate patches of such pixels, by filling each.
#[cfg(test)]
pub fn patches(picture: &RgbImage, is_of: impl Fn(&Rgb<u8>) -> bool) -> usize {
    let (width, height) = picture.dimensions();
    let mut seen = vec![false; (width * height) as usize];
    let mut patches = 0;
    for start in 0..width * height {
        let mut open = vec![start];
        let mut size = 0;
        while let Some(i) = open.pop() {
            let (x, y) = (i % width, i / width);
            if seen[i as usize] || !is_of(picture.get_pixel(x, y)) {
                continue;
            }
            seen[i as usize] = true;
            size += 1;
            let next = [(x > 0, i.wrapping_sub(1)), (x + 1 < width, i + 1)];
            let rows = [(y > 0, i.wrapping_sub(width)), (y + 1 < height, i + width)];
            open.extend(next.iter().chain(&rows).filter(|n| n.0).map(|n| n.1));
        }
        patches += usize::from(size > 50);
    }
    patches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;
    use image::Rgba;
    use rand::SeedableRng;

    fn sources() -> Sources {
        let square = RgbaImage::from_fn(40, 40, |x, y| {
            let inside = (8..32).contains(&x) || (8..32).contains(&y);
            Rgba([200, 200, 200, if inside { 255 } else { 0 }])
        });
        Sources {
            things: vec![Cutout {
                noun: 0,
                split: Split::Train,
                picture: square,
            }],
            colours: vec![
                ("red".into(), [205, 30, 35]),
                ("blue".into(), [30, 80, 205]),
            ],
            ..Sources::default()
        }
    }

    fn placed(area: [f32; 4], colour: usize) -> Placed {
        Placed {
            cutout: 0,
            colour: Some(colour),
            area,
            mirrored: false,
        }
    }

    #[test]
    fn things_are_where_and_of_the_colour_that_is_said() {
        let sources = sources();
        let mut rng = StdRng::seed_from_u64(4);
        for round in 0..60 {
            let side = [Where::Left, Where::Right][round % 2];
            let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([90, 90, 90]));
            let area = place(&sources.things[0], (0.4, side), &[], &mut rng).unwrap();
            paint(&mut picture, &placed(area, 0), &sources);
            let red = |p: &Rgb<u8>| p.0[0] > 120 && p.0[1] < 80 && p.0[2] < 80;
            let found: Vec<f32> = picture
                .enumerate_pixels()
                .filter(|(.., p)| red(p))
                .map(|(x, ..)| (x as f32 + 0.5) / WIDTH as f32)
                .collect();
            assert!(found.len() > 800, "{} red pixels", found.len());
            let mean = found.iter().sum::<f32>() / found.len() as f32;
            let right = side == Where::Right;
            assert_eq!(mean > 0.5, right, "{mean} {side:?}");
            let inside = |x: &f32| *x >= area[0] - 0.01 && *x <= area[2] + 0.01;
            assert!(found.iter().all(inside));
        }
    }

    #[test]
    fn as_many_things_as_are_counted_and_none_over_another() {
        let sources = sources();
        let mut rng = StdRng::seed_from_u64(5);
        for count in 1..=5 {
            let mut all: Vec<Placed> = Vec::new();
            while all.len() < count {
                let area = place(&sources.things[0], (0.25, Where::Anywhere), &all, &mut rng);
                all.push(placed(area.unwrap(), 1));
            }
            let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([90, 90, 90]));
            all.iter().for_each(|p| paint(&mut picture, p, &sources));
            let blue = |p: &Rgb<u8>| p.0[2] > 120 && p.0[0] < 80;
            assert_eq!(patches(&picture, blue), count);
        }
    }

    #[test]
    fn a_cover_hides_one_side_and_leaves_the_other() {
        let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([200, 0, 0]));
        let cover = Cover {
            towards: [0.0, 1.0],
            from: 0.1,
            soft: 0.02,
        };
        let over = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([0, 0, 100]));
        cover.put(&over, &mut picture);
        for (x, _, pixel) in picture.enumerate_pixels() {
            match x as f32 / WIDTH as f32 {
                at if at < 0.58 => assert_eq!(pixel.0, [200, 0, 0], "{at}"),
                at if at > 0.62 => assert_eq!(pixel.0, [0, 0, 100], "{at}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_window_lies_inside_its_ground() {
        let mut rng = StdRng::seed_from_u64(6);
        for (w, h) in [(448, 120), (200, 448), (224, 168)] {
            let ground = RgbImage::new(w, h);
            let [left, top, width, height] = window(&ground, 0.55, &mut rng);
            assert!(left >= 0.0 && left + width <= w as f32 + 0.01);
            assert!(top >= 0.0 && top + height <= h as f32 + 0.01);
            assert_eq!(
                cut(&ground, [left, top, width, height]).dimensions(),
                (WIDTH, HEIGHT)
            );
        }
    }
}
