//! Follows a new image until its interpreter has the approved copy of its script, and gives it that in place of whatever
//! it opens as the script.
//!
//! From its exec event the image goes from system call to system call, with its threads and through further execs (env).
//! When it opens the script's name for reading, or asks what file that is, it is answered with the sealed copy, and the file
//! system is not looked at: it does not matter what the name leads to by now, be it another file, a FIFO, a folder or
//! nothing. Where another name leads to the approved file, the copy is put over the descriptor that it got. After the last
//! open by name it runs on untraced. Processes that it forks are not followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::fs::OFlags;

use crate::copies;
use crate::file::{is_same, statx_of};
use crate::follow::OnKilled;
use crate::handover::{Script, absolute, without_dots};
use crate::interpreter::{Family, Opened};
use crate::memory;
use crate::remote::{self, Saved};
use crate::resolve::file_type;
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

/// A system call that is under way.
#[derive(Debug)]
enum Call {
    Open(Opening),
    /// The script's name was opened: it gets the copy.
    Given(Saved, OFlags),
    /// It asked what file the script's name leads to: it is told of the copy.
    Shown(Saved),
    /// The script's name was opened by who may not read it.
    Refused(Saved, Errno),
}

/// What an image opens, on the thread that traces it.
pub(crate) struct Opens {
    script: Script,
    // Each with the call that it is in.
    threads: HashMap<i32, Option<Call>>,
    family: Family,
    // How often the script was opened by its name, and how often so that an exec would leave it open.
    times: u32,
    kept: u32,
}

impl Opens {
    /// Of an image that stands at its exec event.
    pub fn new(pid: i32, script: Script) -> Self {
        Self { script, threads: HashMap::from([(pid, None)]), family: family(pid), times: 0, kept: 0 }
    }

