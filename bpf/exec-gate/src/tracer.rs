//! The thread of the holds: every ptrace call and every wait for a tracee is made here.
//!
//! The kernel does not tell when a seized task stops, so those that are about to are asked one by one, and only those:
//! a wait for any tracee would look at every held one each time. Of a held one, its pidfd tells the death. A signal
//! that would end it is not delivered while it stands; whoever sent it waits for an end, so the pending signals of
//! the held are looked at in turn, and one that ends the process ends it: always by SIGKILL, never by letting it go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{Timespec, epoll};
use tokio::sync::oneshot;

use crate::hold::{SeizeError, Seized, Stopped};
use crate::sys::{self, TraceeChange};
use crate::tracee;

/// While an exec is under way its stop is looked for this often; slower and slower up to the second number.
const LOOK_FIRST: Duration = Duration::from_micros(100);
const LOOK_LAST: Duration = Duration::from_millis(10);
/// How often pending signals of held images are looked at, and of how many at a time (about 30 us each): of 10,000
/// each one within 10 s.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);
const SIGNALS_AT_ONCE: usize = 100;
/// Deaths that are taken with one call.
const DEATHS: usize = 256;
/// What the bell is in the epoll instance. The keys of tasks count from 1.
const BELL: u64 = 0;

/// What the thread is asked to do.
pub enum Request {
    Seize(Seize),
    Continued {
        key: u64,
    },
    Pidfd {
        key: u64,
        reply: oneshot::Sender<Option<OwnedFd>>,
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

/// A thread that is to be seized.
pub struct Seize {
    pub tid: i32,
    pub pid: i32,
    pub key: u64,
    pub reply: oneshot::Sender<Result<Seized, SeizeError>>,
}

enum State {
    /// Waits for the answer to its execve.
    Seized { stopped: oneshot::Sender<Stopped>, gone: oneshot::Sender<String> },
    /// Its execve was answered; it will stop.
    Continued { stopped: oneshot::Sender<Stopped>, gone: oneshot::Sender<String> },
    /// Stands at its exec event. The descriptor tells when it dies.
    Held { gone: oneshot::Sender<String>, pidfd: OwnedFd },
    /// Dead, or SIGKILL was sent: its end is to be taken.
    Dying { reply: Option<oneshot::Sender<bool>> },
}

struct Task {
    // The thread as ptrace names it; the process from the exec event on.
    tid: i32,
    pid: i32,
    state: State,
}

/// What the thread knows.
pub struct Work {
    requests: Receiver<Request>,
    bell: Arc<OwnedFd>,
    // The bell, and the pidfd of each held process.
    watched: OwnedFd,
    tasks: HashMap<u64, Task>,
    // A thread can be known twice for a moment: a leader that another thread's exec ended, and that thread.
    by_pid: BTreeMap<i32, Vec<u64>>,
    // The tasks that are `Continued` or `Dying`.
    under_way: BTreeSet<u64>,
    held: BTreeSet<u64>,
    // To be seized when nothing is under way in their process, in the order in which they came.
    delayed: Vec<Seize>,
    // The held one whose signals were looked at last, and when.
    looked_at: u64,
    looked: Instant,
    on_failed: Box<dyn Fn(i32) + Send>,
}

impl Work {
    pub fn new(
        requests: Receiver<Request>,
        bell: Arc<OwnedFd>,
        on_failed: Box<dyn Fn(i32) + Send>,
    ) -> std::io::Result<Self> {
        let watched = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&watched, &*bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Self {
            requests,
            bell,
            watched,
            tasks: HashMap::new(),
            by_pid: BTreeMap::new(),
            under_way: BTreeSet::new(),
            held: BTreeSet::new(),
            delayed: Vec::new(),
            looked_at: BELL,
            looked: Instant::now(),
            on_failed,
        })
    }

    pub fn run(&mut self) {
        let mut look = LOOK_FIRST;
        loop {
            look = if self.take_changes() { LOOK_FIRST } else { (look * 2).min(LOOK_LAST) };
            // What they waited for may have ended just now, and no bell says so.
            self.seize_delayed();
            self.look_at_signals();
            let limit = if !self.under_way.is_empty() {
                Some(look)
            } else {
                (!self.held.is_empty()).then_some(SIGNALS_EVERY)
            };
            self.wait(limit);
            if !self.take_requests(&mut look) {
                return;
            }
            self.seize_delayed();
        }
    }

    // Until the bell rings, a held task dies, or the time is over.
    fn wait(&mut self, limit: Option<Duration>) {
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
        let mut seen = Vec::with_capacity(DEATHS);
        match epoll::wait(&self.watched, rustix::buffer::spare_capacity(&mut seen), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the tracer cannot wait");
                std::thread::sleep(LOOK_LAST);
            }
        }
        for event in seen {
            match event.data.u64() {
                BELL => {}
                key => self.died(key),
            }
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
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Seize(seize) => self.delayed.push(seize),
            Request::Continued { key } => self.continued(key),
            Request::Stop => {}
            Request::Pidfd { key, reply } => {
                let pidfd = match self.tasks.get(&key).map(|task| &task.state) {
                    Some(State::Held { pidfd, .. }) => pidfd.try_clone().ok(),
                    _ => None,
                };
                let _ = reply.send(pidfd);
            }
            Request::Resume { key, reply } => {
                let resumed = match self.tasks.get(&key) {
                    Some(Task { tid, state: State::Held { .. }, .. }) => {
                        ptrace::detach(Pid::from_raw(*tid), None).is_ok()
                    }
                    _ => false,
                };
                if resumed {
                    self.take(key);
                }
                let _ = reply.send(resumed);
            }
            Request::Kill { key, reply } => match self.take(key) {
                Some(task) => {
                    // The id cannot be another's: this thread has not waited for the task's end.
                    if kill(Pid::from_raw(task.tid), Signal::SIGKILL).is_ok() {
                        self.put(key, Task { state: State::Dying { reply: Some(reply) }, ..task });
                    }
                }
                None => {
                    let _ = reply.send(false);
                }
            },
        }
    }

