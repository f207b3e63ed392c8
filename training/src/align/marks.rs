//! Where composed things are, for the connector's marks.

use super::target::in_view;
use crate::Result;
use crate::data::pictures::Scene;
use candle_core::{Device, Tensor};
use vita_model::connector::MARKS;

/// How much marks count beside words: of parts of things the mean over all places, of middles, which are few, the sum.
const PART_WEIGHT: f32 = 3.0;
const MIDDLE_WEIGHT: f32 = 0.1;

/// Mean cross-entropy of the logits `[n, rows·columns, MARKS]`; scenes of which not all things are known count nothing.
pub(super) fn loss<'a>(
    logits: &Tensor,
    scenes: impl Iterator<Item = (&'a Scene, &'a bool)>,
    (rows, columns): (usize, usize),
) -> Result<Tensor> {
    let places = rows * columns;
    let (mut targets, mut weights) = (Vec::new(), Vec::new());
    let mut known = 0;
    for (scene, mirrored) in scenes {
        targets.extend(marked(scene, *mirrored, (rows, columns)));
        let weight = [PART_WEIGHT / places as f32, MIDDLE_WEIGHT];
        let weight = weight.map(|weight| if scene.composed { weight } else { 0.0 });
        weights.extend(std::iter::repeat_n(weight, places).flatten());
        known += usize::from(scene.composed);
    }
    let on = |values| Tensor::from_vec(values, logits.dims(), &Device::Cpu);
    let (targets, weights) = (on(targets)?, on(weights)?);
    // −t·ln σ(x) − (1 − t)·ln(1 − σ(x))
    let beyond = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    let each = ((logits.relu()? - (logits * targets)?)? + beyond)?;
    Ok(((each * weights)?.sum_all()? / known.max(1) as f64)?)
}

/// Of each place, whether a thing covers its middle and whether a thing's middle lies in it.
fn marked(scene: &Scene, mirrored: bool, (rows, columns): (usize, usize)) -> Vec<f32> {
    let mut marks = vec![0.0; rows * columns * MARKS];
    for thing in &scene.things {
        let [left, top, right, bottom] = in_view(thing.area, mirrored);
        for place in 0..rows * columns {
            let (row, column) = (place / columns, place % columns);
            let x = (column as f32 + 0.5) / columns as f32;
            let y = (row as f32 + 0.5) / rows as f32;
            if (left..right).contains(&x) && (top..bottom).contains(&y) {
                marks[place * MARKS] = 1.0;
            }
        }
        let cell = |at: f32, size: usize| ((at * size as f32).max(0.0) as usize).min(size - 1);
        let row = cell(0.5 * (top + bottom), rows);
        let column = cell(0.5 * (left + right), columns);
        marks[(row * columns + column) * MARKS + 1] = 1.0;
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;
    use crate::data::pictures::Thing;

    fn scene(composed: bool) -> Scene {
        Scene {
            picture: "x.jpg".into(),
            split: Split::Train,
            source: None,
            things: vec![Thing {
                name: "cup".into(),
                colour: None,
                area: [0.1, 0.1, 0.45, 0.5],
            }],
            composed,
            main: None,
            people: Some(0),
        }
    }

    #[test]
    fn a_thing_is_marked_where_it_is_and_once_in_its_middle() {
        for mirrored in [false, true] {
            let marks = marked(&scene(true), mirrored, (4, 4));
            let of = |mark: usize| -> Vec<usize> {
                (0..16).filter(|i| marks[i * MARKS + mark] > 0.0).collect()
            };
            // rows 0 and 1, columns 0 and 1
            let parts = if mirrored { [2, 3, 6, 7] } else { [0, 1, 4, 5] };
            assert_eq!(of(0), parts, "{mirrored}");
            assert_eq!(of(1), [if mirrored { 7 } else { 4 }], "{mirrored}");
        }
    }

    #[test]
    fn only_scenes_of_known_things_count() {
        let logits = Tensor::zeros((1, 16, MARKS), candle_core::DType::F32, &Device::Cpu).unwrap();
        let of = |composed| {
            let scene = scene(composed);
            let loss = loss(&logits, [(&scene, &false)].into_iter(), (4, 4)).unwrap();
            loss.to_scalar::<f32>().unwrap()
        };
        assert_eq!(of(false), 0.0);
        let expected = 2f32.ln() * (PART_WEIGHT + 16.0 * MIDDLE_WEIGHT);
        assert!((of(true) - expected).abs() < 1e-4);
    }
}
