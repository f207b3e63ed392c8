//! The config as it is written. Comments on fields are the reference documentation and the JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Text;
pub use crate::plan::Wanted;

/// A deployment of vita-stream.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    #[serde(default)]
    pub nats: Nats,
    #[serde(default)]
    pub defaults: Common,
    /// The model that answers what is asked in all sources. Without it nothing is answered, except in sources with a `model` of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// What to listen to and look at, in any number.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
}

/// Where messages go. Without `url`, a server of our own is started.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// Start a `nats-server` on loopback, with JetStream, that ends with the program. The default when there is no `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<bool>,
    /// The server to connect to: `nats://host:4222`, `tls://host:4222`, `ws://` or `wss://`; several with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Text>,
    /// First tokens of every subject. Default: `vita`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A `.creds` file, as `nsc` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// The token of a server with token authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Text>,
    /// Certificates in PEM to trust besides those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Port of the embedded server on loopback. Default: a free one.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where the embedded server keeps its streams. Default: a folder named as the config, in the user's state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_dir: Option<PathBuf>,
    /// Where durable messages wait while the server is away. Default: beside `store_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
    /// Disk that waiting messages may take; beyond it the oldest are given up, counted and announced. Default: 256.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_max_mib: Option<u32>,
}

/// What every type of source has. In `[defaults]` it holds for all sources that do not say otherwise.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Common {
    /// Whether to take video. Default: `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<Wanted>,
    /// Whether to take audio. Default: `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<Wanted>,
    /// Frames to sample a second, of those that the source has; kept to a thousandth.
    #[schemars(range(min = 0.001, max = 60.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vad: Option<Vad>,
    /// No data from the source for this long means that it has stalled, and it is opened anew. Default: 10.
    #[schemars(range(min = 0.5, max = 3600.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// When sound counts as an utterance. What is not given is as the element `vitavad` has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vad {
    /// Probability from which a block of 32 ms counts as speech.
    #[schemars(range(min = 0.01, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// A block counts as silence below the threshold less this.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hysteresis: Option<f64>,
    /// Silence that ends an utterance.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_silence_ms: Option<u32>,
    /// What is kept before speech; the stream is held back as long.
    #[schemars(range(min = 0, max = 5_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_padding_ms: Option<u32>,
    /// What is kept after speech.
    #[schemars(range(min = 0, max = 5_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_padding_ms: Option<u32>,
    /// An utterance with less speech in it is not accepted.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_speech_ms: Option<u32>,
    /// An utterance is cut at this length.
    #[schemars(range(min = 1, max = 600_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_utterance_ms: Option<u32>,
}

/// The model that answers, and how. In a source it stands for that source alone. What is not given is as the elements
/// `vitaencoder` and `vitallmsink` have it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// `false`: nothing is answered here. Default: `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The model's folder, as a path with a `/` in it, or its name in the cache. Default: `nano`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to compute: `cpu`, `cuda` or `cuda:N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The type in which matrices are kept: `f32`, `f16` or `bf16`; quantised ones stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// The features of sound that the model listens to, `whale` or `whisper`. Default: what its folder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<String>,
    /// Instead of the model's own system prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Share of "addressed to me" from which an utterance is a question.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_threshold: Option<f64>,
    /// Share of "addressed to me" below which an utterance is noise.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_threshold: Option<f64>,
    /// What to do with an utterance between the two thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided: Option<Undecided>,
    /// Of drawing tokens; 0 takes the most probable one.
    #[schemars(range(min = 0.0, max = 10.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Tokens of the longest answer.
    #[schemars(range(min = 1, max = 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Tokens of past turns that are shown with a question; 0: none.
    #[schemars(range(min = 0, max = 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_tokens: Option<u32>,
    /// Frames from this long before a question are shown with it.
    #[schemars(range(min = 0, max = 60_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_back_ms: Option<u32>,
    /// At least so long between the tokens of an answer, for who reads it aloud: what an interruption cuts off was not said yet.
    #[schemars(range(min = 0, max = 60_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_interval_ms: Option<u32>,
    /// A question that has no verdict so long after its end is cancelled, because nobody wants its answer any more; 0: never.
    #[schemars(range(min = 0, max = 600_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<u32>,
    /// MiB of keys and values, for all sources that share the model: what runs, and, as long as there is room, what was said before. Of
    /// different values the largest counts.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_mib: Option<u32>,
    /// MiB of encoded frames and utterances kept, for all sources that share the model. Of different values the largest counts.
    #[schemars(range(min = 0, max = 1_048_576))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode_cache_mib: Option<u32>,
}

