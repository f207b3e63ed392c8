//! Scenes that are put together.

use super::super::scene::{self, Placed, Where};
use super::{About, Camera, Ground, Shot, with_article};
use crate::data::Result;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A thing has moved when its middle has gone at least so far, parts of the picture's width.
const MOVE: f32 = 0.35;

impl<'a> Camera<'a> {
    fn named(&self, noun: usize) -> About {
        let noun = &self.sources().nouns[noun];
        let mut names = noun.names.clone();
        names.push(noun.one.clone());
        names.push(noun.many.clone());
        About::Main(with_article(&noun.one), names)
    }

    pub(super) fn one_thing(&mut self) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let colour = self.maybe_colour(0.25);
        let height = self.rng.random_range(0.5..0.85);
        let Some(placed) = self.put(cutout, colour, (height, Where::Anywhere), &[]) else {
            return Ok(None);
        };
        let noun = self.sources().things[cutout].noun;
        let scenes = vec![self.scene(&ground, &[placed], 0)?];
        Ok(Some(Shot {
            scenes,
            noun: Some(noun),
            about: self.named(noun),
        }))
    }

    /// One thing, or two on two sides; the first is asked for.
    fn things(&mut self, coloured: bool, side: Where) -> Option<(Ground<'a>, Vec<Placed>)> {
        let ground = self.ground()?;
        let first = self.thing(coloured, None)?;
        let colour = if coloured {
            scene::colour(self.sources(), &mut self.rng)
        } else {
            self.maybe_colour(0.4)
        };
        let height = self.rng.random_range(0.35..0.65);
        let mut placed = vec![self.put(first, colour, (height, side), &[])?];
        if self.rng.random_bool(0.3) {
            let not = Some(self.sources().things[first].noun);
            let second = self.thing(coloured, not)?;
            let other_side = match placed[0].middle() > 0.5 {
                true => Where::Left,
                false => Where::Right,
            };
            let mut colour = self.maybe_colour(if coloured { 1.0 } else { 0.4 });
            if colour == placed[0].colour {
                colour = colour.map(|c| (c + 1) % self.sources().colours.len());
            }
            let height = self.rng.random_range(0.35..0.6);
            placed.extend(self.put(second, colour, (height, other_side), &placed));
        }
        Some((ground, placed))
    }

    pub(super) fn colour(&mut self) -> Result<Option<Shot>> {
        let Some((ground, placed)) = self.things(true, Where::Anywhere) else {
            return Ok(None);
        };
        let sources = self.sources();
        let Some(colour) = placed[0].colour else {
            return Ok(None);
        };
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: Some(sources.things[placed[0].cutout].noun),
            about: About::Colour(sources.colours[colour].0.clone()),
        }))
    }

    pub(super) fn side(&mut self) -> Result<Option<Shot>> {
        let right = self.rng.random_bool(0.5);
        let side = if right { Where::Right } else { Where::Left };
        let Some((ground, placed)) = self.things(false, side) else {
            return Ok(None);
        };
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: Some(self.sources().things[placed[0].cutout].noun),
            about: About::Side(right),
        }))
    }

    /// One to five of a kind.
    pub(super) fn count(&mut self) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let wanted = *[1, 2, 2, 3, 3, 4, 5].choose(&mut self.rng).unwrap_or(&2);
        let colour = self.maybe_colour(0.4);
        let height = self.rng.random_range(0.24..0.36);
        let mut placed = Vec::new();
        for _ in 0..wanted {
            placed.extend(self.put(cutout, colour, (height, Where::Anywhere), &placed));
        }
        Ok(Some(Shot {
            scenes: vec![self.scene(&ground, &placed, 0)?],
            noun: Some(self.sources().things[cutout].noun),
            about: About::Count(placed.len() as u32),
        }))
    }

    /// Two frames of a thing, or three; half of the scenes have another that stands still.
    pub(super) fn moved(&mut self, moves: bool) -> Result<Option<Shot>> {
        let (Some(cutout), Some(ground)) = (self.thing(false, None), self.ground()) else {
            return Ok(None);
        };
        let colour = self.maybe_colour(0.5);
        let height = self.rng.random_range(0.32..0.48);
        let mut still = Vec::new();
        if self.rng.random_bool(0.25) {
            let not = Some(self.sources().things[cutout].noun);
            let other = self.thing(false, not);
            let height = self.rng.random_range(0.25..0.4);
            still.extend(other.and_then(|o| self.put(o, None, (height, Where::Anywhere), &[])));
        }
        // what stands in the middle of a narrow picture has nowhere to go
        let sides = [Where::Left, Where::Right, Where::Anywhere];
        let side = *sides.choose(&mut self.rng).unwrap_or(&Where::Anywhere);
        let Some(first) = self.put(cutout, colour, (height, side), &still) else {
            return Ok(None);
        };
        let mut last = first.clone();
        if moves {
            let far = (0..60).find_map(|_| {
                let to = self.put(cutout, colour, (height, Where::Anywhere), &still)?;
                ((to.middle() - first.middle()).abs() >= MOVE).then_some(to)
            });
            let Some(to) = far else { return Ok(None) };
            last.area = to.area;
        }
        let frames = self.rng.random_range(2..=3);
        let mut scenes = Vec::new();
        for frame in 0..frames {
            let along = frame as f32 / (frames - 1) as f32;
            let mut now = first.clone();
            for (at, (from, to)) in now.area.iter_mut().zip(first.area.iter().zip(last.area)) {
                *at = from + along * (to - from);
            }
            let placed: Vec<Placed> = still.iter().cloned().chain([now]).collect();
            scenes.push(self.scene(&ground, &placed, frame)?);
        }
        Ok(Some(Shot {
            scenes,
            noun: Some(self.sources().things[cutout].noun),
            about: About::Moved(moves),
        }))
    }
}
