//! Why the gate could not be set up.

use std::io;
use std::path::PathBuf;

/// An error of setting up the gate or a scope. Errors of a single exec are denials instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The BPF programs could not be loaded, attached or pinned.
    #[error("the exec verification cannot be {what}: {source}")]
    Bpf {
        /// What was tried.
        what: &'static str,
        /// What libbpf said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The BPF object and this program do not agree about a map.
    #[error(
        "the exec verification has a map `{0}` of another shape than the loader expects; build both again"
    )]
    Abi(&'static str),
    /// A folder of pins could not be made or cleaned.
    #[error("{path}: {source}; is a bpf file system mounted there?")]
    Pin {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Any other operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A request that cannot be carried out as it is.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    pub(crate) fn bpf(what: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Self {
        move |source| Self::Bpf { what, source }
    }
}
