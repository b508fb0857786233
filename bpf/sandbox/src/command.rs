//! Commands beside the main one: forked by the shim, so that nothing of what holds for the sandbox must be set again.
//!
//! The shim's child goes into its subject's cgroup by itself and waits until it is known to us. Only then it executes the
//! command, which the exec gate decides as any other exec. No process is ever moved by its number here: see
//! [`wire::Command`].

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawsec_init::wire::{self, ToShim};
use clawsec_proto as pb;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::cgroup::{holds, open_procs};
use crate::error::{Context, Error, Result};
use crate::io::{Attachment, Io};
use crate::sandbox::{Phase, Sandbox};
use crate::{shim, terminal};

/// The shim forks at once; a host on which that takes longer does not run the command.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Commands of one sandbox at a time.
const MOST: usize = 64;

/// What a command may take to end when nobody waits for it any more, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How a command ended, or a sentence why it never was one.
type End = std::result::Result<pb::ExitStatus, String>;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One without a slash is searched in `PATH` of the sandbox's environment.
    pub args: Vec<String>,
    /// Subject that it is from its beginning; empty: that of the main command.
    pub subject: String,
    /// It gets a terminal of its own.
    pub terminal: bool,
    /// `TERM` in its environment, with a terminal; empty: as the sandbox has it.
    pub term: String,
}

/// The commands of a sandbox that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<End>>>,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<End>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<(u64, oneshot::Receiver<End>)> {
        let mut waiting = self.lock();
        if waiting.len() >= MOST {
            return Err(Error::Exhausted(format!(
                "{MOST} commands of clawsec exec run in the sandbox already; wait for one to end"
            )));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, ended) = oneshot::channel();
        waiting.insert(id, sender);
        Ok((id, ended))
    }

    /// The shim said how a command ended.
    pub(crate) fn end(&self, id: u64, end: End) {
        if let Some(sender) = self.lock().remove(&id) {
            // Nobody may wait any more.
            let _ = sender.send(end);
        }
    }
}

/// A command that stands still before its first exec. Dropping it ends it.
#[derive(Debug)]
pub struct Unstarted {
    joined: Joined,
    output: Attachment,
    socket: UnixStream,
}

/// A command in a sandbox.
#[derive(Debug)]
pub struct Joined {
    pid: u32,
    terminal: bool,
    ended: oneshot::Receiver<End>,
    input: Arc<Input>,
}

/// What goes to a command: standard input, its terminal's size, signals.
#[derive(Debug)]
pub struct Input {
    sandbox: Arc<Sandbox>,
    id: u64,
    /// Its streams.
    pub io: Io,
}

impl Unstarted {
    /// Its number on the host.
    pub fn pid(&self) -> u32 {
        self.joined.pid
    }

    /// Where its input goes.
    pub fn input(&self) -> Arc<Input> {
        self.joined.input()
    }

    /// Lets it execute the command. Also returns its output.
    pub async fn start(mut self) -> (Joined, Attachment) {
        // One that was killed meanwhile has a status, which says more than this error.
        let _ = self.socket.write_all(&[0]).await;
        (self.joined, self.output)
    }
}

impl Joined {
    /// Where its input goes.
    pub fn input(&self) -> Arc<Input> {
        Arc::clone(&self.input)
    }

    /// Waits for its end. Cancel-safe until it has returned once.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the sandbox ended, and it with that; [`Error::Failed`] when it was not forked.
    pub async fn ended(&mut self) -> Result<pb::ExitStatus> {
        let gone = || Error::Precondition(self.input.sandbox.why_it_ended());
        tokio::select! {
            biased;
            end = &mut self.ended => match end {
                Ok(Ok(status)) => Ok(status),
                Ok(Err(why)) => Err(Error::Failed(why)),
                Err(_) => Err(gone()),
            },
            () = self.input.sandbox.ended() => Err(gone()),
        }
    }

    /// It has ended: what it wrote is the end of its output, whoever else has its streams open.
    pub fn finish_output(&self) {
        self.input.io.finish();
    }

    /// Ends it, because nobody waits for it any more: asks its process group to end, kills it after [`GRACE`].
    pub async fn abandon(mut self) {
        self.finish_output();
        // Interactive shells do not end of a SIGTERM.
        let signal = if self.terminal { libc::SIGHUP } else { libc::SIGTERM };
        for signal in [signal, libc::SIGKILL] {
            if self.input.signal(signal).await.is_err()
                || tokio::time::timeout(GRACE, self.ended()).await.is_ok()
            {
                return;
            }
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.finish_output();
    }
}

impl Input {
    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the sandbox does not run any more.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        let mut to = self.sandbox.to_shim.lock().await;
        let to = to.as_mut().ok_or_else(|| self.sandbox.not_running())?;
        let message = ToShim::CommandSignal { id: self.id, signal };
        shim::send(to, &message).await.map_err(|_| self.sandbox.not_running())
    }
}

