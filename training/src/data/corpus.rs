//! The corpus: TOML files that people edit (`training/data` of the repository).

use super::rule::Rule;
use super::template::Template;
use super::{Error, Result, number};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Values of a template's slots by name.
pub type Row = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub struct Intent {
    pub name: String,
    answer: Template,
    right: Vec<String>,
    wrong: Vec<String>,
    number: Option<String>,
    /// At least one; each is a question of its own.
    pub rows: Vec<Row>,
    /// Whether the questions are sums that were generated.
    pub is_sum: bool,
    pub seen: Vec<Template>,
    /// Seen as well, but for training alone: see [`Talk::more`].
    pub more: Vec<Template>,
    pub unseen: Vec<Template>,
}

impl Intent {
    pub fn answer(&self, row: &Row) -> String {
        capitalised(&self.answer.with(row))
    }

    pub fn rule(&self, row: &Row) -> Rule {
        let fill = |words: &[String]| words.iter().map(|w| fill_in(w, row)).collect();
        Rule {
            words: fill(&self.right),
            wrong: fill(&self.wrong),
            number: self
                .number
                .as_ref()
                .and_then(|name| number::last_in(&fill_in(name, row))),
        }
    }

    /// How often it is drawn beside an intent with one answer.
    pub fn weight(&self) -> usize {
        1 + self.rows.len().ilog2() as usize * 2
    }
}

/// A kind of talk that is not for the assistant.
#[derive(Debug, Clone)]
pub struct Talk {
    pub group: String,
    /// Empty in groups that came later: these are drawn in parts of their own.
    pub seen: Vec<Template>,
    /// What came later, for training alone. Parts that draw from `seen` stay as they are, and so do their clips.
    pub more: Vec<Template>,
    pub unseen: Vec<Template>,
}

/// Questions about a picture or a clip: what the picture holds fills the slots.
#[derive(Debug, Clone)]
pub struct Looking {
    pub name: String,
    pub answer: Template,
    pub seen: Vec<Template>,
    /// For training alone.
    pub more: Vec<Template>,
    pub unseen: Vec<Template>,
}

