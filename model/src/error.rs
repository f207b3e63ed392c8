//! One error type for the crate: what is wrong, where, and what was expected.

use std::path::PathBuf;

/// What sort of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file could not be read.
    Io,
    /// A file is not what its name says, or contradicts itself.
    Format,
    /// A setting is missing or has a value that the model cannot have.
    Config,
    /// A tensor is missing, unknown, or has the wrong shape or type.
    Tensor,
    /// The tokenizer does not fit the model.
    Tokenizer,
    /// The input cannot be used: empty, too short, too long.
    Input,
    /// The memory budget or another limit is reached; try again later.
    Busy,
    /// Arithmetic failed: out of memory, an unsupported operation.
    Compute,
}

/// Errors of the model crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Config {
        path: PathBuf,
        key: String,
        expected: String,
        found: String,
    },
    #[error("{file}: tensor {tensor}: expected shape {expected:?}, found no such tensor")]
    MissingTensor {
        file: String,
        tensor: String,
        expected: Vec<usize>,
    },
    #[error("{file}: tensor {tensor}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        file: String,
        tensor: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    #[error("{file}: tensor {tensor}: expected type {expected}, found {found}")]
    TensorDType {
        file: String,
        tensor: String,
        expected: String,
        found: String,
    },
    #[error(
        "{file}: tensor {tensor}: expected one of the model's tensors, found an unknown name{}",
        more(*others)
    )]
    UnknownTensor {
        file: String,
        tensor: String,
        others: usize,
    },
    #[error("{}: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error("{0}")]
    Input(String),
    #[error("the prompt needs {needed} positions, the model has {available}: shorten it")]
    TooLong { needed: usize, available: usize },
    #[error("{0}")]
    Busy(String),
    #[error(transparent)]
    Compute(#[from] candle_core::Error),
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    }
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Format { .. } => ErrorKind::Format,
            Self::Config { .. } => ErrorKind::Config,
            Self::MissingTensor { .. }
            | Self::TensorShape { .. }
            | Self::TensorDType { .. }
            | Self::UnknownTensor { .. } => ErrorKind::Tensor,
            Self::Tokenizer { .. } => ErrorKind::Tokenizer,
            Self::Input(_) | Self::TooLong { .. } => ErrorKind::Input,
            Self::Busy(_) => ErrorKind::Busy,
            Self::Compute(_) => ErrorKind::Compute,
        }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Format {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn config(
        path: impl Into<PathBuf>,
        key: impl Into<String>,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Config {
            path: path.into(),
            key: key.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Reads a whole file, naming it in the error.
pub(crate) fn read_file(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}