impl Sandbox {
    /// Has the shim fork one more command, up to the moment before its exec, in its subject's cgroup.
    ///
    /// # Errors
    /// [`Error::Precondition`] unless the sandbox runs; [`Error::Invalid`] for a subject that it does not have.
    pub async fn join(self: &Arc<Self>, request: Request) -> Result<Unstarted> {
        let sandbox = Arc::clone(self);
        // To its end even when the caller goes away: half a frame would end the sandbox.
        let joined = tokio::spawn(async move { sandbox.fork(request).await });
        joined.await.map_err(|error| Error::Failed(format!("a fault of the loader itself: {error}")))?
    }

    async fn fork(self: Arc<Self>, request: Request) -> Result<Unstarted> {
        if !matches!(*self.phase.borrow(), Phase::Running { .. }) {
            return Err(self.not_running());
        }
        let first = &self.scope.subjects[0];
        let subject = match request.subject.as_str() {
            "" => first,
            name => self.scope.subject(name).ok_or_else(|| self.no_subject(name))?,
        };
        let (io, [stdin, stdout, stderr]) = self.streams(request.terminal)?;
        let output = io.attach()?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("the command's socket")?;
        set_socket_passcred(&ours, true).context("the command's socket")?;
        ours.set_nonblocking(true).context("the command's socket")?;
        let cgroup = open_procs(subject)?;
        let mut socket = UnixStream::from_std(ours).context("the command's socket")?;

        let (id, ended) = self.commands.begin()?;
        let input = Arc::new(Input { sandbox: Arc::clone(&self), id, io });
        let mut joined = Joined { pid: 0, terminal: request.terminal, ended, input };
        let command = wire::Command {
            id,
            args: request.args,
            entry: self.facts.entries.get(&subject.name).cloned(),
            terminal: request.terminal,
            term: if request.terminal { request.term } else { String::new() },
        };
        let sent = match &mut *self.to_shim.lock().await {
            Some(to) => shim::send_command(to, command, [stdin, stdout, stderr, theirs.into(), cgroup]).await,
            None => Err(self.not_running()),
        };
        if sent.is_err() {
            self.commands.end(id, Err(String::new()));
            return Err(self.not_running());
        }
        let known = tokio::select! {
            known = tokio::time::timeout(TIMEOUT, introduced(&mut socket)) => {
                known.unwrap_or_else(|_| Err(Error::Failed("the init shim did not fork in time".into())))
            }
            end = joined.ended() => match end {
                Ok(_) => Err(Error::Failed("the command was killed before it began".into())),
                Err(error) => Err(error),
            },
        };
        joined.pid = known?;
        // The number is the child's as long as the child lives, and only it has the other end of the socket: open after
        // the look at the cgroup, it was the child that stood there.
        if !holds(subject, joined.pid) || !waits(&socket) {
            return Err(Error::Failed("the command was killed before it began".into()));
        }
        Ok(Unstarted { joined, output, socket })
    }

    /// Our side and the command's.
    fn streams(&self, terminal: bool) -> Result<(Io, [std::os::fd::OwnedFd; 3])> {
        if terminal {
            let (master, slave) = terminal::make(self.init.pid, self.facts.owner)?;
            return Ok((Io::of_terminal(master, false)?, terminal::three_of(slave)?));
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("pipe");
        let (stdin_theirs, stdin) = pipe()?;
        let (stdout, stdout_theirs) = pipe()?;
        let (stderr, stderr_theirs) = pipe()?;
        Ok((Io::of_pipes([stdin, stdout, stderr], false)?, [stdin_theirs, stdout_theirs, stderr_theirs]))
    }

    fn no_subject(&self, name: &str) -> Error {
        let all: Vec<&str> = self.scope.subjects.iter().map(|subject| subject.name.as_str()).collect();
        let all = all.join(", ");
        Error::Invalid(format!("the sandbox {} has no subject {name:?}; it has {all}", self.name()))
    }
}

/// Whether the shim's child, which waits for us, has its end open. It says nothing more on it.
fn waits(socket: &UnixStream) -> bool {
    let peeked = recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Err(rustix::io::Errno::AGAIN))
}

/// Waits for the byte of the shim's child, and takes from the kernel whose it is.
async fn introduced(socket: &mut UnixStream) -> Result<u32> {
    let credentials = socket.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&*socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let credentials = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials),
            _ => None,
        });
        Ok((message.bytes, credentials))
    });
    match credentials.await.context("the command's socket")? {
        (1, Some(credentials)) => Ok(credentials.pid.as_raw_pid().cast_unsigned()),
        _ => {
            // It said why on its standard error, or was killed; its status comes from the shim.
            std::future::pending().await
        }
    }
}
