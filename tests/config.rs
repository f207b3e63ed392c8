//! The configs that come with the program, and what `vita check` and `vita explain` say.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vita_stream::config::{self, Loaded};
use vita_stream::plan::Plan;

const SECRETS: [(&str, &str); 4] = [
    ("VITA_ROOM_A_PASSWORD", "s3cret of room a"),
    ("VITA_ROOM_B_PASSWORD", "\"s3cret\\ of 'room' b!"),
    ("VITA_CAMERA_USER", "s3cret-admin"),
    ("VITA_CAMERA_PASSWORD", "s3cret $of (the) cameras"),
];

/// The configs with the files that they refer to, as on a machine where they run.
struct Deployments(tempfile::TempDir);

impl Deployments {
    fn new() -> Self {
        common::nano::build("nano");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        for file in ["vita.creds", "nats-ca.pem", "cameras-ca.pem"] {
            std::fs::write(dir.path().join("secrets").join(file), "of the site\n").unwrap();
        }
        std::fs::write(
            dir.path().join("secrets/vault-password"),
            "s3cret of the vault\n",
        )
        .unwrap();
        for path in shipped() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Self(dir)
    }

    fn configs(&self) -> Vec<PathBuf> {
        shipped()
            .iter()
            .map(|path| self.0.path().join(path.file_name().unwrap()))
            .collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("configs")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    assert!(paths.len() >= 3, "{paths:?}");
    paths
}

fn vita(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vita"))
        .args(args)
        .envs(SECRETS)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn load(path: &Path, text: &str) -> Loaded {
    let env = |name: &str| match SECRETS.iter().find(|(key, _)| *key == name) {
        Some((_, value)) => Some((*value).to_owned()),
        None => (name == "HOME").then(|| "/home/vita".to_owned()),
    };
    config::parse(path, text, &env)
}

#[track_caller]
fn plan(path: &Path, text: &str) -> Plan {
    let loaded = load(path, text);
    assert!(
        !loaded.problems.iter().any(config::Problem::is_error),
        "{:#?}",
        loaded.problems
    );
    loaded.deployment.unwrap().plan()
}

#[test]
fn every_config_passes_the_check() {
    let deployments = Deployments::new();
    for path in deployments.configs() {
        let output = vita(&["check", "--offline", path.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}{}",
            stdout(&output),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(stdout(&output), format!("{}: in order\n", path.display()));
    }
}

#[test]
fn explain_and_the_way_back_give_the_same_plan() {
    let deployments = Deployments::new();
    for path in deployments.configs() {
        let text = std::fs::read_to_string(&path).unwrap();
        let explained = vita(&["explain", path.to_str().unwrap()]);
        assert!(
            explained.status.success(),
            "{}",
            String::from_utf8_lossy(&explained.stderr)
        );
        let back = vita(&["explain", "--toml", &stdout(&explained)]);
        let back = format!("version = 1\n{}", stdout(&back));
        let (before, after) = (plan(&path, &text), plan(&path, &back));
        assert_eq!(before.sources.len(), after.sources.len());
        for (before, after) in before.sources.iter().zip(&after.sources) {
            assert_eq!(before.name, after.name);
            assert_eq!(before.launch.reveal(), after.launch.reveal(), "{back}");
            assert_eq!(before.at_end, after.at_end);
        }
    }
}

#[test]
fn no_secret_is_printed() {
    let deployments = Deployments::new();
    for path in deployments.configs() {
        let path = path.to_str().unwrap();
        for args in [
            ["explain", path].as_slice(),
            &["check", "--offline", path],
            &["check", "--offline", "--json", path],
        ] {
            let output = vita(args);
            let printed = stdout(&output) + &String::from_utf8_lossy(&output.stderr);
            assert!(!printed.contains("s3cret"), "{args:?}: {printed}");
        }
        let loaded = load(Path::new(path), &std::fs::read_to_string(path).unwrap());
        assert!(!format!("{loaded:?}").contains("s3cret"));
    }
}

/// Each file of `tests/problems` is a config with problems, and the text beside it what is said of them.
#[test]
fn every_problem_is_told_with_its_place_and_remedy() {
    let mut kinds = std::collections::BTreeSet::new();
    let entries = std::fs::read_dir(root().join("tests/problems")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap();
        let loaded = load(
            &Path::new("/etc/vita").join(name),
            &std::fs::read_to_string(&path).unwrap(),
        );
        let told: Vec<_> = loaded
            .problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect();
        kinds.extend(
            loaded
                .problems
                .iter()
                .map(|problem| format!("{:?}", problem.kind)),
        );
        same_as_committed(&path.with_extension("txt"), &told.concat());
    }
    let expected = [
        "BadName",
        "Conflict",
        "DuplicateName",
        "MissingElement",
        "MissingFile",
        "MissingKey",
        "MissingVariable",
        "Model",
        "OutOfRange",
        "Pipeline",
        "PlainSecret",
        "Syntax",
        "Template",
        "UnknownKey",
        "WrongType",
    ];
    assert_eq!(
        kinds.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_config_with_errors_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two.toml");
    std::fs::write(
        &path,
        "version = 1\ncolour = 1\n[[source]]\nname = \"a\"\ntype = \"tset\"\n",
    )
    .unwrap();
    let output = vita(&["check", "--offline", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).ends_with("two.toml: 2 errors, 0 warnings\n"),
        "{}",
        stdout(&output)
    );
    let output = vita(&["check", "--offline", "--json", path.to_str().unwrap()]);
    let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problems[0]["kind"], "unknown-key");
    assert_eq!(
        (&problems[1]["line"], &problems[1]["key"]),
        (&5.into(), &"source[0].type".into())
    );
}

#[test]
fn a_config_that_is_not_there_is_said_to_be() {
    let output = vita(&["check", "--offline", "/nowhere/vita.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).starts_with("error: /nowhere/vita.toml: cannot be read: "),
        "{}",
        stdout(&output)
    );
}

#[track_caller]
fn same_as_committed(path: &Path, text: &str) {
    if std::env::var_os("VITA_BLESS").is_some() {
        return std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is out of date (VITA_BLESS=1 rewrites it); now:\n{text}",
        path.display()
    );
}

/// `explain` prints what a shell can run: with our elements, and with a secret full of what shells and GStreamer give a meaning to.
#[test]
fn the_command_runs_in_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("it's (a) \"s3cret\" ! $HOME; é.wav");
    std::fs::copy(media("jfk.wav"), &secret).unwrap();
    let config = dir.path().join("test.toml");
    let text = "version = 1\n\
        [[source]]\nname = \"file\"\ntype = \"file\"\npath = \"it's (a) \\\"s3cret\\\" ! $HOME; é.wav\"\nrealtime = false\nvideo = \"off\"\n\
        [[source]]\nname = \"own\"\ntype = \"launch\"\ntext = \"filesrc location=${path} ! wavparse ! fakesink\"\n\
        parameters = { path = \"${env:VITA_TEST_SECRET}\" }\n";
    std::fs::write(&config, text).unwrap();
    // GStreamer opens every library below the folder, so it holds nothing else.
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let plugin = std::env::current_exe()
        .unwrap()
        .with_file_name("libgstvita.so");
    std::os::unix::fs::symlink(plugin, plugins.join("libgstvita.so")).unwrap();
    for name in ["file", "own"] {
        let mut explain = Command::new(env!("CARGO_BIN_EXE_vita"));
        explain
            .arg("explain")
            .arg(&config)
            .args(["--source", name])
            .env("VITA_TEST_SECRET", &secret);
        let command = stdout(&explain.output().unwrap());
        let mut shell = Command::new("sh");
        shell
            .arg("-ec")
            .arg(&command)
            .env("VITA_TEST_SECRET", &secret)
            .env("GST_PLUGIN_PATH", &plugins)
            .env("GST_REGISTRY", dir.path().join("registry"));
        let output = shell.output().unwrap();
        assert!(
            output.status.success(),
            "{command}\n{}{}",
            stdout(&output),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn media(file: &str) -> PathBuf {
    vita_stream::nats_server::cache_dir()
        .unwrap()
        .join("media")
        .join(file)
}

#[test]
fn a_model_answers_in_every_source_that_does_not_say_otherwise() {
    let text = format!(
        r#"
version = 1
model = {{ name = "{}/tests/golden/checkpoint", device = "cpu", query_threshold = 0.7 }}
[[source]]
name = "all"
type = "test"
[[source]]
name = "own"
type = "rtsp"
uri = "rtsp://127.0.0.1/a"
model = {{ system_prompt = "Be brief, \"please\".", query_threshold = 0.9, look_back_ms = 500 }}
[[source]]
name = "silent"
type = "test"
model = {{ enabled = false }}
[[source]]
name = "blind"
type = "test"
video = "off"
"#,
        root().display()
    );
    let sources = load(Path::new("/etc/vita/model.toml"), &text)
        .deployment
        .unwrap()
        .plan()
        .sources;
    let launch = |name: &str| {
        let source = sources.iter().find(|source| source.name == name).unwrap();
        (source.launch.reveal().to_owned(), source.model.clone())
    };
    let (all, model) = launch("all");
    let checkpoint = format!("{}/tests/golden/checkpoint", root().display());
    assert_eq!(model.map(|model| model.name), Some(checkpoint.clone()));
    let sink = format!("vitallmsink name=llm model={checkpoint} device=cpu query-threshold=0.7");
    assert!(all.contains(&sink), "{all}");
    assert!(
        all.contains("! llm.video_0 )") && all.contains("! llm.audio_0 )"),
        "{all}"
    );
    assert!(!all.contains("fakesink"), "{all}");
    let (own, _) = launch("own");
    assert!(
        own.contains("query-threshold=0.9") && own.contains("look-back=500000000"),
        "{own}"
    );
    let (silent, model) = launch("silent");
    assert!(
        silent.contains("fakesink") && !silent.contains("llm"),
        "{silent}"
    );
    assert_eq!(model, None);
    let (blind, _) = launch("blind");
    assert!(
        blind.contains("llm.audio_0") && !blind.contains("video"),
        "{blind}"
    );
}

#[test]
fn a_model_survives_explain_and_the_way_back() {
    let text = format!(
        r#"
version = 1
model = {{ name = "{}/tests/golden/checkpoint", max_tokens = 40 }}
[[source]]
name = "all"
type = "test"
model = {{ system_prompt = "Be brief, \"please\".", query_threshold = 0.9, look_back_ms = 500 }}
[[source]]
name = "silent"
type = "test"
model = {{ enabled = false }}
"#,
        root().display()
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.toml");
    std::fs::write(&path, &text).unwrap();
    let sources = plan(&path, &text).sources;
    let explained = vita(&["explain", path.to_str().unwrap()]);
    assert!(explained.status.success());
    let back = stdout(&vita(&["explain", "--toml", &stdout(&explained)]));
    let back = plan(&path, &format!("version = 1\n{back}")).sources;
    assert_eq!(sources.len(), back.len());
    for (source, back) in sources.iter().zip(&back) {
        assert_eq!(source.launch.reveal(), back.launch.reveal());
        assert_eq!(source.model, back.model);
    }
}

#[test]
fn media_that_the_model_has_no_sense_for_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let golden = root().join("tests/golden/checkpoint");
    let models = vita_messages::testing::cache_dir().join("models");
    // Words alone, and words with eyes.
    let model = |name: &str, more: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let language = models.join("SmolLM2-135M-Instruct.Q4_1.gguf");
        std::os::unix::fs::symlink(language, folder.join("lm.gguf")).unwrap();
        let weights = golden.join("model.safetensors");
        std::os::unix::fs::symlink(weights, folder.join("eyes.safetensors")).unwrap();
        let manifest = format!(
            "name = \"{name}\"\nmax-length = 512\n[language-model]\npath = \"lm.gguf\"\n{more}"
        );
        std::fs::write(folder.join("vita.toml"), manifest).unwrap();
    };
    model("reader", "");
    let eyes = "[vision]\nencoder = \"efficientnet-lite0\"\nweights = { file = \"eyes.safetensors\" }\n\
                connector = { grid = 4, hidden = 8 }\nconnector-weights = { file = \"eyes.safetensors\" }\n";
    model("looker", eyes);
    let warnings = |name: &str, more: &str| {
        let text = format!(
            "version = 1\nmodel = {{ name = \"./{name}\" }}\n[[source]]\nname = \"a\"\ntype = \"rtsp\"\nuri = \"rtsp://h\"\n{more}"
        );
        let loaded = load(&dir.path().join("site.toml"), &text);
        let told = loaded.problems.iter().map(|problem| {
            assert!(!problem.is_error(), "{problem}");
            format!("{}: {}", problem.key, problem.what)
        });
        told.collect::<Vec<_>>()
    };
    let lacks = |medium: &str, name: &str, organ: &str| {
        let model = dir.path().join(name);
        format!(
            "source[0].{medium}: the model {} has no {organ}",
            model.display()
        )
    };
    let both = [
        lacks("video", "reader", "eyes"),
        lacks("audio", "reader", "ears"),
    ];
    assert_eq!(warnings("reader", ""), both);
    assert_eq!(warnings("looker", ""), [lacks("audio", "looker", "ears")]);
    assert_eq!(warnings("looker", "audio = \"off\"\n"), [""; 0]);
}
