//! The Rust side of `bpf/exec_gate.h`.

use std::fmt;

/// Longest argv, terminating zeros included, that the program compares.
pub const ARGV_MAX: usize = 128 * 1024;
/// Longest environment, terminating zeros included, that an approval can be bound to.
pub const ENVIRONMENT_MAX: usize = 128 * 1024;
/// Deepest cgroup that can be a scope.
pub const LEVEL_MAX: usize = 16;
/// Size of `struct clawsec_event`.
pub const EVENT_SIZE: usize = 88;
/// Size of `name` of `struct clawsec_refusal`.
const NAME_SIZE: usize = 256;
/// Size of `struct clawsec_approval`.
pub const APPROVAL_SIZE: usize = 88;
/// Size of `struct clawsec_scope`.
pub const SCOPE_SIZE: usize = 8;
/// Number of counters.
pub const COUNTERS: u32 = 5;

/// Bytes as the program compares them: keyed hash and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    pub hash: u64,
    pub length: u64,
}

/// A working directory as the program compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folder {
    pub inode: u64,
    pub device: u32,
    /// Number of the mount that it is reached by.
    pub mount: i32,
}

/// Value of the map `approvals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    pub inode: u64,
    pub argv_hash: u64,
    pub argv_length: u64,
    /// 0: any.
    pub cgroup: u64,
    pub exec: u64,
    pub device: u32,
    pub argc: u32,
    /// The environment that the image must have; `None`: any.
    pub environment: Option<Hashed>,
    /// The working directory that it must have, for itself alone; `None`: any.
    pub cwd: Option<Folder>,
}

/// `enum clawsec_bound`.
const BOUND_ENVIRONMENT: u32 = 1;
const BOUND_CWD: u32 = 2;

impl Approval {
    pub fn to_bytes(self) -> [u8; APPROVAL_SIZE] {
        let mut bytes = [0; APPROVAL_SIZE];
        let words = [self.inode, self.argv_hash, self.argv_length, self.cgroup, self.exec];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[40..44].copy_from_slice(&self.device.to_ne_bytes());
        bytes[44..48].copy_from_slice(&self.argc.to_ne_bytes());
        let mut bound = 0;
        if let Some(environment) = self.environment {
            bound |= BOUND_ENVIRONMENT;
            bytes[48..56].copy_from_slice(&environment.hash.to_ne_bytes());
            bytes[56..64].copy_from_slice(&environment.length.to_ne_bytes());
        }
        if let Some(cwd) = self.cwd {
            bound |= BOUND_CWD;
            bytes[64..72].copy_from_slice(&cwd.inode.to_ne_bytes());
            bytes[72..76].copy_from_slice(&cwd.device.to_ne_bytes());
            bytes[76..80].copy_from_slice(&cwd.mount.to_ne_bytes());
        }
        bytes[80..84].copy_from_slice(&bound.to_ne_bytes());
        bytes
    }
}

/// What the program found at an exec (`enum clawsec_exec_result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecResult {
    Verified,
    NoApproval,
    OtherFile,
    OtherArgc,
    OtherArgvLength,
    OtherArgv,
    ArgvTooLong,
    ArgvUnreadable,
    OtherCgroup,
    OtherEnvironment,
    EnvironmentUnreadable,
    OtherCwd,
    SharedCwd,
    NoChain,
    /// A number that this version does not know. Never a permission.
    Unknown(u32),
}

impl From<u32> for ExecResult {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Verified,
            2 => Self::NoApproval,
            3 => Self::OtherFile,
            4 => Self::OtherArgc,
            5 => Self::OtherArgvLength,
            6 => Self::OtherArgv,
            7 => Self::ArgvTooLong,
            8 => Self::ArgvUnreadable,
            9 => Self::OtherCgroup,
            10 => Self::OtherEnvironment,
            11 => Self::EnvironmentUnreadable,
            12 => Self::OtherCwd,
            13 => Self::SharedCwd,
            20 => Self::NoChain,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for ExecResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "it is what was approved",
            Self::NoApproval => "nothing was approved for this thread",
            Self::OtherFile => "the kernel loaded another file than the approved one",
            Self::OtherArgc => "it has another number of arguments than the approved one",
            Self::OtherArgvLength | Self::OtherArgv => "its arguments are not the approved ones",
            Self::ArgvTooLong => "its arguments are longer than can be compared",
            Self::ArgvUnreadable => "its arguments could not be read",
            Self::OtherCgroup => "its process is not in the subject that was decided about",
            Self::OtherEnvironment => "its environment is not the one that was decided about",
            Self::EnvironmentUnreadable => "its environment could not be read",
            Self::OtherCwd => "its working directory is not the one that was decided about",
            Self::SharedCwd => "its working directory is decided about, and another process could change it",
            Self::NoChain => "an approval without its files was found",
            Self::Unknown(number) => return write!(f, "the verification gave the unknown result {number}"),
        })
    }
}

