//! A process tree behind a seccomp filter, and how it ends.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A descriptor of another process, by its number there.
pub fn take_fd(pid: i32, number: i32) -> OwnedFd {
    // SAFETY: no memory is passed, and the kernel gives new descriptors.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        assert!(pidfd >= 0);
        let pidfd = OwnedFd::from_raw_fd(pidfd);
        let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) as i32;
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// The first process of the tree. It is served until it ends.
pub struct Actor {
    child: Option<Child>,
    pub serving: Option<clawsec_exec_gate::notify::Serving>,
}

/// What a tree printed, and how its first process ended.
#[derive(Debug)]
pub struct Ended {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl Actor {
    pub fn new(child: Child, serving: Option<clawsec_exec_gate::notify::Serving>) -> Self {
        Self { child: Some(child), serving }
    }

    pub fn id(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// A line that the actor has written so far is needed while it runs.
    pub fn line(&mut self) -> String {
        let stdout = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Whether the first process has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the end of the first process, and of its listener.
    pub fn wait(self) -> Ended {
        self.wait_within(3 * PATIENCE)
    }

    /// As `wait`. A hang is a failure, and its processes are killed with the world.
    pub fn wait_within(mut self, limit: Duration) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + limit;
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the actor hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let ended = Ended {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
            signal: output.status.signal(),
        };
        if let Some(serving) = self.serving.take() {
            let until = Instant::now() + PATIENCE;
            while !serving.is_finished() {
                assert!(Instant::now() < until, "the listener is served although its last task ended");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        ended
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Strings for the command line of an actor.
pub fn args<const N: usize>(parts: [&dyn AsRef<OsStr>; N]) -> Vec<std::ffi::OsString> {
    parts.iter().map(|part| part.as_ref().to_owned()).collect()
}
