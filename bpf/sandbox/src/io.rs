//! Standard input, output and error of a command.
//!
//! A pump reads each output as it comes. With a reader attached it waits for the reader (back pressure); without one it
//! keeps the last [`TAIL`] bytes. Only a sandbox that is not detached and never had a reader yet waits for its first
//! one when the tail is full, so that nothing of its output is lost.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, watch};

use crate::error::{Context, Error, Result};
use crate::runc::Streams;
use crate::sys;

/// Bytes kept of each output for a late reader.
pub const TAIL: usize = 64 << 10;
const CHUNK: usize = 16 << 10;
/// Most that can be in a pipe which a user without privileges made as large as allowed (pipe-max-size of proc(5)).
const LARGEST_PIPE: usize = 1 << 20;
/// End of transmission: a terminal in its usual mode reads it as the end of input.
const EOT: u8 = 4;

/// A piece of output. With a terminal, all of it is `Stdout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Of standard output.
    Stdout(Vec<u8>),
    /// Of standard error.
    Stderr(Vec<u8>),
}

/// A reader of the output. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    output: mpsc::Receiver<Output>,
}

impl Attachment {
    /// Next piece; `None` when all output was read and none can come any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Output> {
        self.output.recv().await
    }
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Which {
    fn of(self, bytes: Vec<u8>) -> Output {
        match self {
            Self::Stdout => Output::Stdout(bytes),
            Self::Stderr => Output::Stderr(bytes),
        }
    }
}

#[derive(Debug)]
struct State {
    tails: [VecDeque<u8>; 2],
    reader: Option<mpsc::Sender<Output>>,
    /// Wait for the first reader instead of dropping the oldest output.
    wait_for_reader: bool,
    /// Outputs that have not ended.
    open: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    attached: Notify,
    /// The command has ended: what was written is read, and what others write later is not waited for.
    finish: watch::Sender<bool>,
}

#[derive(Debug)]
enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<AsyncFd<OwnedFd>>),
    Closed,
}

/// The loader's side of a command's streams.
#[derive(Debug)]
pub struct Io {
    shared: Arc<Shared>,
    input: tokio::sync::Mutex<Input>,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
}

/// Both sides, before runc has its own.
#[derive(Debug)]
pub enum Prepared {
    /// Our ends of the pipes.
    Pipes(OwnedFd, OwnedFd, OwnedFd),
    /// Where runc will connect to.
    Console(UnixListener),
}

impl Prepared {
    /// Pipes, or a console socket in `folder` for a terminal. Must be called within the runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(terminal: bool, folder: &Path) -> Result<(Self, Streams)> {
        if terminal {
            let path = folder.join("console.sock");
            let listener = UnixListener::bind(&path).context("the console socket")?;
            return Ok((Self::Console(listener), Streams::Console(path)));
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("pipe");
        let (stdin_theirs, stdin) = pipe()?;
        let (stdout, stdout_theirs) = pipe()?;
        let (stderr, stderr_theirs) = pipe()?;
        Ok((Self::Pipes(stdin, stdout, stderr), Streams::Pipes([stdin_theirs, stdout_theirs, stderr_theirs])))
    }

    /// Starts the pumps, after runc made the container.
    ///
    /// # Errors
    /// runc did not hand out the terminal.
    pub async fn pump(self, detached: bool) -> Result<Io> {
        match self {
            Self::Pipes(stdin, stdout, stderr) => Io::of_pipes([stdin, stdout, stderr], detached),
            Self::Console(listener) => {
                let (stream, _) = listener.accept().await.context("the console socket")?;
                stream.readable().await.context("the console socket")?;
                let master = stream
                    .try_io(tokio::io::Interest::READABLE, || receive_descriptor(&stream))
                    .context("runc's terminal")?;
                Io::of_terminal(master, detached)
            }
        }
    }
}

