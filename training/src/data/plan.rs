//! From the corpus to a list of items: which phrasing, said by which voice, on which side of the split.
//! Follows from the seed alone.

use super::config::{Counts, DataConfig};
use super::corpus::{Corpus, Intent, Row, Talk};
use super::rule::Rule;
use super::speech::{self, Voice, choose};
use super::template::Template;
use super::text;
use crate::{Item, Kind, Phrasing, Split, System};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// An item, and how its sound is made.
#[derive(Debug, Clone)]
pub struct Planned {
    pub item: Item,
    pub clip: Option<Clip>,
}

#[derive(Debug, Clone)]
pub enum Clip {
    Speech(Voice),
    /// A recording's group or a kind of made-up sound.
    Sound(&'static str),
}

/// What is said, before it is known how.
struct Line {
    words: String,
    kind: Kind,
    answer: Option<String>,
    right: Option<Rule>,
    intent: String,
    group: String,
    phrasing: Phrasing,
}

impl Line {
    fn noise(words: String, group: &str, phrasing: Phrasing) -> Self {
        Self {
            words,
            kind: Kind::Noise,
            answer: None,
            right: None,
            intent: String::new(),
            group: group.to_owned(),
            phrasing,
        }
    }
}

/// Groups that a recording or a made-up sound can be of, with how often each is drawn.
const SOUNDS: [(&str, usize); 11] = [
    ("real-sound", 5),
    ("babble", 4),
    ("music", 3),
    ("chime", 2),
    ("hiss", 1),
    ("hum", 1),
    ("knocks", 2),
    ("beeps", 1),
    ("melody", 1),
    ("silence", 1),
    ("babble", 1),
];

/// Which questions are drawn.
#[derive(Clone, Copy, PartialEq)]
enum Drawn {
    /// All, in the phrasings that the tests have too.
    All,
    /// All, in the phrasings for training alone as well, and in frames.
    Wide,
    /// All, in the phrasings for training alone.
    More,
    /// Sums, as in [`Drawn::Wide`].
    Sums,
}

/// Which groups of talk are drawn.
#[derive(Clone, Copy, PartialEq)]
enum DrawnTalk {
    All,
    /// With the later groups and sentences.
    Wide,
    /// The later ones alone.
    More,
}

/// How often a question that is trained on stands in a frame.
const FRAMED: f64 = 0.12;

/// All items but the pictures' ones.
pub fn plan(
    corpus: &Corpus,
    prose: &(Vec<String>, Vec<String>),
    config: &DataConfig,
    voices: &dyn Fn(Split) -> Vec<Voice>,
) -> Vec<Planned> {
    let mut planner = Planner {
        corpus,
        prose,
        seed: config.seed,
        rng: StdRng::seed_from_u64(config.seed),
        taken: BTreeSet::new(),
        out: Vec::new(),
    };
    for (split, counts) in [
        (Split::Test, &config.test),
        (Split::Valid, &config.valid),
        (Split::Train, &config.train),
    ] {
        planner.split(split, counts, &voices(split));
    }
    planner.out
}

struct Planner<'a> {
    corpus: &'a Corpus,
    prose: &'a (Vec<String>, Vec<String>),
    seed: u64,
    rng: StdRng,
    taken: BTreeSet<String>,
    out: Vec<Planned>,
}

