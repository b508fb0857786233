//! Bytes of a main command's standard streams, for one attachment at a time.
//!
//! The command never blocks because nobody reads: without an attachment the last 64 KiB of each stream are kept for
//! the next one. An attachment that is there and reads slowly slows the command down, as a pipe does.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawsec_proto as pb;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use pb::attach_output::Output;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;

/// What is kept of each stream.
const TAIL: usize = 64 << 10;
/// Bytes of one message.
const CHUNK: usize = 32 << 10;
/// How long the streams may stay open after the command has ended and everything in the sandbox was killed.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Our ends of the streams.
#[derive(Debug)]
pub struct Ends {
    /// Write end of stdin; for a terminal, its master.
    pub stdin: OwnedFd,
    /// Read end of stdout; for a terminal, its master.
    pub stdout: OwnedFd,
    /// Read end of stderr; `None` for a terminal.
    pub stderr: Option<OwnedFd>,
    /// The streams are a terminal.
    pub terminal: bool,
}

/// The standard streams of one sandbox.
#[derive(Debug)]
pub struct Stdio {
    state: Mutex<State>,
    stdin: AsyncMutex<Option<AsyncFd<std::fs::File>>>,
    terminal: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    tails: [VecDeque<u8>; 2],
    attached: Option<mpsc::Sender<pb::AttachOutput>>,
    exit: Option<pb::ExitStatus>,
}

/// Somebody is attached already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("somebody is attached to this sandbox already; detach there first")]
pub struct Occupied;

#[derive(Debug, Clone, Copy)]
enum Which {
    Stdout = 0,
    Stderr = 1,
}

impl Which {
    fn output(self, bytes: Vec<u8>) -> pb::AttachOutput {
        let output = match self {
            Self::Stdout => Output::Stdout(bytes),
            Self::Stderr => Output::Stderr(bytes),
        };
        pb::AttachOutput { output: Some(output) }
    }
}

/// Reads the streams until they end. See [`Pumps::finish`].
#[derive(Debug)]
pub struct Pumps {
    stdio: Arc<Stdio>,
    tasks: JoinSet<()>,
}

impl Stdio {
    /// Starts to carry the streams. To be called from the runtime.
    pub fn start(ends: Ends) -> io::Result<(Arc<Self>, Pumps)> {
        let terminal = if ends.terminal { Some(ends.stdin.try_clone()?) } else { None };
        let stdin = asynchronous(ends.stdin)?;
        let mut outputs = vec![(Which::Stdout, asynchronous(ends.stdout)?)];
        if let Some(stderr) = ends.stderr {
            outputs.push((Which::Stderr, asynchronous(stderr)?));
        }
        let stdio = Arc::new(Self { state: Mutex::default(), stdin: AsyncMutex::new(Some(stdin)), terminal });
        let mut tasks = JoinSet::new();
        for (which, end) in outputs {
            tasks.spawn(pump(Arc::clone(&stdio), which, end));
        }
        Ok((Arc::clone(&stdio), Pumps { stdio, tasks }))
    }

    /// Attaches: what was kept comes first, then what is written from now on, then the exit status.
    pub fn attach(&self) -> Result<mpsc::Receiver<pb::AttachOutput>, Occupied> {
        let mut state = self.lock();
        if state.attached.as_ref().is_some_and(|attached| !attached.is_closed()) {
            return Err(Occupied);
        }
        let (sender, receiver) = mpsc::channel(16);
        // Six messages at most: the channel has room.
        let _ = sender.try_send(pb::AttachOutput { output: Some(Output::Attached(true)) });
        for which in [Which::Stdout, Which::Stderr] {
            let kept: Vec<u8> = std::mem::take(&mut state.tails[which as usize]).into();
            for chunk in kept.chunks(CHUNK) {
                let _ = sender.try_send(which.output(chunk.to_vec()));
            }
        }
        if let Some(exit) = state.exit {
            let _ = sender.try_send(pb::AttachOutput { output: Some(Output::Exit(exit)) });
        } else {
            state.attached = Some(sender);
        }
        Ok(receiver)
    }

