//! Stops a new image at its exec event, and lets it go or kills it later.
//!
//! The caller is seized while it waits for the notification's answer, then its exec goes on, and then it stops: at
//! `PTRACE_EVENT_EXEC`, before its first instruction, or anywhere else, which means that the exec failed. Its parent
//! waits for none of this; with vfork it goes on when the new image has its own memory, before the stop.
//!
//! ptrace knows one thread as the tracer, so one thread does it for all holds. When it ends, for whatever reason, the
//! kernel kills every held image (`PTRACE_O_EXITKILL`). No other thread of this process may wait for *any* child
//! (`waitpid(-1)` without `__WNOTHREAD`): it would take the stops.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::sys::{self, TraceeChange};

/// While an exec is under way its stop is looked for this often; slower and slower up to the second number.
const LOOK_FIRST: Duration = Duration::from_micros(100);
const LOOK_LAST: Duration = Duration::from_millis(10);

/// How the exec of a seized task came out.
#[derive(Debug)]
pub enum Stopped {
    /// The new image stands still. This is its process.
    Held(i32),
    /// The exec failed; the task runs on with the old image.
    Failed,
    /// The task died.
    Gone,
}

/// A seized task.
#[derive(Debug)]
pub struct Seized {
    /// Names it in later requests.
    pub key: u64,
    /// How its exec came out.
    pub stopped: oneshot::Receiver<Stopped>,
    /// Resolves when it died while it was held.
    pub gone: oneshot::Receiver<()>,
}

enum Request {
    Seize {
        tid: i32,
        pid: i32,
        key: u64,
        reply: oneshot::Sender<Result<Seized, String>>,
    },
    Continued {
        key: u64,
    },
    Resume {
        key: u64,
        reply: oneshot::Sender<bool>,
    },
    Kill {
        key: u64,
        reply: oneshot::Sender<bool>,
    },
    /// The gate is gone: so is the thread, and with it every held image.
    Stop,
}

/// The thread that holds.
#[derive(Debug)]
pub struct Tracer {
    requests: Sender<Request>,
    bell: Arc<OwnedFd>,
    next: std::sync::atomic::AtomicU64,
}

impl Tracer {
    /// Starts the thread. `on_failed` is called with the thread's id when an exec failed, before the task can call
    /// another one: the place to take its approval back.
    pub fn start(on_failed: impl Fn(i32) + Send + 'static) -> Result<Self, Error> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(|error| Error::io("no eventfd for the tracer")(error.into()))?);
        let (requests, receiver) = channel();
        let mut work = Work {
            requests: receiver,
            bell: Arc::clone(&bell),
            tasks: HashMap::new(),
            on_failed: Box::new(on_failed),
        };
        std::thread::Builder::new()
            .name("exec-holds".into())
            .spawn(move || work.run())
            .map_err(Error::io("no thread for the tracer"))?;
        Ok(Self { requests, bell, next: 1.into() })
    }

    fn request(&self, request: Request) {
        // A thread that ended answers nothing: whoever waits for the reply sees its sender dropped.
        let _ = self.requests.send(request);
        // It fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
    }

    /// Seizes a thread that waits in execve. The error is a sentence.
    pub async fn seize(&self, tid: i32, pid: i32) -> Result<Seized, String> {
        let key = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.request(Request::Seize { tid, pid, key, reply });
        answer.await.unwrap_or_else(|_| Err("the tracer has ended".into()))
    }

    /// The seized task's execve was answered, with whatever: it is to be stopped, or to be let go if no exec comes.
    pub fn continued(&self, key: u64) {
        self.request(Request::Continued { key });
    }

    /// Lets a held image run. False: it is gone.
    pub async fn resume(&self, key: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Resume { key, reply });
        answer.await.unwrap_or(false)
    }

    /// Kills a held image. Returns when it is dead. False: it was gone already.
    pub async fn kill(&self, key: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Kill { key, reply });
        answer.await.unwrap_or(false)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.request(Request::Stop);
    }
}

