//! System calls that wait for an answer: the listener of a seccomp filter with `SECCOMP_RET_USER_NOTIF`.
//!
//! [`serve`] receives on a few threads and gives each notification to the [`NotifyHandler`] of its system call. One
//! thread receives and calls the handler; to wake another one for each call would cost as much as the call. Where more
//! calls wait, or the handler takes longer than some milliseconds, another thread goes on receiving. So a handler may block (a
//! hung reader of the caller's memory costs one thread), but should hand longer waits to a task of its own: a
//! [`Notification`] can be kept and answered later, from anywhere. A wait that is mostly short is announced
//! ([`Notification::wait_here`]), and another thread receives meanwhile.
//!
//! Nothing is permitted by accident: a notification that is dropped without an answer is answered with EACCES.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::sys;
use crate::turn::Turn;

/// Who has waited for a call has slept and was woken, which takes longer than this. A wrong guess costs a change of
/// threads.
const AT_ONCE: Duration = Duration::from_micros(4);
/// Threads of one listener. One that hangs in a caller's memory must not stop the others.
const THREADS: usize = 3;

#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 0xc000_00b7;

/// Handles the notifications of one system call.
pub trait NotifyHandler: Send + Sync + 'static {
    /// Answers `notification`, now or later.
    fn handle(&self, notification: Notification);
}

/// The listening descriptor of one seccomp filter.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    turn: Turn,
    // Threads that wait for something else than a call.
    waiting: AtomicUsize,
}

/// A thread of a listener waits for something else than a call, until this is dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Listener>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Listener {
    /// Takes over a listener descriptor.
    pub fn new(fd: OwnedFd) -> Self {
        if let Err(error) = sys::seccomp_wake_on_same_cpu(&fd) {
            tracing::debug!(%error, "this kernel cannot wake the loader on the caller's cpu");
        }
        Self { fd, turn: Turn::default(), waiting: AtomicUsize::new(0) }
    }

    fn receive(self: &Arc<Self>) -> io::Result<Notification> {
        let raw = sys::seccomp_receive(self.fd.as_fd())?;
        Ok(Notification {
            listener: Arc::clone(self),
            id: raw.id,
            tid: raw.pid as i32,
            syscall: i64::from(raw.data.nr),
            arch: raw.data.arch,
            args: raw.data.args,
            received: Instant::now(),
            call: 0,
            answered: false,
        })
    }
}

/// One system call that waits.
#[derive(Debug)]
pub struct Notification {
    listener: Arc<Listener>,
    /// Id of the notification; grows by one with each of its listener.
    pub id: u64,
    /// The calling thread, as the host numbers it.
    pub tid: i32,
    /// Number of the system call.
    pub syscall: i64,
    /// Its six arguments. They are fixed; memory that they point to is not.
    pub args: [u64; 6],
    /// When it was received.
    pub received: Instant,
    arch: u32,
    // Number of the turn in which the receiving thread handles it; 0 when that has given the turn away.
    call: u64,
    answered: bool,
}

impl Notification {
    /// Whether the caller still waits. What was read from `/proc` or the caller's memory *before* a `true` here was
    /// of the caller and of no later task with the same id.
    pub fn is_valid(&self) -> bool {
        sys::seccomp_id_valid(self.listener.fd.as_fd(), self.id)
    }

    /// For the handler, on the thread that it was called on: that this thread waits a moment for somebody's answer
    /// now. Another one receives calls meanwhile. `None`: so many wait that nobody would be left to receive.
    pub fn wait_here(&self) -> Option<Waiting> {
        let listener = &self.listener;
        let more = |waiting| (waiting + 1 < THREADS).then_some(waiting + 1);
        listener.waiting.fetch_update(SeqCst, SeqCst, more).ok()?;
        if self.call != 0 && listener.turn.done(self.call) {
            listener.turn.pass();
        }
        Some(Waiting(Arc::clone(listener)))
    }

    /// Address of the environment of a call of execve or execveat.
    pub fn envp(&self) -> u64 {
        self.args[if self.syscall == libc::SYS_execve { 2 } else { 3 }]
    }