    /// Writes to stdin. Waits as long as the command does not read. Bytes for a stdin that is closed are dropped, as
    /// a shell's are.
    pub async fn write(&self, bytes: &[u8]) {
        let mut stdin = self.stdin.lock().await;
        let Some(end) = stdin.as_mut() else { return };
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(mut ready) = end.writable_mut().await else { break };
            match ready.try_io(|end| end.get_mut().write(rest)) {
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    *stdin = None;
                    return;
                }
                Err(_would_block) => {}
            }
        }
    }

    /// Closes stdin; on a terminal, types its end-of-file character instead.
    pub async fn close_stdin(&self) {
        if self.terminal.is_some() {
            self.write(b"\x04").await;
        } else {
            *self.stdin.lock().await = None;
        }
    }

    /// Tells the terminal its size. Without a terminal it means nothing.
    pub fn resize(&self, size: pb::TerminalSize) -> io::Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = libc::winsize {
            ws_row: clamp(size.rows),
            ws_col: clamp(size.columns),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        set_size(terminal, &size)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is attached, or keeps the bytes.
    fn attached_or_keep(&self, which: Which, bytes: &[u8]) -> Option<mpsc::Sender<pb::AttachOutput>> {
        let mut state = self.lock();
        match &state.attached {
            Some(attached) if !attached.is_closed() => return Some(attached.clone()),
            _ => state.attached = None,
        }
        let tail = &mut state.tails[which as usize];
        tail.extend(bytes);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
        None
    }
}

impl Pumps {
    /// Waits until everything written has been carried (bounded: somebody outside may hold an end open), then tells
    /// the attachment the exit status and ends it.
    pub async fn finish(mut self, exit: pb::ExitStatus) {
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            tracing::warn!("a standard stream of an ended sandbox is still open; it is let go");
            self.tasks.shutdown().await;
        }
        let attached = {
            let mut state = self.stdio.lock();
            state.exit = Some(exit);
            state.attached.take()
        };
        *self.stdio.stdin.lock().await = None;
        if let Some(attached) = attached {
            let message = pb::AttachOutput { output: Some(Output::Exit(exit)) };
            // A reader that does not read keeps nothing of ours alive.
            let _ = tokio::time::timeout(DRAIN_WITHIN, attached.send(message)).await;
        }
    }
}

async fn pump(stdio: Arc<Stdio>, which: Which, mut end: AsyncFd<std::fs::File>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(mut ready) = end.readable_mut().await else { return };
        let read = match ready.try_io(|end| end.get_mut().read(&mut buffer)) {
            // A terminal whose other side is closed reads EIO.
            Ok(Ok(0)) => return,
            Ok(Ok(read)) => read,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(Err(_)) => return,
            Err(_would_block) => continue,
        };
        let bytes = &buffer[..read];
        while let Some(attached) = stdio.attached_or_keep(which, bytes) {
            if attached.send(which.output(bytes.to_vec())).await.is_ok() {
                break;
            }
        }
    }
}

