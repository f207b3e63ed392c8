//! What the README prints runs as printed, and its links lead somewhere.

mod common;
mod plugin;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vita_messages::testing::NatsServer;
use vita_messages::{Options, Publisher, ServerUrl};

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
    common::nano::build("nano");
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
        let output = run(pipeline, &plugins);
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

fn run(pipeline: &str, plugins: &Path) -> Output {
    Command::new("bash")
        .args(["-euc", pipeline])
        .current_dir(root())
        .env("GST_PLUGIN_PATH", plugins)
        .env(
            "GST_REGISTRY",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-registry.bin"),
        )
        .output()
        .expect("bash runs")
}

#[tokio::test]
async fn its_sink_publishes_where_it_has_an_address() {
    common::nano::build("nano");
    let plugins = plugin::folder("readme-plugins");
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(dir.path()).unwrap();
    let spool = dir.path().join("spool");
    let text = readme();
    let pipeline = shell_blocks(&text)
        .into_iter()
        .find(|block| block.contains("vitallmsink"))
        .unwrap();
    let published = format!(
        "vitallmsink nats-url={} source-name=door spool-dir={}",
        server.url(),
        spool.display()
    );
    let output = run(&pipeline.replacen("vitallmsink", &published, 1), &plugins);
    assert!(output.status.success(), "{output:?}");
    // On a slow machine the last messages are still in the spool when the pipeline has ended.
    let servers = ServerUrl::parse_list(&server.url()).unwrap();
    let publisher = Publisher::connect(Options::new(servers, spool)).await;
    publisher.unwrap().close(common::PATIENCE).await;
    let inbox = common::inbox::Inbox::open(&server.url()).await;
    let kinds = inbox
        .wait("the end of the source", || {
            let all = inbox.of("door", 0);
            let kinds: Vec<_> = all.iter().map(|body| body.kind().name()).collect();
            let ends = kinds.iter().filter(|kind| **kind == "source").count();
            (ends == 2).then_some(kinds)
        })
        .await;
    let dialogue = ["query", "roles_swapped", "answer"];
    let dialogue = dialogue.map(|kind| kinds.iter().position(|told| *told == kind));
    assert!(dialogue.is_sorted() && dialogue[0].is_some(), "{kinds:?}");
    let speech = kinds.iter().filter(|kind| **kind == "speech").count();
    assert_eq!((kinds[0], speech), ("source", 2), "{kinds:?}");
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
