//! Seizes an image before its exec, as for a hold, to follow it: it stands at its exec event until it is let go, killed or
//! gone. [`crate::opens`] takes it from there.
//!
//! Each followed image has a thread of its own, since ptrace knows one thread as the tracer; most live for some
//! milliseconds. When the thread ends the image dies (`PTRACE_O_EXITKILL`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::copies;
use crate::file::{is_same, status, statx_of};
use crate::grip::Ways;
use crate::handover::Script;
use crate::hold::{SeizeError, Stopped};
use crate::opens::Opens;
use crate::sys::{self, GoOn};
use crate::tracee;

/// Images that are followed at the same time. Each costs a thread.
const FOLLOWED_MAX: usize = 256;
/// How often the death of an image that stands is looked for, and signals that would end it.
const LOOK: Duration = Duration::from_millis(100);
static FOLLOWED: AtomicUsize = AtomicUsize::new(0);

enum Order {
    Continued,
    Pidfd(oneshot::Sender<Option<OwnedFd>>),
    Resume(oneshot::Sender<bool>),
    Kill(oneshot::Sender<bool>),
}

/// Is called with a process that stands, and why it is about to be killed.
pub type OnKilled = Box<dyn FnOnce(i32, &str) + Send>;

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
/// exec failed, `on_killed` when its interpreter is killed for what it does.
pub async fn seize(
    tid: i32,
    script: Script,
    by_person: bool,
    on_failed: impl FnOnce(i32) + Send + 'static,
    on_killed: OnKilled,
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
        let mut script = script;
        let image = await_exec(tid, &receiver, stopped, on_failed, &mut script);
        let Some((pid, proven)) = image else { return };
        if let Err(error) = proven {
            on_killed(pid, &error.to_string());
            end(pid);
        } else if await_order(pid, &receiver, gone) {
            let _copy = copies::Entry::new(pid, &script, by_person);
            Opens::new(pid, script).follow(on_killed);
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

// Until the exec has come out; the process, if it stands before its first instruction, and whether it has the copy that it
// was given and has shown that it may have it. Nobody is told that it stands if it has not.
fn await_exec(
    tid: i32,
    orders: &Receiver<Order>,
    stopped: oneshot::Sender<Stopped>,
    on_failed: impl FnOnce(i32),
    script: &mut Script,
) -> Option<(i32, io::Result<()>)> {
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
    let proven = match same {
        true => script.prove(now),
        false => Err(io::Error::other("the copy of its script was replaced before its exec")),
    };
    if proven.is_ok() && stopped.send(Stopped::Held(now)).is_err() {
        end(now);
        return None;
    }
    Some((now, proven))
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
