//! The model of a source: its keys as values for the template, and whether its folder holds one.

use std::path::{Path, PathBuf};

use vita_engine::models::{self as engine, DeviceSpec, ErrorKind, Precision};
use vita_model::checkpoint::Inspection;
use vita_model::checkpoint::manifest::{AudioPart, FILE_NAME, Manifest};

use super::given::Given;
use super::problem::Kind;
use super::resolve::{Context, Origin};
use super::types::Model;
use crate::launch::Value;
use crate::models;
use crate::plan::ModelPlan;

/// The model that the keys name, and its keys as values for the template. `None`: nothing answers.
pub(super) fn add_model(
    given: &mut Given,
    own: Option<&Model>,
    common: Option<&Model>,
    context: &mut Context,
) -> Option<ModelPlan> {
    own.or(common)?;
    let (own, common) = (
        own.cloned().unwrap_or_default(),
        common.cloned().unwrap_or_default(),
    );
    if !own.enabled.or(common.enabled).unwrap_or(true) {
        return None;
    }
    let plan = plan(given, &own, &common, context);
    let mut keys = Keys { given };
    keys.add("device", own.device, common.device);
    keys.add("precision", own.precision, common.precision);
    keys.add("system_prompt", own.system_prompt, common.system_prompt);
    keys.add(
        "query_threshold",
        own.query_threshold,
        common.query_threshold,
    );
    keys.add(
        "noise_threshold",
        own.noise_threshold,
        common.noise_threshold,
    );
    keys.add("max_tokens", own.max_tokens, common.max_tokens);
    keys.add("undecided", own.undecided, common.undecided);
    keys.add("temperature", own.temperature, common.temperature);
    keys.add("history_tokens", own.history_tokens, common.history_tokens);
    keys.add("look_back_ms", own.look_back_ms, common.look_back_ms);
    keys.add(
        "token_interval_ms",
        own.token_interval_ms,
        common.token_interval_ms,
    );
    keys.add("max_wait_ms", own.max_wait_ms, common.max_wait_ms);
    keys.add("kv_cache_mib", own.kv_cache_mib, common.kv_cache_mib);
    keys.add(
        "encode_cache_mib",
        own.encode_cache_mib,
        common.encode_cache_mib,
    );
    let common_frontend = common.frontend.or_else(|| frontend(&plan));
    keys.add("frontend", own.frontend, common_frontend);
    Some(plan)
}

struct Keys<'a> {
    given: &'a mut Given,
}

impl Keys<'_> {
    fn add<T: ToString>(&mut self, key: &str, own: Option<T>, common: Option<T>) {
        let origin = match own {
            Some(_) => Origin::Source,
            None => Origin::Model,
        };
        let value = own.or(common).map(|value| Value::from(value.to_string()));
        self.given.add(&format!("model.{key}"), value, origin);
    }
}

/// Names the model, and says what is wrong with the name and with what stands there.
fn plan(given: &mut Given, own: &Model, common: &Model, context: &mut Context) -> ModelPlan {
    let place = |is_own: bool, key: &str| match is_own {
        true => format!("{}.model.{key}", given.key),
        false => format!("model.{key}"),
    };
    let name = own.name.as_ref().or(common.name.as_ref()).map(|name| {
        // A path is relative to the config, a name is not.
        match name.contains('/') {
            true => {
                let path: PathBuf = context.base.join(name).components().collect();
                path.display().to_string()
            }
            false => name.clone(),
        }
    });
    let device_key = place(own.device.is_some(), "device");
    let device = own.device.as_ref().or(common.device.as_ref());
    let device = parsed::<DeviceSpec>(device, &device_key, "write cpu, cuda or cuda:0", context);
    let precision_key = place(own.precision.is_some(), "precision");
    let precision = own.precision.as_ref().or(common.precision.as_ref());
    let precision =
        parsed::<Precision>(precision, &precision_key, "write f32, f16 or bf16", context);
    let name_key = place(own.name.is_some(), "name");
    let plan = ModelPlan {
        name: name.clone().unwrap_or_else(|| models::DEFAULT.to_owned()),
        device,
        precision,
    };
    check_folder(&plan, &name_key, context);
    let origin = match own.name {
        Some(_) => Origin::Source,
        None => Origin::Model,
    };
    given.add("model.name", name.map(Value::from), origin);
    plan
}

fn parsed<T: std::str::FromStr<Err = engine::Error> + Default>(
    text: Option<&String>,
    key: &str,
    remedy: &str,
    context: &mut Context,
) -> T {
    let Some(text) = text else {
        return T::default();
    };
    text.parse().unwrap_or_else(|error: engine::Error| {
        context
            .problems
            .error(Kind::OutOfRange, key, error.to_string(), remedy);
        T::default()
    })
}

/// Reads the headers of the model's files, not its weights.
fn check_folder(plan: &ModelPlan, key: &str, context: &mut Context) {
    let problems = &mut *context.problems;
    let folder = match engine::folder(&plan.name) {
        Ok(folder) => folder,
        Err(error) => {
            let remedy = "give the path of the model's folder";
            return problems.error(Kind::Model, key, error.to_string(), remedy);
        }
    };
    if !folder.is_dir() {
        let what = format!("{}: no such model folder", folder.display());
        let remedy = models::remedy(&plan.name, ErrorKind::NotFound)
            .unwrap_or("give the path of a model's folder, or a name in the cache");
        problems.error(Kind::Model, key, what, remedy);
    } else if let Err(error) = Inspection::of(&folder) {
        let remedy = models::remedy(&plan.name, ErrorKind::Load).unwrap_or_default();
        problems.error(Kind::Model, key, error.to_string(), remedy);
    }
}

/// Warns of media that are taken of a source and that its model has no sense for: the encoder would refuse them, and the source fail.
pub(super) fn check_senses(
    plan: &ModelPlan,
    (has_video, has_audio): (bool, bool),
    key: &str,
    context: &mut Context,
) {
    // What is wrong with the folder was told when the model was named.
    let folder = engine::folder(&plan.name).ok();
    let Some(found) = folder.and_then(|folder| Inspection::of(&folder).ok()) else {
        return;
    };
    let senses = [
        ("video", "eyes", has_video && !found.has_eyes()),
        ("audio", "ears", has_audio && !found.has_ears()),
    ];
    for (medium, organ, _) in senses.into_iter().filter(|(.., is_lacking)| *is_lacking) {
        let what = format!("the model {} has no {organ}", plan.name);
        let remedy = format!(
            "add `{medium} = \"off\"`, or name a model that has; a source that brings {medium} would fail"
        );
        let key = format!("{key}.{medium}");
        context.problems.warning(Kind::Model, &key, what, remedy);
    }
}

/// What the ears of a model built from parts listen to; VITA's own is the default of `vitamel`.
pub fn frontend(plan: &ModelPlan) -> Option<String> {
    let folder = engine::folder(&plan.name).ok()?;
    let has_manifest = Path::new(&folder).join(FILE_NAME).is_file();
    let manifest = has_manifest.then(|| Manifest::load(&folder).ok())??;
    match manifest.audio? {
        AudioPart::Whisper { .. } => Some("whisper".to_owned()),
    }
}
