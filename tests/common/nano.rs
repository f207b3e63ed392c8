//! The default model and its variant, made as a newcomer makes them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Makes `nano` or `nano-ctc` in the cache where it is not there, out of what `make setup` has fetched. Takes seconds, once.
pub fn build(model: &str) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(dir).unwrap();
    // Test programs run beside each other.
    let lock = File::create(dir.join("nano.lock")).unwrap();
    lock.lock().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vita"))
        .args(["model", "build", model])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "vita model build {model}: {said}");
}