    /// Lets the kernel carry the call out. It reads all memory again: never a decision about that memory by itself.
    pub fn respond_continue(self) -> io::Result<()> {
        self.send(0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// The call fails with this error number (positive).
    pub fn respond_errno(self, errno: i32) -> io::Result<()> {
        self.send(0, -errno, 0)
    }

    /// The call returns this value without being carried out.
    pub fn respond_value(self, value: i64) -> io::Result<()> {
        self.send(value, 0, 0)
    }

    /// The call returns a new descriptor of the caller for the same open file as `source`.
    pub fn respond_fd(mut self, source: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<()> {
        sys::seccomp_add_fd(self.listener.fd.as_fd(), self.id, source, close_on_exec)?;
        self.answered = true;
        Ok(())
    }

    /// Puts a descriptor for the same open file as `source` into the caller, and gives its number there. The call goes
    /// on waiting.
    pub fn put_fd(&self, source: BorrowedFd<'_>) -> io::Result<i32> {
        sys::seccomp_put_fd(self.listener.fd.as_fd(), self.id, source)
    }

    fn send(mut self, val: i64, error: i32, flags: u32) -> io::Result<()> {
        self.answered = true;
        let response = libc::seccomp_notif_resp { id: self.id, val, error, flags };
        sys::seccomp_send(self.listener.fd.as_fd(), response)
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.answered {
            let response = libc::seccomp_notif_resp { id: self.id, val: 0, error: -libc::EACCES, flags: 0 };
            // The caller may be gone; then there is nobody to refuse.
            let _ = sys::seccomp_send(self.listener.fd.as_fd(), response);
        }
    }
}

/// A listener that is being served.
#[derive(Debug)]
pub struct Serving {
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Stops receiving and waits for the threads. Calls that wait for an answer go on waiting for it; later calls
    /// fail with ENOSYS once every [`Notification`] of the listener is gone.
    pub fn stop(mut self) {
        self.signal();
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread of a seccomp listener panicked");
            }
        }
    }

    /// Whether every task of the filter has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn signal(&self) {
        if let Err(error) = rustix::io::write(self.stop.as_fd(), &u64::to_ne_bytes(THREADS as u64)) {
            tracing::error!(%error, "the threads of a seccomp listener cannot be told to stop");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.signal();
        }
    }
}

/// Receives on `listener` until its last task has ended or [`Serving::stop`] is called. A system call without a
/// handler, or of a foreign architecture, is refused.
pub fn serve(
    name: &str,
    listener: OwnedFd,
    handlers: HashMap<i64, Arc<dyn NotifyHandler>>,
) -> io::Result<Serving> {
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let shared =
        Arc::new(Shared { listener: Arc::new(Listener::new(listener)), stop: Arc::clone(&stop), handlers });
    let mut serving = Serving { stop, threads: Vec::with_capacity(THREADS) };
    for number in 0..THREADS {
        let shared = Arc::clone(&shared);
        // The kernel keeps 15 bytes of a thread's name.
        let thread = std::thread::Builder::new().name(format!("notify{number}-{name:.7}"));
        serving.threads.push(thread.spawn(move || shared.work())?);
    }
    Ok(serving)
}

struct Shared {
    listener: Arc<Listener>,
    stop: Arc<OwnedFd>,
    handlers: HashMap<i64, Arc<dyn NotifyHandler>>,
}

/// What came of waiting for one call.
enum Served {
    /// It is still this thread's turn.
    Go,
    /// Another thread receives now.
    Passed,
    /// There is nothing more to serve.
    Over,
}

impl Shared {
    fn work(&self) {
        while self.listener.turn.take() {
            loop {
                match self.serve_one() {
                    Served::Go => {}
                    Served::Passed => break,
                    Served::Over => return self.listener.turn.end(),
                }
            }
        }
    }

    fn serve_one(&self) -> Served {
        let mut fds =
            [PollFd::new(&self.listener.fd, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
        let began = Instant::now();
        let pressed = match poll(&mut fds, None) {
            // Calls that waited already are for several threads.
            Ok(_) => began.elapsed() < AT_ONCE,
            Err(rustix::io::Errno::INTR) => return Served::Go,
            Err(error) => {
                tracing::error!(%error, "a seccomp listener cannot be polled any more");
                return Served::Over;
            }
        };
        if fds[1].revents().contains(PollFlags::IN) {
            return Served::Over;
        }
        let ready = fds[0].revents();
        if !ready.contains(PollFlags::IN) {
            // POLLHUP: the filter's last task has ended.
            let over = ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
            return if over { Served::Over } else { Served::Go };
        }
        let mut notification = match self.listener.receive() {
            Ok(notification) => notification,
            // The caller was killed between poll and receive, or a signal came to this thread.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                return Served::Go;
            }
            Err(error) => {
                tracing::error!(%error, "a seccomp listener cannot be read any more");
                return Served::Over;
            }
        };
        let turn = &self.listener.turn;
        if pressed {
            turn.pass();
            self.handle(notification);
            return Served::Passed;
        }
        let call = turn.begin();
        notification.call = call;
        self.handle(notification);
        if turn.done(call) { Served::Go } else { Served::Passed }
    }

    fn handle(&self, notification: Notification) {
        match self.handlers.get(&notification.syscall) {
            Some(handler) if notification.arch == NATIVE_ARCH => {
                // A panic must not cost the sandbox a thread; the dropped notification is refused.
                if catch_unwind(AssertUnwindSafe(|| handler.handle(notification))).is_err() {
                    tracing::error!("the handler of a system call panicked; the call was refused");
                }
            }
            _ => {
                tracing::warn!(syscall = notification.syscall, "a system call without a handler is refused");
                let _ = notification.respond_errno(libc::EPERM);
            }
        }
    }
}
