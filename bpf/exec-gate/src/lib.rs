//! Decides every exec of a sandbox.
pub mod notify;
mod sys;
