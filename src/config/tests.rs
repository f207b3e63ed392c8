use std::path::Path;

use proptest::prelude::*;

use super::*;

#[track_caller]
fn load_text(text: &str, env: &[(&str, &str)]) -> Loaded {
    let env = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    parse(Path::new("/etc/vita/test.toml"), text, &env)
}

#[test]
fn the_demo_becomes_a_plan() {
    let text = include_str!("../../configs/demo.toml");
    let loaded = load_text(text, &[("HOME", "/home/vita")]);
    let plan = loaded.deployment.unwrap().plan();
    assert_eq!(plan.sources[0].name, "demo");
    assert!(
        plan.sources[0]
            .launch
            .reveal()
            .contains(" location=rtsp://127.0.0.1:8554/demo ")
    );
    assert_eq!(
        plan.nats.spool_dir,
        Path::new("/home/vita/.local/state/vita-stream/test/spool")
    );
}

#[test]
fn debug_shows_no_plain_text() {
    let text = "version = 1\n[[source]]\nname = \"a\"\ntype = \"rtsp\"\nuri = \"rtsp://h\"\nuser = \"u\"\npassword = \"hunter2\"";
    let loaded = load_text(text, &[]);
    assert!(loaded.deployment.is_some());
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let config: Config = toml::from_str(text).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// TOML that is close to a config: its own keys, with values that may fit.
fn near_configs() -> impl Strategy<Value = String> {
    let key = proptest::sample::select(vec![
        "version",
        "nats.url",
        "nats.port",
        "nats.embedded",
        "nats.token",
        "nats.spool_max_mib",
        "defaults.fps",
        "defaults.video",
        "defaults.vad.threshold",
        "defaults.vad.min_silence_ms",
        "defaults.retry",
        "[[source]]",
        "name",
        "type",
        "uri",
        "path",
        "password",
        "transport",
        "latency_ms",
        "tls_verify",
        "fps",
        "vad",
        "video",
        "text",
        "parameters",
        "loop",
        "device",
    ]);
    let value = proptest::sample::select(vec![
        "1",
        "0",
        "-1",
        "0.5",
        "nan",
        "-inf",
        "4294967296",
        "65536",
        "99999999999999999999",
        "true",
        "[]",
        "{}",
        "[{}]",
        "\"\"",
        "\"rtsp\"",
        "\"launch\"",
        "\"test\"",
        "\"off\"",
        "\"tcp\"",
        "\"${env:A\"",
        "\"${env:}\"",
        "\"${env:A:b}\"",
        "{ file = \"x\" }",
        "{ file = 1 }",
        "{ threshold = 0.5 }",
        "{ a = 1, b = \"${env:B\" }",
        "1979-05-27",
        "'fakesrc ! fakesink'",
    ]);
    let line = (key, value).prop_map(|(key, value)| {
        if key.starts_with('[') {
            key.to_owned()
        } else {
            format!("{key} = {value}")
        }
    });
    proptest::collection::vec(line, 0..10).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
        load_text(&String::from_utf8_lossy(&bytes), &[]);
    }

    #[test]
    fn no_characters_panic(text in "[\\PC\n\\[\\]=\"'.#{}$]*") {
        load_text(&text, &[]);
    }

    /// What the schema takes, serde takes; so no message of serde's, which might repeat a secret, is ever shown.
    #[test]
    fn the_shape_is_all_that_serde_asks_for(text in near_configs()) {
        let path = Path::new("test.toml");
        let mut problems = Problems::new(path);
        if read(&text, &mut problems).is_none() {
            for problem in problems.finish() {
                prop_assert!(problem.remedy != SERDE_REMEDY || problem.what.contains("${env:"), "{}\n{}", text, problem);
            }
        }
    }
}
