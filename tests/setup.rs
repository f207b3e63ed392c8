//! The set-up script: says in one sentence what is wrong, and takes nothing whose hash is not the pinned one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A wheel is a zip file; Python has the one tool for it that the set-up needs anyway.
fn make_wheel(dir: &Path, content: &str) -> String {
    let script = "import hashlib, sys, zipfile
path, content = sys.argv[1], sys.argv[2]
info = 'vita_part-1.0.dist-info/'
with zipfile.ZipFile(path, 'w') as wheel:
    wheel.writestr('vita_part/data.txt', content)
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: vita-part\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
print(hashlib.sha256(open(path, 'rb').read()).hexdigest())";
    let wheel = dir.join("vita_part-1.0-py3-none-any.whl");
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(&wheel)
        .arg(content)
        .output()
        .expect("python3 runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("a hash")
        .trim()
        .to_owned()
}

fn sha256(text: &str) -> String {
    let output = Command::new("sh")
        .args([
            "-c",
            "printf %s \"$1\" | sha256sum | cut -d' ' -f1",
            "sh",
            text,
        ])
        .output()
        .expect("sha256sum runs");
    String::from_utf8(output.stdout)
        .expect("a hash")
        .trim()
        .to_owned()
}

struct Setup {
    dir: TempDir,
}

impl Setup {
    /// A registry that holds one wheel and a list that pins it with these hashes.
    fn new(archive_sum: Option<&str>, member_sum: Option<&str>) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let wheel_sum = make_wheel(dir.path(), "content");
        let line = format!(
            "pypi\tvita-part\t1.0\t{}\tvita_part/data.txt\tparts/data.txt\t{}\n",
            archive_sum.unwrap_or(&wheel_sum),
            member_sum.unwrap_or(&sha256("content")),
        );
        fs::write(dir.path().join("parts.tsv"), line).expect("the list is written");
        Self { dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup"))
            .arg(self.dir.path().join("parts.tsv"))
            .env("VITA_CACHE", self.dir.path().join("cache"))
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", self.dir.path());
        command
    }

    fn placed(&self) -> Option<String> {
        fs::read_to_string(self.dir.path().join("cache/parts/data.txt")).ok()
    }
}

#[track_caller]
fn fails_with(output: &Output, sentence: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the set-up should have failed");
    assert!(
        stderr.contains(sentence),
        "expected '{sentence}' in '{stderr}'"
    );
    assert_eq!(stderr.lines().count(), 1, "one sentence, not: {stderr}");
}

#[test]
fn a_filled_cache_needs_no_registry() {
    let setup = Setup::new(None, None);
    let first = setup.command().output().expect("the set-up runs");
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert_eq!(setup.placed().as_deref(), Some("content"));

    fs::remove_file(setup.dir.path().join("vita_part-1.0-py3-none-any.whl"))
        .expect("the registry is emptied");
    let second = setup.command().output().expect("the set-up runs");
    assert!(
        second.status.success(),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
}

#[test]
fn an_archive_with_another_hash_is_not_used() {
    let setup = Setup::new(Some(&sha256("something else")), None);
    fails_with(
        &setup.command().output().expect("the set-up runs"),
        "vita-part 1.0 from pypi has sha256",
    );
    assert_eq!(setup.placed(), None);
}

#[test]
fn a_member_with_another_hash_is_not_used() {
    let setup = Setup::new(None, Some(&sha256("something else")));
    fails_with(
        &setup.command().output().expect("the set-up runs"),
        "vita_part/data.txt of vita-part 1.0 has another sha256",
    );
    assert_eq!(setup.placed(), None);
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_again() {
    let setup = Setup::new(None, None);
    assert!(setup.command().status().expect("the set-up runs").success());
    fs::write(setup.dir.path().join("cache/parts/data.txt"), "damaged")
        .expect("the file is damaged");
    assert!(setup.command().status().expect("the set-up runs").success());
    assert_eq!(setup.placed().as_deref(), Some("content"));
}

#[test]
fn a_registry_out_of_reach_is_said_in_one_sentence() {
    let setup = Setup::new(None, None);
    fs::remove_file(setup.dir.path().join("vita_part-1.0-py3-none-any.whl"))
        .expect("the registry is emptied");
    fails_with(
        &setup.command().output().expect("the set-up runs"),
        "could not fetch vita-part 1.0 from pypi (no network?)",
    );
}

#[test]
fn without_cargo_it_says_where_to_get_it() {
    let setup = Setup::new(None, None);
    let output = setup
        .command()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("the set-up runs");
    if Path::new("/usr/bin/cargo").exists() {
        return assert!(output.status.success(), "Debian's cargo is on this path");
    }
    fails_with(&output, "cargo is missing; install Rust");
}
