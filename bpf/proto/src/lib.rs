//! Rust types of the `clawsec.v1` contract, generated from `proto/`; the comments there are the documentation.
#![allow(missing_docs, clippy::all)]

tonic::include_proto!("clawsec.v1");
