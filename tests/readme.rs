//! What the README prints runs as printed, and its links lead somewhere.

mod common;
mod plugin;

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README is there")
}

/// The shell blocks of a Markdown text.
fn shell_blocks(text: &str) -> Vec<&str> {
    text.split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

#[test]
fn its_pipelines_run_as_printed() {
    common::nano::build();
    let plugins = plugin::folder("readme-plugins");
    let text = readme();
    let pipelines: Vec<&str> = shell_blocks(&text)
        .into_iter()
        .filter(|block| block.starts_with("gst-launch-1.0"))
        .collect();
    assert_eq!(
        pipelines.len(),
        3,
        "a pipeline was added or lost: mend this count"
    );
    for pipeline in pipelines {
        let output = Command::new("bash")
            .args(["-euc", pipeline])
            .current_dir(root())
            .env("GST_PLUGIN_PATH", &plugins)
            .env(
                "GST_REGISTRY",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-registry.bin"),
            )
            .output()
            .expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{pipeline}\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        if pipeline.contains("vitavad") {
            assert!(
                said.contains("vita-speech-start") && said.contains("vita-speech-end"),
                "{said}"
            );
        }
        if pipeline.contains("vitallmsink") {
            let told = |name: &str| said.lines().find(|line| line.contains(name));
            let answer = told("vita-answer,").unwrap_or_else(|| panic!("no answer in {said}"));
            for part in [
                r#"text=(string)"What\ do\ you\ see\?""#,
                "state=(string)query",
                "frames=(structure)< \"frame",
            ] {
                assert!(answer.contains(part), "no {part} in {answer}");
            }
            assert!(!answer.contains("answer=(string)\"\""), "{answer}");
        }
    }
}

#[test]
fn its_links_lead_somewhere() {
    let text = readme();
    let links: Vec<&str> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"))
        .collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(
            root().join(link).exists(),
            "{link} is in the README and not in the repository"
        );
    }
}
