//! Dynamic patching: a picture becomes a grid of square tiles of the encoder's size (spec 2.1).

use super::resize_bicubic;
use image::{RgbImage, imageops};

/// How pictures are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilingRule {
    pub min_tiles: u32,
    pub max_tiles: u32,
    /// Append the whole picture as one more tile when there is more than one.
    pub thumbnail: bool,
}

impl Default for TilingRule {
    fn default() -> Self {
        Self {
            min_tiles: 1,
            max_tiles: 12,
            thumbnail: true,
        }
    }
}

/// The grid chosen for one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    pub columns: u32,
    pub rows: u32,
    pub tile_size: u32,
    pub thumbnail: bool,
}

impl Tiling {
    /// The grid whose shape is nearest to the picture's. Of equally near ones the larger is taken as
    /// long as the picture has more than half of its pixels.
    pub fn choose(width: u32, height: u32, tile_size: u32, rule: TilingRule) -> Self {
        let aspect = f64::from(width) / f64::from(height.max(1));
        let area = f64::from(width) * f64::from(height);
        let tile_area = f64::from(tile_size) * f64::from(tile_size);
        let mut best = (1, 1);
        let mut best_difference = f64::INFINITY;
        for (columns, rows) in grids(rule.min_tiles, rule.max_tiles) {
            let difference = (aspect - f64::from(columns) / f64::from(rows)).abs();
            let large_enough = || area > 0.5 * tile_area * f64::from(columns * rows);
            if difference < best_difference || difference == best_difference && large_enough() {
                best_difference = difference;
                best = (columns, rows);
            }
        }
        Self {
            columns: best.0,
            rows: best.1,
            tile_size,
            thumbnail: rule.thumbnail && best != (1, 1),
        }
    }

    /// Number of tiles, thumbnail included.
    pub fn count(&self) -> usize {
        (self.columns * self.rows) as usize + usize::from(self.thumbnail)
    }

    /// Tiles row by row, the thumbnail last.
    pub fn cut(&self, image: &RgbImage) -> Vec<RgbImage> {
        let size = self.tile_size;
        let whole = resize_bicubic(image, self.columns * size, self.rows * size);
        let mut tiles: Vec<_> = (0..self.rows)
            .flat_map(|row| (0..self.columns).map(move |column| (column, row)))
            .map(|(column, row)| {
                imageops::crop_imm(&whole, column * size, row * size, size, size).to_image()
            })
            .collect();
        if self.thumbnail {
            tiles.push(resize_bicubic(image, size, size));
        }
        tiles
    }
}

/// All (columns, rows) with a product in the range, by product.
fn grids(min: u32, max: u32) -> impl Iterator<Item = (u32, u32)> {
    (min.max(1)..=max).flat_map(|product| {
        (1..=product)
            .filter(move |columns| product % columns == 0)
            .map(move |columns| (columns, product / columns))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tile_has_no_thumbnail() {
        let tiling = Tiling::choose(448, 448, 448, TilingRule::default());
        assert_eq!((tiling.columns, tiling.rows, tiling.count()), (1, 1, 1));
    }

    #[test]
    fn counts_the_thumbnail_and_cuts_as_many_tiles() {
        let tiling = Tiling::choose(200, 120, 16, TilingRule::default());
        let tiles = tiling.cut(&RgbImage::new(200, 120));
        assert!(tiling.thumbnail && tiles.len() == tiling.count());
        assert!(tiles.iter().all(|t| t.dimensions() == (16, 16)));
    }
}
