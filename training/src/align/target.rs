//! What the vectors of a picture are to say, as words.

use crate::data::pictures::{Scene, Thing};
use std::collections::BTreeMap;

/// What each slot tells: of the leftmost and of the rightmost composed thing its name, colour and side, then the number of
/// things, then that of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Thing,
    Colour,
    Side,
    Count,
    People,
    /// A part of the picture: a thing and its colour.
    Cell,
}

pub const SLOTS: [Role; 8] = [
    Role::Thing,
    Role::Colour,
    Role::Side,
    Role::Thing,
    Role::Colour,
    Role::Side,
    Role::Count,
    Role::People,
];

/// What slots of names say of photos and frames: that other words tell what is on them.
const PHOTO: &str = "photo";
/// What a cell without anything says.
const NOTHING: &str = "nothing";
const SIDES: [&str; 3] = ["left", "middle", "right"];
const COUNTS: [&str; 6] = ["no", "one", "two", "three", "four", "five"];
const PEOPLE: [&str; 4] = ["nobody", "one", "two", "many"];

/// Eyes cut off so much at each side.
const RIM: f32 = 0.0625;
/// A thing is in a cell that it covers so much of, or that has so much of it.
const OF_CELL: f32 = 0.25;
const OF_THING: f32 = 0.35;

/// The words of each role.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    pub words: BTreeMap<Role, Vec<String>>,
}

impl Vocabulary {
    pub fn of(scenes: &[Scene]) -> Self {
        let mut things: Vec<String> = Vec::new();
        let mut colours: Vec<String> = Vec::new();
        things.push(PHOTO.to_owned());
        for scene in scenes {
            for thing in &scene.things {
                things.push(thing.name.clone());
                colours.extend(thing.colour.clone());
            }
        }
        for words in [&mut things, &mut colours] {
            words.sort();
            words.dedup();
        }
        let fixed = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut cell = things.clone();
        cell.extend(colours.clone());
        cell.push(NOTHING.to_owned());
        cell.sort();
        cell.dedup();
        let words = [
            (Role::Thing, things),
            (Role::Colour, colours),
            (Role::Side, fixed(&SIDES)),
            (Role::Count, fixed(&COUNTS)),
            (Role::People, fixed(&PEOPLE)),
            (Role::Cell, cell),
        ];
        Self {
            words: words.into(),
        }
    }

    fn place(&self, role: Role, word: &str) -> Option<usize> {
        self.words.get(&role)?.iter().position(|w| w == word)
    }
}

/// For each vector the words that it is to say with their shares; none where nobody knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// `grid²` cells, then the slots.
    pub vectors: Vec<Vec<(usize, f32)>>,
}

impl Targets {
    /// `mirrored`: of the picture seen in a mirror.
    pub fn of(scene: &Scene, grid: usize, mirrored: bool, vocabulary: &Vocabulary) -> Self {
        let mut things = scene.things.clone();
        for thing in &mut things {
            thing.area = in_view(thing.area, mirrored);
        }
        if mirrored {
            things.reverse();
        }
        let mut vectors = Vec::new();
        for cell in 0..grid * grid {
            vectors.push(match scene.composed {
                true => in_cell(&things, (cell / grid, cell % grid), grid, vocabulary),
                false => Vec::new(),
            });
        }
        let ends = [things.first(), things.last()];
        for thing in ends {
            let name = match scene.composed {
                true => thing.map(|t| t.name.as_str()),
                false => Some(PHOTO),
            };
            let colour = thing.and_then(|t| t.colour.as_ref());
            let side = thing.map(|t| side(0.5 * (t.area[0] + t.area[2])));
            let word = |role, word: Option<&str>| {
                let place = word.and_then(|word| vocabulary.place(role, word));
                place.map(|p| (p, 1.0)).into_iter().collect::<Vec<_>>()
            };
            vectors.push(word(Role::Thing, name));
            vectors.push(word(Role::Colour, colour.map(String::as_str)));
            vectors.push(word(Role::Side, side));
        }
        let count = things.len();
        vectors.push(match scene.composed && count < COUNTS.len() {
            true => vec![(count, 1.0)],
            false => Vec::new(),
        });
        let people = scene.people.map(|n| (n as usize).min(PEOPLE.len() - 1));
        vectors.push(people.map(|n| (n, 1.0)).into_iter().collect());
        Self { vectors }
    }
}

