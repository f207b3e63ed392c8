use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the data could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The corpus says something that can't be used.
    #[error("corpus {}: {what}", file.display())]
    Corpus { file: PathBuf, what: String },
    /// A file or folder can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A program that makes sound or decodes it failed or is not there.
    #[error("{program}: {what}; `scripts/setup training` installs what making the data needs")]
    Tool { program: String, what: String },
    /// A WAV file can't be read or written.
    #[error(transparent)]
    Wav(#[from] vita_model::wav::Error),
    /// A picture can't be read or written.
    #[error("picture {}: {source}", path.display())]
    Picture {
        path: PathBuf,
        source: image::ImageError,
    },
}

impl Error {
    pub(super) fn corpus(file: &Path, what: impl Into<String>) -> Self {
        Self::Corpus {
            file: file.to_owned(),
            what: what.into(),
        }
    }

    pub(super) fn tool(program: &str, what: impl Into<String>) -> Self {
        Self::Tool {
            program: program.to_owned(),
            what: what.into(),
        }
    }

    /// For `map_err`: an I/O error with the path it is about.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
