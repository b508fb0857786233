//! One thin wrapper per system call that no dependency has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// `PIDFD_THREAD` of linux/pidfd.h (6.9): the descriptor means one thread.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
/// `PIDFD_INFO_CGROUPID` of linux/pidfd.h.
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;

/// `struct pidfd_info` of linux/pidfd.h (6.13), its first published size.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct PidfdInfo {
    mask: u64,
    pub cgroup_id: u64,
    pub pid: u32,
    pub tgid: u32,
    pub ppid: u32,
    pub ruid: u32,
    pub rgid: u32,
    pub euid: u32,
    pub egid: u32,
    pub suid: u32,
    pub sgid: u32,
    pub fsuid: u32,
    pub fsgid: u32,
    pub exit_code: i32,
}

/// True when calls of a filter can wait for their answer whatever signal comes (Linux 5.19). With flags that it knows the
/// kernel finds a null program to be a bad address, else a bad argument.
pub fn knows_killable_waits() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel refuses a null program before it changes anything.
    let result = unsafe {
        let none = std::ptr::null::<libc::sock_fprog>();
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none)
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

mod ioctl {
    nix::ioctl_read!(ns_get_mntns_id, 0xb7, 5, u64);
    nix::ioctl_readwrite!(pidfd_get_info, 0xff, 11, super::PidfdInfo);
    nix::ioctl_readwrite!(notif_recv, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(notif_send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(notif_id_valid, b'!', 2, u64);
    nix::ioctl_write_ptr!(notif_addfd, b'!', 3, libc::seccomp_notif_addfd);
    nix::ioctl_write_int_bad!(notif_set_flags, nix::request_code_write!(b'!', 4, size_of::<u64>()));
}

/// Microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// Nanoseconds of CLOCK_BOOTTIME: the clock of events and exec ids.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Microseconds since the Unix epoch at a moment of CLOCK_BOOTTIME that is not long ago.
pub fn us_of_boot_ns(moment: u64) -> u64 {
    now_us().saturating_sub(boot_ns().saturating_sub(moment) / 1000)
}

/// A descriptor for one thread, by its id in this process's pid namespace.
pub fn pidfd_open_thread(tid: i32) -> io::Result<OwnedFd> {
    pidfd_open(tid, PIDFD_THREAD)
}

/// A descriptor for a process.
pub fn pidfd_open_process(pid: i32) -> io::Result<OwnedFd> {
    pidfd_open(pid, 0)
}

fn pidfd_open(pid: i32, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Ids and cgroup of the task behind a pidfd (`PIDFD_GET_INFO`). `Unsupported` where the kernel has no cgroup id.
pub fn pidfd_info(pidfd: BorrowedFd<'_>) -> io::Result<PidfdInfo> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_CGROUPID, ..Default::default() };
    // SAFETY: the structure has the size that the request number says and lives during the call.
    unsafe { ioctl::pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) }?;
    if info.mask & PIDFD_INFO_CGROUPID == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info)
}

/// The id of a mount namespace, given its file (`NS_GET_MNTNS_ID` of linux/nsfs.h, 6.11). No other one has it until the
/// next boot, as it may have the inode number.
pub fn mount_namespace_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0;
    // SAFETY: the number lives during the call.
    unsafe { ioctl::ns_get_mntns_id(file.as_raw_fd(), &raw mut id) }?;
    Ok(id)
}

/// A copy of another process's descriptor (`pidfd_getfd`).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Receives one notification (`SECCOMP_IOCTL_NOTIF_RECV`). Blocks.
pub fn seccomp_receive(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: plain integers; the kernel demands zeros.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure has the size that the request number says and lives during the call.
    unsafe { ioctl::notif_recv(listener.as_raw_fd(), &raw mut notification) }?;
    Ok(notification)
}

/// Answers one notification (`SECCOMP_IOCTL_NOTIF_SEND`).
pub fn seccomp_send(listener: BorrowedFd<'_>, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: the structure has the size that the request number says and lives during the call.
    unsafe { ioctl::notif_send(listener.as_raw_fd(), &raw mut response) }?;
    Ok(())
}

/// Whether the notification still waits for its answer (`SECCOMP_IOCTL_NOTIF_ID_VALID`).
pub fn seccomp_id_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the number lives during the call.
    unsafe { ioctl::notif_id_valid(listener.as_raw_fd(), &raw const id) }.is_ok()
}

