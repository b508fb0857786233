//! Proves that the mechanisms of the gate work on this host, by using them on throw-away processes.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clawsec_core::Without;
use clawsec_core::pb::{Capability, CapabilityState};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::bpf::abi::Approval;
use crate::bpf::lsm::Chain;
use crate::bpf::{ExecVerify, Layers, RING_BYTES, Tracepoints};
use crate::file::Mounts;
use crate::{sys, tracee};

/// A program that every host has.
const SHELL: &str = "/bin/sh";
/// What the shell is told to end with: no other end looks like it.
const SHELL_CODE: i32 = 7;
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries everything that the gate needs, `without` what is to be left unused. Takes some tens of milliseconds; blocks.
pub fn probe(without: Without) -> Vec<Capability> {
    // ptrace and the waits for children belong to one thread.
    let probes = std::thread::spawn(move || {
        vec![
            match pid_namespace() {
                Ok(()) => capability(
                    "bpf.exec_verify",
                    verify(Layers::Verify, without),
                    "Use a kernel with BTF, BPF tracing (tp_btf or raw_tp), bpf_loop (5.17) and a cgroup v2 hierarchy, as root.",
                ),
                Err(why) => capability(
                    "bpf.exec_verify",
                    Err(why),
                    "Start clawsec in the host's PID namespace: outside of a container, or in one with --pid=host.",
                ),
            },
            Capability {
                required: false,
                ..capability(
                    "bpf.lsm",
                    verify(Layers::LsmAndVerify, without),
                    "Use a kernel with CONFIG_BPF_LSM and bpf in its list of security modules (lsm=...,bpf at boot), \
                     as Debian's are. Without it, an exec that nobody approved is killed instead of refused.",
                )
            },
            capability(
                "seccomp.notify",
                notify(without),
                "Use a kernel with seccomp user notification (5.5 or newer) and pidfd_getfd (5.6).",
            ),
            capability(
                "ptrace.hold",
                hold(),
                "Give the loader CAP_SYS_PTRACE, and do not forbid ptrace to it (kernel.yama.ptrace_scope below 3).",
            ),
        ]
    });
    probes.join().unwrap_or_default()
}

/// BPF knows processes by the numbers of the first PID namespace, `PROC_PID_INIT_INO` of linux/proc_ns.h; the loader sees
/// those of its own.
fn pid_namespace() -> Result<(), String> {
    const FIRST: u64 = 0xEFFF_FFFC;
    match fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) if namespace.ino() == FIRST => Ok(()),
        Ok(_) => {
            Err("The loader runs in a PID namespace of its own, where processes have other numbers than BPF sees.".into())
        }
        Err(error) => Err(text("A look at the PID namespace")(error)),
    }
}

/// The layers that work here, found by refusing an exec.
pub fn layers(without: Without) -> Layers {
    let proof = std::thread::spawn(move || verify(Layers::LsmAndVerify, without)).join();
    match proof {
        Ok(Ok(_)) => Layers::LsmAndVerify,
        Ok(Err(why)) => {
            tracing::info!(why, "BPF-LSM is not used for execs");
            Layers::Verify
        }
        Err(_) => Layers::Verify,
    }
}

struct Proof {
    detail: String,
    level: String,
}

fn capability(name: &str, result: Result<Proof, String>, remedy: &str) -> Capability {
    let (state, detail, level, remedy) = match result {
        Ok(Proof { detail, level }) => (CapabilityState::Present, detail, level, String::new()),
        Err(detail) => (CapabilityState::Missing, detail, String::new(), remedy.into()),
    };
    Capability { name: name.into(), state: state.into(), detail, remedy, level, required: true }
}

fn text(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what} failed: {error}.")
}

/// A child of this process. Killed and reaped at the end, whatever happens.
struct Child {
    pid: Pid,
    ended: bool,
}

impl Child {
    /// Forks. `run` may only do what is safe after a fork of a process with threads: system calls on prepared memory.
    fn new(run: impl FnOnce() -> i32) -> Result<Self, String> {
        // SAFETY: the child makes system calls on memory prepared before, and ends without unwinding.
        match unsafe { libc::fork() } {
            -1 => Err(text("A fork")(io::Error::last_os_error())),
            0 => {
                let code = run();
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(Self { pid: Pid::from_raw(pid), ended: false }),
        }
    }

    /// Its next change.
    fn wait(&mut self, what: &str) -> Result<WaitStatus, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(200)),
                Ok(status) => {
                    self.ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                    return Ok(status);
                }
                Err(error) => return Err(format!("Waiting for {what} failed: {error}.")),
            }
        }
        Err(format!("Nothing happened within 5 s: {what}."))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
        }
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, String> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| text("A pipe")(error.into()))?;
        Ok(Self { read, write })
    }

    fn send(&self, number: u32) -> bool {
        rustix::io::write(&self.write, &number.to_ne_bytes()) == Ok(4)
    }

    fn receive(&self) -> Option<u32> {
        let mut bytes = [0; 4];
        match rustix::io::read(&self.read, &mut bytes) {
            Ok(4) => Some(u32::from_ne_bytes(bytes)),
            _ => None,
        }
    }
}

