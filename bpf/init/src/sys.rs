//! Thin wrappers of system calls that have no safe form in the libraries used here.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

use clawsec_init::wire::unpack_instruction;

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Installs a seccomp filter on this (only) thread. Returns the listener's descriptor when one was asked for.
pub fn install_filter(packed: &[u64], listener: bool, wait_killable: bool) -> io::Result<Option<RawFd>> {
    let mut filter: Vec<libc::sock_filter> = packed
        .iter()
        .map(|&instruction| {
            let (code, jt, jf, k) = unpack_instruction(instruction);
            libc::sock_filter { code, jt, jf, k }
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::other("the filter is too long"))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let mut flags = 0;
    if listener {
        flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    if wait_killable {
        flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    // SAFETY: `program` points at `filter`, whose length it has; both live through the call, which copies them.
    let result =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) })?;
    Ok(listener.then_some(result as RawFd))
}

/// Forks. Sound only because the shim has one thread; the child may do anything.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: no other thread exists, so no lock can be held by one that is not there in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Replaces the process image; returns only the error. A string with a NUL byte is `InvalidInput`.
pub fn execve(path: &CString, argv: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, environment) = (pointers(argv), pointers(environment));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Blocks these signals and gives a descriptor from which they are read. It is close-on-exec.
pub fn block_and_watch(signals: &[i32]) -> io::Result<RawFd> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes.
    unsafe { libc::sigemptyset(&mut set) };
    for &signal in signals {
        // SAFETY: `set` is initialised; a bad number is an error result that changes nothing.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    // SAFETY: `set` is initialised, no old set is asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) }.into())?;
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())?;
    Ok(fd as RawFd)
}

/// Next signal of a descriptor of [`block_and_watch`], if one is pending.
pub fn next_signal(fd: RawFd) -> Option<i32> {
    // SAFETY: plain data, overwritten by the kernel.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` is valid for `size` bytes.
    let read = unsafe { libc::read(fd, (&raw mut info).cast(), size) };
    (read == size as isize).then_some(info.ssi_signo as i32)
}

/// In a new child: no signal is blocked or ignored, as a fresh program expects it.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default disposition runs no code of ours; KILL, STOP and the C library's own are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: as in `block_and_watch`.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Makes the calling process's group the foreground one of the terminal on standard input.
pub fn take_terminal() -> io::Result<()> {
    // SAFETY: takes no pointers. SIGTTOU would stop a background group that calls it, so it is ignored meanwhile;
    // `reset_signals` comes afterwards.
    unsafe {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        check(libc::tcsetpgrp(0, libc::getpgrp()).into()).map(drop)
    }
}

/// Makes the terminal on standard input the controlling one of the calling session leader, with its group in the
/// foreground.
pub fn control_terminal() -> io::Result<()> {
    // SAFETY: the argument is a number; 0 takes no terminal away from another session.
    check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Makes these the standard input, output and error.
pub fn take_streams(streams: [RawFd; 3]) -> io::Result<()> {
    for (number, stream) in (0..).zip(streams) {
        // SAFETY: takes no pointers. None of the originals is one of the numbers 0 to 2, which the shim has open.
        check(unsafe { libc::dup2(stream, number) }.into())?;
    }
    Ok(())
}

/// Closes every descriptor above standard error.
pub fn close_others() -> io::Result<()> {
    // SAFETY: what owned those descriptors is not used again: the caller execs or exits next.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) }).map(drop)
}

/// Sends a signal. `pid` as for kill(2).
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes no pointers. A target that is gone already is not an error for any caller here.
    unsafe { libc::kill(pid, signal) };
}

/// Takes every child that has ended, of any kind. Says whether there is another one.
pub fn other_children() -> bool {
    loop {
        // SAFETY: no status is asked for.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
        if pid <= 0 {
            return pid == 0;
        }
    }
}

/// One ended child and its wait status, if there is one.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}
