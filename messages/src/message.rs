use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::kinds::{Body, Kind};
use crate::subject::{self, Prefix, SourceName, SubjectError};
use crate::wall_time::WallTime;

/// Of CloudEvents.
pub const SPEC_VERSION: &str = "1.0";
/// Of our schema: raised when a reader of the old one could be misled. New kinds and new optional fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;
const SOURCE_START: &str = "/sources/";

/// One thing that was noticed: a CloudEvents 1.0 event.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Follows from the content: the same message made twice has the same id. Also its `Nats-Msg-Id`.
    pub id: String,
    pub source: SourceName,
    pub time: WallTime,
    pub body: Body,
}

/// The JSON object, in the order in which it is written.
#[derive(Serialize)]
struct Outgoing<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    subject: String,
    time: WallTime,
    datacontenttype: &'static str,
    dataschema: String,
    data: &'a Body,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: String,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    time: WallTime,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Why bytes are not one of our messages.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("not a CloudEvents object in JSON: {0}")]
    Envelope(#[source] serde_json::Error),
    #[error("CloudEvents version {0:?}; this reader knows {SPEC_VERSION}")]
    SpecVersion(String),
    /// From a newer version, or from somebody else. Not a fault of the message.
    #[error("a message of type {0:?}, which this version does not know")]
    UnknownType(String),
    #[error("source {found:?} is not {SOURCE_START}<name>: {error}")]
    Source { found: String, error: SubjectError },
    #[error("data of a {} message: {error}", kind.name())]
    Data {
        kind: Kind,
        error: serde_json::Error,
    },
}

impl Message {
    pub fn new(source: &SourceName, time: WallTime, body: impl Into<Body>) -> Self {
        let body = body.into();
        Self {
            id: content_id(source, time, &body),
            source: source.clone(),
            time,
            body,
        }
    }

    /// As of now.
    pub fn now(source: &SourceName, body: impl Into<Body>) -> Self {
        Self::new(source, WallTime::now(), body)
    }

    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Where it goes.
    pub fn subject(&self, prefix: &Prefix) -> String {
        prefix.subject(&self.source, self.kind())
    }

    /// The event in JSON, on one line.
    pub fn to_json(&self) -> String {
        let outgoing = Outgoing {
            specversion: SPEC_VERSION,
            id: &self.id,
            source: format!("{SOURCE_START}{}", self.source),
            r#type: type_of(self.kind()),
            subject: subject::place(&self.source, self.kind()),
            time: self.time,
            datacontenttype: "application/json",
            dataschema: schema_of(self.kind()),
            data: &self.body,
        };
        // Strings, integers and finite-or-null floats: nothing in there can fail.
        serde_json::to_string(&outgoing).unwrap_or_default()
    }