    // Seizes whose turn it is.
    fn seize_delayed(&mut self) {
        for seize in std::mem::take(&mut self.delayed) {
            let settled = |key: &u64| self.held.contains(key);
            if self.by_pid.get(&seize.pid).is_none_or(|keys| keys.iter().all(settled)) {
                self.seize(seize);
            } else {
                self.delayed.push(seize);
            }
        }
    }

    fn seize(&mut self, Seize { tid, pid, key, reply }: Seize) {
        let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACEEXEC;
        let result = match ptrace::seize(Pid::from_raw(tid), options) {
            Ok(()) => {
                let (stopped, stopped_answer) = oneshot::channel();
                let (gone, gone_answer) = oneshot::channel();
                self.forget(tid, pid);
                self.put(key, Task { tid, pid, state: State::Seized { stopped, gone } });
                Ok(Seized { key, stopped: stopped_answer, gone: gone_answer })
            }
            Err(Errno::ESRCH) => Err(SeizeError::Gone),
            Err(error) => {
                let why = format!("the process cannot be stopped at its exec ({error})");
                Err(SeizeError::Refused(why))
            }
        };
        if reply.send(result).is_err() {
            self.continued(key);
        }
    }

    fn continued(&mut self, key: u64) {
        let Some(task) = self.take(key) else { return };
        let state = match task.state {
            State::Seized { stopped, gone } => {
                // It fails when the task is dead; its end is still to be taken.
                let _ = ptrace::interrupt(Pid::from_raw(task.tid));
                State::Continued { stopped, gone }
            }
            other => other,
        };
        self.put(key, Task { state, ..task });
    }

    // Adds a task, with its place in each index.
    fn put(&mut self, key: u64, task: Task) {
        match &task.state {
            State::Seized { .. } => {}
            State::Continued { .. } | State::Dying { .. } => drop(self.under_way.insert(key)),
            State::Held { pidfd, .. } => {
                self.held.insert(key);
                let data = epoll::EventData::new_u64(key);
                if let Err(error) = epoll::add(&self.watched, pidfd, data, epoll::EventFlags::IN) {
                    // Its death is seen when it is decided about.
                    tracing::error!(%error, "the death of a held process cannot be watched");
                }
            }
        }
        self.by_pid.entry(task.pid).or_default().push(key);
        self.tasks.insert(key, task);
    }

