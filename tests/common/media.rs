//! A street with people talking, put together by `scripts/street-clip`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where somebody speaks in each 12 s. The recordings are laid at 1.5 s and 6.5 s; within them the first and last 10 ms that are
/// louder than a twentieth of the loudest are at 0.01 and 2.94 s, and at 0.04 and 3.20 s.
pub const SPEECH: [(f64, f64); 2] = [(1.51, 4.44), (6.54, 9.70)];
/// The sound repeats after so many seconds.
pub const PERIOD: f64 = 12.0;
const SECONDS: &str = "240";

/// Made once.
pub fn street() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let clip = dir.join("street-v1.mp4");
    fs::create_dir_all(dir).unwrap();
    // Test programs run beside each other.
    let lock = File::create(dir.join("street.lock")).unwrap();
    lock.lock().unwrap();
    if !clip.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/street-clip");
        let status = Command::new(script)
            .arg(&clip)
            .arg(SECONDS)
            .status()
            .unwrap();
        assert!(status.success(), "scripts/street-clip: {status}");
    }
    clip
}