    /// Reads what [`to_json`](Self::to_json) wrote, also in a newer version: fields that are not known are passed over.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        let event: Incoming = serde_json::from_slice(json).map_err(ParseError::Envelope)?;
        if event.specversion != SPEC_VERSION {
            return Err(ParseError::SpecVersion(event.specversion.into_owned()));
        }
        let kind = kind_of(&event.r#type)
            .ok_or_else(|| ParseError::UnknownType(event.r#type.into_owned()))?;
        let name = event.source.strip_prefix(SOURCE_START).unwrap_or_default();
        let source = SourceName::new(name).map_err(|error| ParseError::Source {
            found: event.source.to_string(),
            error,
        })?;
        let data = event.data.map_or("null", RawValue::get);
        let body = Body::read(kind, data).map_err(|error| ParseError::Data { kind, error })?;
        Ok(Self {
            id: event.id,
            source,
            time: event.time,
            body,
        })
    }
}

/// CloudEvents `type` of a kind.
pub(crate) fn type_of(kind: Kind) -> String {
    format!("vita.{}.v{SCHEMA_VERSION}", kind.name())
}

/// CloudEvents `dataschema` of a kind.
pub(crate) fn schema_of(kind: Kind) -> String {
    format!("urn:vita-stream:messages:v{SCHEMA_VERSION}:{}", kind.name())
}

fn kind_of(r#type: &str) -> Option<Kind> {
    let (name, version) = r#type.strip_prefix("vita.")?.rsplit_once(".v")?;
    Kind::from_name(name).filter(|_| version.parse() == Ok(SCHEMA_VERSION))
}

fn content_id(source: &SourceName, time: WallTime, body: &Body) -> String {
    let mut hash = Sha256::new();
    for part in [source.as_str(), &type_of(body.kind()), &time.to_string()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(serde_json::to_vec(body).unwrap_or_default());
    // Half of the digest: 128 bits are plenty against chance, and ids are read by people.
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kinds::tests::samples;

    fn messages() -> Vec<Message> {
        let door = SourceName::new("door").unwrap();
        let time = WallTime::from_unix_ns(1_764_000_000_000_000_001);
        samples()
            .into_iter()
            .map(|body| Message::new(&door, time, body))
            .collect()
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for message in messages() {
            assert_eq!(
                Message::from_json(message.to_json().as_bytes()).unwrap(),
                message
            );
        }
    }

    #[test]
    fn the_envelope_is_cloudevents() {
        let event: serde_json::Value = serde_json::from_str(&messages()[0].to_json()).unwrap();
        for (key, value) in [
            ("specversion", "1.0"),
            ("source", "/sources/door"),
            ("type", "vita.speech.v1"),
            ("subject", "door.event.speech"),
            ("time", "2025-11-24T16:00:00.000000001Z"),
            ("datacontenttype", "application/json"),
            ("dataschema", "urn:vita-stream:messages:v1:speech"),
        ] {
            assert_eq!(event[key], value, "{key}");
        }
        assert_eq!(
            event["data"]["capture_time"],
            "2025-11-24T16:00:00.123456789Z"
        );
        assert_eq!(event["data"]["stream_time_ns"], 3_200_000_000_u64);
    }

    #[test]
    fn the_same_message_has_the_same_id_and_another_another() {
        let ids: Vec<String> = messages().into_iter().map(|message| message.id).collect();
        assert_eq!(
            ids,
            messages()
                .into_iter()
                .map(|message| message.id)
                .collect::<Vec<_>>()
        );
        let distinct: std::collections::HashSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        let mut later = messages().remove(0);
        later = Message::new(&later.source, WallTime::from_unix_ns(5), later.body);
        assert!(!ids.contains(&later.id));
    }

    #[test]
    fn a_reader_of_today_reads_the_messages_of_tomorrow() {
        let mut event: serde_json::Value = serde_json::from_str(&messages()[0].to_json()).unwrap();
        event["traceparent"] = "00-abc".into();
        event["data"]["loudness_db"] = (-20).into();
        event["data"]["reason"] = "tired".into();
        let message = Message::from_json(event.to_string().as_bytes()).unwrap();
        let Body::Speech(speech) = message.body else {
            panic!("{message:?}")
        };
        assert_eq!(speech.reason, Some(crate::kinds::SpeechEndReason::Other));
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let parse = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut event: serde_json::Value =
                serde_json::from_str(&messages()[0].to_json()).unwrap();
            change(&mut event);
            Message::from_json(event.to_string().as_bytes()).unwrap_err()
        };
        assert!(matches!(
            parse(&|e| e["type"] = "vita.mood.v1".into()),
            ParseError::UnknownType(_)
        ));
        assert!(matches!(
            parse(&|e| e["type"] = "vita.speech.v2".into()),
            ParseError::UnknownType(_)
        ));
        assert!(matches!(
            parse(&|e| e["specversion"] = "2.0".into()),
            ParseError::SpecVersion(_)
        ));
        assert!(matches!(
            parse(&|e| e["source"] = "/sources/a.*".into()),
            ParseError::Source { .. }
        ));
        assert!(matches!(
            parse(&|e| e["data"] = serde_json::Value::Null),
            ParseError::Data {
                kind: Kind::Speech,
                ..
            }
        ));
        assert!(matches!(
            Message::from_json(b"hello"),
            Err(ParseError::Envelope(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Message::from_json(&bytes);
        }

        #[test]
        fn no_damage_makes_parsing_panic(index in 0..Kind::ALL.len(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut json = messages()[index].to_json().into_bytes();
            let at = at.index(json.len());
            json[at] = byte;
            let _ = Message::from_json(&json);
        }
    }
}
