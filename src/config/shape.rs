//! Compares a parsed TOML document with the JSON Schema of the config, and reports every difference at its line.
//!
//! serde stops at its first error and knows no names to suggest; what passes here, serde takes.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Kind, Problems};
use super::schema::schema;

/// Checks the document, and notes on which line each key stands.
pub fn check(text: &str, table: &Spanned<DeTable<'_>>, problems: &mut Problems) {
    let root = table.get_ref();
    Walk { text, problems }.table(schema(), root, "");
}

struct Walk<'a, 'p> {
    text: &'a str,
    problems: &'a mut Problems<'p>,
}

impl Walk<'_, '_> {
    fn value(&mut self, schema: &Value, value: &Spanned<DeValue<'_>>, key: &str) {
        let found = value.get_ref();
        let alternatives = alternatives(schema);
        let Some(schema) = alternatives.iter().find(|schema| accepts(schema, found)) else {
            let wanted: Vec<_> = alternatives
                .iter()
                .map(|schema| type_name(schema))
                .collect();
            let what = format!(
                "is {}, but must be {}",
                toml_type_name(found),
                either(&wanted)
            );
            return self.problems.error(
                Kind::WrongType,
                key,
                what,
                example(key, alternatives.first().copied()),
            );
        };
        match found {
            DeValue::Table(table) => self.table(schema, table, key),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    self.problems
                        .key_stands_at(&key, line_of(self.text, item.span().start));
                    self.value(&schema["items"], item, &key);
                }
            }
            DeValue::String(word) => self.word(schema, word, key),
            DeValue::Integer(_) | DeValue::Float(_) => self.number(schema, found, key),
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn table(&mut self, schema: &Value, table: &DeTable<'_>, key: &str) {
        let join = |name: &str| {
            if key.is_empty() {
                name.to_owned()
            } else {
                format!("{key}.{name}")
            }
        };
        for (name, _) in table {
            self.problems
                .key_stands_at(&join(name.get_ref()), line_of(self.text, name.span().start));
        }
        let Some(shape) = self.tagged(schema, table, key) else {
            return;
        };
        for (name, value) in table {
            let name = name.get_ref();
            match shape.property(name) {
                Some(schema) => self.value(schema, value, &join(name)),
                None => {
                    let remedy = suggestion(name, &shape.names());
                    self.problems
                        .error(Kind::UnknownKey, &join(name), "unknown key", remedy);
                }
            }
        }
        for name in shape.required().filter(|name| !table.contains_key(*name)) {
            let remedy = example(&join(name), shape.property(name));
            self.problems.error(
                Kind::MissingKey,
                key,
                format!("`{name}` is missing"),
                remedy,
            );
        }
    }

    /// The shape of the table; of several, the one that its `type` names.
    fn tagged<'s>(
        &mut self,
        schema: &'s Value,
        table: &DeTable<'_>,
        key: &str,
    ) -> Option<Shape<'s>> {
        let schema = resolve(schema);
        let mut parts = vec![schema];
        if let Some(variants) = schema["oneOf"].as_array() {
            let tags: Vec<_> = variants
                .iter()
                .filter_map(|variant| variant["properties"]["type"]["const"].as_str())
                .collect();
            let remedy = format!("write `type = \"…\"` with one of: {}", tags.join(", "));
            let Some(tag) = table.get("type") else {
                self.problems
                    .error(Kind::MissingKey, key, "`type` is missing", remedy);
                return None;
            };
            let chosen = tag.get_ref().as_str();
            let Some(index) = tags.iter().position(|tag| chosen == Some(tag)) else {
                let (key, what) = (
                    format!("{key}.type"),
                    format!("no type is called {}", shown(tag.get_ref())),
                );
                self.problems.error(Kind::OutOfRange, &key, what, remedy);
                return None;
            };
            parts.push(&variants[index]);
            parts.push(follow(&variants[index]));
        }
        Some(Shape(parts))
    }

    fn word(&mut self, schema: &Value, word: &str, key: &str) {
        let Some(variants) = schema["oneOf"].as_array() else {
            return;
        };
        let words: Vec<_> = variants
            .iter()
            .filter_map(|variant| variant["const"].as_str())
            .collect();
        if !words.contains(&word) {
            let what = format!("`{word}` is not among the words it may be");
            self.problems.error(
                Kind::OutOfRange,
                key,
                what,
                format!("write one of: {}", words.join(", ")),
            );
        }
    }

    fn number(&mut self, schema: &Value, value: &DeValue<'_>, key: &str) {
        let Some(number) = number(value) else {
            return self.problems.error(
                Kind::OutOfRange,
                key,
                "is beyond what a number may be",
                example(key, Some(schema)),
            );
        };
        let (minimum, maximum) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        let low = minimum.is_some_and(|minimum| number < minimum);
        let high = maximum.is_some_and(|maximum| number > maximum);
        if low || high || !number.is_finite() {
            let remedy = match (minimum, maximum) {
                (Some(low), Some(high)) if low < high => {
                    format!("write a number from {low} to {high}")
                }
                _ => example(key, Some(schema)),
            };
            self.problems.error(
                Kind::OutOfRange,
                key,
                format!("{number} is out of range"),
                remedy,
            );
        }
    }
}