fn asynchronous(end: OwnedFd) -> io::Result<AsyncFd<std::fs::File>> {
    let flags = OFlag::from_bits_retain(fcntl(end.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(end.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    clawsec_core::sys::watch(std::fs::File::from(end))
}

/// ioctl_tty(2), TIOCSWINSZ.
fn set_size(terminal: &OwnedFd, size: &libc::winsize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: TIOCSWINSZ reads one `winsize` from the pointer, which is valid for that.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use nix::unistd::pipe;

    use super::*;

    struct Command {
        stdin: std::fs::File,
        stdout: Option<std::fs::File>,
        stderr: Option<std::fs::File>,
    }

    fn start() -> (Arc<Stdio>, Pumps, Command) {
        let (stdin_read, stdin) = pipe().unwrap();
        let (stdout, stdout_write) = pipe().unwrap();
        let (stderr, stderr_write) = pipe().unwrap();
        let ends = Ends { stdin, stdout, stderr: Some(stderr), terminal: false };
        let (stdio, pumps) = Stdio::start(ends).unwrap();
        let command = Command {
            stdin: stdin_read.into(),
            stdout: Some(stdout_write.into()),
            stderr: Some(stderr_write.into()),
        };
        (stdio, pumps, command)
    }

    async fn everything(mut receiver: mpsc::Receiver<pb::AttachOutput>) -> (Vec<u8>, Vec<u8>, Option<i32>) {
        let (mut out, mut err, mut exit) = (vec![], vec![], None);
        let first = receiver.recv().await.unwrap().output.unwrap();
        assert_eq!(first, Output::Attached(true));
        while let Some(message) = receiver.recv().await {
            assert_eq!(exit, None, "the exit status is the last message");
            match message.output.unwrap() {
                Output::Stdout(bytes) => out.extend(bytes),
                Output::Stderr(bytes) => err.extend(bytes),
                Output::Exit(status) => exit = Some(status.code),
                Output::Attached(_) => panic!("attached twice"),
            }
        }
        (out, err, exit)
    }

    fn exited(code: i32) -> pb::ExitStatus {
        pb::ExitStatus { code, signal: 0 }
    }

    #[tokio::test]
    async fn an_attachment_gets_both_streams_and_then_the_exit_status() {
        let (stdio, pumps, mut command) = start();
        let receiver = stdio.attach().unwrap();
        assert_eq!(stdio.attach().unwrap_err(), Occupied);
        command.stdout.take().unwrap().write_all(b"out").unwrap();
        command.stderr.take().unwrap().write_all(b"err").unwrap();
        let reading = tokio::spawn(everything(receiver));
        pumps.finish(exited(3)).await;
        assert_eq!(reading.await.unwrap(), (b"out".to_vec(), b"err".to_vec(), Some(3)));
    }

    #[tokio::test]
    async fn without_an_attachment_the_command_never_blocks_and_the_tail_is_kept() {
        let (stdio, pumps, mut command) = start();
        let mut stdout = command.stdout.take().unwrap();
        let writing = tokio::task::spawn_blocking(move || {
            for i in 0..100_000 {
                writeln!(stdout, "{i:06}").unwrap();
            }
        });
        writing.await.unwrap();
        drop(command.stderr.take());
        pumps.finish(exited(0)).await;
        let (out, err, exit) = everything(stdio.attach().unwrap()).await;
        assert_eq!((out.len(), err.len(), exit), (TAIL, 0, Some(0)));
        assert!(out.ends_with(b"099999\n"));
    }

    #[tokio::test]
    async fn an_attachment_that_leaves_makes_room_and_loses_nothing_written_later() {
        let (stdio, pumps, mut command) = start();
        drop(stdio.attach().unwrap());
        command.stdout.take().unwrap().write_all(b"later").unwrap();
        drop(command.stderr.take());
        let receiver = stdio.attach().unwrap();
        let reading = tokio::spawn(everything(receiver));
        pumps.finish(exited(0)).await;
        assert_eq!(reading.await.unwrap().0, b"later");
    }

    #[tokio::test]
    async fn stdin_is_carried_and_closed() {
        let (stdio, _pumps, mut command) = start();
        stdio.write(b"typed").await;
        stdio.close_stdin().await;
        stdio.write(b"lost").await;
        let mut typed = String::new();
        command.stdin.read_to_string(&mut typed).unwrap();
        assert_eq!(typed, "typed");
    }

    #[tokio::test]
    async fn a_stream_that_stays_open_does_not_hang_the_end() {
        let (stdio, pumps, _command) = start();
        let reading = tokio::spawn(everything(stdio.attach().unwrap()));
        pumps.finish(exited(1)).await;
        assert_eq!(reading.await.unwrap().2, Some(1));
    }
}
