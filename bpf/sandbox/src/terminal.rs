//! A pseudo-terminal of a sandbox's own.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstatfs, open, openat, openat2};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use crate::error::{Context, Error, Result};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Makes a terminal in the sandbox of this process, as its user would see one that runc made: master and slave.
///
/// The folder is opened from outside without following any symbolic link, and is the kernel's own file system or
/// nothing; the slave is opened by its master, and by no path.
///
/// # Errors
/// [`Error::Precondition`] when the sandbox has no `/dev/pts`; the kernel's.
pub fn make(init_pid: u32, (uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd)> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{init_pid}/root"), folder, Mode::empty()).context("the sandbox's root")?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let none = || Error::Precondition("the sandbox has no /dev/pts, so no terminal can be made in it".into());
    let pts = openat2(&root, "dev/pts", folder, Mode::empty(), resolve).map_err(|_| none())?;
    if fstatfs(&pts).context("the sandbox's /dev/pts")?.f_type != DEVPTS {
        return Err(none());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(&pts, "ptmx", flags, Mode::empty()).context("a terminal")?;
    unlockpt(&master).context("the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).context("the terminal")?;
    // As runc does for its own: so that it can be opened by its name.
    fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context("the terminal's owner")?;
    fchmod(&slave, Mode::from_raw_mode(0o620)).context("the terminal's mode")?;
    Ok((master, slave))
}

/// Three descriptors of one terminal, for standard input, output and error.
///
/// # Errors
/// No more descriptors.
pub fn three_of(slave: OwnedFd) -> Result<[OwnedFd; 3]> {
    let slave = File::from(slave);
    let copy = || slave.as_fd().try_clone_to_owned().context("the terminal");
    Ok([copy()?, copy()?, copy()?])
}
