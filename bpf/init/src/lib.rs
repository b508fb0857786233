//! What the init shim and the loader share: the protocol on descriptor 3, and Landlock.
//!
//! The shim is one static program with two jobs, told apart by things that whoever runs it cannot choose:
//! - as pid 1 it is the sandbox's init: it gets its [`wire::Spec`] from the loader, restricts itself for good,
//!   and runs the main command, and beside it what the loader is asked to run (`clawsec exec`);
//! - at the path of a *subject's entry* (`/.clawsec/<name>`, known by the mount it was run through) it adds that
//!   entry's Landlock layer and runs the entry's program.
//!
//! Build it statically, because the sandbox's libraries are not its own:
//!
//! ```sh
//! cd bpf && RUSTFLAGS='-C target-feature=+crt-static -C panic=abort' cargo build --release -p clawsec-init \
//!     --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir target/static
//! # -> target/static/<host>/release/clawsec-init
//! ```
//! (`--target` keeps the flags away from build scripts and procedural macros.)

pub mod landlock;
pub mod walk;
pub mod wire;
