//! What was told beside what was expected.

use std::fmt;

use serde_json::Value;
use vita_messages::{Body, Kind};

use super::script::{Expected, Script};

/// Where what was told is not what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Place in the list of expected messages, from 1.
    pub number: usize,
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}: {}", self.number, self.what)
    }
}

/// Compares in order; messages of other kinds than the script's are passed over.
pub fn compare(script: &Script, told: &[Body]) -> anyhow::Result<Vec<Difference>> {
    let kinds = script.kinds()?;
    let told: Vec<&Body> = told
        .iter()
        .filter(|body| kinds.contains(&body.kind()))
        .collect();
    let mut differences = Vec::new();
    for number in 0..told.len().max(script.expected.len()) {
        let what = match (script.expected.get(number), told.get(number)) {
            (Some(expected), Some(body)) => difference(expected, body)?,
            (Some(expected), None) => Some(format!("expected {}, nothing came", expected.kind)),
            (None, Some(body)) => Some(format!(
                "expected no more, {} came at {:.3} s",
                body.kind().name(),
                at_secs(&serde_json::to_value(body)?).unwrap_or_default()
            )),
            (None, None) => None,
        };
        let number = number + 1;
        differences.extend(what.map(|what| Difference { number, what }));
    }
    Ok(differences)
}

fn difference(expected: &Expected, body: &Body) -> anyhow::Result<Option<String>> {
    if Kind::from_name(&expected.kind) != Some(body.kind()) {
        return Ok(Some(format!(
            "expected {}, {} came",
            expected.kind,
            body.kind().name()
        )));
    }
    let data = serde_json::to_value(body)?;
    if let (Some(wanted), Some(found)) = (expected.at_secs, at_secs(&data))
        && (wanted - found).abs() > expected.tolerance_secs
    {
        let (kind, tolerance) = (&expected.kind, expected.tolerance_secs);
        return Ok(Some(format!(
            "{kind}: expected at {wanted} s ± {tolerance} s, came at {found:.3} s"
        )));
    }
    if let Some(says) = &expected.says {
        let text = data["text"].as_str().unwrap_or_default();
        if !text.to_lowercase().contains(&says.to_lowercase()) {
            let kind = &expected.kind;
            return Ok(Some(format!(
                "{kind}: expected {says:?} in its text, came {text:?}"
            )));
        }
    }
    let wanted = serde_json::to_value(&expected.data)?;
    Ok(missing(&wanted, &data, &expected.kind))
}

fn at_secs(data: &Value) -> Option<f64> {
    Some(data["stream_time_ns"].as_f64()? / 1e9)
}

/// The first field that is wanted and is another; numbers with a fraction agree to a thousandth.
fn missing(wanted: &Value, found: &Value, place: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), found) => wanted
            .iter()
            .find_map(|(key, wanted)| missing(wanted, &found[key], &format!("{place}.{key}"))),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(i, (wanted, found))| missing(wanted, found, &format!("{place}[{i}]"))),
        (Value::Number(wanted), Value::Number(found)) if near(wanted.as_f64(), found.as_f64()) => {
            None
        }
        (wanted, found) if wanted == found => None,
        (wanted, found) => Some(format!("{place}: expected {wanted}, came {found}")),
    }
}

fn near(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b).is_some_and(|(a, b)| (a - b).abs() <= 1e-3)
}

#[cfg(test)]
mod tests {
    use vita_messages::kinds::{Interrupted, Reset};

    use super::*;

    fn script(expected: &str) -> Script {
        let text = format!("version = 1\nmodel = \"nano\"\nseconds = 1.0\n{expected}");
        toml::from_str(&text).unwrap()
    }

    fn told() -> Vec<Body> {
        vec![
            Interrupted {
                session_id: 1,
                turn_id: 1,
                generation_id: 1,
                by_turn_id: 2,
                stream_time_ns: 1_500_000_000,
            }
            .into(),
            Reset {
                session_id: 1,
                stream_time_ns: 2_000_000_000,
            }
            .into(),
        ]
    }

    #[track_caller]
    fn assert_differences(expected: &str, differences: &[&str]) {
        let found = compare(&script(expected), &told()).unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, differences);
    }

    #[test]
    fn order_times_and_fields_are_compared() {
        let interrupted =
            "[[expect]]\nkind = \"interrupted\"\nat_secs = 1.4\ndata = { by_turn_id = 2 }\n";
        let reset = "[[expect]]\nkind = \"reset\"\nat_secs = 2.0\n";
        assert_differences(&format!("{interrupted}{reset}"), &[]);
        assert_differences(
            &format!("{reset}{reset}"),
            &["message 1: expected reset, interrupted came"],
        );
        assert_differences(
            interrupted,
            &["message 2: expected no more, reset came at 2.000 s"],
        );
        assert_differences(
            &format!("{interrupted}{reset}{reset}"),
            &["message 3: expected reset, nothing came"],
        );
        let other = interrupted.replace("1.4", "1.0").to_owned() + reset;
        assert_differences(
            &other,
            &["message 1: interrupted: expected at 1 s ± 0.25 s, came at 1.500 s"],
        );
        assert_differences(
            &format!("{interrupted}{reset}says = \"Paris\"\n"),
            &["message 2: reset: expected \"Paris\" in its text, came \"\""],
        );
        let other = interrupted.replace("id = 2", "id = 3") + reset;
        assert_differences(
            &other,
            &["message 1: interrupted.by_turn_id: expected 3, came 2"],
        );
    }
}