/// Arguments of the shell, made before the fork.
struct Shell {
    argv: Vec<CString>,
}

impl Shell {
    fn new() -> Result<Self, String> {
        let parts = [SHELL.to_owned(), "-c".into(), format!("exit {SHELL_CODE}")];
        let argv = parts.into_iter().map(CString::new).collect::<Result<_, _>>();
        Ok(Self { argv: argv.map_err(|_| "The shell's arguments hold a zero.".to_owned())? })
    }

    // Allocates nothing. Returns only when it fails, with the error.
    fn exec(&self) -> i32 {
        let [path, flag, command] = &self.argv[..] else { return 99 };
        let argv = [path.as_ptr(), flag.as_ptr(), command.as_ptr(), std::ptr::null()];
        // SAFETY: strings and array end with zeros and live until the image is replaced.
        unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
        io::Error::last_os_error().raw_os_error().unwrap_or(99)
    }
}

/// A cgroup that is removed at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mount = tracee::cgroup_mount().ok_or("No cgroup v2 hierarchy is mounted.")?;
        let path = mount.join(format!("clawsec-probe-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(text("Making a cgroup"))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "the cgroup of a probe is left");
        }
    }
}

// With BPF-LSM both layers work together, as in a gate: what it lets through, the other one verifies.
fn verify(layers: Layers, without: Without) -> Result<Proof, String> {
    let verify = ExecVerify::load(None, layers, without, RING_BYTES)
        .map_err(|error| format!("Loading failed: {error}."))?;
    let scratch = Scratch::new()?;
    let id = fs::metadata(&scratch.path).map_err(text("Reading a cgroup"))?.ino();
    verify.add_scope(id, 0).map_err(|error| format!("Adding a scope failed: {error}."))?;
    let procs = fs::OpenOptions::new().write(true).open(scratch.path.join("cgroup.procs"));
    let procs = procs.map_err(text("Opening a cgroup"))?;
    let shell = Shell::new()?;
    let file = openat(CWD, SHELL, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let file = file.map_err(|error| text("Opening /bin/sh")(error.into()))?;
    let (file, _, _) = Mounts::default()
        .identify(file.as_fd(), std::process::id() as i32)
        .map_err(text("Identifying /bin/sh"))?;
    let argv: Vec<u8> = shell.argv.iter().flat_map(|part| part.as_bytes_with_nul()).copied().collect();

    let run = |approved: bool| {
        let go = Pipe::new()?;
        let mut child = Child::new(|| {
            let joined = rustix::io::write(&procs, b"0") == Ok(1);
            if joined && go.receive().is_some() { shell.exec() } else { 98 }
        })?;
        if approved {
            let approval = Approval {
                inode: file.inode,
                argv_hash: verify.hash(&argv),
                argv_length: argv.len() as u64,
                cgroup: id,
                exec: 1,
                device: file.device,
                argc: shell.argv.len() as u32,
                environment: None,
                cwd: None,
            };
            let chain = Chain::new(approval.exec, [&file]);
            let put = verify.approve(child.pid.as_raw(), approval, &chain);
            put.map_err(|error| format!("An approval failed: {error}."))?;
        }
        go.send(1);
        child.wait("the exec of a shell")
    };
    let detail = match (layers, run(false)?) {
        (Layers::Verify, WaitStatus::Signaled(_, Signal::SIGKILL, _)) => {
            "An exec without approval was killed before its first instruction, one with approval ran."
        }
        (Layers::LsmAndVerify, WaitStatus::Exited(_, libc::EACCES)) if verify.counters().refused == 1 => {
            "An exec without approval failed with EACCES and its caller lived, one with approval ran."
        }
        (Layers::Verify, other) => {
            return Err(format!("An exec that nobody approved was not killed: {other:?}."));
        }
        (Layers::LsmAndVerify, other) => {
            return Err(format!("An exec that nobody approved was not refused: {other:?}."));
        }
    };
    match run(true)? {
        WaitStatus::Exited(_, SHELL_CODE) => {}
        other => return Err(format!("An approved exec did not run: {other:?}.")),
    }
    let tracepoints = verify.tracepoints();
    let how = match tracepoints {
        Tracepoints::Typed => "",
        Tracepoints::Raw => {
            " Raw tracepoints are used, since typed ones are not there: the same is verified, slower."
        }
    };
    Ok(Proof { detail: format!("{detail}{how}"), level: tracepoints.name().into() })
}

fn notify(without: Without) -> Result<Proof, String> {
    const ANSWER: i64 = 4242;
    // Loads the number of the system call; notifies getppid, allows the rest.
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_getppid as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let run = |flags: libc::c_ulong| -> Result<(), String> {
        let (listener, go) = (Pipe::new()?, Pipe::new()?);
        let mut child = Child::new(|| {
            // SAFETY: the program points to the filter, which the child has a copy of.
            let fd = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let mode = libc::SECCOMP_SET_MODE_FILTER;
                libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
            };
            if fd < 0 {
                return 97;
            }
            if !listener.send(fd as u32) || go.receive().is_none() {
                return 98;
            }
            // SAFETY: takes and gives numbers.
            let answer = unsafe { libc::syscall(libc::SYS_getppid) };
            if answer == ANSWER { 0 } else { 1 }
        })?;
        // The parent's copy, so that a child that ended is seen as the end of the pipe.
        let Pipe { read, write } = listener;
        drop(write);
        let mut number = [0; 4];
        if rustix::io::read(&read, &mut number) != Ok(4) {
            return Err("A filter with a listener was refused.".into());
        }
        let pidfd = sys::pidfd_open_process(child.pid.as_raw()).map_err(text("pidfd_open"))?;
        let listener =
            sys::pidfd_getfd(pidfd.as_fd(), i32::from_ne_bytes(number)).map_err(text("pidfd_getfd"))?;
        go.send(1);
        let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&limit)) != Ok(1) {
            return Err("No notification came.".into());
        }
        let seen = sys::seccomp_receive(listener.as_fd()).map_err(text("Receiving a notification"))?;
        let response = libc::seccomp_notif_resp { id: seen.id, val: ANSWER, error: 0, flags: 0 };
        sys::seccomp_send(listener.as_fd(), response).map_err(text("Answering a notification"))?;
        match child.wait("the answer to a notification")? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("The answer did not arrive: {other:?}.")),
        }
    };
    let with_listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = with_listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    if !without.wait_killable && run(killable).is_ok() {
        return Ok(Proof {
            detail: "A system call waited for an answer and returned it; signals wait meanwhile.".into(),
            level: "wait-killable".into(),
        });
    }
    run(with_listener)?;
    Ok(Proof {
        detail: "A system call waited for an answer and returned it. A signal interrupts the wait: the same call made \
                 again is the same question. Linux 5.19 and newer wait (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)."
            .into(),
        level: "basic".into(),
    })
}

