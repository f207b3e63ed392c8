use std::path::Path;

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
