//! What can be asked of a source, and what it replies.

use std::borrow::Cow;

use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::kinds::{Answer, Cancelled, SourceStatus};
use crate::subject::{Prefix, SourceName};

/// Longest question, bytes.
pub const MAX_QUESTION_BYTES: usize = 8 * 1024;
/// How long an `ask` that waits does so if it does not say.
pub const WAIT_MS: u64 = 120_000;
/// The longest that an `ask` may wait.
pub const MAX_WAIT_MS: u64 = 600_000;

/// A command, as `<prefix>.<source>.<command>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Ask,
    Reset,
    Status,
}

impl Command {
    pub const ALL: [Self; 3] = [Self::Ask, Self::Reset, Self::Status];

    /// Its word in subjects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Reset => "reset",
            Self::Status => "status",
        }
    }

    /// One line for documents.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Ask => "Ask a source a typed question.",
            Self::Reset => {
                "Stop the running answer, drop the waiting questions, forget what was said."
            }
            Self::Status => "Tell how a source and its dialogue are.",
        }
    }

    pub fn subject(self, prefix: &Prefix, source: &SourceName) -> String {
        format!("{prefix}.{source}.{}", self.name())
    }

    /// Names of the schemas of request and reply, whose definitions go to the generator.
    pub(crate) fn schemas(self, generator: &mut SchemaGenerator) -> [Cow<'static, str>; 2] {
        fn add<T: JsonSchema>(generator: &mut SchemaGenerator) -> Cow<'static, str> {
            generator.subschema_for::<T>();
            T::schema_name()
        }
        match self {
            Self::Ask => [add::<AskRequest>(generator), add::<AskReply>(generator)],
            Self::Reset => [add::<ResetRequest>(generator), add::<ResetReply>(generator)],
            Self::Status => [
                add::<StatusRequest>(generator),
                add::<StatusReply>(generator),
            ],
        }
    }
}

/// A typed question. It interrupts an answer that is running, as a spoken one does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskRequest {
    /// At most 8 KiB.
    pub text: String,
    /// Reply when the question has its answer, instead of at once.
    #[serde(default)]
    pub wait: bool,
    /// How long to wait at most, milliseconds; 120000 when absent, at most 600000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The question was taken. With `wait`: and this became of it, one of `answer` and `cancelled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AskReply {
    pub session_id: u64,
    /// Number of the question within the session, as in its messages.
    pub turn_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
}

/// Nothing is to be said; an empty request does as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {}

/// The reset is on its way; the `reset` message tells when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetReply {
    pub session_id: u64,
}

/// Nothing is to be said; an empty request does as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusRequest {}

/// How a source and its dialogue are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReply {
    /// What the source last said of itself; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The model that answers; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The dialogue that goes on now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<u64>,
    /// The answer that is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_id: Option<u64>,
    /// Questions accepted since the program started.
    pub queries: u64,
    /// Answers ended since the program started, also those that were cut off.
    pub answers: u64,
    /// Utterances not answered since the program started.
    pub noise: u64,
    /// Questions dropped since the program started.
    pub cancelled: u64,
}

/// Why a command was not carried out: the header `Nats-Service-Error-Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// The request is no JSON, or not of the command's shape.
    BadRequest,
    /// The source has no model to ask.
    NoModel,
    /// The question is too long.
    TooLong,
    /// Too many questions are on their way.
    Busy,
    /// Something of ours broke.
    Internal,
    /// The source is not up, so nobody listens.
    Down,
    /// There was no answer in time; the question goes on.
    TimedOut,
}

impl RefusalCode {
    pub const ALL: [Self; 7] = [
        Self::BadRequest,
        Self::NoModel,
        Self::TooLong,
        Self::Busy,
        Self::Internal,
        Self::Down,
        Self::TimedOut,
    ];

    /// As HTTP has them, which services of NATS follow.
    pub fn number(self) -> usize {
        match self {
            Self::BadRequest => 400,
            Self::NoModel => 404,
            Self::TooLong => 413,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Down => 503,
            Self::TimedOut => 504,
        }
    }

    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::BadRequest => "no JSON, or not of the command's shape",
            Self::NoModel => "the source has no model to ask",
            Self::TooLong => "the question is too long",
            Self::Busy => "too many questions are on their way",
            Self::Internal => "something of ours broke",
            Self::Down => "the source is not up",
            Self::TimedOut => "no answer in time; the question goes on",
        }
    }
}

/// A command that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Refusal {
    pub code: RefusalCode,
    /// What is wrong, and where.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Refusal {
    pub fn new(code: RefusalCode, what: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            code,
            what: what.into(),
            remedy,
        }
    }
}