impl Planner<'_> {
    fn split(&mut self, split: Split, counts: &Counts, voices: &[Voice]) {
        // Validation decides when to stop, so it may not know the unseen phrasings either.
        let phrasings: &[Phrasing] = match split {
            Split::Test => &[Phrasing::Unseen, Phrasing::Seen],
            _ => &[Phrasing::Seen],
        };
        for &phrasing in phrasings {
            // A generator for each part: another count in one leaves the clips of the others as they are.
            self.begin(split, phrasing, "spoken questions");
            let part = |count: usize| count / phrasings.len();
            let questions = self.questions(part(counts.spoken_questions), phrasing, Drawn::All);
            self.spoken(split, voices, questions);
            self.begin(split, phrasing, "spoken talk");
            let talk = self.talk(part(counts.spoken_talk), phrasing, DrawnTalk::All);
            self.spoken(split, voices, talk);
            self.begin(split, phrasing, "spoken prose");
            let prose = self.prose(part(counts.spoken_prose), phrasing);
            self.spoken(split, voices, prose);
            self.begin(split, phrasing, "spoken chat");
            let chat = self.chat(part(counts.spoken_chat), phrasing);
            self.spoken(split, voices, chat);
            // Voices that the ears read well: of what can't be read nothing is learnt.
            let clear = speech::clear(voices);
            self.begin(split, phrasing, "spoken more questions");
            let questions =
                self.questions(part(counts.spoken_more_questions), phrasing, Drawn::More);
            self.spoken(split, &clear, questions);
            self.begin(split, phrasing, "spoken more talk");
            let talk = self.talk(part(counts.spoken_more_talk), phrasing, DrawnTalk::More);
            self.spoken(split, &clear, talk);

            self.begin(split, phrasing, "simulated questions");
            let (drawn, drawn_talk) = match split {
                Split::Train => (Drawn::Wide, DrawnTalk::Wide),
                _ => (Drawn::All, DrawnTalk::All),
            };
            let questions = self.questions(part(counts.simulated_questions), phrasing, drawn);
            self.simulated(split, questions);
            self.begin(split, phrasing, "simulated sums");
            let sums = self.questions(part(counts.simulated_sums), phrasing, Drawn::Sums);
            self.simulated(split, sums);
            self.begin(split, phrasing, "simulated talk");
            let talk = self.talk(part(counts.simulated_talk), phrasing, drawn_talk);
            self.simulated(split, talk);
            self.begin(split, phrasing, "simulated prose");
            let prose = self.prose(part(counts.simulated_prose), phrasing);
            self.simulated(split, prose);

            self.begin(split, phrasing, "typed questions");
            let questions = self.questions(part(counts.typed_questions), phrasing, drawn);
            self.typed(split, questions);
            self.begin(split, phrasing, "typed sums");
            let sums = self.questions(part(counts.typed_sums), phrasing, Drawn::Sums);
            self.typed(split, sums);
            self.begin(split, phrasing, "typed chat");
            let chat = self.chat(part(counts.typed_chat), phrasing);
            self.typed(split, chat);
        }
        self.sounds(split, counts.sounds);
    }

    fn begin(&mut self, split: Split, phrasing: Phrasing, part: &str) {
        self.rng = rng_for(self.seed, &format!("{split:?} {phrasing:?} {part}"));
    }

    /// Intents in turn, more often those with many answers; of each, phrasings in turn.
    fn questions(&mut self, count: usize, phrasing: Phrasing, drawn: Drawn) -> Vec<Line> {
        let intents = &self.corpus.intents;
        let mut turns: Vec<usize> = Vec::new();
        for (i, intent) in intents.iter().enumerate() {
            let fits = match drawn {
                Drawn::Sums => intent.is_sum,
                Drawn::More => !intent.more.is_empty(),
                Drawn::All | Drawn::Wide => true,
            };
            if !fits {
                continue;
            }
            turns.extend(std::iter::repeat_n(i, intent.weight()));
        }
        let mut orders: Vec<Vec<usize>> = vec![Vec::new(); intents.len()];
        let mut lines = Vec::new();
        while lines.len() < count {
            turns.shuffle(&mut self.rng);
            for &i in turns.iter().take(count - lines.len()) {
                let templates = templates(&intents[i], phrasing, drawn);
                if orders[i].is_empty() {
                    orders[i] = (0..templates.len()).collect();
                    orders[i].shuffle(&mut self.rng);
                }
                let template = templates[orders[i].pop().unwrap_or(0)];
                lines.push(question(&intents[i], template, phrasing, &mut self.rng));
            }
        }
        for line in &mut lines {
            if matches!(drawn, Drawn::Wide | Drawn::Sums) && self.rng.random_bool(FRAMED) {
                let asked = Row::from([("q".to_owned(), line.words.clone())]);
                let frame = &self.corpus.frames[self.rng.random_range(0..self.corpus.frames.len())];
                line.words = frame.with(&asked);
            }
            line.words = opened(&line.words, &self.corpus.openings_query, &mut self.rng);
        }
        lines
    }

    /// Three fifths from the groups of talk, the rest the assistant's own questions put to somebody else.
    fn talk(&mut self, count: usize, phrasing: Phrasing, drawn: DrawnTalk) -> Vec<Line> {
        let groups = talk_groups(&self.corpus.talk, phrasing, drawn);
        let questions = match drawn {
            DrawnTalk::All => Drawn::All,
            DrawnTalk::Wide | DrawnTalk::More => Drawn::Wide,
        };
        let mut lines = Vec::new();
        for i in 0..count {
            let line = if i % 5 < 2 && drawn != DrawnTalk::More {
                let asked = self.questions(1, phrasing, questions).remove(0).words;
                let (seen, unseen) = &self.corpus.to_others;
                let wrap = if phrasing == Phrasing::Seen {
                    seen
                } else {
                    unseen
                };
                let asked = Row::from([("q".to_owned(), asked)]);
                let template = &wrap[self.rng.random_range(0..wrap.len())];
                let words = self.filled(template, &asked, phrasing);
                Line::noise(words, "to-others", phrasing)
            } else {
                let (group, all) = &groups[self.rng.random_range(0..groups.len())];
                let template = all[self.rng.random_range(0..all.len())];
                let words = self.filled(template, &Row::new(), phrasing);
                let words = opened(&words, &self.corpus.openings_talk, &mut self.rng);
                Line::noise(words, group, phrasing)
            };
            lines.push(line);
        }
        lines
    }

    fn prose(&mut self, count: usize, phrasing: Phrasing) -> Vec<Line> {
        let all = if phrasing == Phrasing::Seen {
            &self.prose.0
        } else {
            &self.prose.1
        };
        let mut order: Vec<&String> = all.iter().collect();
        order.shuffle(&mut self.rng);
        let turns = order.into_iter().cycle().take(count);
        turns
            .map(|words| Line::noise(words.clone(), "prose", phrasing))
            .collect()
    }

    fn chat(&mut self, count: usize, phrasing: Phrasing) -> Vec<Line> {
        let all = if phrasing == Phrasing::Seen {
            &self.corpus.chat.0
        } else {
            &self.corpus.chat.1
        };
        let mut order: Vec<&String> = all.iter().collect();
        // An order of its own: spoken and typed ask the base model for the same answers.
        order.shuffle(&mut StdRng::seed_from_u64(0));
        let line = |words: &String| Line {
            words: words.clone(),
            kind: Kind::Query,
            answer: None,
            right: None,
            intent: "chat".into(),
            group: "chat".into(),
            phrasing,
        };
        order.into_iter().take(count).map(line).collect()
    }

    fn filled(&mut self, template: &Template, row: &Row, phrasing: Phrasing) -> String {
        let slots = &self.corpus.slots;
        let mut chance = StdRng::seed_from_u64(self.rng.random());
        template.draw(row, &mut self.rng, |slot| {
            let held_out =
                (phrasing == Phrasing::Unseen).then(|| slots.get(&format!("{slot}-unseen")));
            let values = held_out.flatten().or_else(|| slots.get(slot))?;
            values.choose(&mut chance).cloned()
        })
    }

    fn spoken(&mut self, split: Split, voices: &[Voice], lines: Vec<Line>) {
        for mut line in lines {
            let voice = choose(voices, &mut self.rng).clone();
            line.words = text::sentence(&line.words);
            self.push(split, line, voice.name.clone(), Some(Clip::Speech(voice)));
        }
    }

    fn simulated(&mut self, split: Split, lines: Vec<Line>) {
        for mut line in lines {
            line.words = text::recognised(&line.words, &mut self.rng);
            self.push(split, line, "simulated".into(), None);
        }
    }

    fn typed(&mut self, split: Split, lines: Vec<Line>) {
        for mut line in lines {
            if line.group != "chat" {
                line.words = text::typed(&line.words, &mut self.rng);
                line.group = "typed".into();
            }
            line.kind = Kind::Text;
            self.push(split, line, "typed".into(), None);
        }
    }

    fn sounds(&mut self, split: Split, count: usize) {
        let turns: Vec<&'static str> = SOUNDS
            .iter()
            .flat_map(|(group, weight)| std::iter::repeat_n(*group, *weight))
            .collect();
        for i in 0..count {
            let group = turns[i % turns.len()];
            let line = Line::noise(String::new(), group, Phrasing::Seen);
            self.push(
                split,
                line,
                format!("{group}:{i}"),
                Some(Clip::Sound(group)),
            );
        }
    }

    fn push(&mut self, split: Split, line: Line, voice: String, clip: Option<Clip>) {
        let (words, group) = (&line.words, &line.group);
        let mut id = String::new();
        // The same words by the same voice may come again: with another number they get another room.
        for number in 0.. {
            id = short_hash(&format!(
                "{split:?}|{:?}|{group}|{voice}|{words}|{number}",
                line.kind
            ));
            if self.taken.insert(id.clone()) {
                break;
            }
        }
        let item = Item {
            id,
            split,
            kind: line.kind,
            audio: None,
            words: line.words,
            pictures: Vec::new(),
            system: System::Lang,
            answer: line.answer,
            intent: Some(line.intent).filter(|i| !i.is_empty()),
            voice: Some(voice),
            phrasing: Some(line.phrasing),
            group: Some(line.group),
            right: line.right,
        };
        self.out.push(Planned { item, clip });
    }
}