enum State {
    /// Waits for the answer to its execve.
    Seized { stopped: oneshot::Sender<Stopped>, gone: oneshot::Sender<()> },
    /// Its execve was answered; it will stop.
    Continued { stopped: oneshot::Sender<Stopped>, gone: oneshot::Sender<()> },
    /// Stands at its exec event. The descriptor tells when it dies.
    Held { gone: oneshot::Sender<()>, pidfd: OwnedFd },
    /// SIGKILL was sent.
    Dying { reply: Option<oneshot::Sender<bool>> },
}

struct Task {
    // The thread as ptrace names it; the process from the exec event on.
    tid: i32,
    pid: i32,
    state: State,
}

struct Work {
    requests: Receiver<Request>,
    bell: Arc<OwnedFd>,
    tasks: HashMap<u64, Task>,
    on_failed: Box<dyn Fn(i32) + Send>,
}

impl Work {
    fn run(&mut self) {
        let mut look = LOOK_FIRST;
        loop {
            let moved = self.take_changes();
            let under_way = self
                .tasks
                .values()
                .any(|task| matches!(task.state, State::Continued { .. } | State::Dying { .. }));
            look = if moved { LOOK_FIRST } else { (look * 2).min(LOOK_LAST) };
            self.wait(under_way.then_some(look));
            if !self.take_requests(&mut look) {
                return;
            }
        }
    }

