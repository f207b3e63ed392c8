//! Memory that starts at a cache line: a vector that crosses lines costs two loads.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// A slice that starts at a cache line and does not move while it is not resized.
pub(super) struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub const fn new() -> Self {
        Self {
            data: Vec::new(),
            start: 0,
            len: 0,
        }
    }

    pub fn zeros(len: usize) -> Self {
        let mut new = Self::new();
        new.resize_zeros(len);
        new
    }

    /// At least `len` values of any content.
    pub fn grow(&mut self, len: usize) {
        if self.len < len {
            self.resize_zeros(len);
        }
    }

    /// `len` zeros.
    pub fn resize_zeros(&mut self, len: usize) {
        let capacity = len + LINE_BYTES / size_of::<T>();
        if self.data.len() < capacity {
            // Not resized in place: the old values need no copy.
            self.data = vec![T::default(); capacity];
            self.start = self
                .data
                .as_ptr()
                .align_offset(LINE_BYTES)
                .min(capacity - len);
        } else {
            self.data[self.start..self.start + len].fill(T::default());
        }
        self.len = len;
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}