fn templates(intent: &Intent, phrasing: Phrasing, drawn: Drawn) -> Vec<&Template> {
    match (phrasing, drawn) {
        (Phrasing::Unseen, _) => intent.unseen.iter().collect(),
        (Phrasing::Seen, Drawn::All) => intent.seen.iter().collect(),
        (Phrasing::Seen, Drawn::More) => intent.more.iter().collect(),
        (Phrasing::Seen, Drawn::Wide | Drawn::Sums) => {
            intent.seen.iter().chain(&intent.more).collect()
        }
    }
}

/// Names and sentences of the groups that are drawn from.
fn talk_groups(talk: &[Talk], phrasing: Phrasing, drawn: DrawnTalk) -> Vec<(&str, Vec<&Template>)> {
    let groups = talk.iter().map(|group| {
        let sentences = sentences(group, phrasing, drawn);
        (group.group.as_str(), sentences)
    });
    groups.filter(|(_, all)| !all.is_empty()).collect()
}

fn sentences(group: &Talk, phrasing: Phrasing, drawn: DrawnTalk) -> Vec<&Template> {
    let later = group.seen.is_empty();
    match (phrasing, drawn) {
        (Phrasing::Unseen, DrawnTalk::All) if later => Vec::new(),
        (Phrasing::Unseen, DrawnTalk::More) if !later => Vec::new(),
        (Phrasing::Unseen, _) => group.unseen.iter().collect(),
        (Phrasing::Seen, DrawnTalk::All) => group.seen.iter().collect(),
        (Phrasing::Seen, DrawnTalk::More) => group.more.iter().collect(),
        (Phrasing::Seen, DrawnTalk::Wide) => group.seen.iter().chain(&group.more).collect(),
    }
}