    // Until the bell rings, a held task dies, or the time is over.
    fn wait(&self, limit: Option<Duration>) {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        for task in self.tasks.values() {
            if let State::Held { pidfd, .. } = &task.state {
                fds.push(PollFd::new(pidfd, PollFlags::IN));
            }
        }
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
        if let Err(error) = poll(&mut fds, limit.as_ref())
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "the tracer cannot wait");
            std::thread::sleep(LOOK_LAST);
        }
    }

    // False: the gate is gone.
    fn take_requests(&mut self, look: &mut Duration) -> bool {
        let mut count = [0u8; 8];
        // Nothing to read: it was not the bell.
        let _ = rustix::io::read(&*self.bell, &mut count);
        loop {
            match self.requests.try_recv() {
                Ok(Request::Stop) => return false,
                Ok(request) => {
                    *look = LOOK_FIRST;
                    self.take_request(request);
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Seize { tid, pid, key, reply } => {
                let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACEEXEC;
                let result = ptrace::seize(Pid::from_raw(tid), options)
                    .map_err(|error| format!("the process cannot be stopped at its exec ({error})"))
                    .map(|()| {
                        let (stopped, stopped_answer) = oneshot::channel();
                        let (gone, gone_answer) = oneshot::channel();
                        self.forget(tid);
                        let state = State::Seized { stopped, gone };
                        self.tasks.insert(key, Task { tid, pid, state });
                        Seized { key, stopped: stopped_answer, gone: gone_answer }
                    });
                if reply.send(result).is_err() {
                    self.continued(key);
                }
            }
            Request::Continued { key } => self.continued(key),
            Request::Stop => {}
            Request::Resume { key, reply } => {
                let resumed = match self.tasks.get(&key) {
                    Some(Task { tid, state: State::Held { .. }, .. }) => {
                        ptrace::detach(Pid::from_raw(*tid), None).is_ok()
                    }
                    _ => false,
                };
                if resumed {
                    self.tasks.remove(&key);
                }
                let _ = reply.send(resumed);
            }
            Request::Kill { key, reply } => match self.tasks.get_mut(&key) {
                Some(task) => {
                    // The id cannot be another's: this thread has not waited for the task's end.
                    let sent = kill(Pid::from_raw(task.tid), Signal::SIGKILL).is_ok();
                    task.state = State::Dying { reply: Some(reply) };
                    if !sent {
                        self.tasks.remove(&key);
                    }
                }
                None => {
                    let _ = reply.send(false);
                }
            },
        }
    }

    fn continued(&mut self, key: u64) {
        let Some(task) = self.tasks.remove(&key) else { return };
        let state = match task.state {
            State::Seized { stopped, gone } => {
                // It fails when the task is dead; its end is still to be taken.
                let _ = ptrace::interrupt(Pid::from_raw(task.tid));
                State::Continued { stopped, gone }
            }
            other => other,
        };
        self.tasks.insert(key, Task { state, ..task });
    }

    // True: something changed.
    fn take_changes(&mut self) -> bool {
        let mut any = false;
        while let Some((tid, change)) = sys::next_tracee_change() {
            any = true;
            match change {
                TraceeChange::Ended => self.ended(tid),
                TraceeChange::Event(libc::PTRACE_EVENT_EXEC) => self.executed(tid),
                TraceeChange::Event(_) => self.not_executed(tid, None),
                TraceeChange::Signal(signal) => self.not_executed(tid, Signal::try_from(signal).ok()),
            }
        }
        any
    }

    fn key_of(&self, tid: i32) -> Option<u64> {
        self.tasks.iter().find(|(_, task)| task.tid == tid).map(|(key, _)| *key)
    }

    // A task that could be seized was nobody's tracee. What is known of its id belongs to a leader that ended without a
    // word at another thread's exec, and must not be taken for it.
    fn forget(&mut self, tid: i32) {
        let keys: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| task.tid == tid).map(|(key, _)| *key).collect();
        for key in keys {
            self.end(key);
        }
    }

    // A thread's end is its own; a process's end is that of all its threads, and after an exec by another thread than
    // the leader the process is all that there is.
    fn ended(&mut self, tid: i32) {
        let keys: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.tid == tid || task.pid == tid)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.end(key);
        }
    }

    // Tells whoever waits for a task that it is dead.
    fn end(&mut self, key: u64) {
        match self.tasks.remove(&key).map(|task| task.state) {
            Some(State::Seized { stopped, .. } | State::Continued { stopped, .. }) => {
                let _ = stopped.send(Stopped::Gone);
            }
            Some(State::Held { gone, .. }) => {
                let _ = gone.send(());
            }
            Some(State::Dying { reply: Some(reply) }) => {
                let _ = reply.send(true);
            }
            Some(State::Dying { reply: None }) | None => {}
        }
    }

    fn executed(&mut self, pid: i32) {
        // The thread that called execve; it has the process's id now.
        let thread = ptrace::getevent(Pid::from_raw(pid)).map_or(pid, |message| message as i32);
        let key = self.key_of(thread);
        // Every other thread of the process ended with this exec, a seized leader without a word.
        let others: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(other, task)| task.pid == pid && Some(**other) != key)
            .map(|(other, _)| *other)
            .collect();
        for other in others {
            if let Some(State::Seized { stopped, .. } | State::Continued { stopped, .. }) =
                self.tasks.remove(&other).map(|task| task.state)
            {
                let _ = stopped.send(Stopped::Gone);
            }
        }
        let task = key.and_then(|key| self.tasks.remove(&key).map(|task| (key, task)));
        let held = match task {
            // The exec may be faster than the word that it was allowed to go on.
            Some((
                key,
                Task { state: State::Seized { stopped, gone } | State::Continued { stopped, gone }, .. },
            )) => match sys::pidfd_open_process(pid) {
                Ok(pidfd) if stopped.send(Stopped::Held(pid)).is_ok() => {
                    Some((key, State::Held { gone, pidfd }))
                }
                _ => None,
            },
            _ => None,
        };
        // An exec that nobody waits for was allowed by nobody.
        let (key, state) = held.unwrap_or_else(|| {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            // No request has this key: the real ones count from 1.
            (u64::MAX - pid as u64, State::Dying { reply: None })
        });
        self.tasks.insert(key, Task { tid: pid, pid, state });
    }

    // Any other stop: execve has returned, or was interrupted and will be notified again.
    fn not_executed(&mut self, tid: i32, signal: Option<Signal>) {
        let Some(key) = self.key_of(tid) else {
            let _ = ptrace::detach(Pid::from_raw(tid), signal);
            return;
        };
        let Some(task) = self.tasks.remove(&key) else { return };
        match task.state {
            State::Seized { stopped, .. } | State::Continued { stopped, .. } => {
                (self.on_failed)(tid);
                let _ = ptrace::detach(Pid::from_raw(tid), signal);
                let _ = stopped.send(Stopped::Failed);
            }
            // A held task does not leave its stop but to die.
            State::Held { gone, .. } => {
                let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
                let _ = gone.send(());
                self.tasks.insert(key, Task { state: State::Dying { reply: None }, ..task });
            }
            state @ State::Dying { .. } => {
                let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
                self.tasks.insert(key, Task { state, ..task });
            }
        }
    }
}
