//! The acceptance test: every stage against a folder of vectors recorded from the published code.
//!
//! `VITA_GOLDEN_DIR` names the folder (default: `tests/golden` of the repository). Sizes, cases and
//! layers are what that folder's checkpoint and files say; a file that is not there is reported and
//! skipped, a file of which nothing could be compared is a failure. Tolerances are those of the
//! folder's README. Each compared tensor gives one line, also when the test passes.

mod audio;
mod features;
mod image;
mod llm;
mod prompt;
mod support;
#[cfg(feature = "train")]
mod train;
