//! The sandbox's init: restricts itself on the loader's word, runs the main command, outlives nothing.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::exit;
use std::time::{Duration, Instant};

use clawsec_init::wire::{self, FromShim, Spec, ToShim};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, access};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_type;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{command, sys};

/// Handed on to the main command. Others cannot reach pid 1, or mean nothing to it.
const FORWARDED: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// For everything else of the sandbox to end after SIGKILL. What needs longer hangs in the kernel, and never runs on.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A sentence about what could not be done.
type Sentence = String;

/// What holds until the sandbox's end.
struct Restricted {
    spec: Spec,
    /// Signals are read from it.
    signals: RawFd,
    /// The loader's, see [`Spec::keep`]. It is never used, and closed by the kernel when this process exits: only
    /// [`end`] may exit once the main command runs.
    _kept: Option<OwnedFd>,
}

/// Never returns: the sandbox ends with it.
pub fn run() -> ! {
    let mut loader = match loader_socket() {
        Ok(loader) => loader,
        Err(why) => refuse(None, &why),
    };
    match restrict(&mut loader) {
        Ok(restricted) => run_main(loader, &restricted),
        Err(why) => refuse(Some(&mut loader), &why),
    }
}

fn refuse(loader: Option<&mut File>, why: &str) -> ! {
    eprintln!("clawsec-init: nothing was started: {why}.");
    if let Some(loader) = loader {
        // The loader may be the very thing that is gone; the exit code says the same.
        let _ = wire::send(loader, &FromShim::Refused { why: why.to_owned() });
    }
    exit(wire::EXIT_REFUSED)
}

fn loader_socket() -> Result<File, Sentence> {
    // SAFETY: only borrowed to look at it; a closed descriptor is an error result.
    let fd = unsafe { BorrowedFd::borrow_raw(wire::FD) };
    socket_type(fd)
        .map_err(|errno| format!("descriptor {} is not a socket to the loader: {errno}", wire::FD))?;
    fcntl_setfd(fd, FdFlags::CLOEXEC)
        .map_err(|errno| format!("close-on-exec of the loader's socket: {errno}"))?;
    // SAFETY: it is open (just proven), and nothing else in this process owns it.
    Ok(unsafe { File::from_raw_fd(wire::FD) })
}

/// Everything that takes rights away. What the shim itself needs later and a filter might refuse (the signal
/// descriptor) is made before it.
fn restrict(loader: &mut File) -> Result<Restricted, Sentence> {
    let told = |error: io::Error| format!("the loader's socket: {error}");
    wire::send(&mut *loader, &FromShim::Hello { protocol: wire::PROTOCOL }).map_err(told)?;
    let spec = match wire::receive(&mut *loader).map_err(told)? {
        ToShim::Spec(spec) => *spec,
        other => return Err(format!("the loader said {other:?} instead of what to apply")),
    };
    let kept = spec.keep.then(|| wire::receive_kept(&*loader)).transpose();
    let kept = kept.map_err(|error| format!("the descriptor to keep: {error}"))?;
    if spec.args.is_empty() {
        return Err("the main command is empty".to_owned());
    }
    // Keeps the same uid from opening /proc/1/{mem,fd}, from ptrace and from pidfd_getfd of the loader's socket.
    // An exec sets it back, so it protects the shim only.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| format!("PR_SET_DUMPABLE: {errno}"))?;
    match rustix::thread::no_new_privs() {
        Ok(true) => {}
        Ok(false) => return Err("no_new_privs is not set".to_owned()),
        Err(errno) => return Err(format!("no_new_privs could not be read: {errno}")),
    }
    let mut watched = FORWARDED.to_vec();
    watched.push(libc::SIGCHLD);
    let signals =
        sys::block_and_watch(&watched).map_err(|error| format!("signals could not be watched: {error}"))?;

    spec.landlock.restrict_self().map_err(|refusal| refusal.to_string())?;
    let listener = sys::install_filter(&spec.filter, spec.listener, spec.wait_killable)
        .map_err(|error| format!("the kernel refused the seccomp filter: {error}"))?;
    wire::send(&mut *loader, &FromShim::Restricted { listener }).map_err(told)?;
    match wire::receive(&mut *loader).map_err(told)? {
        ToShim::Go => {}
        other => return Err(format!("the loader said {other:?} instead of go")),
    }
    if let Some(listener) = listener {
        // SAFETY: made by `install_filter` for us alone; dropping closes it, so that only the loader holds one.
        drop(unsafe { OwnedFd::from_raw_fd(listener) });
    }
    Ok(Restricted { spec, signals, _kept: kept })
}

