//! The loader: applies what the supervisor compiled, asks it for the rest, and kills.
//!
//! It knows no policy language. This crate serves the contract (`proto/clawsec/v1/loader.proto`) and wires the gates;
//! each gate is a crate of its own.

pub mod bpffs;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod conversation;
pub mod exec;
pub mod gates;
pub mod host;
pub mod input;
pub mod log;
pub mod process;
pub mod run;
pub mod server;
pub mod service;
pub mod socket;
pub mod spool;
pub mod streams;
pub mod tables;
pub mod validate;
