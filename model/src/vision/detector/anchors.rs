//! Boxes that predictions are told against, as TensorFlow's object detection library makes them.

use super::network::MAPS;

/// Scales of the first and the last map's boxes, of the picture's side.
const SCALES: [f64; 2] = [0.2, 0.95];

/// Width over height of the boxes at each position, before one more that is square and larger.
const RATIOS: [f64; 5] = [1.0, 2.0, 0.5, 3.0, 1.0 / 3.0];

/// On the map of the smallest things: a small square, then two of these.
const FIRST_MAP: [(f64, f64); 3] = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)];

/// How finely places and sizes are coded.
const PLACE_SCALE: f32 = 10.0;
const SIZE_SCALE: f32 = 5.0;

/// A box by its centre; all in units of the picture's sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    y: f32,
    x: f32,
    height: f32,
    width: f32,
}

/// A part of the picture, from 0 at its left and top to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

impl Anchor {
    /// The box that `[y, x, height, width]` say, clamped to the picture.
    pub fn decode(&self, [y, x, height, width]: [f32; 4]) -> Area {
        let (y, x) = (
            y / PLACE_SCALE * self.height + self.y,
            x / PLACE_SCALE * self.width + self.x,
        );
        let height = (height / SIZE_SCALE).exp() * self.height;
        let width = (width / SIZE_SCALE).exp() * self.width;
        let inside = |at: f32| at.clamp(0.0, 1.0);
        Area {
            left: inside(x - width / 2.0),
            top: inside(y - height / 2.0),
            right: inside(x + width / 2.0),
            bottom: inside(y + height / 2.0),
        }
    }
}

impl Area {
    pub fn size(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// What is common to both, over what either covers.
    pub fn overlap(&self, other: &Self) -> f32 {
        let both = self.common(other);
        let either = self.size() + other.size() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    /// Size of what is common to both.
    pub fn common(&self, other: &Self) -> f32 {
        let common = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        common.size()
    }

    /// Of its middle, across.
    pub fn centre(&self) -> f32 {
        (self.left + self.right) / 2.0
    }
}

/// One for each prediction, in the network's order.
pub fn anchors() -> Vec<Anchor> {
    let last = MAPS.len() - 1;
    let scale = |map: usize| match map {
        map if map > last => 1.0,
        map => SCALES[0] + (SCALES[1] - SCALES[0]) * map as f64 / last as f64,
    };
    let mut anchors = Vec::new();
    for (map, (_, side, _)) in MAPS.into_iter().enumerate() {
        let mut shapes: Vec<(f64, f64)> = RATIOS.map(|ratio| (scale(map), ratio)).to_vec();
        shapes.push(((scale(map) * scale(map + 1)).sqrt(), 1.0));
        if map == 0 {
            shapes = FIRST_MAP.to_vec();
        }
        for position in 0..side * side {
            let centre = |i: usize| ((i as f64 + 0.5) / side as f64) as f32;
            anchors.extend(shapes.iter().map(|(scale, ratio)| Anchor {
                y: centre(position / side),
                x: centre(position % side),
                height: (scale / ratio.sqrt()) as f32,
                width: (scale * ratio.sqrt()) as f32,
            }));
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_for_each_prediction() {
        let anchors = anchors();
        let predicted = MAPS.map(|(_, side, boxes)| side * side * boxes);
        assert_eq!(anchors.len(), predicted.iter().sum::<usize>());
        assert_eq!(anchors.len(), 1917);
        let first = anchors[0];
        assert_eq!((first.height, first.width), (0.1, 0.1));
        let last = anchors[1916];
        assert_eq!((last.y, last.x), (0.5, 0.5));
        assert!((last.width - 0.95f32.sqrt()).abs() < 1e-6, "{last:?}");
    }

    #[test]
    fn a_prediction_moves_and_scales_its_anchor() {
        let anchor = Anchor {
            y: 0.5,
            x: 0.25,
            height: 0.2,
            width: 0.1,
        };
        let area = anchor.decode([0.0; 4]);
        let expected = [0.2, 0.4, 0.3, 0.6];
        let found = [area.left, area.top, area.right, area.bottom];
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        let moved = anchor.decode([-10.0, 10.0, 5.0 * 2f32.ln(), 0.0]);
        let found = [moved.left, moved.top, moved.right, moved.bottom];
        let expected = [0.3, 0.1, 0.4, 0.5];
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        let nowhere = anchor.decode([f32::NAN, 0.0, f32::INFINITY, 1e9]);
        assert!(nowhere.size().is_nan() || (0.0..=1.0).contains(&nowhere.size()));
    }
}
