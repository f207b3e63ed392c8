//! Rooms on a model.
