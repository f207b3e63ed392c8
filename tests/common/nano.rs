//! The default model, made as a newcomer makes it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Makes vita-nano in the cache where it is not there, out of what `make setup` has fetched. Takes seconds, once.
pub fn build() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(dir).unwrap();
    // Test programs run beside each other.
    let lock = File::create(dir.join("nano.lock")).unwrap();
    lock.lock().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vita"))
        .args(["model", "build", "nano"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "vita model build nano: {said}");
}
