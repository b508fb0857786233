//! Decides every exec of a sandbox.
mod bpf;
mod error;
pub mod file;
pub mod notify;
pub mod resolve;
pub mod script;
mod sys;
pub mod tracee;
pub use error::Error;
