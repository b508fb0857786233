//! The life of a sandbox: bundle, cgroups, runc, secrets, input and output, kill, recovery. No policy, no gate.
//!
//! # Use
//! [`Sandboxes::open`] once (it cleans up after an earlier loader), then [`Sandboxes::create`], [`Sandboxes::start`],
//! [`Sandboxes::wait`], [`Sandboxes::stop`], [`Sandboxes::kill`]. All of them run to their end even when the caller's
//! future is dropped, so a client that hangs up leaves nothing half-made. The gates are wired by [`Hooks`].
//!
//! ```text
//! create  AppArmor profile loaded -> cgroups -> Hooks::prepare (netns, gates) -> runc create -> move to the first subject's cgroup
//!         -> secrets mounted -> Hooks::created (mounts can be marked)                        => CREATED
//! start   Hooks::approve_shim -> runc start -> shim: keeps what it must, Landlock, filter -> Hooks::listener_ready
//!         -> the main command                                                               => RUNNING
//! end     Hooks::network_cut -> secrets emptied -> SIGKILL -> nothing left -> everything removed
//!         -> Hooks::gone                                                                     => EXITED | KILLED
//! ```
//! A failure in create or start takes the last line too: there is one way to clean up, for a failed start, an exit, a
//! kill and a crash alike.
//!
//! # What it does to the process
//! It becomes a child subreaper, because the exit status of what `runc create` leaves behind goes to the nearest one.
//! Don't wait for children with `waitpid(-1)` in this process.

mod apparmor;
mod bundle;
mod cgroup;
mod command;
mod convert;
mod create;
mod engine;
mod error;
mod io;
mod layout;
mod lifecycle;
mod limits;
mod probe;
mod rootfs;
mod runc;
mod sandbox;
mod seccomp;
mod secrets;
mod shim;
mod sweep;
mod sys;
mod terminal;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use async_trait::async_trait;
pub use cgroup::{Cgroups, move_process};
use clawsec_core::{Scope, Without};
use clawsec_proto as pb;
pub use command::{Input as CommandInput, Joined, Request as CommandRequest, Unstarted};
pub use error::{Error, Result};
pub use io::{Attachment, Io, Output, TAIL};
pub use layout::{Layout, check_sandbox_name};
pub use lifecycle::Sandboxes;
pub use probe::{probe, probe_apparmor};
pub use sandbox::Sandbox;
pub use seccomp::{Filter, compile as compile_seccomp};

/// What a loader is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// E.g. `/run/clawsec`. One loader at a time: it is locked.
    pub runtime_dir: PathBuf,
    /// First 8 hex digits of the SHA-256 of the runtime folder's path.
    pub instance: String,
    /// The static init shim's program.
    pub shim: PathBuf,
    /// More folders of the host that no sandbox may have mounted, e.g. the state folder. The runtime folder is one.
    pub protected: Vec<PathBuf>,
    /// Mechanisms of the kernel that are left unused.
    pub without: Without,
}

/// What [`Hooks::prepare`] made.
#[derive(Debug, Clone)]
pub struct Network {
    /// File of the network namespace. When it is `Layout::netns(name)`, the clean-up unmounts and removes it.
    pub netns: PathBuf,
    /// The published ports, with the real host ports.
    pub publish: Vec<pb::PublishedPort>,
}

/// Where the gates are wired. An error of any of them ends the sandbox.
///
/// Each is called for one sandbox at a time in the order of the crate's documentation; `network_cut` can come at any
/// time and more than once. `gone` comes exactly once for each `prepare`, also for one that failed.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// The subjects' cgroups exist and are empty. Makes the network namespace and everything that must be in place
    /// before a process of the sandbox exists.
    async fn prepare(&self, scope: &Scope, request: &pb::CreateSandboxRequest) -> Result<Network>;

    /// runc's init stands still in the first subject's cgroup, with the sandbox's mounts made: `/proc/PID/root`.
    ///
    /// The descriptor, if any, is one that must stay open until nothing of the sandbox is left, even when the loader
    /// dies. The shim gets a copy before anything of the sandbox runs, and nothing else of the sandbox can reach it.
    async fn created(&self, scope: &Scope, init_pid: u32) -> Result<Option<OwnedFd>>;

    /// The next exec of `init_pid` is that of the shim: this file, with this argv. Nothing else of the sandbox can run.
    async fn approve_shim(&self, scope: &Scope, init_pid: u32, shim: &File, argv: &[&str]) -> Result<()>;

    /// The seccomp listener. When this returns, it must be served: the main command's exec comes next. Not called for
    /// a filter without `SCMP_ACT_NOTIFY`.
    async fn listener_ready(&self, scope: &Scope, init_pid: u32, listener: OwnedFd) -> Result<()>;

    /// Nothing of the sandbox may reach the network any more. It is given a second; then the kill goes on.
    async fn network_cut(&self, sandbox: &str);

    /// The sandbox has ended and is removed; gates can be taken down.
    async fn gone(&self, sandbox: &str);
}
