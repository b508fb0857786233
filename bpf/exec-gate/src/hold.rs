//! Stops a new image at its exec event, and lets it go or kills it later.
//!
//! The caller is seized while it waits for the notification's answer, then its exec goes on, and then it stops: at
//! `PTRACE_EVENT_EXEC`, before its first instruction, or anywhere else, which means that the exec failed. Its parent
//! waits for none of this; with vfork it goes on when the new image has its own memory, before the stop.
//!
//! ptrace knows one thread as the tracer, so one thread does it for all holds of a sandbox ([`crate::tracer`]). When it ends, for
//! whatever reason, the kernel kills every held image (`PTRACE_O_EXITKILL`). No other thread of this process may wait
//! for *any* child (`waitpid(-1)` without `__WNOTHREAD`): it would take the stops.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::tracer::{Request, Seize, Work};

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

/// Why a thread was not seized.
#[derive(Debug)]
pub enum SeizeError {
    /// It is dead.
    Gone,
    /// A sentence.
    Refused(String),
}

/// A seized task.
#[derive(Debug)]
pub struct Seized {
    /// Names it in later requests.
    pub key: u64,
    /// How its exec came out.
    pub stopped: oneshot::Receiver<Stopped>,
    /// Resolves when it died while it was held, with the reason.
    pub gone: oneshot::Receiver<String>,
}

/// The thread that holds, for one sandbox.
#[derive(Debug)]
pub struct Tracer {
    requests: Sender<Request>,
    bell: Arc<OwnedFd>,
    next: AtomicU64,
}

impl Tracer {
    /// Starts the thread. `on_failed` is called with the thread's id when an exec failed, before the task can call
    /// another one: the place to take its approval back.
    pub fn start(on_failed: impl Fn(i32) + Send + 'static) -> Result<Self, Error> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(|error| Error::io("no eventfd for the tracer")(error.into()))?);
        let (requests, receiver) = channel();
        let work = Work::new(receiver, Arc::clone(&bell), Box::new(on_failed));
        let mut work = work.map_err(Error::io("no epoll for the tracer"))?;
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

    /// Seizes a thread that waits in execve, when no other thread of its process is under way.
    pub async fn seize(&self, tid: i32, pid: i32) -> Result<Seized, SeizeError> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.request(Request::Seize(Seize { tid, pid, key, reply }));
        answer.await.unwrap_or_else(|_| Err(SeizeError::Refused("the tracer has ended".into())))
    }

    /// The seized task's execve was answered, with whatever: it is to be stopped, or to be let go if no exec comes.
    pub fn continued(&self, key: u64) {
        self.request(Request::Continued { key });
    }

    /// A descriptor of a held image's process. `None`: it is gone.
    pub async fn pidfd(&self, key: u64) -> Option<OwnedFd> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Pidfd { key, reply });
        answer.await.ok().flatten()
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
