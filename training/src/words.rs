//! Word error.

use crate::data::normalise;

/// Substituted, lost and added words, and the words of the reference. Case, punctuation and the way in
/// which numbers are written don't count.
pub fn word_errors(reference: &str, read: &str) -> (usize, usize) {
    let (reference, read) = (normalise(reference), normalise(read));
    let reference: Vec<&str> = reference.split_whitespace().collect();
    let read: Vec<&str> = read.split_whitespace().collect();
    let errors = strsim::generic_levenshtein(&reference, &read);
    (errors, reference.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_words() {
        assert_eq!(word_errors("The cat sat.", "the cat sat"), (0, 3));
        assert_eq!(word_errors("the cat sat", "a cat"), (2, 3));
        assert_eq!(word_errors("the cat", "the black cat sat"), (2, 2));
        assert_eq!(word_errors("twenty two", "22"), (0, 2));
        assert_eq!(word_errors("so", ""), (1, 1));
    }
}
