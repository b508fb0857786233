//! Landlock (7), exactly as asked or not at all.
//!
//! Raw system calls instead of a library's compatibility levels: a right that the kernel does not know must be a
//! refusal, never a smaller sandbox.
//!
//! What the paths of rules name is *granted*, so they are walked with [`crate::walk`].

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::walk::{Walk, open_owned_by_root_links};

/// Rights that mean something for a file that is no folder: execute, write, read, truncate, ioctl on a device.
const FILE_RIGHTS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;

/// What is denied, and what is granted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Smallest ABI that has every right used here. 0 together with no rights at all means no ruleset.
    pub abi: u32,
    /// `LANDLOCK_ACCESS_FS_*` bits that are denied unless a rule grants them.
    pub handled_access_fs: u64,
    /// `LANDLOCK_ACCESS_NET_*` bits that are denied.
    pub handled_access_net: u64,
    /// `LANDLOCK_SCOPE_*` bits.
    pub scoped: u64,
    /// What is granted.
    pub paths: Vec<PathRule>,
}

/// Rights below one path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// Absolute.
    pub path: String,
    /// `LANDLOCK_ACCESS_FS_*` bits. On a file that is no folder, rights that only folders have are left out.
    pub allowed_access: u64,
    /// Missing: skipped when true, else a refusal.
    pub optional: bool,
}

/// Why a ruleset was not applied. Some of it may be prepared, nothing of it is in force.
#[derive(Debug)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl Ruleset {
    /// True when nothing is handled: applying it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.handled_access_fs == 0 && self.handled_access_net == 0 && self.scoped == 0
    }

    /// Restricts the calling thread and its future children for good. The thread must have `no_new_privs`.
    ///
    /// # Errors
    /// A [`Refusal`] when anything of it is impossible here.
    pub fn restrict_self(&self) -> Result<(), Refusal> {
        if self.is_empty() {
            if self.paths.is_empty() {
                return Ok(());
            }
            return refuse("a Landlock ruleset grants paths but handles no right".to_owned());
        }
        let abi = abi();
        if abi < self.abi {
            return refuse(format!("Landlock ABI {} is needed, this kernel has {abi}", self.abi));
        }
        let ruleset = create_ruleset(self)
            .map_err(|errno| Refusal(format!("the kernel refused the Landlock rights asked for: {errno}")))?;
        for rule in &self.paths {
            add_path(&ruleset, rule)?;
        }
        restrict(&ruleset).map_err(|errno| Refusal(format!("Landlock could not be enforced: {errno}")))
    }
}

/// Highest ABI of this kernel; 0 without Landlock.
pub fn abi() -> u32 {
    // SAFETY: with a null attribute and the VERSION flag the call reads no memory.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

fn refuse<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal(why))
}

fn add_path(ruleset: &OwnedFd, rule: &PathRule) -> Result<(), Refusal> {
    let path = &rule.path;
    let target = match open_owned_by_root_links(Path::new(path)) {
        Ok(target) => target,
        Err(Walk::Os(Errno::NOENT)) if rule.optional => return Ok(()),
        Err(walk) => return refuse(format!("the Landlock path {path:?} cannot be granted: {walk}")),
    };
    let stat = fstat(&target).map_err(|errno| Refusal(format!("fstat of {path:?}: {errno}")))?;
    let allowed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => rule.allowed_access,
        _ => rule.allowed_access & FILE_RIGHTS,
    };
    if allowed == 0 {
        return refuse(format!("the Landlock rule for {path:?} grants nothing"));
    }
    path_beneath(ruleset, &target, allowed)
        .map_err(|errno| Refusal(format!("the kernel refused the Landlock rule for {path:?}: {errno}")))
}

/// `struct landlock_ruleset_attr` up to ABI 7. Older kernels accept the longer one when the rest is zero.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

fn create_ruleset(ruleset: &Ruleset) -> Result<OwnedFd, Errno> {
    let attr = RulesetAttr {
        handled_access_fs: ruleset.handled_access_fs,
        handled_access_net: ruleset.handled_access_net,
        scoped: ruleset.scoped,
    };
    // SAFETY: the attribute lives through the call and its true size is given.
    let fd =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &attr, size_of::<RulesetAttr>(), 0u32) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn path_beneath(ruleset: &OwnedFd, target: &OwnedFd, allowed_access: u64) -> Result<(), Errno> {
    let attr = PathBeneathAttr { allowed_access, parent_fd: target.as_raw_fd() };
    // SAFETY: the attribute and both descriptors live through the call; the kernel copies the attribute.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            RULE_PATH_BENEATH,
            &attr,
            0u32,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn restrict(ruleset: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_fd().as_raw_fd(), 0u32) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
