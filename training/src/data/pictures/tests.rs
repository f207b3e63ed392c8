use super::*;
use crate::data::Rule;
use std::collections::BTreeSet;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

#[test]
fn the_catalogue_is_whole() {
    let catalogue = Catalogue::read(&corpus().join("pictures.toml")).unwrap();
    let nouns = catalogue.nouns();
    assert!(nouns.len() > 150, "{}", nouns.len());
    let plurals: BTreeSet<&str> = nouns.iter().map(|n| n.many.as_str()).collect();
    assert_eq!(plurals.len(), nouns.len(), "a plural stands twice");
}

#[test]
fn every_answer_is_right_by_its_own_rule_and_wrong_by_the_others() {
    let corpus = Corpus::read(&corpus()).unwrap();
    let nouns = [Noun {
        one: "cup".into(),
        many: "cups".into(),
        names: vec!["mug".into()],
        colour: true,
    }];
    let asker = Asker::new(&corpus, &nouns, 1);
    let voices = speech::voices(Split::Train, &Neural::none());
    let told = |group: &str, about: &About| -> (String, Rule) {
        let shot = Shot {
            scenes: Vec::new(),
            noun: Some(0),
            about: about.clone(),
        };
        let item = asker.ask(Split::Train, group, 0, &shot, &voices);
        let item = item.map(|planned| planned.item);
        let item = item.filter(|item| !item.words.contains('{')).unwrap();
        (item.answer.unwrap(), item.right.unwrap())
    };
    let alike: [(&str, Vec<About>); 6] = [
        (
            "colour",
            ["red", "gray", "blue"]
                .map(|c| About::Colour(c.into()))
                .to_vec(),
        ),
        ("side", [true, false].map(About::Side).to_vec()),
        ("count", [1, 2, 3, 4, 5].map(About::Count).to_vec()),
        ("person", [0, 2].map(About::People).to_vec()),
        ("people-count", [0, 1, 2, 3].map(About::People).to_vec()),
        ("moved", [true, false].map(About::Moved).to_vec()),
    ];
    for (group, abouts) in alike {
        let all: Vec<(String, Rule)> = abouts.iter().map(|about| told(group, about)).collect();
        for (i, (answer, _)) in all.iter().enumerate() {
            for (j, (_, rule)) in all.iter().enumerate() {
                assert_eq!(
                    rule.is_right(answer),
                    i == j,
                    "{group}: {answer:?} {rule:?}"
                );
            }
        }
    }
}

/// A catalogue of its own, whose files are blots of one colour.
fn sources(cache: &Path) -> Sources {
    let flat = cache.join("training/emoji/img/google/64");
    std::fs::create_dir_all(&flat).unwrap();
    let blot = |path: &Path, colour: u8| {
        let pixel = image::Rgb([colour, 255 - colour, 3 * (colour % 80)]);
        image::RgbImage::from_pixel(60, 45, pixel)
            .save(path)
            .unwrap();
    };
    let (mut emoji, mut text) = (Vec::new(), String::from("[things]\n"));
    for i in 0..24u8 {
        let name = format!("thing{i}");
        blot(&flat.join(format!("{name}.png")), 10 * i);
        emoji.push(serde_json::json!({ "short_name": name, "image": format!("{name}.png") }));
        text += &format!("{name} = {{ emoji = [{name:?}] }}\n");
    }
    let emoji = serde_json::to_vec(&emoji).unwrap();
    std::fs::write(cache.join("training/emoji/emoji.json"), emoji).unwrap();
    text += "[plurals]\n";
    text += "[colours]\nred = [205, 30, 35]\nblue = [30, 80, 205]\n";
    for i in 0..8u8 {
        blot(&cache.join(format!("photo{i}.png")), 31 * i);
        let split = ["train", "test"][usize::from(i % 2)];
        let (ground, people) = (i < 4, u8::from(i >= 4) * (1 + i % 3));
        text += &format!(
            "[[photo]]\nfile = \"photo{i}.png\"\nsplit = {split:?}\nmain = \"a thing\"\nground = {ground}\npeople = {people}\n"
        );
    }
    let catalogue: Catalogue = toml::from_str(&text).unwrap();
    let sources = Sources::open(&catalogue, &Places { cache }).unwrap();
    // the other drawing of each is missing
    assert_eq!((sources.things.len(), sources.missing.len()), (24, 24));
    sources
}

