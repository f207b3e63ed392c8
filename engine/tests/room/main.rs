//! Rooms on the golden checkpoint. Verdicts are forced by a bias on the token for noise: a random model has no opinion.

mod answers;
mod bench;
mod limits;
mod paced;