/// A part of the picture as a part of what the eyes see of it.
pub(super) fn in_view([left, top, right, bottom]: [f32; 4], mirrored: bool) -> [f32; 4] {
    let seen = [left, top, right, bottom].map(|at| (at - RIM) / (1.0 - 2.0 * RIM));
    let [left, top, right, bottom] = seen;
    match mirrored {
        true => [1.0 - right, top, 1.0 - left, bottom],
        false => seen,
    }
}

fn side(middle: f32) -> &'static str {
    match middle {
        x if x < 0.38 => SIDES[0],
        x if x > 0.62 => SIDES[2],
        _ => SIDES[1],
    }
}

fn in_cell(
    things: &[Thing],
    (row, column): (usize, usize),
    grid: usize,
    vocabulary: &Vocabulary,
) -> Vec<(usize, f32)> {
    let size = 1.0 / grid as f32;
    let (x, y) = (column as f32 * size, row as f32 * size);
    let covered = |thing: &Thing| {
        let [left, top, right, bottom] = thing.area;
        let w = (right.min(x + size) - left.max(x)).max(0.0);
        let h = (bottom.min(y + size) - top.max(y)).max(0.0);
        let (shared, whole) = (w * h, (right - left) * (bottom - top));
        (shared / (size * size) > OF_CELL || shared > OF_THING * whole).then_some(shared)
    };
    let most = things
        .iter()
        .filter_map(|thing| covered(thing).map(|shared| (shared, thing)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((_, thing)) = most else {
        let nothing = vocabulary.place(Role::Cell, NOTHING);
        return nothing.map(|p| (p, 1.0)).into_iter().collect();
    };
    let said = [Some(&thing.name), thing.colour.as_ref()];
    let places: Vec<usize> = said
        .into_iter()
        .flatten()
        .filter_map(|word| vocabulary.place(Role::Cell, word))
        .collect();
    let share = 1.0 / places.len().max(1) as f32;
    places.into_iter().map(|place| (place, share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    fn scene() -> Scene {
        let thing = |name: &str, colour: &str, area| Thing {
            name: name.into(),
            colour: Some(colour.into()),
            area,
        };
        Scene {
            picture: "x.jpg".into(),
            split: Split::Train,
            source: None,
            things: vec![
                thing("cup", "red", [0.1, 0.1, 0.3, 0.4]),
                thing("ball", "blue", [0.65, 0.6, 0.9, 0.9]),
            ],
            composed: true,
            main: None,
            people: Some(0),
        }
    }

    fn said(mirrored: bool) -> Vec<String> {
        let scene = scene();
        let vocabulary = Vocabulary::of(std::slice::from_ref(&scene));
        let targets = Targets::of(&scene, 3, mirrored, &vocabulary);
        let roles = [Role::Cell; 9].into_iter().chain(SLOTS);
        let words = |(role, shares): (Role, &Vec<(usize, f32)>)| {
            let words = shares
                .iter()
                .map(|(place, _)| &vocabulary.words[&role][*place]);
            words.cloned().collect::<Vec<_>>().join(" ")
        };
        roles.zip(&targets.vectors).map(words).collect()
    }

    #[test]
    fn every_vector_has_the_words_of_its_place() {
        let straight = said(false);
        assert_eq!(straight[0], "cup red");
        assert_eq!(straight[8], "ball blue");
        assert_eq!(straight[4], "nothing");
        let slots = [
            "cup", "red", "left", "ball", "blue", "right", "two", "nobody",
        ];
        assert_eq!(straight[9..], slots.map(str::to_owned));
    }

    #[test]
    fn a_mirror_changes_the_sides() {
        let mirrored = said(true);
        assert_eq!(mirrored[2], "cup red");
        assert_eq!(mirrored[6], "ball blue");
        let slots = [
            "ball", "blue", "left", "cup", "red", "right", "two", "nobody",
        ];
        assert_eq!(mirrored[9..], slots.map(str::to_owned));
    }

    #[test]
    fn what_nobody_knows_is_not_asked() {
        let scene = Scene {
            things: Vec::new(),
            composed: false,
            main: Some("cat".into()),
            people: None,
            ..scene()
        };
        let vocabulary = Vocabulary::of(std::slice::from_ref(&scene));
        let targets = Targets::of(&scene, 3, false, &vocabulary);
        let asked: Vec<usize> = (0..17)
            .filter(|&i| !targets.vectors[i].is_empty())
            .collect();
        assert_eq!(asked, [9, 12]);
    }
}
