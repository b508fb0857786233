//! Follows a new image until its interpreter has the approved copy of its script, and gives it that in place of whatever
//! it opens as the script.
//!
//! From its exec event the image goes from system call to system call, with its threads and through further execs (env).
//! When it has opened the approved file, or the script's name, for reading, it executes `dup3` over the descriptor that
//! it got, at the end of that very call: what it reads is the sealed copy, however the file, its name or its folders
//! change. After the last such open it runs on untraced. Processes that it forks are not followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::fs::{FileType, OFlags};

use crate::copies;
use crate::file::{is_same, statx_of};
use crate::handover::{Script, absolute};
use crate::interpreter::{Family, Meaning, Opened};
use crate::memory;
use crate::sys::{self, GoOn, SystemCall};
use crate::tracee;

/// A stop of a system call (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// An open that is under way: the folder that its path begins at, the path, and how.
#[derive(Debug)]
struct Opening {
    folder: i32,
    path: u64,
    flags: OFlags,
}

/// What an image opens, on the thread that traces it.
pub(crate) struct Opens {
    script: Script,
    // Each with the open that it is in.
    threads: HashMap<i32, Option<Opening>>,
    family: Family,
    times: u32,
}

impl Opens {
    /// Of an image that stands at its exec event.
    pub fn new(pid: i32, script: Script) -> Self {
        Self { script, threads: HashMap::from([(pid, None)]), family: family(pid), times: 0 }
    }

    /// Lets the image run, until it has its script for the last time or has ended. Kills it where that is in doubt.
    pub fn follow(mut self) {
        let pids: Vec<i32> = self.threads.keys().copied().collect();
        if let Err(error) = self.run() {
            tracing::warn!(processes = ?pids, %error, "the interpreter of a script was killed");
            self.kill_all();
        }
    }

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
        let asked = memory::read_path(tid, opening.path).unwrap_or_default();
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
        libc::SYS_openat2 => (args[0] as i32, args[1], memory::read_word(tid, args[2]).ok()?),
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

fn family(pid: i32) -> Family {
    fs::read_link(format!("/proc/{pid}/exe")).map_or(Family::Other, |path| Family::of(&path))
}