fn run_main(mut loader: File, restricted: &Restricted) -> ! {
    let signals = restricted.signals;
    let main = match sys::fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => become_main(&restricted.spec),
        Err(error) => refuse(Some(&mut loader), &format!("the main command could not be forked: {error}")),
    };
    if wire::send(&mut loader, &FromShim::Running { pid: main }).is_err() {
        loader_gone();
    }
    // The commands beside it: their ids by their pids.
    let mut commands: BTreeMap<i32, u64> = BTreeMap::new();
    loop {
        // SAFETY: the signal descriptor stays open for the life of the process.
        let signals_fd = unsafe { BorrowedFd::borrow_raw(signals) };
        let mut watched = [PollFd::new(&signals_fd, PollFlags::IN), PollFd::new(&loader, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            // Cannot watch the loader: the same as having lost it.
            Err(_) => loader_gone(),
        }
        let loader_spoke = !watched[1].revents().is_empty();
        while let Some(signal) = sys::next_signal(signals) {
            if signal != libc::SIGCHLD {
                sys::kill(main, signal);
            }
        }
        while let Some((pid, status)) = sys::reap() {
            if pid == main {
                end_with(&mut loader, status);
            }
            if let Some(id) = commands.remove(&pid) {
                let (code, signal) = outcome(status);
                tell(&mut loader, &FromShim::CommandEnded { id, code, signal });
            }
        }
        if loader_spoke {
            match wire::receive(&mut loader) {
                Ok(ToShim::Signal(signal)) => sys::kill(-main, signal),
                Ok(ToShim::CommandSignal { id, signal }) => {
                    // It is not reaped, so the number is still its own.
                    if let Some((&pid, _)) = commands.iter().find(|&(_, &of)| of == id) {
                        sys::kill(-pid, signal);
                    }
                }
                Ok(ToShim::Command(spec)) => match command::fork(&loader, &spec) {
                    Ok(Ok(pid)) => drop(commands.insert(pid, spec.id)),
                    Ok(Err(why)) => tell(&mut loader, &FromShim::CommandRefused { id: spec.id, why }),
                    // What else comes on the socket could not be told from the descriptors that did not.
                    Err(_) => loader_gone(),
                },
                Ok(ToShim::Spec(_) | ToShim::Go) | Err(_) => loader_gone(),
            }
        }
    }
}

fn tell(loader: &mut File, message: &FromShim) {
    if wire::send(loader, message).is_err() {
        loader_gone();
    }
}

/// Exit code or 128 + signal, and the signal.
fn outcome(status: i32) -> (i32, i32) {
    if libc::WIFSIGNALED(status) {
        (128 + libc::WTERMSIG(status), libc::WTERMSIG(status))
    } else {
        (libc::WEXITSTATUS(status), 0)
    }
}

/// Ends the sandbox with the main command's status.
fn end_with(loader: &mut File, status: i32) -> ! {
    let (code, signal) = outcome(status);
    // Without a loader the exit code alone must do.
    let _ = wire::send(loader, &FromShim::Ended { code, signal });
    end(code, "")
}

fn loader_gone() -> ! {
    end(
        wire::EXIT_LOADER_GONE,
        "clawsec-init: the loader is gone, so everything in the sandbox was killed.\n",
    )
}

/// Kills everything else of the sandbox and waits until it is gone; only then exits.
///
/// The kernel would kill it too, but an exiting process closes its descriptors before that, and with the loader gone
/// the kept one is the last that holds an open back. All are our children in the end: whose parent dies becomes one.
fn end(code: i32, last_words: &str) -> ! {
    sys::kill(-1, libc::SIGKILL);
    let begin = Instant::now();
    while sys::other_children() && begin.elapsed() < GONE_TIMEOUT {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Not `eprintln!`, which panics when nobody reads any more.
    let _ = io::stderr().write_all(last_words.as_bytes());
    exit(code)
}

/// In the forked child.
fn become_main(spec: &Spec) -> ! {
    let command = &spec.args[0];
    let why = match prepare(spec) {
        Err(why) => why,
        Ok((path, argv, environment)) => {
            let error = sys::execve(&path, &argv, &environment);
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            eprintln!("clawsec-init: the main command {command:?} was not started: {error}.");
            exit(code)
        }
    };
    eprintln!("clawsec-init: the main command {command:?} was not started: {why}.");
    exit(126)
}

type Image = (CString, Vec<CString>, Vec<CString>);

fn prepare(spec: &Spec) -> Result<Image, Sentence> {
    let nul = |_| "it has a NUL byte in it".to_owned();
    let argv =
        spec.args.iter().map(|arg| CString::new(arg.as_str()).map_err(nul)).collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os()
        .map(|(name, value)| {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend(value.as_bytes());
            CString::new(pair).map_err(nul)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let path = CString::new(search(&spec.args[0])).map_err(nul)?;
    if spec.terminal {
        // runc made the shim the leader of the terminal's session, so a group of its own is all that is left to make.
        rustix::process::setpgid(None, None).map_err(|errno| format!("setpgid: {errno}"))?;
        sys::take_terminal().map_err(|error| format!("the terminal: {error}"))?;
    } else {
        rustix::process::setsid().map_err(|errno| format!("setsid: {errno}"))?;
    }
    sys::close_others().map_err(|error| format!("close_range: {error}"))?;
    sys::reset_signals();
    Ok((path, argv, environment))
}

/// As a shell finds a command. What is not found is left as it is: the exec then says so.
pub fn search(command: &str) -> Vec<u8> {
    if !command.contains('/') {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        for folder in std::env::split_paths(&path).filter(|folder| folder.is_absolute()) {
            let candidate = folder.join(Path::new(command));
            if candidate.is_file() && access(&candidate, Access::EXEC_OK).is_ok() {
                return candidate.into_os_string().into_vec();
            }
        }
    }
    command.as_bytes().to_vec()
}
