//! What goes wrong, sorted by what the caller can do about it.

use std::fmt::Display;

/// Each holds one sentence: what was refused, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be carried out as it is (gRPC `INVALID_ARGUMENT`).
    #[error("{0}")]
    Invalid(String),
    /// A live sandbox has the name (`ALREADY_EXISTS`).
    #[error("{0}")]
    Exists(String),
    /// No such sandbox (`NOT_FOUND`).
    #[error("{0}")]
    NotFound(String),
    /// Not in this state (`FAILED_PRECONDITION`).
    #[error("{0}")]
    Precondition(String),
    /// As many as there may be are there already (`RESOURCE_EXHAUSTED`).
    #[error("{0}")]
    Exhausted(String),
    /// This host did not do it (`INTERNAL`).
    #[error("{0}")]
    Failed(String),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns the errors of system calls into sentences.
pub(crate) trait Context<T> {
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Error::Failed(format!("{what}: {error}")))
    }
}

pub(crate) fn invalid<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(why.into()))
}
