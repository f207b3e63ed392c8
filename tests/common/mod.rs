//! What the end-to-end tests share: real media, real servers, the built program, and an inbox for what it says.
//!
//! Nothing waits for a fixed time: conditions are waited for, with deadlines that a machine five times slower meets.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod inbox;
pub mod media;
pub mod nano;
pub mod process;
pub mod rtsp;
pub mod vita;

use std::time::Duration;

/// How long a condition is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How far what was heard may be from what was said.
pub const TOLERANCE: f64 = 0.3;

#[track_caller]
pub fn assert_near(seconds: f64, expected: f64, what: &str) {
    assert!(
        (seconds - expected).abs() <= TOLERANCE,
        "{what}: at {seconds:.3} s, expected {expected:.3} ± {TOLERANCE} s"
    );
}
