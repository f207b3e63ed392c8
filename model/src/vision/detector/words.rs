//! What was found, in words that a small language model can read an answer off: "2 people left, right; laptop middle".

use super::{Detection, Detector};

/// Middles of what is neither left nor right, across the picture.
const MIDDLE: std::ops::Range<f32> = 0.4..0.6;

/// People whose sides are told one by one.
const MOST_SIDES: usize = 3;

/// From here on people are many.
const MANY: usize = 10;

fn side(found: &Detection) -> &'static str {
    let at = found.area.centre();
    match at {
        _ if at < MIDDLE.start => "left",
        _ if at < MIDDLE.end => "middle",
        _ => "right",
    }
}

impl Detector {
    /// The words for what was found. The number of people comes first and is always told, then their sides from left to
    /// right where they are few, then the most probable other things, one of a kind, each with its side.
    pub fn words(&self, found: &[Detection]) -> String {
        let people = found.iter().filter(|d| self.is_person(d));
        let mut words = vec![people_words(people.collect())];
        let mut named = Vec::new();
        for thing in found.iter().filter(|d| !self.is_person(d)) {
            if named.len() < self.config.things && !named.contains(&thing.label) {
                named.push(thing.label);
                let name = self.labels.get(thing.label).map_or("", String::as_str);
                words.push(format!("{name} {}", side(thing)));
            }
        }
        words.join("; ")
    }
}

fn people_words(mut people: Vec<&Detection>) -> String {
    people.sort_by(|a, b| a.area.centre().total_cmp(&b.area.centre()));
    let sides: Vec<_> = people.iter().map(|person| side(person)).collect();
    match people.len() {
        0 => "no people".into(),
        1 => format!("1 person {}", sides[0]),
        n if n <= MOST_SIDES => format!("{n} people {}", sides.join(", ")),
        n if n < MANY => format!("{n} people"),
        _ => "many people".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Area, tests::detector};
    use super::*;

    fn find(label: usize, centre: f32) -> Detection {
        Detection {
            label,
            probability: 0.9,
            area: Area {
                left: centre - 0.1,
                top: 0.0,
                right: centre + 0.1,
                bottom: 1.0,
            },
        }
    }

    #[test]
    fn people_are_counted_and_things_are_named() {
        let detector = detector();
        let words = |found: &[Detection]| detector.words(found);
        assert_eq!(words(&[]), "no people");
        assert_eq!(words(&[find(1, 0.5)]), "1 person middle");
        let two = [find(1, 0.9), find(2, 0.5), find(1, 0.1), find(2, 0.1)];
        assert_eq!(words(&two), "2 people left, right; laptop middle");
        assert_eq!(words(&[find(1, 0.2); 4]), "4 people");
        assert_eq!(words(&[find(1, 0.2); 12]), "many people");
        assert_eq!(words(&[find(0, 0.7)]), "no people; cup right");
    }
}
