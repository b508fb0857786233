//! Follows a new image until its interpreter has the approved copy of its script, and gives it that in place of whatever
//! it opens as the script.
//!
//! The image is seized before its exec, as for a hold, and stands at its exec event until it is let go. From there it
//! goes from system call to system call, with its threads and through further execs (env). When it has opened the
//! approved file, or the script's name, for reading, it executes `dup3` over the descriptor that it got, at the end of
//! that very call: what it reads is the sealed copy, however the file, its name or its folders change. After the last
//! such open it runs on untraced. Processes that it forks are not followed.
//!
//! Each followed image has a thread of its own, since ptrace knows one thread as the tracer; most live for some
//! milliseconds. When the thread ends the image dies (`PTRACE_O_EXITKILL`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Statx, StatxFlags, statx};
use tokio::sync::oneshot;

use crate::copies;
use crate::file::status;
use crate::grip::Ways;
use crate::handover::{Script, absolute};
use crate::hold::{SeizeError, Stopped};
use crate::interpreter::{Family, Meaning, Opened};
use crate::sys::{self, GoOn, SystemCall};
use crate::tracee;

/// Images that are followed at the same time. Each costs a thread.
const FOLLOWED_MAX: usize = 256;
/// How often the death of an image that stands is looked for, and signals that would end it.
const LOOK: Duration = Duration::from_millis(100);
/// A stop of a system call (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

static FOLLOWED: AtomicUsize = AtomicUsize::new(0);

enum Order {
    Continued,
    Pidfd(oneshot::Sender<Option<OwnedFd>>),
    Resume(oneshot::Sender<bool>),
    Kill(oneshot::Sender<bool>),
}

/// A seized task that will be followed.
#[derive(Debug)]
pub struct Followed {
    orders: Sender<Order>,
}

impl Followed {
    /// Its execve was answered.
    pub fn continued(&self) {
        let _ = self.orders.send(Order::Continued);
    }

    /// A descriptor of the process of the image that stands. `None`: it is gone.
    pub async fn pidfd(&self) -> Option<OwnedFd> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Pidfd(reply));
        answer.await.ok().flatten()
    }

    /// Lets the image run, followed. False: it is gone.
    pub async fn resume(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Resume(reply));
        answer.await.unwrap_or(false)
    }

    /// Kills the image. False: it is gone.
    pub async fn kill(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Kill(reply));
        answer.await.unwrap_or(false)
    }
}

/// Seizes a thread that waits in execve, to follow its new image. `by_person`: a person decides. `on_failed` is called with the thread's id when the
/// exec failed.
pub async fn seize(
    tid: i32,
    script: Script,
    by_person: bool,
    on_failed: impl FnOnce(i32) + Send + 'static,
) -> Result<(Followed, Ways), SeizeError> {
    let (orders, receiver) = channel();
    let (stopped, stopped_answer) = oneshot::channel();
    let (gone, gone_answer) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    if FOLLOWED.fetch_add(1, Ordering::Relaxed) >= FOLLOWED_MAX {
        FOLLOWED.fetch_sub(1, Ordering::Relaxed);
        let why = format!("more than {FOLLOWED_MAX} scripts are being handed to their interpreters");
        return Err(SeizeError::Refused(why));
    }
    let count = Arc::new(Count);
    let thread = std::thread::Builder::new().name("exec-follow".into()).spawn(move || {
        let _count = count;
        let options = ptrace::Options::PTRACE_O_EXITKILL
            | ptrace::Options::PTRACE_O_TRACEEXEC
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_TRACESYSGOOD;
        let refused = match ptrace::seize(Pid::from_raw(tid), options) {
            Ok(()) => None,
            Err(Errno::ESRCH) => Some(SeizeError::Gone),
            Err(error) => Some(SeizeError::Refused(unfollowed(&error))),
        };
        if let Some(error) = refused {
            let _ = reply.send(Err(error));
            return;
        }
        if reply.send(Ok(())).is_err() {
            return;
        }
        let Some(pid) = await_exec(tid, &receiver, stopped, on_failed, &script) else { return };
        if await_order(pid, &receiver, gone) {
            let _copy = copies::Entry::new(pid, &script, by_person);
            let mut follow = Follow { script, threads: HashMap::new(), family: family(pid), times: 0 };
            follow.threads.insert(pid, None);
            if let Err(error) = follow.run() {
                tracing::warn!(process = pid, %error, "the interpreter of a script was killed");
                follow.kill_all();
            }
        }
    });
    thread.map_err(|error| SeizeError::Refused(unfollowed(&error)))?;
    let ended = |_| Err(SeizeError::Refused(unfollowed(&"its thread has ended")));
    answer.await.unwrap_or_else(ended)?;
    Ok((Followed { orders }, Ways { stopped: stopped_answer, gone: gone_answer }))
}

