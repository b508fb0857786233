//! Decides every exec of a sandbox, and sees to it that what was decided about is what runs.
//!
//! A call of execve or execveat arrives as a seccomp notification ([`notify`]). The gate reads it from the caller, finds
//! the file that the kernel will load ([`resolve`], [`script`]), and uses the policy's table or a cached verdict, or asks.
//! Then:
//! - **deny**: the call fails with EACCES, and a line on the caller's standard error says why;
//! - **allow**: the file and a keyed hash of the arguments go into a BPF map, for one use by this thread, and the call
//!   goes on. What the gate read could have been changed since. So a BPF program at `sched_process_exec` compares what
//!   was really loaded, and kills an image that is something else, or that nobody approved, before its first
//!   instruction; where the kernel has BPF-LSM, another program refuses such an exec before that ([`layers`]);
//! - **hold**: the same, but the new image is stopped at its exec event, by ptrace, until somebody decides;
//! - **allow, into another subject**: a hold that the gate answers itself. The process is moved to the subject's cgroup
//!   while its new image stands: an exec that fails moves nobody, and no other thread runs there;
//! - **a script that was decided about**, and that the sandbox could change: its interpreter is stopped in the same way,
//!   and followed until it has got a sealed copy in place of the script.
//!
//! So a mistake of the gate about the caller's memory or file system costs a process its life, and permits nothing.
//!
//! Whoever embeds the gate must know:
//! - A seccomp filter must notify both system calls, for the native architecture, and kill foreign ones.
//! - No thread of the process may wait for any child (`waitpid(-1)`) without `__WNOTHREAD`, nor, before it has ended,
//!   for a child that is a process of a sandbox: such a wait takes the stops of holds and entries. A pidfd tells.
//! - A direct child of the process that dies while it is held is reaped by the gate. Sandboxes have their own init.
//! - The gate opens the beginning of executables for reading, through the sandbox's own mounts. A fanotify group of
//!   the same process must let its own process pass.

mod again;
mod asking;
mod at_once;
mod bound;
mod bpf;
mod by_hand;
mod cache;
mod copies;
mod digest;
mod error;
mod facts;
pub mod file;
mod follow;
mod gate;
mod grip;
mod handler;
mod handover;
mod hold;
mod image;
mod interpreter;
mod length;
mod lineage;
pub mod memory;
pub mod notify;
mod observe;
mod opens;
mod operand;
mod operand_file;
mod operand_node;
mod order;
mod pending;
mod policy;
mod probe;
mod question;
mod reason;
mod remote;
pub mod resolve;
pub mod script;
mod seen;
mod sys;
mod table;
pub mod tracee;
mod tracer;
mod turn;
mod wait;
mod walk;

pub use bpf::Layers;
pub use bpf::abi::Counters;
pub use error::Error;
pub use gate::ExecGate;
pub use policy::ExecPolicy;
pub use probe::{layers, probe};
pub use table::TableError;
