//! Training of a VITA model.