    /// Lets the image run, until it has its script for the last time or has ended. Kills it where that is in doubt.
    pub fn follow(mut self, on_killed: OnKilled) {
        let pid = self.threads.keys().copied().next().unwrap_or_default();
        if let Err(error) = self.run() {
            on_killed(pid, &error.to_string());
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
                let call = self.begins(tid, number, &args)?;
                self.threads.insert(tid, call);
            }
            SystemCall::End { result } => match self.threads.insert(tid, None).flatten() {
                Some(Call::Open(opening)) if result >= 0 => self.opened(tid, result as i32, &opening)?,
                Some(Call::Given(saved, flags)) => {
                    remote::end(tid, saved, result)?;
                    if result >= 0 && self.given(tid, result, flags)? {
                        return Ok(None);
                    }
                }
                Some(Call::Shown(saved)) => remote::end(tid, saved, result)?,
                Some(Call::Refused(saved, errno)) => remote::end(tid, saved, -i64::from(errno as i32))?,
                Some(Call::Open(_)) | None => {}
            },
            SystemCall::None => {}
        }
        Ok(Some(GoOn::ToSystemCall(0)))
    }

    fn begins(&mut self, tid: i32, number: i64, args: &[u64; 6]) -> io::Result<Option<Call>> {
        if let Some(opening) = opening(tid, number, args) {
            let asked = memory::read_path(tid, opening.path).unwrap_or_default();
            if !self.is_name(tid, opening.folder, &asked) {
                return Ok(Some(Call::Open(opening)));
            }
            if let Some(errno) = self.script.unreadable {
                // A call that does nothing.
                let saved = remote::begin(tid, libc::SYS_fcntl, [u64::MAX, 0, 0, 0, 0])?;
                return Ok(Some(Call::Refused(saved, errno)));
            }
            let how = match opening.flags.contains(OFlags::CLOEXEC) {
                true => libc::F_DUPFD_CLOEXEC,
                false => libc::F_DUPFD,
            };
            let duplicate = [self.script.spare as u64, how as u64, 0, 0, 0];
            let saved = remote::begin(tid, libc::SYS_fcntl, duplicate)?;
            return Ok(Some(Call::Given(saved, opening.flags)));
        }
        let Some(look) = Look::of(number, args).filter(|_| self.script.unreadable.is_none()) else {
            return Ok(None);
        };
        let asked = memory::read_path(tid, look.path).unwrap_or_default();
        if !self.is_name(tid, look.folder, &asked) {
            return Ok(None);
        }
        let (number, args) = look.by_descriptor(self.script.spare, asked.len());
        Ok(Some(Call::Shown(remote::begin(tid, number, args)?)))
    }

    // It has the copy. True: for the last time.
    fn given(&mut self, tid: i32, number: i64, flags: OFlags) -> io::Result<bool> {
        self.rewind(tid, number)?;
        self.times += 1;
        self.kept += u32::from(!flags.contains(OFlags::CLOEXEC));
        let is_last = self.family.is_last(&self.script, self.times, self.kept);
        if is_last {
            self.execute(tid, libc::SYS_close, [self.script.spare as u64, 0, 0], 0)?;
        }
        Ok(is_last)
    }

    // All its descriptors of the copy have one position.
    fn rewind(&mut self, tid: i32, number: i64) -> io::Result<()> {
        self.execute(tid, libc::SYS_lseek, [number as u64, 0, libc::SEEK_SET as u64], 0)
    }

    // By another name than the script's. An error: it may run what it opened.
    fn opened(&mut self, tid: i32, number: i32, opening: &Opening) -> io::Result<()> {
        let stat = statx_of(&format!("/proc/{tid}/fd/{number}"))?;
        if is_same(&stat, &self.script.original) {
            let closed = if opening.flags.contains(OFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
            let dup3 = [self.script.spare as u64, number as u64, closed as u64];
            self.execute(tid, libc::SYS_dup3, dup3, i64::from(number))?;
            return self.rewind(tid, i64::from(number));
        }
        let asked = memory::read_path(tid, opening.path).unwrap_or_default();
        let path = Path::new(OsStr::from_bytes(&asked));
        let is_image = statx_of(&format!("/proc/{tid}/exe")).is_ok_and(|image| is_same(&image, &stat));
        let kind = file_type(&stat);
        let opened = Opened { times: self.times, flags: opening.flags, path, kind, is_image };
        if self.family.is_instead(&opened) {
            let shown: String = path.display().to_string().chars().take(200).collect();
            return Err(io::Error::other(format!("it opened {shown} where its script was expected")));
        }
        Ok(())
    }

    // Whether a path means the script to who was given its name: as it is written, and as it is made absolute, from where
    // the process is now, too, should its folder have been moved.
    fn is_name(&self, tid: i32, folder: i32, asked: &[u8]) -> bool {
        let Script { name, names, .. } = &self.script;
        if asked.is_empty() {
            return false;
        }
        if asked == name {
            return true;
        }
        let place = |link: String| fs::read_link(link).unwrap_or_default().into_os_string().into_vec();
        let full = match folder {
            _ if asked.starts_with(b"/") => absolute(b"", asked),
            libc::AT_FDCWD => absolute(&place(format!("/proc/{tid}/cwd")), asked),
            number => absolute(&place(format!("/proc/{tid}/fd/{number}")), asked),
        };
        let full = [without_dots(&full), full];
        let is = |other: &[u8]| full.iter().any(|full| full == other);
        names.iter().any(|name| is(name))
            || (!name.starts_with(b"/")
                && is(&without_dots(&absolute(&place(format!("/proc/{tid}/cwd")), name))))
    }

    // Makes a thread that stands at the end of a system call carry out another one, with this result.
    fn execute(&mut self, tid: i32, number: i64, args: [u64; 3], expected: i64) -> io::Result<()> {
        let mut signals = Vec::new();
        if remote::call(tid, &mut signals, number, args)? != expected {
            return Err(io::Error::other("the copy of its script could not be put in place"));
        }
        for signal in signals {
            sys::signal_thread(process_of(tid)?, tid, signal)?;
        }
        Ok(())
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

/// A question what file a path leads to, through links.
struct Look {
    call: i64,
    args: [u64; 5],
    folder: i32,
    path: u64,
}

impl Look {
    fn of(call: i64, args: &[u64; 6]) -> Option<Self> {
        let follows = |flags: u64| flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        let (folder, path) = match call {
            libc::SYS_newfstatat if follows(args[3]) => (args[0] as i32, args[1]),
            libc::SYS_statx if follows(args[2]) => (args[0] as i32, args[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => (libc::AT_FDCWD, args[0]),
            _ => return None,
        };
        Some(Self { call, args: [args[0], args[1], args[2], args[3], args[4]], folder, path })
    }

    // The same question about a descriptor. `length`: of the path, behind which an empty one lies.
    fn by_descriptor(self, number: i32, length: usize) -> (i64, [u64; 5]) {
        let number = number as u64;
        let [_, second, third, fourth, fifth] = self.args;
        let (path, empty) = (self.path + length as u64, libc::AT_EMPTY_PATH as u64);
        match self.call {
            libc::SYS_newfstatat => (self.call, [number, path, third, fourth | empty, 0]),
            libc::SYS_statx => (self.call, [number, path, third | empty, fourth, fifth]),
            _ => (libc::SYS_fstat, [number, second, 0, 0, 0]),
        }
    }
}

fn family(pid: i32) -> Family {
    fs::read_link(format!("/proc/{pid}/exe")).map_or(Family::Other, |path| Family::of(&path))
}