/// Puts a descriptor into the caller and answers with its number, in one step (`SECCOMP_ADDFD_FLAG_SEND`).
pub fn seccomp_add_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    source: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: source.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: the structure has the size that the request number says and lives during the call.
    unsafe { ioctl::notif_addfd(listener.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Asks for wake-ups on the caller's cpu (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, 6.6). Only speed depends on it.
pub fn seccomp_wake_on_same_cpu(listener: impl AsFd) -> io::Result<()> {
    const SYNC_WAKE_UP: i32 = 1;
    // SAFETY: the argument is a number, not an address.
    unsafe { ioctl::notif_set_flags(listener.as_fd().as_raw_fd(), SYNC_WAKE_UP) }?;
    Ok(())
}

/// What `waitpid` said of one tracee of the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceeChange {
    /// It ended, with the status as wait(2) encodes it.
    Ended,
    /// A ptrace event stop (`PTRACE_EVENT_*`).
    Event(i32),
    /// Any other stop, with its signal.
    Signal(i32),
}

/// The next change of this tracee of the *calling thread* (`__WNOTHREAD`), without waiting: `None` when there is none
/// yet. An error means that it is no tracee of this thread any more.
pub fn tracee_change(tid: i32) -> io::Result<Option<TraceeChange>> {
    let mut status = 0;
    // SAFETY: the status lives during the call.
    match unsafe { libc::waitpid(tid, &raw mut status, libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD) } {
        0 => return Ok(None),
        -1 => return Err(io::Error::last_os_error()),
        _ => {}
    }
    let change = match (libc::WIFSTOPPED(status), status >> 16) {
        (false, _) => TraceeChange::Ended,
        (true, 0) => TraceeChange::Signal(libc::WSTOPSIG(status)),
        (true, event) => TraceeChange::Event(event),
    };
    Ok(Some(change))
}

/// Puts a descriptor into a caller that waits, at its lowest free number, which is returned. It stays open at an exec.
pub fn seccomp_put_fd(listener: BorrowedFd<'_>, id: u64, source: BorrowedFd<'_>) -> io::Result<i32> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: 0,
        srcfd: source.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: 0,
    };
    // SAFETY: the structure has the size that the request number says and lives during the call.
    Ok(unsafe { ioctl::notif_addfd(listener.as_raw_fd(), &raw const request) }?)
}

/// Waits until a tracee of the *calling thread* changes, `tid` or any (-1); gives its id and status. ECHILD: there is
/// none (any more).
pub fn wait_for_tracee(tid: i32) -> io::Result<(i32, i32)> {
    wait_for(tid, 0)
}

/// The same without waiting: `None` when none has changed.
pub fn look_at_tracee(tid: i32) -> io::Result<Option<(i32, i32)>> {
    wait_for(tid, libc::WNOHANG).map(|(tid, status)| (tid != 0).then_some((tid, status)))
}

fn wait_for(tid: i32, flags: i32) -> io::Result<(i32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: the status lives during the call.
        let found = unsafe { libc::waitpid(tid, &raw mut status, flags | libc::__WALL | libc::__WNOTHREAD) };
        let error = io::Error::last_os_error();
        match found {
            -1 if error.kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(error),
            found => return Ok((found, status)),
        }
    }
}

/// How a stopped tracee goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoOn {
    /// To the beginning or the end of its next system call, with this signal (0: none).
    ToSystemCall(i32),
    /// Stays in its group stop, and is heard of when it leaves it.
    Listen,
    /// Untraced, with this signal (0: none).
    Untraced(i32),
}

/// Lets a stopped tracee of the calling thread go on.
pub fn tracee_go_on(tid: i32, how: GoOn) -> io::Result<()> {
    let (request, signal) = match how {
        GoOn::ToSystemCall(signal) => (libc::PTRACE_SYSCALL, signal),
        GoOn::Listen => (libc::PTRACE_LISTEN, 0),
        GoOn::Untraced(signal) => (libc::PTRACE_DETACH, signal),
    };
    // SAFETY: none of the three requests takes an address; the signal is a number.
    let result = unsafe { libc::ptrace(request, tid, 0usize, signal as usize) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where a tracee stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCall {
    /// At the beginning of a system call.
    Beginning { number: i64, args: [u64; 6] },
    /// At its end, with its result, or the error as a negative number.
    End { result: i64 },
    /// At neither.
    None,
}

/// The system call at which a stopped tracee of the calling thread stands (`PTRACE_GET_SYSCALL_INFO`, 5.3).
pub fn system_call(tid: i32) -> io::Result<SystemCall> {
    let info = nix::sys::ptrace::syscall_info(nix::unistd::Pid::from_raw(tid))?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that this member of the union is there.
            let entry = unsafe { info.u.entry };
            SystemCall::Beginning { number: entry.nr as i64, args: entry.args }
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: `op` says that this member of the union is there.
            SystemCall::End { result: unsafe { info.u.exit.sval } }
        }
        _ => SystemCall::None,
    })
}

/// Sends a signal to one thread.
pub fn signal_thread(pid: i32, tid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