fn hold() -> Result<Proof, String> {
    let shell = Shell::new()?;
    let run = |resume: bool| {
        let go = Pipe::new()?;
        let mut child = Child::new(|| if go.receive().is_some() { shell.exec() } else { 98 })?;
        let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(child.pid, options).map_err(|error| text("Seizing a process")(error.into()))?;
        go.send(1);
        match child.wait("an exec event")? {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {}
            other => return Err(format!("A process was not stopped at its exec: {other:?}.")),
        }
        let exe = fs::read_link(format!("/proc/{}/exe", child.pid.as_raw()));
        if exe.map_err(text("Reading the held image"))?
            != fs::canonicalize(SHELL).map_err(text("Resolving /bin/sh"))?
        {
            return Err("The held image is not the shell.".into());
        }
        if resume {
            ptrace::detach(child.pid, None).map_err(|error| text("Detaching")(error.into()))?;
        } else {
            kill(child.pid, Signal::SIGKILL).map_err(|error| text("Killing")(error.into()))?;
        }
        child.wait("the end of a held image")
    };
    match run(false)? {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => {}
        other => return Err(format!("A held image that was killed ran: {other:?}.")),
    }
    match run(true)? {
        WaitStatus::Exited(_, SHELL_CODE) => {}
        other => return Err(format!("A held image that was released did not run: {other:?}.")),
    }
    Ok(Proof {
        detail: "An image was stopped at its exec; killed there it ran nothing, released it ran.".into(),
        level: String::new(),
    })
}
