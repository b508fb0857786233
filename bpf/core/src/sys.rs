//! Thin wrappers of single system calls that more than one gate needs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// A descriptor for a process, pidfd_open(2). It polls readable when the process has ended.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a new descriptor or -1; it touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("pidfd_open returned no descriptor number"))?;
    // SAFETY: the kernel made this descriptor just now, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers a descriptor with the runtime. To be called from a task of the runtime.
///
/// # Errors
/// EPERM for descriptors that cannot be polled, such as regular files.
pub fn watch<T: AsFd + AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` promises that `descriptor` owns or borrows an open descriptor for as long as it lives, and
    // `AsyncFd` keeps `descriptor` until it has deregistered it; both traits of our types name the same number.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
