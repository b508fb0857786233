//! The Rust side of `bpf/exec_gate.h`.

use std::fmt;

/// Longest argv, terminating zeros included, that the program compares.
pub const ARGV_MAX: usize = 128 * 1024;
/// Longest environment, terminating zeros included, that an approval can be bound to.
pub const ENVIRONMENT_MAX: usize = 128 * 1024;
/// Deepest cgroup that can be a scope.
pub const LEVEL_MAX: usize = 16;
/// Size of `struct clawsec_approval`.
pub const APPROVAL_SIZE: usize = 88;
/// Size of `struct clawsec_scope`.
pub const SCOPE_SIZE: usize = 8;
/// Number of counters.
pub const COUNTERS: u32 = 6;
/// Size of `struct clawsec_image`.
pub const IMAGE_SIZE: usize = 24;

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

/// What a process runs (`struct clawsec_image`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningImage {
    /// Number of its exec.
    pub exec: u64,
    /// What the program found at that exec.
    pub result: ExecResult,
}

impl RunningImage {
    /// `None` for bytes that are no image.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let exec = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
        let result = u32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
        Some(Self { exec, result: result.into() })
    }
}

/// What the program counts (`enum clawsec_counter`), since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Execs that were what was approved.
    pub verified: u64,
    /// Images that were killed before their first instruction.
    pub killed: u64,
    /// Execs whose event was lost because the ring buffer was full.
    pub execs_lost: u64,
    /// Exits whose event was lost because the ring buffer was full.
    pub exits_lost: u64,
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
    fn zero_is_no_permission() {
        assert_eq!(ExecResult::from(0), ExecResult::Unknown(0));
        assert_eq!(ExecResult::from(1), ExecResult::Verified);
    }
}
