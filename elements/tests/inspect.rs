//! What `gst-inspect-1.0` prints of each element is committed in `docs/inspect/` and compared here, so that a change of
//! what the public sees is a change of a file. `VITA_BLESS=1` writes the files anew. And the pipelines in the elements'
//! documentation run as they are printed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Once},
};

use gst::prelude::*;

/// The plugin as it is shipped. Cargo builds the cdylib into the folder of the test executables; the one in the folder above is
/// only brought up to date when more than single tests are built.
fn plugin_file() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let plugin = test.with_file_name("libgstvita.so");
    assert!(
        plugin.exists(),
        "{} is missing: run `cargo build --workspace` once",
        plugin.display()
    );
    plugin
}

/// A folder that holds nothing but a link to the plugin: GStreamer opens every library below `GST_PLUGIN_PATH`.
fn plugin_folder() -> &'static Path {
    // Both tests need it, beside each other.
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inspect-plugins");
        fs::create_dir_all(&folder).unwrap();
        let link = folder.join("libgstvita.so");
        match fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => std::os::unix::fs::symlink(plugin_file(), &link).unwrap(),
        }
        folder
    });
    &FOLDER
}

fn inspect(plugin_folder: &Path, element: &str) -> String {
    let output = Command::new("gst-inspect-1.0")
        .arg(element)
        .env("GST_PLUGIN_PATH", plugin_folder)
        .env("GST_PLUGIN_SYSTEM_PATH", "")
        .env(
            "GST_REGISTRY",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("inspect-registry.bin"),
        )
        .env("LC_ALL", "C")
        .output()
        .expect("gst-inspect-1.0 is needed (Debian package gstreamer1.0-tools)");
    assert!(
        output.status.success(),
        "gst-inspect-1.0 {element}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    normalise(&String::from_utf8(output.stdout).unwrap())
}

/// Takes out what differs between two builds of the same source.
fn normalise(text: &str) -> String {
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.trim_start().starts_with("Filename "))
        .filter(|line| !line.trim_start().starts_with("Version "))
        .collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

fn elements() -> BTreeSet<String> {
    // Both tests ask, beside each other.
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstvita::plugin_register_static().unwrap();
    });
    gst::Registry::get()
        .features_by_plugin("vita")
        .iter()
        .filter(|feature| feature.is::<gst::ElementFactory>())
        .map(|feature| feature.name().to_string())
        .collect()
}

#[test]
fn committed_inspect_output_is_that_of_the_elements() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/inspect");
    let bless = std::env::var_os("VITA_BLESS").is_some_and(|value| value == "1");
    let plugin_folder = plugin_folder();
    let elements = elements();
    let mut problems = Vec::new();

    for element in &elements {
        let file = docs.join(format!("{element}.txt"));
        let actual = inspect(plugin_folder, element);
        if bless {
            fs::create_dir_all(&docs).unwrap();
            fs::write(&file, &actual).unwrap();
            continue;
        }
        match fs::read_to_string(&file) {
            Ok(committed) if committed == actual => {}
            Ok(committed) => problems.push(format!(
                "{} differs:\n{}",
                file.display(),
                first_difference(&committed, &actual)
            )),
            Err(error) => problems.push(format!("{}: {error}", file.display())),
        }
    }

    for entry in fs::read_dir(&docs).into_iter().flatten() {
        let path = entry.unwrap().path();
        let element = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !elements.contains(&element) {
            problems.push(format!(
                "{} describes no element of the plugin",
                path.display()
            ));
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nif this is meant: VITA_BLESS=1 cargo test --workspace --test inspect",
        problems.join("\n")
    );
}

fn first_difference(committed: &str, actual: &str) -> String {
    let differing = (1..)
        .zip(committed.lines().map(Some).chain(std::iter::repeat(None)))
        .zip(actual.lines().map(Some).chain(std::iter::repeat(None)))
        .take(committed.lines().count().max(actual.lines().count()))
        .find(|((_, committed), actual)| committed != actual);
    match differing {
        Some(((line, committed), actual)) => format!(
            "  line {line}\n  committed: {}\n  now:       {}",
            committed.unwrap_or("(end)"),
            actual.unwrap_or("(end)")
        ),
        None => "  white space at the end".into(),
    }
}

/// The launch lines in the documentation of the elements' modules.
fn documented_pipelines() -> Vec<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pipelines = Vec::new();
    for folder in fs::read_dir(sources).unwrap() {
        let documentation =
            fs::read_to_string(folder.unwrap().path().join("mod.rs")).unwrap_or_default();
        let lines = documentation
            .lines()
            .filter_map(|line| line.strip_prefix(" * gst-launch-1.0 "));
        pipelines.extend(lines.map(|line| format!("gst-launch-1.0 {line}")));
    }
    pipelines
}

#[test]
fn documented_pipelines_run_as_printed() {
    let plugin_folder = plugin_folder();
    let pipelines = documented_pipelines();
    for element in elements() {
        let is_shown = pipelines
            .iter()
            .any(|pipeline| pipeline.contains(&format!("! {element} ")));
        assert!(is_shown, "no pipeline is documented for {element}");
    }
    for pipeline in pipelines {
        let output = Command::new("timeout")
            .args(["300", "sh", "-c", &pipeline])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .env("GST_PLUGIN_PATH", plugin_folder)
            .env(
                "GST_REGISTRY",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("documentation-registry.bin"),
            )
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{pipeline}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
