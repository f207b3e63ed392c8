//! One source: its template, the values for it, and how it is supervised.

use std::path::Path;
use std::time::Duration;

use super::problem::Kind;
use super::resolve::{Context, Endpoint, Origin, Setting, SourceDeployment, check_url};
use super::types::{
    Common, File, Launch, ParameterValue, Retry as WrittenRetry, Rtsp, Source, SourceKind, Vad,
};
use crate::launch::{self, Fallback, LaunchError, Media, Template, Value, Values};
use crate::plan::{AtEnd, Retry, Wanted};

const STALL_TIMEOUT_SECS: f64 = 10.0;
const RETRY: (f64, f64, f64) = (0.5, 30.0, 0.2);

/// How values of our keys are spelled in a pipeline, where that differs. Read both ways.
pub const SPELLINGS: [(&str, &str, &str); 3] = [
    ("transport", "auto", "tcp+udp-mcast+udp"),
    ("tls_verify", "true", "validate-all"),
    ("tls_verify", "false", "no-flags"),
];

/// Values for a template, each with the key that it comes from.
struct Given {
    settings: Vec<(String, Setting)>,
    key: String,
}

impl Given {
    fn add(&mut self, parameter: &str, value: Option<Value>, origin: Origin) {
        let Some(value) = value else { return };
        let spelled = |text: String| {
            SPELLINGS
                .iter()
                .find(|(key, written, _)| *key == parameter && *written == text)
        };
        let value = match value.plain().and_then(spelled) {
            Some((_, _, spelled)) => Value::from((*spelled).to_owned()),
            None => value,
        };
        let key = match origin {
            Origin::Defaults => format!("defaults.{parameter}"),
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
    fn add_common<T: ToString>(&mut self, parameter: &str, own: Option<T>, default: Option<T>) {
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

/// `None`: too much is wrong to say what would run; the problems are told.
pub(super) fn resolve(
    source: &Source,
    defaults: &Common,
    index: usize,
    context: &mut Context,
) -> Option<SourceDeployment> {
    let key = format!("source[{index}]");
    let mut given = Given {
        settings: Vec::new(),
        key: key.clone(),
    };
    let template = match &source.kind {
        SourceKind::Launch(launch) => own_template(launch, &mut given, context)?,
        kind => launch::builtin(type_name(kind))?.clone(),
    };
    let common = &source.common;
    given.add_common("fps", common.fps, defaults.fps);
    add_vad(&mut given, common.vad.as_ref(), defaults.vad.as_ref());
    let endpoint = add_own_keys(&source.kind, &mut given, context);

    let parameters = template.parameters();
    given.settings.retain(|(key, setting)| {
        let known = parameters
            .iter()
            .any(|parameter| parameter.name == setting.parameter);
        // Defaults hold for those that they concern; a key of the source itself must have an effect.
        if !known && setting.origin == Origin::Source {
            let names: Vec<_> = parameters
                .iter()
                .map(|parameter| parameter.name.as_str())
                .collect();
            let what = format!(
                "has no effect: {} has no parameter `{}`",
                template.name, setting.parameter
            );
            context.problems.error(
                Kind::Conflict,
                key,
                what,
                format!("remove it; there are: {}", names.join(", ")),
            );
        }
        known
    });
    let (video, audio) = media(source, defaults, &template, &key, context)?;
    let values: Values = given
        .settings
        .iter()
        .map(|(_, s)| (s.parameter.clone(), s.value.clone()))
        .collect();
    let wanted = |media| match media {
        Media::Video => video != Wanted::Off,
        Media::Audio => audio != Wanted::Off,
    };
    let line = match template.render(&values, wanted) {
        Ok(line) => line,
        Err(errors) => {
            for error in errors {
                template_problem(&error, &key, context);
            }
            return None;
        }
    };
    let mut settings: Vec<_> = given
        .settings
        .into_iter()
        .map(|(_, setting)| setting)
        .collect();
    for parameter in parameters {
        if let (Fallback::Default(text), false) =
            (&parameter.fallback, values.contains_key(&parameter.name))
        {
            let (parameter, value) = (parameter.name.clone(), Value::from(text.clone()));
            settings.push(Setting {
                parameter,
                value,
                origin: Origin::Template,
            });
        }
    }
    let stall_timeout_secs = common
        .stall_timeout_secs
        .or(defaults.stall_timeout_secs)
        .unwrap_or(STALL_TIMEOUT_SECS);
    Some(SourceDeployment {
        name: source.name.clone(),
        template: template.name.clone(),
        settings,
        line,
        tls_ca_file: endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.tls_ca_file.clone()),
        endpoint,
        video,
        audio,
        at_end: at_end(&source.kind),
        stall_timeout: Duration::from_secs_f64(stall_timeout_secs),
        retry: retry(
            common.retry.as_ref(),
            defaults.retry.as_ref(),
            &key,
            context,
        ),
        key,
    })
}

/// The word that stands for the type in a config, and names its template.
pub fn type_name(kind: &SourceKind) -> &'static str {
    match kind {
        SourceKind::Rtsp(_) => "rtsp",
        SourceKind::File(_) => "file",
        SourceKind::V4l2(_) => "v4l2",
        SourceKind::Microphone(_) => "microphone",
        SourceKind::Test(_) => "test",
        SourceKind::Launch(_) => "launch",
    }
}

fn at_end(kind: &SourceKind) -> AtEnd {
    match kind {
        SourceKind::File(File {
            loop_: Some(true), ..
        }) => AtEnd::Loop,
        SourceKind::File(_)
        | SourceKind::Launch(Launch {
            ends: Some(true), ..
        }) => AtEnd::Finish,
        _ => AtEnd::Retry,
    }
}

fn add_vad(given: &mut Given, own: Option<&Vad>, default: Option<&Vad>) {
    let both = (
        own.cloned().unwrap_or_default(),
        default.cloned().unwrap_or_default(),
    );
    let (own, default) = both;
    given.add_common("vad.threshold", own.threshold, default.threshold);
    given.add_common(
        "vad.min_silence_ms",
        own.min_silence_ms,
        default.min_silence_ms,
    );
    given.add_common("vad.padding_ms", own.padding_ms, default.padding_ms);
    given.add_common(
        "vad.min_utterance_ms",
        own.min_utterance_ms,
        default.min_utterance_ms,
    );
}

fn add_own_keys(kind: &SourceKind, given: &mut Given, context: &mut Context) -> Option<Endpoint> {
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
    let uri = context.value(&rtsp.uri, &key("uri", given));
    check_url(
        uri.reveal().reveal(),
        &key("uri", given),
        &["rtsp", "rtsps"],
        context.problems,
    );
    if rtsp.uri.is_plain()
        && url::Url::parse(uri.reveal().reveal()).is_ok_and(|url| url.password().is_some())
    {
        let remedy = "take it out, and write user = \"…\" and password = \"${env:VITA_PASSWORD}\"";
        context.problems.warning(
            Kind::PlainSecret,
            &key("uri", given),
            "holds a password in plain text",
            remedy,
        );
    }
    let user = rtsp
        .user
        .as_ref()
        .map(|user| context.value(user, &key("user", given)));
    let password = rtsp
        .password
        .as_ref()
        .map(|password| context.secret(password, &key("password", given)));
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

fn own_template(launch: &Launch, given: &mut Given, context: &mut Context) -> Option<Template> {
    let key = given.key.clone();
    let (name, text) = match (&launch.template, &launch.text) {
        (None, Some(text)) => ("text".to_owned(), text.clone()),
        (Some(path), None) => {
            let path = context.file(path, &format!("{key}.template"));
            let name = path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            (name, std::fs::read_to_string(path).ok()?)
        }
        _ => {
            let remedy =
                "write `template = \"….launch\"`, or the pipeline itself as `text = \"…\"`";
            context.problems.error(
                Kind::MissingKey,
                &key,
                "takes one of `template` and `text`",
                remedy,
            );
            return None;
        }
    };
    for (parameter, value) in &launch.parameters {
        let value_key = format!("{key}.parameters.{parameter}");
        let value = match value {
            ParameterValue::Bool(value) => Value::from(value.to_string()),
            ParameterValue::Integer(value) => Value::from(value.to_string()),
            ParameterValue::Float(value) => Value::from(value.to_string()),
            ParameterValue::Text(text) => context.value(text, &value_key),
        };
        let setting = Setting {
            parameter: parameter.clone(),
            value,
            origin: Origin::Source,
        };
        given.settings.push((value_key, setting));
    }
    Template::parse(&name, &text)
        .map_err(|error| template_problem(&error, &key, context))
        .ok()
}

fn template_problem(error: &LaunchError, key: &str, context: &mut Context) {
    let remedy = match error {
        LaunchError::MissingParameter { name, .. } => {
            format!("give it a value: parameters.{name} = …")
        }
        _ => "correct the template; docs/configuration.md shows how it is written".to_owned(),
    };
    context
        .problems
        .error(Kind::Template, key, error.to_string(), remedy);
}

/// What is taken of the source. What its template does not have is off; to ask for it is a mistake.
fn media(
    source: &Source,
    defaults: &Common,
    template: &Template,
    key: &str,
    context: &mut Context,
) -> Option<(Wanted, Wanted)> {
    let custom = matches!(source.kind, SourceKind::Launch(_));
    let mut wanted = |media, name: &str, own: Option<Wanted>, default: Option<Wanted>| {
        if template.has(media) {
            return own.or(default).unwrap_or_default();
        }
        if matches!(
            (own, custom),
            (Some(Wanted::On), _) | (Some(Wanted::Off), true)
        ) {
            let what = format!("has no effect: {} has no section [{name}]", template.name);
            context
                .problems
                .error(Kind::Conflict, &format!("{key}.{name}"), what, "remove it");
        }
        if custom { Wanted::Auto } else { Wanted::Off }
    };
    let video = wanted(Media::Video, "video", source.common.video, defaults.video);
    let audio = wanted(Media::Audio, "audio", source.common.audio, defaults.audio);
    if (video, audio) == (Wanted::Off, Wanted::Off) {
        let remedy = "leave one of `video` and `audio` on, or remove the source";
        context.problems.error(
            Kind::Conflict,
            key,
            "nothing is left of it: video and audio are off",
            remedy,
        );
        return None;
    }
    Some((video, audio))
}

fn retry(
    own: Option<&WrittenRetry>,
    default: Option<&WrittenRetry>,
    key: &str,
    context: &mut Context,
) -> Retry {
    let pick = |field: fn(&WrittenRetry) -> Option<f64>| {
        own.and_then(field).or_else(|| default.and_then(field))
    };
    let initial = pick(|retry| retry.initial_secs).unwrap_or(RETRY.0);
    let max = pick(|retry| retry.max_secs).unwrap_or(RETRY.1.max(initial));
    if initial > max {
        let what = format!("the first wait, {initial} s, is longer than the longest, {max} s");
        let remedy = "raise `max_secs`, or lower `initial_secs`";
        context
            .problems
            .error(Kind::OutOfRange, &format!("{key}.retry"), what, remedy);
    }
    Retry {
        initial: Duration::from_secs_f64(initial),
        max: Duration::from_secs_f64(max),
        jitter: pick(|retry| retry.jitter).unwrap_or(RETRY.2),
    }
}
