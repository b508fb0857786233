//! Reads the ids and the cgroup of a caller that waits in a system call.
//!
//! All of it can change or lie until the notification's id was found valid afterwards.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::signal::Signal;

use crate::bpf::caller::{Callers, RootId};
use crate::resolve::Who;
use crate::sys;

/// The ids of a calling thread.
#[derive(Debug)]
pub struct Task {
    /// The thread, as the host numbers it.
    pub tid: i32,
    /// Its process.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Id of its cgroup (v2); `None` when it is not known.
    pub cgroup: Option<u64>,
    /// Its root directory, where that was to be had at once.
    pub root: Option<RootId>,
    /// Name of the thread.
    pub comm: String,
    /// Means the thread, or where the kernel cannot, its process; once it was needed ([`Task::open_pidfd`]).
    pub pidfd: Option<OwnedFd>,
}

impl Task {
    /// One of which nothing is known but its number; its ids are those that no user and no group has (chown(2)).
    pub fn unknown(tid: i32) -> Self {
        Self {
            tid,
            pid: tid,
            uid: u32::MAX,
            gid: u32::MAX,
            cgroup: None,
            root: None,
            comm: String::new(),
            pidfd: None,
        }
    }

    /// As [`crate::resolve::View::find`] wants it.
    pub fn who(&self) -> Who {
        Who { tid: self.tid, root: self.root }
    }

    /// Opens `pidfd`, if that was not done yet. It is this thread's if the notification is found valid after this.
    pub fn open_pidfd(&mut self) {
        if self.pidfd.is_none() {
            self.pidfd = sys::pidfd_open_thread(self.tid).or_else(|_| sys::pidfd_open_process(self.pid)).ok();
        }
    }
}

/// Finds out about a thread, and the number of the exec whose image its process runs, in the quickest way that there is. An error means that it is gone.
pub fn inspect(
    tid: i32,
    callers: Option<&Callers>,
    image_of: impl FnOnce(i32) -> u64,
) -> io::Result<(Task, u64)> {
    let Some(caller) = callers.and_then(|callers| callers.read(tid)) else {
        let task = inspect_without_bpf(tid)?;
        let image = image_of(task.pid);
        return Ok((task, image));
    };
    let task = Task {
        tid,
        pid: caller.process.cast_signed(),
        uid: caller.uid,
        gid: caller.gid,
        cgroup: Some(caller.cgroup),
        root: Some(caller.root),
        comm: caller.comm,
        pidfd: None,
    };
    Ok((task, caller.image))
}

/// The same without BPF.
pub fn inspect_without_bpf(tid: i32) -> io::Result<Task> {
    if let Ok(pidfd) = sys::pidfd_open_thread(tid)
        && let Ok(info) = sys::pidfd_info(pidfd.as_fd())
    {
        return Ok(Task {
            tid,
            pid: info.tgid.cast_signed(),
            uid: info.euid,
            gid: info.egid,
            cgroup: Some(info.cgroup_id),
            root: None,
            comm: comm(tid),
            pidfd: Some(pidfd),
        });
    }
    inspect_proc(tid)
}

// Kernels before 6.13.
fn inspect_proc(tid: i32) -> io::Result<Task> {
    let status = read_proc(&format!("/proc/{tid}/status"))?;
    let field = |name: &str, index: usize| {
        status_field(&status, name).get(index).and_then(|word| word.parse::<u32>().ok())
    };
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "/proc has an incomplete status");
    let pid = field("Tgid:", 0).ok_or_else(missing)?.cast_signed();
    Ok(Task {
        tid,
        pid,
        uid: field("Uid:", 1).ok_or_else(missing)?,
        gid: field("Gid:", 1).ok_or_else(missing)?,
        cgroup: cgroup_of(tid),
        root: None,
        comm: comm(tid),
        pidfd: sys::pidfd_open_process(pid).ok(),
    })
}

/// The words after `name` in a `/proc/PID/status`.
fn status_field(status: &[u8], name: &str) -> Vec<String> {
    let line = status.split(|&byte| byte == b'\n').find(|line| line.starts_with(name.as_bytes()));
    let rest = line.map(|line| String::from_utf8_lossy(&line[name.len()..]).into_owned()).unwrap_or_default();
    rest.split_whitespace().map(str::to_owned).collect()
}

/// A file of /proc, which says no size: about 1.5 KB for a status, so that one read mostly has it all.
fn read_proc(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A thread's ids in each pid namespace that it is in, the host's first (`NSpid` for the thread, `NStgid` for the
/// process).
pub fn namespace_ids(tid: i32) -> (Vec<i32>, Vec<i32>) {
    let Ok(status) = read_proc(&format!("/proc/{tid}/status")) else { return (Vec::new(), Vec::new()) };
    let numbers =
        |name| status_field(&status, name).iter().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>();
    (numbers("NSpid:"), numbers("NStgid:"))
}

/// A signal that waits to be delivered to a process with one thread and no handlers, as one at its exec event is, and
/// that will end it. Who is stopped by ptrace has its ignored signals queued too.
pub fn fatal_signal(pid: i32) -> Option<Signal> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    // Masks of 64 bits, as proc(5) has them; one that cannot be read shows nothing.
    let mask = |name: &str| {
        status_field(&status, name).first().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0)
    };
    let waiting = (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") & !mask("SigIgn:");
    Signal::iterator().filter(|signal| ends(*signal)).find(|signal| waiting >> (*signal as u32 - 1) & 1 == 1)
}

// What signal(7) has as the default: all others end the process.
fn ends(signal: Signal) -> bool {
    !matches!(
        signal,
        Signal::SIGCHLD
            | Signal::SIGCONT
            | Signal::SIGURG
            | Signal::SIGWINCH
            | Signal::SIGSTOP
            | Signal::SIGTSTP
            | Signal::SIGTTIN
            | Signal::SIGTTOU
    )
}

fn cgroup_of(tid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{tid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = cgroup_mount()?.join(path);
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder).ok()?).into()
}

/// Where the cgroup v2 hierarchy is mounted.
pub fn cgroup_mount() -> Option<&'static Path> {
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    MOUNT
        .get_or_init(|| {
            let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
            let line = text.lines().find(|line| line.contains(" - cgroup2 "))?;
            line.split(' ').nth(4).map(PathBuf::from)
        })
        .as_deref()
}

/// The thread name; empty when the thread is gone.
pub fn comm(tid: i32) -> String {
    // `TASK_COMM_LEN` and the newline fit; one read is enough.
    let mut buffer = [0; 32];
    let file = fs::File::open(format!("/proc/{tid}/comm"));
    let size = file.and_then(|mut file| io::Read::read(&mut file, &mut buffer)).unwrap_or(0);
    let name = buffer[..size].strip_suffix(b"\n").unwrap_or(&buffer[..size]);
    String::from_utf8_lossy(name).into_owned()
}
