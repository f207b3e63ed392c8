/// What sort of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting has a value that it cannot have.
    Settings,
    /// A queue or another limit is full; try again later.
    Busy,
    /// The room, or the engine, is over.
    Closed,
    /// The model.
    Model,
    /// The operating system gave no thread.
    Thread,
}

/// Errors of engine and rooms.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Settings(String),
    #[error("{waiting} requests wait for the engine already: try again later")]
    QueueFull { waiting: usize },
    #[error("{rooms} rooms are open on this model already: close one, or raise the limit")]
    TooManyRooms { rooms: usize },
    #[error("the room failed: {0}")]
    RoomFailed(String),
    #[error("the engine has stopped")]
    Stopped,
    #[error(transparent)]
    Model(#[from] vita_model::Error),
    #[error("the engine's thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) => ErrorKind::Settings,
            Self::QueueFull { .. } | Self::TooManyRooms { .. } => ErrorKind::Busy,
            Self::RoomFailed(_) | Self::Stopped => ErrorKind::Closed,
            Self::Model(_) => ErrorKind::Model,
            Self::Thread(_) => ErrorKind::Thread,
        }
    }
}
