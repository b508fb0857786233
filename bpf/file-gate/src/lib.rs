//! The file gate: opens of guarded paths that must be asked about.
//!
//! A guarded path is a mount of its own in the sandbox (the compiler sees to it), so a fanotify mark on that mount
//! sees every open through it and nothing else. The kernel stops the opener until the gate answers; it does not tell
//! whether the open is for reading or writing (fanotify(7)).
//!
//! What happens when the loader dies: the kernel lets pending and later opens through as soon as the last descriptor
//! of a group is closed. The sandbox's PID 1 therefore keeps one ([`SandboxFiles::keeper`]), kills the sandbox when its
//! connection to the loader ends, and lets go only when nothing else is left.

mod cache;
mod gate;
mod group;
mod probe;

pub use gate::{FileGate, FileGateError, SandboxFiles};
pub use probe::probe;
