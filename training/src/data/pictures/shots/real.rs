//! Photos and frames of films.

use super::super::scene;
use super::super::sources::{Crowd, Photo};
use super::{About, Camera, Ground, Scene, Shot, as_wanted, save, without_article};
use crate::Split;
use crate::data::Result;
use image::imageops;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A part of the films' and photos' pictures is shown as large as this, pixels.
const WHOLE_SIDE: u32 = 320;

impl Camera<'_> {
    /// A part of a photo or a frame, as large as a quarter of its width at least.
    pub(super) fn part_of_photo(&mut self) -> Result<Option<Shot>> {
        let split = self.split_of_places();
        let sources = self.sources();
        let all = sources.photos.iter().chain(&sources.frames);
        let all: Vec<&Photo> = all.filter(|photo| photo.split == split).collect();
        // the frames of a film are all alike
        let photos: Vec<&Photo> = all.iter().filter(|p| !p.main.is_empty()).copied().collect();
        let among = if self.rng.random_bool(0.85) {
            &photos
        } else {
            &all
        };
        let Some(photo) = among.choose(&mut self.rng) else {
            return Ok(None);
        };
        let ground = Ground {
            picture: &photo.picture,
            window: scene::window(&photo.picture, 0.25, &mut self.rng),
            mirrored: self.rng.random_bool(0.5),
            gains: [1.0; 3],
            empty: photo.people == Some(0),
            other: None,
        };
        let mut scene = self.scene(&ground, &[], 0)?;
        scene.composed = false;
        scene.source = Some(photo.file.clone());
        Ok(Some(Shot {
            scenes: vec![scene],
            noun: None,
            about: About::Main(photo.main.clone(), Vec::new()),
        }))
    }

    /// A photo with a name; whole in the test, mostly a part of it in training.
    pub(super) fn photo(&mut self, i: usize) -> Result<Option<Shot>> {
        let named = |p: &&Photo| p.split == self.split;
        let photos: Vec<&Photo> = self.sources().photos.iter().filter(named).collect();
        if photos.is_empty() {
            return Ok(None);
        }
        let photo = photos[i % photos.len()];
        let mut names = photo.names.clone();
        names.push(without_article(&photo.main).to_owned());
        let scenes = vec![self.taken(photo, photo.people)?];
        Ok(Some(Shot {
            scenes,
            noun: None,
            about: About::Main(photo.main.clone(), names),
        }))
    }

    pub(super) fn real_people(&mut self, wanted: u32) -> Result<Option<Scene>> {
        let sources = self.sources();
        let split = self.split_of_places();
        let fits = |p: &&Photo| {
            p.split == split && p.people.is_some_and(|people| as_wanted(people, wanted))
        };
        let photos: Vec<&Photo> = sources.photos.iter().filter(fits).collect();
        let frames: Vec<&Photo> = sources.frames.iter().filter(fits).collect();
        let crowds: Vec<&Crowd> = sources.crowds.iter().filter(|c| c.split == split).collect();
        let turn = self.rng.random_range(0..10);
        let crowd = crowds.choose(&mut self.rng);
        let one = match turn {
            0..4 => photos.choose(&mut self.rng),
            4..7 => frames.choose(&mut self.rng),
            _ => None,
        };
        match (one, crowd) {
            (Some(photo), _) => self.taken(photo, photo.people).map(Some),
            (None, Some(crowd)) => self.part_of(crowd, wanted),
            (None, None) if split == Split::Test => Ok(None),
            (None, None) => self.composed_crowd(wanted),
        }
    }

    /// A photo or a frame: whole in the test, else nearly whole and sometimes mirrored.
    fn taken(&mut self, photo: &Photo, people: Option<u32>) -> Result<Scene> {
        let path = self.path(0);
        let whole = self.split == Split::Test;
        let (share, mirrored) = (self.rng.random_range(0.86..1.0), self.rng.random_bool(0.5));
        let (x, y) = (self.rng.random::<f32>(), self.rng.random::<f32>());
        if !path.is_file() {
            let (width, height) = photo.picture.dimensions();
            let longest = width.max(height).min(WHOLE_SIDE) as f32 / width.max(height) as f32;
            let size = |side: u32| ((side as f32 * longest) as u32).max(8);
            let mut picture = photo.picture.clone();
            if !whole {
                let (w, h) = (width as f32 * share, height as f32 * share);
                let (left, top) = ((width as f32 - w) * x, (height as f32 - h) * y);
                let [left, top, w, h] = [left, top, w, h].map(|v| v as u32);
                picture = imageops::crop_imm(&picture, left, top, w, h).to_image();
            }
            let filter = imageops::FilterType::Triangle;
            let mut picture = imageops::resize(&picture, size(width), size(height), filter);
            if !whole {
                if mirrored {
                    imageops::flip_horizontal_in_place(&mut picture);
                }
                scene::expose(&mut picture, &mut self.rng);
            }
            save(&path, &picture)?;
        }
        Ok(Scene {
            picture: path,
            split: self.split,
            source: Some(photo.file.clone()),
            things: Vec::new(),
            composed: false,
            main: Some(without_article(&photo.main).to_owned()).filter(|main| !main.is_empty()),
            people,
        })
    }

    /// A window with so many people, all of them whole.
    fn part_of(&mut self, crowd: &Crowd, wanted: u32) -> Result<Option<Scene>> {
        let (width, height) = crowd.picture.dimensions();
        let found = (0..400).find_map(|_| {
            let [left, top, right, bottom] = *crowd.people.choose(&mut self.rng)?;
            let tall = bottom - top;
            let h = (tall * self.rng.random_range(1.5..4.5)).min(height as f32);
            let w = (h * 4.0 / 3.0).min(width as f32);
            let (x, y) = (0.5 * (left + right), 0.5 * (top + bottom));
            let x = x + w * self.rng.random_range(-0.9..0.9) - 0.5 * w;
            let y = y + h * self.rng.random_range(-0.6..0.6) - 0.5 * h;
            let x = x.clamp(0.0, width as f32 - w);
            let y = y.clamp(0.0, height as f32 - h);
            // eyes may cut off the rim: the number must be right with it and without
            let rim = 0.06;
            let seen = [x + rim * w, y + rim * h, x + w - rim * w, y + h - rim * h];
            let people = counted(crowd, &seen)?;
            let same = counted(crowd, &[x, y, x + w, y + h]) == Some(people);
            (as_wanted(people, wanted) && same).then_some(([x, y, w, h], people))
        });
        let Some((window, people)) = found else {
            return Ok(None);
        };
        let path = self.path(0);
        if !path.is_file() {
            let mut picture = scene::cut(&crowd.picture, window);
            if self.rng.random_bool(0.5) {
                imageops::flip_horizontal_in_place(&mut picture);
            }
            save(&path, &picture)?;
        }
        Ok(Some(Scene {
            picture: path,
            split: self.split,
            source: Some(crowd.file.clone()),
            things: Vec::new(),
            composed: false,
            main: None,
            people: Some(people),
        }))
    }
}