fn unfollowed(why: &dyn std::fmt::Display) -> String {
    format!("its interpreter cannot be followed until it has read its script ({why})")
}

struct Count;

impl Drop for Count {
    fn drop(&mut self) {
        FOLLOWED.fetch_sub(1, Ordering::Relaxed);
    }
}

// Until the exec has come out; the process, if it stands at its exec event with the copy that it was given.
fn await_exec(
    tid: i32,
    orders: &Receiver<Order>,
    stopped: oneshot::Sender<Stopped>,
    on_failed: impl FnOnce(i32),
    script: &Script,
) -> Option<i32> {
    // Whoever seized is gone: the thread's end lets nothing through.
    let Ok(Order::Continued) = orders.recv() else { return None };
    let _ = ptrace::interrupt(Pid::from_raw(tid));
    let Ok((now, state)) = sys::wait_for_tracee(-1) else {
        let _ = stopped.send(Stopped::Gone);
        return None;
    };
    if !libc::WIFSTOPPED(state) {
        let _ = stopped.send(Stopped::Gone);
        return None;
    }
    if state >> 16 != libc::PTRACE_EVENT_EXEC {
        on_failed(tid);
        let signal = if state >> 16 == 0 { libc::WSTOPSIG(state) } else { 0 };
        let _ = sys::tracee_go_on(now, GoOn::Untraced(signal));
        let _ = stopped.send(Stopped::Failed);
        return None;
    }
    // Until the exec, another thread could put something else at its number. Now the process has one thread and a
    // table of its own.
    let spare = statx_of(&format!("/proc/{now}/fd/{}", script.spare));
    let same = match (spare, status(script.copy.as_fd())) {
        (Ok(spare), Ok(copy)) => is_same(&spare, &copy),
        _ => false,
    };
    if !same || stopped.send(Stopped::Held(now)).is_err() {
        tracing::warn!(
            process = now,
            "the copy of a script was replaced before its exec; the image was killed"
        );
        end(now);
        return None;
    }
    Some(now)
}

// True when the image is to run.
fn await_order(pid: i32, orders: &Receiver<Order>, gone: oneshot::Sender<String>) -> bool {
    loop {
        match orders.recv_timeout(LOOK) {
            Ok(Order::Continued) => {}
            Ok(Order::Pidfd(reply)) => {
                // Its number cannot be another's: this thread has not waited for its end.
                let _ = reply.send(sys::pidfd_open_process(pid).ok());
            }
            Ok(Order::Resume(reply)) => {
                let standing = is_standing(pid);
                return reply.send(standing).is_ok() && standing;
            }
            Ok(Order::Kill(reply)) => {
                end(pid);
                let _ = reply.send(true);
                return false;
            }
            Err(RecvTimeoutError::Timeout) => {
                let why = match tracee::fatal_signal(pid) {
                    Some(signal) => format!("the held process was ended by {signal}"),
                    None if is_standing(pid) => continue,
                    None => {
                        let _ = gone.send("the held process was killed".into());
                        return false;
                    }
                };
                end(pid);
                let _ = gone.send(why);
                return false;
            }
            Err(RecvTimeoutError::Disconnected) => {
                end(pid);
                return false;
            }
        }
    }
}

// It does not leave its stop but to die.
fn is_standing(pid: i32) -> bool {
    match sys::look_at_tracee(pid) {
        Ok(None) => true,
        Ok(Some((_, state))) if libc::WIFSTOPPED(state) => {
            end(pid);
            false
        }
        Ok(Some(_)) | Err(_) => false,
    }
}

// Kills a process of this thread, and takes its end.
fn end(pid: i32) {
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    while let Ok((_, state)) = sys::wait_for_tracee(pid) {
        if !libc::WIFSTOPPED(state) {
            return;
        }
    }
}

fn family(pid: i32) -> Family {
    fs::read_link(format!("/proc/{pid}/exe")).map_or(Family::Other, |path| Family::of(&path))
}

fn statx_of(path: &str) -> io::Result<Statx> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?)
}

fn is_same(one: &Statx, other: &Statx) -> bool {
    (one.stx_dev_major, one.stx_dev_minor, one.stx_ino)
        == (other.stx_dev_major, other.stx_dev_minor, other.stx_ino)
}

/// An open that is under way: the folder that its path begins at, the path, and how.
#[derive(Debug)]
struct Opening {
    folder: i32,
    path: u64,
    flags: OFlags,
}

struct Follow {
    script: Script,
    // Each with the open that it is in.
    threads: HashMap<i32, Option<Opening>>,
    family: Family,
    times: u32,
}

