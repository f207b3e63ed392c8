//! `vitavad` on real speech: where its marks stand, what it passes on, and what ends an utterance.

mod bench;
mod control;
mod detection;
mod endings;
mod passing;