/// People in a window; `None` where one is neither inside nor outside, or nobody can tell.
fn counted(crowd: &Crowd, window: &[f32; 4]) -> Option<u32> {
    let inside = |[left, top, right, bottom]: &[f32; 4]| {
        let w = (right.min(window[2]) - left.max(window[0])).max(0.0);
        let h = (bottom.min(window[3]) - top.max(window[1])).max(0.0);
        w * h / ((right - left) * (bottom - top))
    };
    let mut people = 0;
    for person in &crowd.people {
        match inside(person) {
            share if share < 0.05 => {}
            share if share > 0.85 => people += 1,
            _ => return None,
        }
    }
    let clear = crowd.unclear.iter().all(|area| inside(area) == 0.0);
    clear.then_some(people)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    #[test]
    fn people_are_counted_only_where_all_are_whole() {
        let crowd = Crowd {
            file: "film".into(),
            split: Split::Train,
            picture: RgbImage::new(100, 100),
            people: vec![[10.0, 10.0, 20.0, 30.0], [60.0, 10.0, 70.0, 30.0]],
            unclear: vec![[40.0, 80.0, 50.0, 99.0]],
        };
        assert_eq!(counted(&crowd, &[0.0, 0.0, 100.0, 50.0]), Some(2));
        assert_eq!(counted(&crowd, &[0.0, 0.0, 50.0, 50.0]), Some(1));
        assert_eq!(counted(&crowd, &[25.0, 0.0, 55.0, 50.0]), Some(0));
        assert_eq!(counted(&crowd, &[0.0, 0.0, 65.0, 50.0]), None);
        assert_eq!(counted(&crowd, &[30.0, 0.0, 55.0, 100.0]), None);
    }
}