#[derive(Debug, Clone)]
pub struct Corpus {
    pub intents: Vec<Intent>,
    pub talk: Vec<Talk>,
    pub to_others: (Vec<Template>, Vec<Template>),
    pub slots: BTreeMap<String, Vec<String>>,
    pub openings_query: Vec<String>,
    pub openings_talk: Vec<String>,
    /// What a question may stand in, `{q}`, and mean the same.
    pub frames: Vec<Template>,
    pub prose: (Vec<String>, Vec<String>),
    /// Free requests; the base model answers them.
    pub chat: (Vec<String>, Vec<String>),
    pub looking: Vec<Looking>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentFile {
    intent: Vec<IntentText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentText {
    name: String,
    answer: String,
    #[serde(default)]
    right: Vec<String>,
    #[serde(default)]
    wrong: Vec<String>,
    number: Option<String>,
    slots: Option<SlotTable>,
    generate: Option<Sum>,
    seen: Vec<String>,
    #[serde(default)]
    more: Vec<String>,
    unseen: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotTable {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Sum {
    Add,
    Subtract,
    Multiply,
    Divide,
    Double,
    Half,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TalkFile {
    slots: BTreeMap<String, Vec<String>>,
    talk: Vec<TalkText>,
    to_others: Both,
    openings: Openings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TalkText {
    group: String,
    #[serde(default)]
    seen: Vec<String>,
    #[serde(default)]
    more: Vec<String>,
    unseen: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Openings {
    query: Vec<String>,
    talk: Vec<String>,
    frames: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    seen: Vec<String>,
    unseen: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookingFile {
    looking: Vec<LookingText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookingText {
    name: String,
    answer: String,
    seen: Vec<String>,
    #[serde(default)]
    more: Vec<String>,
    unseen: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatFile {
    slots: BTreeMap<String, Vec<String>>,
    seen: Vec<String>,
    unseen: Vec<String>,
}

impl Corpus {
    /// Reads `intents/*.toml`, `talk.toml`, `prose.toml`, `chat.toml` and `looking.toml`.
    pub fn read(folder: &Path) -> Result<Self> {
        let talk: TalkFile = parse(&folder.join("talk.toml"))?;
        let prose: Both = parse(&folder.join("prose.toml"))?;
        let chat_path = folder.join("chat.toml");
        let chat: ChatFile = parse(&chat_path)?;
        let looking_path = folder.join("looking.toml");
        let looking: LookingFile = parse(&looking_path)?;
        let talk_path = folder.join("talk.toml");
        let templates = |texts: &[String]| Template::parse_all(texts, &talk_path);
        let sections = talk.talk.iter().map(|t| {
            Ok(Talk {
                group: t.group.clone(),
                seen: templates(&t.seen)?,
                more: templates(&t.more)?,
                unseen: templates(&t.unseen)?,
            })
        });
        let looking = looking.looking.iter().map(|l| {
            Ok(Looking {
                name: l.name.clone(),
                answer: Template::parse(&l.answer, &looking_path)?,
                seen: Template::parse_all(&l.seen, &looking_path)?,
                more: Template::parse_all(&l.more, &looking_path)?,
                unseen: Template::parse_all(&l.unseen, &looking_path)?,
            })
        });
        let expand = |texts: &[String]| -> Result<Vec<String>> {
            let mut all = Vec::new();
            for template in Template::parse_all(texts, &chat_path)? {
                all.extend(template.every(&chat.slots));
            }
            Ok(all)
        };
        let corpus = Self {
            intents: intents(&folder.join("intents"))?,
            talk: sections.collect::<Result<_>>()?,
            to_others: (
                templates(&talk.to_others.seen)?,
                templates(&talk.to_others.unseen)?,
            ),
            slots: talk.slots,
            openings_query: talk.openings.query,
            openings_talk: talk.openings.talk,
            frames: templates(&talk.openings.frames)?,
            prose: (prose.seen, prose.unseen),
            chat: (expand(&chat.seen)?, expand(&chat.unseen)?),
            looking: looking.collect::<Result<_>>()?,
        };
        corpus.check(folder)?;
        Ok(corpus)
    }

    /// A phrase means one thing, and is either seen or unseen.
    fn check(&self, folder: &Path) -> Result<()> {
        let mut phrases: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for intent in &self.intents {
            let complain = |what: String| Err(Error::corpus(folder, what));
            if !names.insert(&intent.name) {
                return complain(format!("two intents are called {:?}", intent.name));
            }
            let seen = intent.seen.iter().chain(&intent.more);
            let seen = seen.map(|t| (t, true));
            for (template, is_seen) in seen.chain(intent.unseen.iter().map(|t| (t, false))) {
                let text = template.text();
                // The answer to a phrase with slots depends on what fills them.
                let other = phrases.insert(text, (&intent.name, is_seen));
                let Some((name, was_seen)) = other else {
                    continue;
                };
                if name == intent.name || !text.contains('{') {
                    return complain(format!(
                        "{text:?} stands twice, in {name:?} ({}) and {:?} ({})",
                        label(was_seen),
                        intent.name,
                        label(is_seen)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn label(seen: bool) -> &'static str {
    if seen { "seen" } else { "unseen" }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    toml::from_str(&text).map_err(|e| Error::corpus(path, e.to_string()))
}

fn intents(folder: &Path) -> Result<Vec<Intent>> {
    let mut files = std::fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|e| e.map(|e| e.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(Error::io(folder))?;
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file: IntentFile = parse(&path)?;
        for text in file.intent {
            all.push(intent(text, &path)?);
        }
    }
    Ok(all)
}

fn intent(text: IntentText, file: &Path) -> Result<Intent> {
    let complain = |what: &str| Error::corpus(file, format!("intent {:?}: {what}", text.name));
    let rows = match (&text.slots, text.generate) {
        (None, None) => vec![Row::new()],
        (Some(table), None) => {
            rows(table).ok_or_else(|| complain("a row has not a value for each column"))?
        }
        (None, Some(sum)) => sums(sum),
        (Some(_), Some(_)) => return Err(complain("has both `slots` and `generate`")),
    };
    if text.seen.is_empty() || text.unseen.is_empty() {
        return Err(complain("needs phrasings, `seen` and `unseen`"));
    }
    if text.right.is_empty() && text.number.is_none() {
        return Err(complain("needs `right` or `number`, to judge an answer by"));
    }
    let intent = Intent {
        answer: Template::parse(&text.answer, file)?,
        right: text.right.clone(),
        wrong: text.wrong.clone(),
        number: text.number.clone(),
        seen: Template::parse_all(&text.seen, file)?,
        more: Template::parse_all(&text.more, file)?,
        unseen: Template::parse_all(&text.unseen, file)?,
        is_sum: text.generate.is_some(),
        rows,
        name: text.name.clone(),
    };
    for row in &intent.rows {
        let slots = intent
            .seen
            .iter()
            .chain(&intent.more)
            .chain(&intent.unseen)
            .flat_map(Template::slots);
        if let Some(slot) = slots
            .chain(intent.answer.slots())
            .find(|s| !row.contains_key(*s))
        {
            return Err(complain(&format!("no column is called {slot:?}")));
        }
        if !intent.rule(row).is_right(&intent.answer(row)) {
            let answer = intent.answer(row);
            return Err(complain(&format!(
                "its own answer {answer:?} is not right by its rule"
            )));
        }
    }
    Ok(intent)
}

fn rows(table: &SlotTable) -> Option<Vec<Row>> {
    let row = |values: &Vec<String>| {
        let pairs = table.columns.iter().cloned().zip(values.iter().cloned());
        (values.len() == table.columns.len()).then(|| pairs.collect())
    };
    table.rows.iter().map(row).collect()
}

/// All sums of a kind with numbers up to twenty.
fn sums(sum: Sum) -> Vec<Row> {
    let mut found = Vec::new();
    for a in 0..=20u32 {
        for b in 0..=20u32 {
            let c = match sum {
                Sum::Add if a >= 1 && b >= 1 => Some(a + b),
                Sum::Subtract if a >= 1 && b >= 1 => a.checked_sub(b),
                Sum::Multiply if a >= 1 && b >= 1 => Some(a * b),
                Sum::Divide if b >= 2 && a >= b && a.is_multiple_of(b) => Some(a / b),
                Sum::Double if b == 2 && a >= 1 => Some(2 * a),
                Sum::Half if b == 2 && a >= 2 && a.is_multiple_of(2) => Some(a / 2),
                _ => None,
            };
            if let Some(c) = c.filter(|c| *c <= 20) {
                let pairs = [("a", a), ("b", b), ("c", c)];
                found.push(pairs.map(|(k, n)| (k.to_owned(), number::words(n))).into());
            }
        }
    }
    found
}

fn fill_in(text: &str, row: &Row) -> String {
    row.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// With a capital first letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Corpus {
        Corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap()
    }

    #[test]
    fn the_corpus_is_as_large_and_as_varied_as_promised() {
        let corpus = corpus();
        assert!(corpus.intents.len() >= 150, "{}", corpus.intents.len());
        for intent in &corpus.intents {
            let count = intent.seen.len();
            assert!(count >= 12, "{}: {count} phrasings", intent.name);
            assert!(intent.unseen.len() >= 3, "{}", intent.name);
        }
        let talk = corpus.talk.iter().map(|t| t.seen.len() + t.more.len());
        let talk: usize = talk.sum();
        assert!(talk >= 500, "{talk}");
        assert!(corpus.chat.0.len() >= 250, "{}", corpus.chat.0.len());
    }

    #[test]
    fn sums_are_exact() {
        for intent in corpus().intents.iter().filter(|i| i.name == "subtract") {
            assert_eq!(intent.rows.len(), 20 * 21 / 2);
            for row in &intent.rows {
                let n = |name: &str| number::last_in(&row[name]).unwrap();
                assert_eq!(n("a") - n("b"), n("c"));
                assert_eq!(number::last_in(&intent.answer(row)), Some(n("c")));
            }
        }
    }
}