impl Io {
    /// Our ends of standard input, output and error. Must be called within the runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn of_pipes([stdin, stdout, stderr]: [OwnedFd; 3], detached: bool) -> Result<Self> {
        for fd in [&stdin, &stdout, &stderr] {
            non_blocking(fd).context("a pipe")?;
        }
        let input = pipe::Sender::from_owned_fd(stdin).context("standard input")?;
        let stdout = pipe::Receiver::from_owned_fd(stdout).context("standard output")?;
        let stderr = pipe::Receiver::from_owned_fd(stderr).context("standard error")?;
        let shared = Shared::new(2, detached);
        tokio::spawn(pump_pipe(stdout, Which::Stdout, shared.clone()));
        tokio::spawn(pump_pipe(stderr, Which::Stderr, shared.clone()));
        Ok(Self { shared, input: tokio::sync::Mutex::new(Input::Pipe(input)), terminal: None })
    }

    /// The master of a pseudo-terminal. Must be called within the runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn of_terminal(master: OwnedFd, detached: bool) -> Result<Self> {
        non_blocking(&master).context("the terminal")?;
        let master = Arc::new(sys::watch(master).context("the terminal")?);
        let shared = Shared::new(1, detached);
        tokio::spawn(pump_terminal(master.clone(), shared.clone()));
        let input = tokio::sync::Mutex::new(Input::Terminal(master.clone()));
        Ok(Self { shared, input, terminal: Some(master) })
    }

    /// The command has ended: its output ends with what it has written, whoever else has its streams open.
    pub(crate) fn finish(&self) {
        self.shared.finish.send_replace(true);
    }

    /// Becomes the reader. What was kept so far comes first.
    ///
    /// # Errors
    /// [`Error::Precondition`] when there is a reader already.
    pub fn attach(&self) -> Result<Attachment> {
        let (sender, output) = mpsc::channel(16);
        let mut state = self.shared.lock();
        if state.reader.as_ref().is_some_and(|reader| !reader.is_closed()) {
            return Err(Error::Precondition("the sandbox is attached already".into()));
        }
        for (index, which) in [(0, Which::Stdout), (1, Which::Stderr)] {
            let kept: Vec<u8> = std::mem::take(&mut state.tails[index]).into();
            if !kept.is_empty() {
                // A new channel of 16 has room for two.
                let _ = sender.try_send(which.of(kept));
            }
        }
        state.wait_for_reader = false;
        state.reader = (state.open > 0).then_some(sender);
        drop(state);
        self.shared.attached.notify_waiters();
        Ok(Attachment { output })
    }

    /// Writes to standard input, waiting for the main command to read.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it was closed, by either side.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        let closed =
            |why: &dyn std::fmt::Display| Error::Precondition(format!("standard input is closed: {why}"));
        match &mut *self.input.lock().await {
            Input::Pipe(pipe) => pipe.write_all(bytes).await.map_err(|error| closed(&error)),
            Input::Terminal(master) => write_terminal(master, bytes).await.map_err(|error| closed(&error)),
            Input::Closed => Err(closed(&"its end was written")),
        }
    }

    /// Ends standard input.
    ///
    /// # Errors
    /// A terminal that is gone.
    pub async fn close_input(&self) -> Result<()> {
        let mut input = self.input.lock().await;
        if let Input::Terminal(master) = &*input {
            write_terminal(master, &[EOT]).await.context("the terminal")?;
        }
        *input = Input::Closed;
        Ok(())
    }

    /// Tells the terminal its size, in characters.
    ///
    /// # Errors
    /// [`Error::Precondition`] without a terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.terminal.as_ref();
        let terminal = terminal.ok_or_else(|| Error::Precondition("the sandbox has no terminal".into()))?;
        sys::resize(terminal.get_ref().as_fd(), rows, columns).context("the terminal's size")
    }

    /// The last bytes of standard error that no reader took; for saying why a start failed.
    pub fn stderr_tail(&self) -> Vec<u8> {
        let state = self.shared.lock();
        let which = usize::from(self.terminal.is_none());
        state.tails[which].iter().copied().collect()
    }
}