/// An entry of the ring buffer (`struct clawsec_event`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub process: u32,
    pub uid: u32,
    pub gid: u32,
    pub sandbox: u32,
    pub cgroup: u64,
    /// Number of the exec: approved now, or of the image that ended. 0: none.
    pub exec: u64,
    pub comm: String,
}

/// What an [`Event`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// An image was loaded.
    Exec {
        result: ExecResult,
        /// The thread that called execve, under the id it had then.
        thread: u32,
        parent_exec: u64,
        device: u32,
        inode: u64,
    },
    /// An image was not loaded: BPF-LSM refused it at this file.
    Refused {
        result: ExecResult,
        thread: u32,
        device: u32,
        inode: u64,
        /// What execve was called with, up to 255 bytes.
        name: String,
    },
    /// A process ended, with this wait status.
    Exit { status: i32 },
}

impl Event {
    /// `None` for bytes that are no event.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let kind = match u32_at(0)? {
            1 => EventKind::Exec {
                result: u32_at(4)?.into(),
                thread: u32_at(8)?,
                parent_exec: u64_at(48)?,
                inode: u64_at(56)?,
                device: u32_at(64)?,
            },
            3 => EventKind::Refused {
                result: u32_at(4)?.into(),
                thread: u32_at(8)?,
                inode: u64_at(56)?,
                device: u32_at(64)?,
                name: text(bytes.get(EVENT_SIZE..EVENT_SIZE + NAME_SIZE)?),
            },
            2 => EventKind::Exit { status: u32_at(28)?.cast_signed() },
            _ => return None,
        };
        let comm = bytes.get(72..88)?;
        Some(Self {
            kind,
            process: u32_at(12)?,
            uid: u32_at(16)?,
            gid: u32_at(20)?,
            sandbox: u32_at(24)?,
            cgroup: u64_at(32)?,
            exec: u64_at(40)?,
            comm: text(comm),
        })
    }
}

// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the program counts (`enum clawsec_counter`), since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Execs that were what was approved.
    pub verified: u64,
    /// Images that were killed before their first instruction.
    pub killed: u64,
    /// Events that were lost because the ring buffer was full.
    pub ring_full: u64,
    /// Images that could *not* be killed. Anything but 0 means that a sandbox must be killed.
    pub kill_failed: u64,
    /// Execs whose lineage was lost.
    pub images_full: u64,
    /// Runs of a program that the kernel skipped because it was running on the cpu already.
    pub missed: u64,
    /// Execs that BPF-LSM refused before the image was replaced.
    pub refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_an_event_is_refused() {
        let mut bytes = [0u8; EVENT_SIZE];
        bytes[0] = 1;
        assert!(Event::parse(&bytes).is_some());
        for length in 0..EVENT_SIZE {
            assert_eq!(Event::parse(&bytes[..length]), None, "{length} bytes");
        }
        bytes[0] = 3;
        assert_eq!(Event::parse(&bytes), None, "no name follows");
        let mut refused = bytes.to_vec();
        refused.resize(EVENT_SIZE + NAME_SIZE, 0);
        refused[EVENT_SIZE..EVENT_SIZE + 4].copy_from_slice(b"name");
        let parsed = Event::parse(&refused).map(|event| event.kind);
        assert!(matches!(parsed, Some(EventKind::Refused { name, .. }) if name == "name"));
        bytes[0] = 4;
        assert_eq!(Event::parse(&bytes), None);
    }

    #[test]
    fn zero_is_no_permission() {
        assert_eq!(ExecResult::from(0), ExecResult::Unknown(0));
        assert_eq!(ExecResult::from(1), ExecResult::Verified);
    }
}