impl Follow {
    // An error kills all.
    fn run(&mut self) -> io::Result<()> {
        for tid in self.threads.keys() {
            sys::tracee_go_on(*tid, GoOn::ToSystemCall(0))?;
        }
        while !self.threads.is_empty() {
            let (tid, state) = match sys::wait_for_tracee(-1) {
                Ok(change) => change,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(error) => return Err(error),
            };
            if !libc::WIFSTOPPED(state) {
                self.threads.remove(&tid);
                continue;
            }
            self.threads.entry(tid).or_default();
            match self.stopped(tid, state) {
                Ok(Some(how)) => go_on(tid, how)?,
                Ok(None) => {
                    self.let_go(tid);
                    return Ok(());
                }
                // It is dying: its end comes.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    // `None`: it needs to be followed no longer.
    fn stopped(&mut self, tid: i32, state: i32) -> io::Result<Option<GoOn>> {
        let signal = libc::WSTOPSIG(state);
        match (state >> 16, signal) {
            (0, SYSCALL_STOP) => self.at_system_call(tid),
            (0, signal) => Ok(Some(GoOn::ToSystemCall(signal))),
            (libc::PTRACE_EVENT_EXEC, _) => {
                self.threads.clear();
                self.threads.insert(tid, None);
                self.family = family(tid);
                let is_given = self.is_given_script(tid);
                Ok(is_given.then_some(GoOn::ToSystemCall(0)))
            }
            (libc::PTRACE_EVENT_STOP, signal) if signal != libc::SIGTRAP => Ok(Some(GoOn::Listen)),
            _ => Ok(Some(GoOn::ToSystemCall(0))),
        }
    }

    fn is_given_script(&self, pid: i32) -> bool {
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return true };
        arguments.split(|&byte| byte == 0).any(|argument| self.is_name(pid, libc::AT_FDCWD, argument))
    }

    fn at_system_call(&mut self, tid: i32) -> io::Result<Option<GoOn>> {
        match sys::system_call(tid)? {
            SystemCall::Beginning { number, args } => {
                self.threads.insert(tid, opening(tid, number, &args));
            }
            SystemCall::End { result } => {
                let opening = self.threads.insert(tid, None).flatten();
                if let Some(opening) = opening.filter(|_| result >= 0) {
                    return self.opened(tid, result as i32, &opening);
                }
            }
            SystemCall::None => {}
        }
        Ok(Some(GoOn::ToSystemCall(0)))
    }

    fn opened(&mut self, tid: i32, number: i32, opening: &Opening) -> io::Result<Option<GoOn>> {
        let link = format!("/proc/{tid}/fd/{number}");
        let stat = statx_of(&link)?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::RegularFile {
            return Ok(Some(GoOn::ToSystemCall(0)));
        }
        let asked = tracee::read_path(tid, opening.path).unwrap_or_default();
        let is_script = is_same(&stat, &self.script.original) || self.is_name(tid, opening.folder, &asked);
        self.times += u32::from(is_script);
        let path = Path::new(OsStr::from_bytes(&asked));
        let is_image = statx_of(&format!("/proc/{tid}/exe")).is_ok_and(|image| is_same(&image, &stat));
        let opened = Opened { is_script, times: self.times, flags: opening.flags, path, is_image };
        match self.family.meaning(&self.script, &opened) {
            Meaning::Another => Ok(Some(GoOn::ToSystemCall(0))),
            Meaning::Instead => {
                Err(io::Error::other(format!("it opened {} where its script was expected", path.display())))
            }
            Meaning::Script => {
                self.replace(tid, number, opening.flags, false)?;
                Ok(Some(GoOn::ToSystemCall(0)))
            }
            Meaning::LastScript => {
                self.replace(tid, number, opening.flags, true)?;
                Ok(None)
            }
        }
    }

    fn is_name(&self, tid: i32, folder: i32, asked: &[u8]) -> bool {
        if asked.is_empty() {
            return false;
        }
        let link = match folder {
            libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
            number => format!("/proc/{tid}/fd/{number}"),
        };
        let folder: PathBuf =
            if asked.starts_with(b"/") { PathBuf::new() } else { fs::read_link(link).unwrap_or_default() };
        asked == self.script.name
            || self.script.names.contains(&absolute(folder.as_os_str().as_bytes(), asked))
    }

    // Puts the copy in place of what was opened, from its beginning. `last`: the spare descriptor goes.
    fn replace(&mut self, tid: i32, number: i32, flags: OFlags, last: bool) -> io::Result<()> {
        self.script.copy.seek(SeekFrom::Start(0))?;
        let closed = if flags.contains(OFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
        let dup3 = [self.script.spare as u64, number as u64, closed as u64];
        let mut calls = vec![(libc::SYS_dup3, dup3, i64::from(number))];
        if last {
            calls.push((libc::SYS_close, [self.script.spare as u64, 0, 0], 0));
        }
        self.execute(tid, &calls)
    }

    // Makes a thread that stands at the end of a system call execute others, with their results, before it goes on.
    #[cfg(target_arch = "x86_64")]
    fn execute(&mut self, tid: i32, calls: &[(i64, [u64; 3], i64)]) -> io::Result<()> {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let thread = Pid::from_raw(tid);
        let before = ptrace::getregs(thread)?;
        let from = before.rip.wrapping_sub(SYSCALL.len() as u64);
        let word = ptrace::read(thread, from as ptrace::AddressType)?;
        if word.to_ne_bytes()[..2] != SYSCALL {
            return Err(io::Error::other("it called the kernel in an unknown way"));
        }
        let mut signals = Vec::new();
        for (call, [first, second, third], result) in calls {
            let mut registers = before;
            registers.rip = from;
            registers.rax = *call as u64;
            (registers.rdi, registers.rsi, registers.rdx) = (*first, *second, *third);
            ptrace::setregs(thread, registers)?;
            for _ in ["at its beginning", "at its end"] {
                self.run_to_system_call(tid, &mut signals)?;
            }
            if ptrace::getregs(thread)?.rax as i64 != *result {
                return Err(io::Error::other("the copy of its script could not be put in place"));
            }
        }
        ptrace::setregs(thread, before)?;
        for signal in signals {
            sys::signal_thread(process_of(tid)?, tid, signal)?;
        }
        Ok(())
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn execute(&mut self, _tid: i32, _calls: &[(i64, [u64; 3], i64)]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    // Goes on to the next stop at a system call. Signals that come before it are taken away, to be sent again.
    fn run_to_system_call(&mut self, tid: i32, signals: &mut Vec<i32>) -> io::Result<()> {
        loop {
            sys::tracee_go_on(tid, GoOn::ToSystemCall(0))?;
            let (_, state) = sys::wait_for_tracee(tid)?;
            if !libc::WIFSTOPPED(state) {
                self.threads.remove(&tid);
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            match (state >> 16, libc::WSTOPSIG(state)) {
                (0, SYSCALL_STOP) => return Ok(()),
                (0, signal) => signals.push(signal),
                _ => {}
            }
        }
    }

    // Lets all run on untraced: this thread, which stands, and the others when they stand.
    fn let_go(&mut self, tid: i32) {
        copies::remove(tid);
        let _ = sys::tracee_go_on(tid, GoOn::Untraced(0));
        self.threads.remove(&tid);
        for other in self.threads.keys() {
            let _ = ptrace::interrupt(Pid::from_raw(*other));
        }
        while let Ok((other, state)) = sys::wait_for_tracee(-1) {
            if libc::WIFSTOPPED(state) {
                let signal = match (state >> 16, libc::WSTOPSIG(state)) {
                    (0, SYSCALL_STOP) => 0,
                    (0, signal) => signal,
                    _ => 0,
                };
                let _ = sys::tracee_go_on(other, GoOn::Untraced(signal));
            }
        }
    }

    fn kill_all(&mut self) {
        for tid in self.threads.keys() {
            let _ = nix::sys::signal::kill(Pid::from_raw(*tid), nix::sys::signal::Signal::SIGKILL);
        }
        while sys::wait_for_tracee(-1).is_ok() {}
    }
}

// A tracee that is not there any more is dying.
fn go_on(tid: i32, how: GoOn) -> io::Result<()> {
    match sys::tracee_go_on(tid, how) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

fn process_of(tid: i32) -> io::Result<i32> {
    tracee::inspect_without_bpf(tid).map(|task| task.pid)
}

// The open that a system call is, if it opens something for reading.
fn opening(tid: i32, call: i64, args: &[u64; 6]) -> Option<Opening> {
    let (folder, path, flags) = match call {
        libc::SYS_openat => (args[0] as i32, args[1], args[2]),
        // The first member of `struct open_how`.
        libc::SYS_openat2 => (args[0] as i32, args[1], tracee::read_word(tid, args[2]).ok()?),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => (libc::AT_FDCWD, args[0], args[1]),
        _ => return None,
    };
    let flags = OFlags::from_bits_retain(flags as u32);
    let other = OFlags::PATH | OFlags::DIRECTORY;
    (!flags.intersects(other) && flags & OFlags::RWMODE == OFlags::RDONLY).then_some(Opening {
        folder,
        path,
        flags,
    })
}