    fn take(&mut self, key: u64) -> Option<Task> {
        let task = self.tasks.remove(&key)?;
        self.under_way.remove(&key);
        self.held.remove(&key);
        if let State::Held { pidfd, .. } = &task.state {
            // A copy of the descriptor, if there is one, would keep it watched.
            let _ = epoll::delete(&self.watched, pidfd);
        }
        if let Some(keys) = self.by_pid.get_mut(&task.pid) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_pid.remove(&task.pid);
            }
        }
        Some(task)
    }

    fn keys_of(&self, pid: i32) -> Vec<u64> {
        self.by_pid.get(&pid).cloned().unwrap_or_default()
    }

    fn key_of(&self, tid: i32, pid: i32) -> Option<u64> {
        let named = |key: &u64| self.tasks.get(key).is_some_and(|task| task.tid == tid);
        self.by_pid.get(&pid)?.iter().copied().find(named)
    }

    // True: something changed.
    fn take_changes(&mut self) -> bool {
        let mut any = false;
        for key in self.under_way.iter().copied().collect::<Vec<u64>>() {
            // One before it may have ended it.
            let Some(&Task { tid, pid, .. }) = self.tasks.get(&key) else { continue };
            // After an exec by another thread than the leader, the process is all that there is.
            let (named, change) = match sys::tracee_change(tid) {
                Ok(change) => (tid, change),
                Err(_) => match sys::tracee_change(pid) {
                    Ok(change) => (pid, change),
                    Err(_) => {
                        any = true;
                        self.end(key);
                        continue;
                    }
                },
            };
            let Some(change) = change else { continue };
            any = true;
            match change {
                TraceeChange::Ended => self.ended(named, pid),
                TraceeChange::Event(libc::PTRACE_EVENT_EXEC) => self.executed(pid),
                TraceeChange::Event(_) => self.not_executed(named, pid, None),
                TraceeChange::Signal(signal) => {
                    self.not_executed(named, pid, Signal::try_from(signal).ok());
                }
            }
        }
        any
    }

    // A task that could be seized was nobody's tracee. What is known of its id belongs to a leader that ended without a
    // word at another thread's exec, and must not be taken for it.
    fn forget(&mut self, tid: i32, pid: i32) {
        while let Some(key) = self.key_of(tid, pid) {
            self.end(key);
        }
    }

    // A thread's end is its own; a process's end is that of all its threads.
    fn ended(&mut self, tid: i32, pid: i32) {
        let mut keys = self.keys_of(pid);
        keys.retain(|key| tid == pid || self.tasks.get(key).is_some_and(|task| task.tid == tid));
        for key in keys {
            self.end(key);
        }
    }

    // Tells whoever waits for a task that it is dead.
    fn end(&mut self, key: u64) {
        match self.take(key).map(|task| task.state) {
            Some(State::Seized { stopped, .. } | State::Continued { stopped, .. }) => {
                let _ = stopped.send(Stopped::Gone);
            }
            Some(State::Held { gone, .. }) => {
                let _ = gone.send("the held process was killed".into());
            }
            Some(State::Dying { reply: Some(reply) }) => {
                let _ = reply.send(true);
            }
            Some(State::Dying { reply: None }) | None => {}
        }
    }

    // A held process died. Its end is taken as soon as the kernel gives it.
    fn died(&mut self, key: u64) {
        self.end_held(key, "the held process was killed".into());
    }

    fn end_held(&mut self, key: u64, why: String) {
        let Some(task) = self.take(key) else { return };
        let State::Held { gone, .. } = task.state else {
            self.put(key, task);
            return;
        };
        let _ = gone.send(why);
        self.put(key, Task { state: State::Dying { reply: None }, ..task });
    }

    // Ends the held processes to which somebody sent a signal that ends them.
    fn look_at_signals(&mut self) {
        if self.held.is_empty() || self.looked.elapsed() < SIGNALS_EVERY {
            return;
        }
        self.looked = Instant::now();
        let from = self.looked_at + 1;
        let turn: Vec<u64> =
            self.held.range(from..).chain(self.held.range(..from)).copied().take(SIGNALS_AT_ONCE).collect();
        for key in turn {
            self.looked_at = key;
            let Some(&Task { tid, .. }) = self.tasks.get(&key) else { continue };
            if let Some(signal) = tracee::fatal_signal(tid) {
                let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
                self.end_held(key, format!("the held process was ended by {signal}"));
            }
        }
    }

    fn executed(&mut self, pid: i32) {
        // The thread that called execve; it has the process's id now.
        let thread = ptrace::getevent(Pid::from_raw(pid)).map_or(pid, |message| message as i32);
        let key = self.key_of(thread, pid);
        // Every other thread of the process ended with this exec, a seized leader without a word.
        for other in self.keys_of(pid).into_iter().filter(|other| Some(*other) != key) {
            self.end(other);
        }
        let task = key.and_then(|key| self.take(key).map(|task| (key, task)));
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
        self.put(key, Task { tid: pid, pid, state });
    }

    // Any other stop: execve has returned, or was interrupted and will be notified again.
    fn not_executed(&mut self, tid: i32, pid: i32, signal: Option<Signal>) {
        let Some(key) = self.key_of(tid, pid) else {
            let _ = ptrace::detach(Pid::from_raw(tid), signal);
            return;
        };
        let Some(task) = self.take(key) else { return };
        match task.state {
            State::Seized { stopped, .. } | State::Continued { stopped, .. } => {
                (self.on_failed)(tid);
                let _ = ptrace::detach(Pid::from_raw(tid), signal);
                let _ = stopped.send(Stopped::Failed);
            }
            // A held task does not leave its stop but to die.
            state @ (State::Held { .. } | State::Dying { .. }) => {
                let _ = kill(Pid::from_raw(tid), Signal::SIGKILL);
                self.put(key, Task { state, ..task });
                self.end_held(key, "the held process left its stop and was killed".into());
            }
        }
    }
}
