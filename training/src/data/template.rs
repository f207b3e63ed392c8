//! Phrases with alternatives `(a|b|)` and slots `{name}`.

use super::corpus::Row;
use super::{Error, Result};
use rand::Rng;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Slot(String),
    OneOf(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

impl Template {
    /// Alternatives hold plain text; neither nests.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let complain = |what: &str| Error::corpus(file, format!("{text:?}: {what}"));
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '(', '}', ')']) {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let close = match rest.as_bytes()[at] {
                b'{' => '}',
                b'(' => ')',
                _ => return Err(complain("a bracket closes that was not open")),
            };
            let inner = &rest[at + 1..];
            let end = inner
                .find(close)
                .ok_or_else(|| complain("a bracket stays open"))?;
            let (inside, behind) = (&inner[..end], &inner[end + 1..]);
            if inside.contains(['{', '(']) {
                return Err(complain("brackets can't stand in brackets"));
            }
            parts.push(match close {
                '}' => Part::Slot(inside.to_owned()),
                _ => Part::OneOf(inside.split('|').map(str::to_owned).collect()),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    pub fn parse_all(texts: &[String], file: &Path) -> Result<Vec<Self>> {
        texts.iter().map(|text| Self::parse(text, file)).collect()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn slots(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Filled from a row, first alternatives.
    pub fn with(&self, row: &Row) -> String {
        self.render(|name| row.get(name).cloned(), |options| options[0].clone())
    }

    /// Filled from a row where it has the slot, else by `other`; alternatives by chance.
    pub fn draw(
        &self,
        row: &Row,
        rng: &mut impl Rng,
        mut other: impl FnMut(&str) -> Option<String>,
    ) -> String {
        self.render(
            |name| row.get(name).cloned().or_else(|| other(name)),
            |options| options[rng.random_range(0..options.len())].clone(),
        )
    }

    /// All of its readings.
    pub fn every(&self, slots: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        let mut readings = vec![String::new()];
        for part in &self.parts {
            let empty = Vec::new();
            let options: Vec<&str> = match part {
                Part::Text(text) => vec![text],
                Part::Slot(name) => slots
                    .get(name)
                    .unwrap_or(&empty)
                    .iter()
                    .map(String::as_str)
                    .collect(),
                Part::OneOf(options) => options.iter().map(String::as_str).collect(),
            };
            readings = readings
                .iter()
                .flat_map(|start| options.iter().map(move |option| format!("{start}{option}")))
                .collect();
        }
        readings.iter().map(|text| tidy(text)).collect()
    }

    fn render(
        &self,
        mut slot: impl FnMut(&str) -> Option<String>,
        mut choose: impl FnMut(&[String]) -> String,
    ) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Slot(name) => {
                    out.push_str(&slot(name).unwrap_or_else(|| format!("{{{name}}}")))
                }
                Part::OneOf(options) => out.push_str(&choose(options)),
            }
        }
        tidy(&out)
    }
}

/// Single spaces, none at the ends: empty alternatives leave gaps.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_alternatives() {
        let template =
            Template::parse("(please|) open the {thing} (now|)", Path::new("x")).unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), ["thing"]);
        let slots = BTreeMap::from([(
            "thing".to_owned(),
            vec!["door".to_owned(), "box".to_owned()],
        )]);
        let all = template.every(&slots);
        assert_eq!(all.len(), 8);
        assert!(all.contains(&"open the box".to_owned()), "{all:?}");
        let row = Row::from([("thing".to_owned(), "gate".to_owned())]);
        assert_eq!(template.with(&row), "please open the gate now");
    }

    #[test]
    fn brackets_must_match() {
        for wrong in ["a {b", "a b}", "a ({b}|c)"] {
            let error = Template::parse(wrong, Path::new("talk.toml")).unwrap_err();
            assert!(error.to_string().contains("talk.toml"), "{error}");
        }
    }
}
