//! Thin wrappers of what has no safe form in the libraries used here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use clawsec_init::wire;
use nix::sys::resource::{Resource, getrlimit};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::io::unix::AsyncFd;

/// Our own hard limit, by its OCI name.
pub fn hard_limit(name: &str) -> Option<u64> {
    let resource = match name {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    };
    getrlimit(resource).ok().map(|(_, hard)| hard)
}

/// Makes a detached mount read-only, and symbolic links in it unusable (mount_setattr(2), 5.12).
pub fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSYMFOLLOW,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, the structure lives through the call and its true size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Orphans in the process's subtree become its children, so that the exit status of what runc leaves behind is ours.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(io::Error::from)
}

/// How a child ended: (exit code or 128 + signal, signal). `None` while it runs.
pub fn reap(pidfd: &OwnedFd) -> io::Result<Option<(i32, i32)>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let Some(status) = waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(pidfd)), options)? else {
        return Ok(None);
    };
    Ok(Some(outcome(&status)))
}

fn outcome(status: &WaitIdStatus) -> (i32, i32) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, 0),
        (None, Some(signal)) => (128 + signal, signal),
        (None, None) => (128 + libc::SIGKILL, libc::SIGKILL),
    }
}

/// Gives a command's process this descriptor as the shim's socket.
pub fn pass_as_shim_socket(command: &mut tokio::process::Command, socket: RawFd) {
    let give = move || {
        // SAFETY: both take no pointers. dup2 of a number onto itself keeps close-on-exec, hence fcntl.
        let result = unsafe {
            if socket == wire::FD {
                libc::fcntl(socket, libc::F_SETFD, 0)
            } else {
                libc::dup2(socket, wire::FD)
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(give) };
}

/// True when this kernel knows these flags of `seccomp(SECCOMP_SET_MODE_FILTER)`: with them, a null program is a bad
/// address; without, a bad argument.
pub fn seccomp_flags_known(flags: libc::c_ulong) -> bool {
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    // SAFETY: the kernel refuses a null program before it changes anything.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
pub const WAIT_KILLABLE: libc::c_ulong = 1 << 3 | 1 << 5;

/// Puts a process before all others of ordinary priority; its children start with the ordinary one.
pub fn hasten(pid: u32) -> io::Result<()> {
    // struct sched_attr, SCHED_ATTR_SIZE_VER0: size, policy (SCHED_OTHER), flags (64 bits), nice, 6 words for others.
    const SCHED_FLAG_RESET_ON_FORK: u32 = 1;
    let attributes: [u32; 12] =
        [48, 0, SCHED_FLAG_RESET_ON_FORK, 0, (-20i32).cast_unsigned(), 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the structure has the size that its first field says; the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, attributes.as_ptr(), 0u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Installs a filter on the calling thread alone, for good.
pub fn install_filter_on_this_thread(packed: &[u64]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = packed
        .iter()
        .map(|&instruction| {
            let (code, jt, jf, k) = wire::unpack_instruction(instruction);
            libc::sock_filter { code, jt, jf, k }
        })
        .collect();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points at `filter`, whose length it has; the kernel copies it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, 1 as libc::c_ulong, 0 as libc::c_ulong, &program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child that only waits for a signal, and dies with us. For proving a kill; the caller reaps it.
pub fn fork_sleeper() -> io::Result<i32> {
    // SAFETY: the child only makes async-signal-safe calls and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // It must not keep open what says that we live: the shims' sockets.
            // SAFETY: nothing of what owned the descriptors runs in this process.
            unsafe {
                libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            loop {
                // SAFETY: takes no pointers.
                unsafe { libc::pause() };
            }
        }
        pid => Ok(pid),
    }
}

/// A child that does `work` when a byte comes from `wait`, and ends with its code; at an end of file it does nothing.
/// `work` may only make async-signal-safe calls and touch memory that was there before. The caller reaps it.
pub fn fork_worker(wait: BorrowedFd<'_>, work: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the child only makes async-signal-safe calls and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let mut byte = 0u8;
            // SAFETY: nothing of what owned the descriptors runs in this process, and the shims' sockets must not be
            // kept open here; `byte` is valid for one byte; _exit does not return.
            unsafe {
                libc::dup2(wait.as_raw_fd(), 0);
                libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let told = libc::read(0, (&raw mut byte).cast(), 1) == 1;
                libc::_exit(if told { work() } else { 125 })
            }
        }
        pid => Ok(pid),
    }
}

/// For [`fork_worker`]: forks once. 0, or the error's number.
pub fn fork_once() -> i32 {
    // SAFETY: the child ends at once; no status is asked for.
    unsafe {
        match libc::fork() {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
            0 => libc::_exit(0),
            pid => {
                libc::waitpid(pid, std::ptr::null_mut(), 0);
                0
            }
        }
    }
}

/// For [`fork_worker`]: takes memory. 0, or ENOMEM.
///
/// First as a BPF array, which the kernel refuses beyond a limit without killing anybody and without a report in its log;
/// only where BPF's memory is not charged (`cgroup.memory=nobpf`), by pages of its own, for which it is killed.
pub fn take_memory(bytes: u32) -> i32 {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // union bpf_attr: map_type, key_size, value_size, max_entries, and zeros.
    let attributes = [BPF_MAP_TYPE_ARRAY, 4, bytes, 1, 0, 0, 0, 0];
    // SAFETY: the kernel reads as many bytes as are said.
    let map = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes))
    };
    if map < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM) {
        return libc::ENOMEM;
    }
    let length = bytes as usize;
    // SAFETY: a new mapping of its own, written within its length.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages =
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if pages == libc::MAP_FAILED {
            return libc::EIO;
        }
        for offset in (0..length).step_by(4096) {
            pages.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    0
}

/// For [`fork_worker`]: never rests, until it is killed or some seconds are over.
pub fn spin() -> i32 {
    let begin = std::time::Instant::now();
    while begin.elapsed().as_secs() < 20 {
        std::hint::spin_loop();
    }
    0
}

/// Sets a terminal's size.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(io::Error::from)
}

/// A descriptor that the runtime watches. Must be called within the runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which is after its deregistration.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
