//! The keys of a source as values for its template.

use std::path::Path;

use super::problem::Kind;
use super::resolve::{Context, Endpoint, Origin, Setting, check_url};
use super::spelling;
use super::types::{Rtsp, SourceKind, Vad};
use crate::launch::{Value, secrets};

/// Values for a template, each with the key that it comes from.
pub(super) struct Given {
    pub settings: Vec<(String, Setting)>,
    pub key: String,
    /// The source's name.
    pub owner: String,
}

impl Given {
    pub fn add(&mut self, parameter: &str, value: Option<Value>, origin: Origin) {
        let Some(value) = value else { return };
        let value = value.plain().map_or(value, |text| {
            Value::from(spelling::to_pipeline(parameter, &text))
        });
        let key = match origin {
            Origin::Defaults => format!("defaults.{parameter}"),
            Origin::Model => parameter.to_owned(),
            Origin::Source | Origin::Template => format!("{}.{parameter}", self.key),
        };
        self.settings.push((
            key,
            Setting {
                parameter: parameter.to_owned(),
                value,
                origin,
            },
        ));
    }

    /// A key that may also stand in `[defaults]`.
    pub fn add_common<T: ToString>(&mut self, parameter: &str, own: Option<T>, default: Option<T>) {
        let origin = if own.is_some() {
            Origin::Source
        } else {
            Origin::Defaults
        };
        self.add(
            parameter,
            own.or(default).map(|value| Value::from(value.to_string())),
            origin,
        );
    }

    fn add_own<T: ToString>(&mut self, parameter: &str, value: Option<T>) {
        self.add(
            parameter,
            value.map(|value| Value::from(value.to_string())),
            Origin::Source,
        );
    }
}

pub(super) fn add_vad(given: &mut Given, own: Option<&Vad>, default: Option<&Vad>) {
    let (own, default) = (
        own.cloned().unwrap_or_default(),
        default.cloned().unwrap_or_default(),
    );
    given.add_common("vad.threshold", own.threshold, default.threshold);
    given.add_common("vad.hysteresis", own.hysteresis, default.hysteresis);
    given.add_common(
        "vad.min_silence_ms",
        own.min_silence_ms,
        default.min_silence_ms,
    );
    given.add_common(
        "vad.pre_padding_ms",
        own.pre_padding_ms,
        default.pre_padding_ms,
    );
    given.add_common(
        "vad.post_padding_ms",
        own.post_padding_ms,
        default.post_padding_ms,
    );
    given.add_common(
        "vad.min_speech_ms",
        own.min_speech_ms,
        default.min_speech_ms,
    );
    given.add_common(
        "vad.max_utterance_ms",
        own.max_utterance_ms,
        default.max_utterance_ms,
    );
}

/// The keys of the source's own type; what to ask whether it is there, if it is a server.
pub(super) fn add_own_keys(
    kind: &SourceKind,
    given: &mut Given,
    context: &mut Context,
) -> Option<Endpoint> {
    let key = |name: &str, given: &Given| format!("{}.{name}", given.key);
    match kind {
        SourceKind::Rtsp(rtsp) => return Some(add_rtsp(rtsp, given, context)),
        SourceKind::File(file) => {
            let path = context.file(&file.path, &key("path", given));
            given.add("path", Some(path.as_path().into()), Origin::Source);
            given.add_own("realtime", file.realtime);
        }
        SourceKind::V4l2(v4l2) => {
            if let Some(device) = v4l2
                .device
                .as_ref()
                .filter(|device| !Path::new(device).exists())
            {
                let remedy =
                    "connect the camera; `v4l2-ctl --list-devices` shows those that are there";
                let what = format!("there is no {device} now");
                context
                    .problems
                    .warning(Kind::MissingFile, &key("device", given), what, remedy);
            }
            given.add_own("device", v4l2.device.as_ref());
        }
        SourceKind::Microphone(microphone) => given.add_own("device", microphone.device.as_ref()),
        SourceKind::Test(test) => {
            given.add_own("pattern", test.pattern.as_ref());
            given.add_own("wave", test.wave.as_ref());
        }
        SourceKind::Launch(_) => {}
    }
    None
}

fn add_rtsp(rtsp: &Rtsp, given: &mut Given, context: &mut Context) -> Endpoint {
    let key = |name: &str, given: &Given| format!("{}.{name}", given.key);
    let owner = given.owner.clone();
    let uri = context.secret_if(secrets::has_password, &rtsp.uri, &key("uri", given), &owner);
    check_url(
        uri.reveal().reveal(),
        &key("uri", given),
        &["rtsp", "rtsps"],
        context.problems,
    );
    let user = rtsp
        .user
        .as_ref()
        .map(|user| context.value(user, &key("user", given)));
    let any = |_: &str| true;
    let password = rtsp
        .password
        .as_ref()
        .map(|text| context.secret_if(any, text, &key("password", given), &owner));
    if user.is_some() != password.is_some() {
        let what = "`user` and `password` belong together";
        context
            .problems
            .error(Kind::MissingKey, &given.key, what, "give both or none");
    }
    let tls_ca_file = rtsp
        .tls_ca_file
        .as_ref()
        .map(|file| context.file(file, &key("tls_ca_file", given)));
    let endpoint = Endpoint {
        uri: uri.reveal(),
        user: user.as_ref().map(Value::reveal),
        password: password.as_ref().map(Value::reveal),
        tls_verify: rtsp.tls_verify.unwrap_or(true),
        tls_ca_file,
    };
    let transport = rtsp
        .transport
        .and_then(|transport| serde_json::to_value(transport).ok());
    given.add("uri", Some(uri), Origin::Source);
    given.add_own(
        "transport",
        transport.as_ref().and_then(|transport| transport.as_str()),
    );
    given.add("user", user, Origin::Source);
    given.add("password", password, Origin::Source);
    given.add_own("tls_verify", rtsp.tls_verify);
    given.add_own("latency_ms", rtsp.latency_ms);
    endpoint
}