fn question(intent: &Intent, template: &Template, phrasing: Phrasing, rng: &mut StdRng) -> Line {
    let empty = Row::new();
    let row = intent.rows.choose(rng).unwrap_or(&empty);
    Line {
        words: template.draw(row, rng, |_| None),
        kind: Kind::Query,
        answer: Some(intent.answer(row)),
        right: Some(intent.rule(row)),
        intent: intent.name.clone(),
        group: "question".into(),
        phrasing,
    }
}

fn opened(words: &str, openings: &[String], rng: &mut StdRng) -> String {
    match rng.random_bool(0.15) {
        true => format!("{}{words}", openings.choose(rng).map_or("", String::as_str)),
        false => words.to_owned(),
    }
}

/// Sixteen hexadecimal digits of a SHA-256.
pub(super) fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A generator for one thing, the same whatever was made before it.
pub(super) fn rng_for(seed: u64, id: &str) -> StdRng {
    let digest = Sha256::digest(format!("{seed}|{id}").as_bytes());
    StdRng::from_seed(digest.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::neural::Neural;
    use std::path::Path;

    fn planned() -> Vec<Planned> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let corpus = Corpus::read(&folder).unwrap();
        let prose = corpus.prose.clone();
        plan(&corpus, &prose, &DataConfig::default(), &|split| {
            speech::voices(split, &Neural::none())
        })
    }

    #[test]
    fn nothing_of_the_test_is_in_the_training() {
        let planned = planned();
        let of = |split| {
            planned
                .iter()
                .map(|p| &p.item)
                .filter(move |i| i.split == split)
        };
        let voices = |split| -> BTreeSet<String> {
            let clips = planned.iter().filter(|p| p.item.split == split);
            let speech = clips.filter(|p| matches!(p.clip, Some(Clip::Speech(_))));
            speech
                .map(|p| p.item.voice.clone().unwrap_or_default())
                .collect()
        };
        assert!(voices(Split::Train).is_disjoint(&voices(Split::Test)));
        assert!(of(Split::Train).all(|i| i.phrasing == Some(Phrasing::Seen)));
        assert!(of(Split::Valid).all(|i| i.phrasing == Some(Phrasing::Seen)));
        let unseen = of(Split::Test)
            .filter(|i| i.phrasing == Some(Phrasing::Unseen))
            .count();
        assert!(unseen > 300, "{unseen}");
    }

    #[test]
    fn neither_a_question_word_nor_the_length_decides() {
        let planned = planned();
        let spoken = |kind| {
            planned.iter().map(|p| &p.item).filter(move |i| {
                i.kind == kind && i.group.as_deref() != Some("chat") && !i.words.is_empty()
            })
        };
        let asks = |kind| {
            let all: Vec<&Item> = spoken(kind).collect();
            all.iter().filter(|i| i.words.ends_with('?')).count() as f64 / all.len() as f64
        };
        let (query, noise) = (asks(Kind::Query), asks(Kind::Noise));
        assert!(
            query < 0.85 && noise > 0.3,
            "questions: {query:.2} of queries, {noise:.2} of noise"
        );
        let length = |kind| {
            let all: Vec<usize> = spoken(kind).map(|i| i.words.split(' ').count()).collect();
            all.iter().sum::<usize>() as f64 / all.len() as f64
        };
        let (query, noise) = (length(Kind::Query), length(Kind::Noise));
        assert!(
            (0.5..2.0).contains(&(query / noise)),
            "{query:.1} words in queries, {noise:.1} in noise"
        );
    }

    #[test]
    fn the_seed_decides_all() {
        let ids = |planned: Vec<Planned>| planned.into_iter().map(|p| p.item).collect::<Vec<_>>();
        assert_eq!(ids(planned()), ids(planned()));
    }
}
