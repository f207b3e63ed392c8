//! Crowds that are put together: pictures of one person, and of nobody, over a picture of nobody. There are too few
//! pictures of several people to have some to learn from and others for the test.

use super::super::scene::{self, HEIGHT, WIDTH};
use super::super::sources::Photo;
use super::{Camera, Ground, Scene, save};
use crate::data::Result;
use image::imageops;
use rand::Rng;
use rand::seq::IndexedRandom;

/// Of what is put over, parts of the picture's height; where there are many, and where there are few.
const MANY: [f32; 2] = [0.3, 0.46];
const FEW: [f32; 2] = [0.32, 0.75];

/// Pictures of nobody among them: at most.
const OTHERS: u32 = 2;

struct Insert<'a> {
    photo: &'a Photo,
    /// Left, top, right, bottom, parts of the picture.
    area: [f32; 4],
    mirrored: bool,
}

impl<'a> Camera<'a> {
    /// With so many people, or more than two where three are wanted. `None` where there is no room, or nobody to show.
    pub(super) fn composed_crowd(&mut self, wanted: u32) -> Result<Option<Scene>> {
        let empty = (0..20).find_map(|_| self.ground().filter(|ground| ground.empty));
        let Some(ground) = empty else {
            return Ok(None);
        };
        let people = match wanted {
            3.. => self.rng.random_range(3..=4),
            few => few,
        };
        let others = self.rng.random_range(0..=OTHERS);
        let mut inserts: Vec<Insert> = Vec::new();
        for i in 0..people + others {
            let size = if people + others > 2 { MANY } else { FEW };
            let shown = self.showing(u32::from(i < people));
            match shown.and_then(|photo| self.beside(photo, size, &inserts)) {
                Some(insert) => inserts.push(insert),
                None if i < people => return Ok(None),
                None => {}
            }
        }
        self.painted(&ground, &inserts, people).map(Some)
    }

    /// A photo, or a film's frame, of so many people.
    fn showing(&mut self, people: u32) -> Option<&'a Photo> {
        let (sources, split) = (self.sources(), self.split_of_places());
        let of = |all: &'a [Photo]| -> Vec<&'a Photo> {
            let fits = |photo: &&Photo| photo.split == split && photo.people == Some(people);
            all.iter().filter(fits).collect()
        };
        // the frames of a film are all alike
        let (photos, frames) = (of(&sources.photos), of(&sources.frames));
        let from_film = photos.is_empty() || self.rng.random_bool(0.3) && !frames.is_empty();
        let all = if from_film { frames } else { photos };
        all.choose(&mut self.rng).copied()
    }

    /// Finds it a place that no other covers.
    fn beside(
        &mut self,
        photo: &'a Photo,
        size: [f32; 2],
        others: &[Insert],
    ) -> Option<Insert<'a>> {
        let (width, height) = photo.picture.dimensions();
        let h = self.rng.random_range(size[0]..size[1]);
        let w = h * width as f32 / height as f32 * HEIGHT as f32 / WIDTH as f32;
        let free = |[left, top, right, bottom]: &[f32; 4]| {
            let apart = |other: &[f32; 4]| {
                *left >= other[2] || other[0] >= *right || *top >= other[3] || other[1] >= *bottom
            };
            others.iter().all(|other| apart(&other.area))
        };
        let area = (0..40).filter(|_| w < 1.0).find_map(|_| {
            let (x, y) = (
                self.rng.random_range(0.0..1.0 - w),
                self.rng.random_range(0.0..1.0 - h),
            );
            Some([x, y, x + w, y + h]).filter(free)
        })?;
        let mirrored = self.rng.random_bool(0.5);
        Some(Insert {
            photo,
            area,
            mirrored,
        })
    }

    fn painted(&mut self, ground: &Ground, inserts: &[Insert], people: u32) -> Result<Scene> {
        let path = self.path(0);
        if !path.is_file() {
            let mut picture = ground.cut();
            for insert in inserts {
                let [left, top, right, bottom] = insert.area;
                let size =
                    |from: f32, to: f32, side: u32| ((to - from) * side as f32).max(1.0) as u32;
                let (width, height) = (size(left, right, WIDTH), size(top, bottom, HEIGHT));
                let filter = imageops::FilterType::Triangle;
                let mut small = imageops::resize(&insert.photo.picture, width, height, filter);
                if insert.mirrored {
                    imageops::flip_horizontal_in_place(&mut small);
                }
                let (x, y) = (left * WIDTH as f32, top * HEIGHT as f32);
                imageops::replace(&mut picture, &small, x as i64, y as i64);
            }
            scene::expose(&mut picture, &mut self.rng);
            save(&path, &picture)?;
        }
        Ok(Scene {
            picture: path,
            split: self.split,
            source: None,
            things: Vec::new(),
            composed: false,
            main: None,
            people: Some(people),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{About, Studio};
    use super::*;
    use crate::Split;
    use crate::data::pictures::sources::Sources;
    use image::{Rgb, RgbImage};
    use std::collections::BTreeMap;

    fn plain(colour: [u8; 3], split: Split, people: u32) -> Photo {
        Photo {
            file: format!("{colour:?}"),
            split,
            main: String::new(),
            names: Vec::new(),
            people: Some(people),
            ground: people == 0,
            picture: RgbImage::from_pixel(80, 100, Rgb(colour)),
        }
    }

    #[test]
    fn as_many_are_shown_as_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources {
            photos: vec![
                plain([70, 130, 70], Split::Train, 0),
                plain([230, 20, 20], Split::Train, 1),
                plain([20, 20, 230], Split::Test, 1),
            ],
            ..Sources::default()
        };
        let studio = Studio {
            sources: &sources,
            folder: folder.path().to_owned(),
            seed: 3,
        };
        let mut shown: BTreeMap<u32, usize> = BTreeMap::new();
        for i in 0..120 {
            let Some(shot) = studio.shoot(Split::Train, "people-count", i).unwrap() else {
                continue;
            };
            let scene = &shot.scenes[0];
            if scene.source.is_some() {
                continue;
            }
            let people = scene.people.unwrap();
            assert_eq!(shot.about, About::People(people));
            let picture = image::open(&scene.picture).unwrap().to_rgb8();
            let red = |p: &Rgb<u8>| p.0[0] > 180 && p.0[1] < 90 && p.0[2] < 90;
            let found = scene::patches(&picture, red);
            // two that touch are one patch
            assert!(found <= people as usize, "{i}: {found} of {people}");
            *shown.entry(people).or_default() += usize::from(found == people as usize);
        }
        assert!(
            (0..=4).all(|people| shown.get(&people) >= Some(&3)),
            "{shown:?}"
        );
    }
}