impl Shared {
    fn new(open: usize, detached: bool) -> Arc<Self> {
        let state = State { tails: Default::default(), reader: None, wait_for_reader: !detached, open };
        Arc::new(Self {
            state: Mutex::new(state),
            attached: Notify::new(),
            finish: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, which: Which, bytes: &[u8]) {
        loop {
            let waiting = self.attached.notified();
            tokio::pin!(waiting);
            let reader = {
                let mut state = self.lock();
                if state.reader.as_ref().is_some_and(mpsc::Sender::is_closed) {
                    state.reader = None;
                }
                let full = state.tails[which as usize].len() + bytes.len() > TAIL;
                let reader = state.reader.clone();
                if reader.is_none() && !(full && state.wait_for_reader) {
                    let tail = &mut state.tails[which as usize];
                    tail.extend(bytes);
                    let excess = tail.len().saturating_sub(TAIL);
                    tail.drain(..excess);
                    return;
                }
                // Registered before the lock is released, so that no reader is missed.
                waiting.as_mut().enable();
                reader
            };
            match reader {
                Some(reader) => {
                    if reader.send(which.of(bytes.to_vec())).await.is_ok() {
                        return;
                    }
                }
                None => waiting.await,
            }
        }
    }

    fn ended(&self) {
        let mut state = self.lock();
        state.open -= 1;
        if state.open == 0 {
            state.reader = None;
        }
    }
}

async fn pump_pipe(mut pipe: pipe::Receiver, which: Which, shared: Arc<Shared>) {
    let mut chunk = vec![0; CHUNK];
    let mut finish = shared.finish.subscribe();
    loop {
        let read = tokio::select! {
            biased;
            () = finished(&mut finish) => break drain(&pipe, which, &shared).await,
            read = pipe.read(&mut chunk) => read,
        };
        // An error of a pipe's reading end cannot be recovered from: the same as its end.
        let Ok(length @ 1..) = read else { break };
        shared.deliver(which, &chunk[..length]).await;
    }
    shared.ended();
}

async fn pump_terminal(master: Arc<AsyncFd<OwnedFd>>, shared: Arc<Shared>) {
    let mut chunk = vec![0; CHUNK];
    let mut finish = shared.finish.subscribe();
    loop {
        let ready = tokio::select! {
            biased;
            () = finished(&mut finish) => break drain(master.get_ref(), Which::Stdout, &shared).await,
            ready = master.readable() => ready,
        };
        let Ok(mut ready) = ready else { break };
        match ready.try_io(|master| read_now(master.get_ref(), &mut chunk)) {
            Ok(Ok(length @ 1..)) => shared.deliver(Which::Stdout, &chunk[..length]).await,
            // EIO: nobody has the other side open any more.
            Ok(_) => break,
            Err(_would_block) => {}
        }
    }
    shared.ended();
}

async fn finished(finish: &mut watch::Receiver<bool>) {
    // The sender is in what the pump holds.
    let _ = finish.wait_for(|finish| *finish).await;
}

/// What was written before the end, whether or not the runtime has heard of it. Whoever goes on writing is not read
/// for ever.
async fn drain(from: impl AsFd, which: Which, shared: &Shared) {
    let mut chunk = vec![0; CHUNK];
    let mut left = LARGEST_PIPE;
    while left > 0
        && let Ok(length @ 1..) = read_now(&from, &mut chunk)
    {
        shared.deliver(which, &chunk[..length]).await;
        left = left.saturating_sub(length);
    }
}

fn read_now(from: impl AsFd, chunk: &mut [u8]) -> io::Result<usize> {
    rustix::io::read(from, chunk).map_err(io::Error::from)
}

async fn write_terminal(master: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = master.writable().await?;
        match ready.try_io(|master| rustix::io::write(master.get_ref(), bytes).map_err(io::Error::from)) {
            Ok(written) => bytes = &bytes[written?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

fn non_blocking(fd: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}

fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::Error::from(Errno::BADMSG))
}