/// The schemas that together describe one table.
struct Shape<'s>(Vec<&'s Value>);

impl<'s> Shape<'s> {
    fn property(&self, name: &str) -> Option<&'s Value> {
        let declared = self.0.iter().find_map(|part| part["properties"].get(name));
        declared.or_else(|| {
            self.0.iter().find_map(|part| {
                part.get("additionalProperties")
                    .filter(|any| any.is_object())
            })
        })
    }

    fn names(&self) -> Vec<&'s str> {
        let tables = self
            .0
            .iter()
            .filter_map(|part| part["properties"].as_object());
        tables
            .flat_map(|table| table.keys())
            .map(String::as_str)
            .collect()
    }

    fn required(&self) -> impl Iterator<Item = &'s str> {
        self.0
            .iter()
            .filter_map(|part| part["required"].as_array())
            .flatten()
            .filter_map(Value::as_str)
    }
}

/// Whether the key of a source of this type, such as `vad.threshold`, is written as a bare word: a number, `true` or `false`.
pub fn is_bare(source_type: &str, key: &str) -> bool {
    source_key(source_type, key).is_some_and(|schema| !types(schema).contains(&"string"))
}

fn source_key<'s>(source_type: &str, key: &str) -> Option<&'s Value> {
    let source = &schema()["$defs"]["Source"];
    let mut variants = source["oneOf"].as_array()?.iter();
    let variant = variants.find(|variant| variant["properties"]["type"]["const"] == source_type)?;
    let mut shape = Shape(vec![source, variant, follow(variant)]);
    let (last, tables) = key
        .split('.')
        .collect::<Vec<_>>()
        .split_last()
        .map(|(last, tables)| (*last, tables.to_vec()))?;
    for table in tables {
        shape = Shape(alternatives(shape.property(table)?));
    }
    alternatives(shape.property(last)?).into_iter().next()
}

fn resolve(schema: &Value) -> &Value {
    if schema.get("$ref").is_some() && schema.get("properties").is_none() {
        follow(schema)
    } else {
        schema
    }
}

fn follow(schema: &Value) -> &Value {
    let name = schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.map_or(&Value::Null, |name| &self::schema()["$defs"][name])
}

/// What a value may be, without null: TOML has none.
fn alternatives(schema: &Value) -> Vec<&Value> {
    let schema = resolve(schema);
    match schema["anyOf"].as_array() {
        Some(any) => any
            .iter()
            .filter(|schema| schema["type"] != "null")
            .flat_map(alternatives)
            .collect(),
        None => vec![schema],
    }
}

fn types(schema: &Value) -> Vec<&str> {
    let schema = resolve(schema);
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ if schema["oneOf"].is_array() => vec!["string"],
        _ => Vec::new(),
    }
}

fn accepts(schema: &Value, value: &DeValue<'_>) -> bool {
    types(schema).iter().any(|name| match value {
        DeValue::String(_) => *name == "string",
        DeValue::Integer(_) => matches!(*name, "integer" | "number"),
        DeValue::Float(_) => *name == "number",
        DeValue::Boolean(_) => *name == "boolean",
        DeValue::Array(_) => *name == "array",
        DeValue::Table(_) => *name == "object",
        DeValue::Datetime(_) => false,
    })
}

fn type_name(schema: &Value) -> &'static str {
    match types(schema).first() {
        Some(&"string") => "a string",
        Some(&"integer") => "an integer",
        Some(&"number") => "a number",
        Some(&"boolean") => "true or false",
        Some(&"array") => "a list",
        _ => "a table",
    }
}

fn toml_type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn either(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// A line that would do.
fn example(key: &str, schema: Option<&Value>) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let Some(schema) = schema.map(|schema| alternatives(schema)[0]) else {
        return "see docs/configuration.md".to_owned();
    };
    if name.ends_with(']') || name == "source" {
        return "write `[[source]]` above the keys of each source".to_owned();
    }
    let number = schema["minimum"]
        .as_f64()
        .unwrap_or(1.0)
        .max(1.0)
        .min(schema["maximum"].as_f64().unwrap_or(1.0));
    let word = schema["oneOf"][0]["const"].as_str().unwrap_or("…");
    match types(schema).first() {
        Some(&"string") => format!("write `{name} = \"{word}\"`"),
        Some(&"integer" | &"number") => format!("write `{name} = {number}`"),
        Some(&"boolean") => format!("write `{name} = true`"),
        _ => format!(
            "write `{name}.KEY = …`, or a table `[{}]`",
            key.replace("[0]", "")
        ),
    }
}

fn suggestion(name: &str, known: &[&str]) -> String {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) > 0.8 => format!("did you mean `{nearest}`?"),
        _ => format!("remove it; there are: {}", known.join(", ")),
    }
}

fn shown(value: &DeValue<'_>) -> String {
    value.as_str().map_or_else(
        || toml_type_name(value).to_owned(),
        |word| format!("`{word}`"),
    )
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .map(|integer| integer as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}

/// From 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}