fn studio<'a>(sources: &'a Sources, folder: &Path) -> Studio<'a> {
    Studio {
        sources,
        folder: folder.to_owned(),
        seed: 3,
    }
}

#[test]
fn pictures_to_learn_from_are_called_what_eyes_call_them() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let studio = studio(&sources, folder.path());
    let config = PicturesConfig {
        train: 40,
        valid: 0,
        test: 8,
        further: 3,
    };
    let mut shots = shoot(&studio, &config, 1, &|_| {}).unwrap();
    let of = |shots: &[Taken], wanted: Split| -> Vec<About> {
        let photos = shots
            .iter()
            .filter(|(split, group, ..)| *split == wanted && *group == "photo");
        photos.map(|(.., shot)| shot.about.clone()).collect()
    };
    let before = of(&shots, Split::Test);
    let seen = std::cell::Cell::new(0);
    let named = |picture: &Path| {
        assert!(picture.is_file());
        seen.set(seen.get() + 1);
        Ok((seen.get() > 1).then(|| "an espresso".to_owned()))
    };
    name(&mut shots, &named, &|_| {}).unwrap();
    let learnt = of(&shots, Split::Train);
    assert_eq!(learnt.len(), seen.get() - 1, "what has no name is left out");
    let espresso = About::Main("an espresso".into(), vec!["espresso".into()]);
    assert!(learnt.len() > 4 && learnt.iter().all(|about| *about == espresso));
    assert_eq!(of(&shots, Split::Test), before);
}

#[test]
fn no_picture_is_on_two_sides_of_the_split() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let studio = studio(&sources, folder.path());
    let mut taken = [BTreeSet::new(), BTreeSet::new()];
    for (side, split) in [Split::Train, Split::Test].into_iter().enumerate() {
        for (group, i) in GROUPS
            .iter()
            .flat_map(|(group, ..)| (0..8).map(move |i| (group, i)))
        {
            let Some(shot) = studio.shoot(split, group, i).unwrap() else {
                continue;
            };
            for scene in &shot.scenes {
                assert_eq!(scene.split, split);
                taken[side].extend(scene.source.clone());
                taken[side].extend(scene.things.iter().map(|thing| thing.name.clone()));
            }
            let again = studio.shoot(split, group, i).unwrap().unwrap();
            assert_eq!(again.scenes, shot.scenes);
            if let About::Moved(moved) = shot.about {
                let places = |scene: &Scene| scene.things.clone();
                let (first, last) = (&shot.scenes[0], shot.scenes.last().unwrap());
                assert_eq!(places(first) != places(last), moved, "{group} {i}");
            }
        }
    }
    let both: Vec<_> = taken[0].intersection(&taken[1]).collect();
    assert!(both.is_empty(), "{both:?}");
    assert!(taken[0].len() > 8 && taken[1].len() > 3, "{taken:?}");
}

#[test]
fn further_scenes_are_asked_about_and_nobody_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let studio = studio(&sources, folder.path());
    let corpus = Corpus::read(&corpus()).unwrap();
    let asker = Asker::new(&corpus, &sources.nouns, 3);
    let voices = speech::voices(Split::Train, &Neural::start(folder.path()));
    let mut groups = BTreeSet::new();
    for i in 0..24 {
        let Some(shot) = studio.shoot(Split::Train, FURTHER, i).unwrap() else {
            continue;
        };
        let planned = asker.ask(Split::Train, FURTHER, i, &shot, &voices).unwrap();
        assert!(planned.clip.is_none());
        assert_eq!(planned.item.group.as_deref(), Some(shot.group()));
        groups.insert(shot.group());
    }
    assert_eq!(groups, BTreeSet::from(["colour", "count", "side"]));
}
