//! The loader's side of the shim's protocol.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use clawsec_init::wire::{self, FromShim, Spec, ToShim};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::error::{Context, Error, Result};

/// The shim answers within milliseconds; a host that takes longer than this is not one to start on.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The connection to one sandbox's shim. While it is open, the sandbox lives.
#[derive(Debug)]
pub struct Shim {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// For the shim to keep.
    kept: Option<OwnedFd>,
}

impl Shim {
    /// Our end of the socket pair, and the descriptor that the shim is to keep. Must be called within the runtime.
    pub fn new(socket: std::os::unix::net::UnixStream, kept: Option<OwnedFd>) -> Result<Self> {
        socket.set_nonblocking(true).context("the shim's socket")?;
        let (from, to) = UnixStream::from_std(socket).context("the shim's socket")?.into_split();
        Ok(Self { from, to, kept })
    }

    /// Up to the moment when the shim stands restricted. Returns the listener, when the filter has one.
    ///
    /// # Errors
    /// The shim's own sentence, where it said one.
    pub async fn restrict(&mut self, mut spec: Spec, pidfd: impl AsFd) -> Result<Option<OwnedFd>> {
        match self.receive().await? {
            FromShim::Hello { protocol: wire::PROTOCOL } => {}
            other => return Err(unexpected(&other)),
        }
        let wants_listener = spec.listener;
        let kept = self.kept.take();
        spec.keep = kept.is_some();
        self.send(&ToShim::Spec(Box::new(spec))).await?;
        if let Some(kept) = kept {
            let socket: &UnixStream = self.to.as_ref();
            let sent = socket.async_io(Interest::WRITABLE, || wire::send_kept(socket, kept.as_fd()));
            sent.await.context("the shim's socket")?;
        }
        match self.receive().await? {
            FromShim::Restricted { listener: Some(number) } if wants_listener => {
                let listener = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty());
                Ok(Some(listener.context("taking the seccomp listener from the shim")?))
            }
            FromShim::Restricted { listener: None } if !wants_listener => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the main command run. Returns both halves: what the shim says later, and where signals go.
    ///
    /// # Errors
    /// The shim's own sentence, where it said one.
    pub async fn go(mut self) -> Result<(OwnedReadHalf, OwnedWriteHalf)> {
        self.send(&ToShim::Go).await?;
        match self.receive().await? {
            FromShim::Running { .. } => Ok((self.from, self.to)),
            other => Err(unexpected(&other)),
        }
    }

    async fn send(&mut self, message: &ToShim) -> Result<()> {
        send(&mut self.to, message).await
    }

    async fn receive(&mut self) -> Result<FromShim> {
        let message = tokio::time::timeout(TIMEOUT, receive(&mut self.from)).await;
        match message.map_err(|_| Error::Failed("the init shim did not answer in time".into()))? {
            Ok(FromShim::Refused { why }) => {
                // It exits next, with a code of its own, and the kill that follows here would take that away.
                let _ = tokio::time::timeout(Duration::from_secs(1), self.from.read(&mut [0])).await;
                Err(Error::Failed(format!("the init shim refused to start: {why}")))
            }
            Ok(message) => Ok(message),
            Err(error) => {
                Err(Error::Failed(format!("the init shim ended before it said it was ready: {error}")))
            }
        }
    }
}

/// Tells the shim something.
///
/// # Errors
/// It is gone.
pub async fn send(to: &mut OwnedWriteHalf, message: &ToShim) -> Result<()> {
    to.write_all(&wire::encode(message).context("the shim's socket")?).await.context("the shim's socket")
}

/// Has the shim fork a command, with its descriptors.
///
/// Not to be cancelled: half of it would be the end of the sandbox.
///
/// # Errors
/// The shim is gone.
pub async fn send_command(
    to: &mut OwnedWriteHalf,
    command: wire::Command,
    descriptors: [OwnedFd; wire::COMMAND_DESCRIPTORS],
) -> Result<()> {
    send(to, &ToShim::Command(command)).await?;
    let socket: &UnixStream = to.as_ref();
    for descriptor in &descriptors {
        let sent = socket.async_io(Interest::WRITABLE, || wire::send_kept(socket, descriptor.as_fd()));
        sent.await.context("the shim's socket")?;
    }
    Ok(())
}

/// Waits for what the shim says next.
pub async fn receive(from: &mut OwnedReadHalf) -> std::io::Result<FromShim> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await?;
    let mut body = vec![0; wire::body_length(prefix)?];
    from.read_exact(&mut body).await?;
    wire::decode(&body)
}

fn unexpected(message: &FromShim) -> Error {
    Error::Failed(format!("the init shim said {message:?} out of turn"))
}
