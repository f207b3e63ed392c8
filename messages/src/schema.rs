//! The documents generated from the types: JSON Schema and AsyncAPI, of messages and commands. Committed under `schema/`; a test fails when they are not these.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Place};
use crate::message::{SCHEMA_VERSION, SPEC_VERSION, schema_of, type_of};
use crate::service::{Command, RefusalCode};
use crate::subject::MAX_TOKEN_BYTES;

/// File name of the JSON Schema, which the AsyncAPI document refers to.
pub const JSON_SCHEMA_FILE: &str = "vita-messages.v1.schema.json";
/// File name of the AsyncAPI document.
pub const ASYNCAPI_FILE: &str = "vita-messages.v1.asyncapi.json";

/// JSON Schema (2020-12) of every message: its `$defs` has `<Kind>Message` for one kind, and the document itself is any of them.
/// `<Command>Request` and `<Command>Reply` are there as well.
pub fn json_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let messages: Map<String, Value> = Kind::ALL
        .iter()
        .map(|kind| (message_name(*kind), message_schema(*kind, &mut generator)))
        .collect();
    for command in Command::ALL {
        command.schemas(&mut generator);
    }
    let mut definitions = generator.take_definitions(true);
    let any: Vec<Value> = messages
        .keys()
        .map(|name| json!({ "$ref": format!("#/$defs/{name}") }))
        .collect();
    definitions.extend(messages);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:vita-stream:messages:v{SCHEMA_VERSION}"),
        "title": "Messages of vita-stream",
        "description": "CloudEvents 1.0 in JSON. Fields and kinds may be added within a version: pass over what you do not know. \
                        Fields that end in _ns are nanoseconds; other times are RFC 3339 in UTC.",
        "oneOf": any,
        "$defs": definitions,
    })
}

fn message_name(kind: Kind) -> String {
    format!("{kind:?}Message")
}

fn message_schema(kind: Kind, generator: &mut schemars::SchemaGenerator) -> Value {
    let place = match kind.place() {
        Place::Event => format!("event\\.{}", kind.name()),
        Place::Kept | Place::Live => kind.name().to_owned(),
    };
    let token = format!("[A-Za-z0-9_-]{{1,{MAX_TOKEN_BYTES}}}");
    json!({
        "type": "object",
        "description": kind.summary(),
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"],
        "properties": {
            "specversion": { "const": SPEC_VERSION },
            "id": { "type": "string", "minLength": 1, "description": "Follows from the content; also the Nats-Msg-Id of durable messages." },
            "source": { "type": "string", "format": "uri-reference", "pattern": format!("^/sources/{token}$") },
            "type": { "const": type_of(kind) },
            "subject": { "type": "string", "pattern": format!("^{token}\\.{place}$"), "description": "The NATS subject below the prefix." },
            "time": { "type": "string", "format": "date-time", "description": "When the message was made." },
            "datacontenttype": { "const": "application/json" },
            "dataschema": { "const": schema_of(kind) },
            "data": kind.data_schema(generator),
        },
    })
}

/// AsyncAPI 3.0: which message goes where.
pub fn asyncapi() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for kind in Kind::ALL.iter().copied() {
        let (name, word) = (message_name(kind), kind.name());
        let below = if kind.place() == Place::Event {
            format!("event.{word}")
        } else {
            word.to_owned()
        };
        let kept = if kind.place().is_durable() {
            "Kept by JetStream, with Nats-Msg-Id."
        } else {
            "Not kept."
        };
        channels.insert(
            word.into(),
            json!({
                "address": format!("{{prefix}}.{{source}}.{below}"),
                "description": format!("{} {kept}", kind.summary()),
                "parameters": {
                    "prefix": { "$ref": "#/components/parameters/prefix" },
                    "source": { "$ref": "#/components/parameters/source" },
                },
                "messages": { name.as_str(): { "$ref": format!("#/components/messages/{name}") } },
            }),
        );
        operations.insert(
            format!("send_{word}"),
            json!({
                "action": "send",
                "channel": { "$ref": format!("#/channels/{word}") },
                "messages": [{ "$ref": format!("#/channels/{word}/messages/{name}") }],
            }),
        );
        messages.insert(
            name.clone(),
            json!({
                "name": type_of(kind),
                "summary": kind.summary(),
                "contentType": "application/cloudevents+json",
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-2020-12",
                    "schema": { "$ref": format!("./{JSON_SCHEMA_FILE}#/$defs/{name}") },
                },
            }),
        );
    }
    for command in Command::ALL {
        add_command(command, &mut channels, &mut operations, &mut messages);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "vita-stream",
            "version": format!("{SCHEMA_VERSION}.0.0"),
            "description": "What vita-stream says on NATS, and what can be asked of it.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {
            "parameters": {
                "prefix": { "description": "First tokens of every subject of a deployment.", "default": "vita" },
                "source": { "description": "Name of the source: letters, digits, '-' and '_'." },
            },
            "messages": messages,
        },
    })
}

/// A command is received on its own channel, and replied to on the requester's.
fn add_command(
    command: Command,
    channels: &mut Map<String, Value>,
    operations: &mut Map<String, Value>,
    messages: &mut Map<String, Value>,
) {
    let word = command.name();
    let names = command.schemas(&mut SchemaSettings::draft2020_12().into_generator());
    let summaries = [command.summary().to_owned(), refusals()];
    for (name, summary) in names.iter().zip(summaries) {
        messages.insert(
            name.to_string(),
            json!({
                "name": name,
                "summary": summary,
                "contentType": "application/json",
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-2020-12",
                    "schema": { "$ref": format!("./{JSON_SCHEMA_FILE}#/$defs/{name}") },
                },
            }),
        );
    }
    let [request, reply] = names;
    let reply_channel = format!("{word}_reply");
    let of = |name: &str| json!({ name: { "$ref": format!("#/components/messages/{name}") } });
    channels.insert(
        word.into(),
        json!({
            "address": format!("{{prefix}}.{{source}}.{word}"),
            "description": format!("{} Request and reply.", command.summary()),
            "parameters": {
                "prefix": { "$ref": "#/components/parameters/prefix" },
                "source": { "$ref": "#/components/parameters/source" },
            },
            "messages": of(&request),
        }),
    );
    channels.insert(
        reply_channel.clone(),
        json!({ "address": null, "messages": of(&reply) }),
    );
    operations.insert(
        format!("receive_{word}"),
        json!({
            "action": "receive",
            "channel": { "$ref": format!("#/channels/{word}") },
            "messages": [{ "$ref": format!("#/channels/{word}/messages/{request}") }],
            "reply": {
                "channel": { "$ref": format!("#/channels/{reply_channel}") },
                "messages": [{ "$ref": format!("#/channels/{reply_channel}/messages/{reply}") }],
            },
        }),
    );
}

/// Said of every reply.
fn refusals() -> String {
    let codes = RefusalCode::ALL.map(|code| format!("{} {}", code.number(), code.summary()));
    format!(
        "A refusal has no body, but the headers Nats-Service-Error-Code and Nats-Service-Error: {}.",
        codes.join("; ")
    )
}