/// What to do with an utterance that may or may not be meant for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Undecided {
    /// Stay silent.
    Silent,
    /// Answer when nothing is being answered; never interrupt on a doubt.
    AnswerWhenIdle,
    /// Answer, and interrupt if need be.
    Answer,
}

impl std::fmt::Display for Undecided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silent => "silent",
            Self::AnswerWhenIdle => "answer-when-idle",
            Self::Answer => "answer",
        })
    }
}

/// Waits between attempts: doubled from the first to the longest, each varied at random.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The first wait. Default: 0.5.
    #[schemars(range(min = 0.05, max = 3600.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_secs: Option<f64>,
    /// The longest wait. Default: 30.
    #[schemars(range(min = 0.05, max = 86_400.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_secs: Option<f64>,
    /// Each wait is multiplied by a random 1 ± this, so that sources that failed together do not return together. Default: 0.2.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
}

/// One source: one pipeline under supervision.
// Unknown keys are refused before serde sees them (`shape`): it cannot do so itself where fields are flattened.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("unevaluatedProperties" = false))]
pub struct Source {
    /// The token for this source in subjects: letters, digits, `-` and `_`.
    pub name: String,
    /// What is other for this source than in `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    #[serde(flatten)]
    pub kind: SourceKind,
    #[serde(flatten)]
    pub common: Common,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SourceKind {
    Rtsp(Rtsp),
    File(File),
    V4l2(V4l2),
    Microphone(Microphone),
    Test(Test),
    Launch(Launch),
}

/// A camera or server that speaks RTSP.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Rtsp {
    /// `rtsp://host:554/path`, or `rtsps://` for TLS.
    pub uri: Text,
    /// How packets travel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// User, for Digest or Basic authentication as the server asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// Password of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Text>,
    /// `false` accepts any certificate: only for a camera with its own certificate, on a network that you trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_verify: Option<bool>,
    /// Certificates in PEM to trust instead of those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Time for packets that come late or out of order.
    #[schemars(range(min = 0, max = 60_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u32>,
}

/// How RTP packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Within the RTSP connection: passes firewalls, loses nothing.
    Tcp,
    /// In datagrams of their own: no waiting for what was lost.
    Udp,
    /// UDP, and TCP if nothing arrives.
    Auto,
}

/// A media file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct File {
    /// The file, in any container that GStreamer knows, with H.264, H.265, VP8, VP9, AV1 or raw video.
    pub path: PathBuf,
    /// Begin again at the end. Default: `false`.
    #[serde(default, rename = "loop", skip_serializing_if = "Option::is_none")]
    pub loop_: Option<bool>,
    /// At the speed of its time stamps, as if it were live; `false`: as fast as the machine can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<bool>,
}

/// A camera of this machine.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct V4l2 {
    /// Its device file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A microphone of this machine.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Microphone {
    /// Its PulseAudio name, as `pactl list short sources` shows it. Default: the one that the user chose for the desktop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Generated pictures and sound.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Test {
    /// Picture: a pattern of `videotestsrc`, such as `smpte` or `ball`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Sound: a wave of `audiotestsrc`, such as `ticks` or `silence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

/// A pipeline of your own.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Launch {
    /// A template file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
    /// The text of a template, instead of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Values for the template's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, ParameterValue>,
    /// Whether its end is the end, as with a file, and no failure to retry. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<bool>,
}

/// The value of a template's parameter.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ParameterValue {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Text),
}
