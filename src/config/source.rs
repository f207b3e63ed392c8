//! One source: its template, the values for it, and how it is supervised.

use std::time::Duration;

use super::given::{Given, add_own_keys, add_vad};
use super::model::{add_model, check_senses};
use super::problem::Kind;
use super::resolve::{Context, Origin, Setting, SourceDeployment};
use super::types::{
    Common, Config, File, Launch, ParameterValue, Retry as WrittenRetry, Source, SourceKind,
};
use crate::launch::{self, Fallback, LaunchError, Media, Parts, Template, Value, Values, secrets};
use crate::plan::{AtEnd, Retry, Wanted};

const STALL_TIMEOUT_SECS: f64 = 10.0;
const RETRY: (f64, f64, f64) = (0.5, 30.0, 0.2);

/// `None`: too much is wrong to say what would run; the problems are told.
pub(super) fn resolve(
    source: &Source,
    config: &Config,
    index: usize,
    context: &mut Context,
) -> Option<SourceDeployment> {
    let defaults = &config.defaults;
    let key = format!("source[{index}]");
    let mut given = Given {
        settings: Vec::new(),
        key: key.clone(),
        owner: source.name.clone(),
    };
    let template = match &source.kind {
        SourceKind::Launch(launch) => own_template(launch, &mut given, context)?,
        kind => launch::builtin(type_name(kind))?.clone(),
    };
    let common = &source.common;
    given.add_common("fps", common.fps, defaults.fps);
    add_vad(&mut given, common.vad.as_ref(), defaults.vad.as_ref());
    let endpoint = add_own_keys(&source.kind, &mut given, context);
    let own_model = source.model.as_ref();
    let takes_model = template.has_model() || own_model.is_some();
    let common_model = config.model.as_ref().filter(|_| takes_model);
    let model = add_model(&mut given, own_model, common_model, context);

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
    if let Some(model) = &model {
        let takes = |medium, wanted| template.has(medium) && wanted != Wanted::Off;
        let taken = (takes(Media::Video, video), takes(Media::Audio, audio));
        check_senses(model, taken, &key, context);
    }
    let values: Values = given
        .settings
        .iter()
        .map(|(_, s)| (s.parameter.clone(), s.value.clone()))
        .collect();
    let parts = Parts {
        video: video != Wanted::Off,
        audio: audio != Wanted::Off,
        model: model.is_some(),
    };
    let line = match template.render(&values, parts) {
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
        model,
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
            ParameterValue::Text(text) => {
                let is_secret = |value: &str| secrets::is_secret(parameter, value);
                context.secret_if(is_secret, text, &value_key, &given.owner)
            }
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
