//! What comes for a command: standard input, its terminal's size, signals. The same for the main command and one more.

use std::sync::Arc;

use clawsec_proto as pb;
use clawsec_sandbox::{CommandInput, Error, Io, Sandbox};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Streaming;

/// Bytes of standard input that wait for the command to read them.
const QUEUE: usize = 256 << 10;

/// Whose input it is.
#[derive(Debug)]
pub enum Target {
    /// The main command's.
    Main(Arc<Sandbox>),
    /// That of one more command.
    Command(Arc<CommandInput>),
}

impl Target {
    fn io(&self) -> &Io {
        match self {
            Self::Main(sandbox) => sandbox.io(),
            Self::Command(input) => &input.io,
        }
    }

    async fn signal(&self, signal: i32) -> Result<(), Error> {
        match self {
            Self::Main(sandbox) => sandbox.signal(signal).await,
            Self::Command(input) => input.signal(signal).await,
        }
    }

    /// Tells the terminal its size.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn resize(&self, size: pb::TerminalSize) -> Result<(), Error> {
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        self.io().resize(clamp(size.rows), clamp(size.columns))
    }

    async fn write(&self, message: &pb::AttachInput) -> Result<(), Error> {
        if !message.stdin.is_empty() {
            self.io().write(&message.stdin).await?;
        }
        if message.stdin_eof {
            self.io().close_input().await?;
        }
        Ok(())
    }
}

/// Takes what whoever asked says, until that ends and the command has read it. Standard input waits in a queue for the
/// command to read it, so that a signal behind it comes through; a full queue stops the stream.
pub async fn take(target: Target, first: pb::AttachInput, mut inputs: Streaming<pb::AttachInput>) {
    let room = Arc::new(Semaphore::new(QUEUE));
    let (queue, mut queued) = mpsc::unbounded_channel::<(pb::AttachInput, OwnedSemaphorePermit)>();
    let writing = async {
        while let Some((message, permit)) = queued.recv().await {
            noted(target.write(&message).await);
            drop(permit);
        }
    };
    let reading = async {
        let mut next = first;
        loop {
            if let Some(size) = next.resize {
                noted(target.resize(size));
            }
            if next.signal != 0 {
                noted(target.signal(next.signal).await);
            }
            let bytes = next.stdin.len().clamp(1, QUEUE);
            let permit = Arc::clone(&room).acquire_many_owned(u32::try_from(bytes).unwrap_or(1)).await;
            let Ok(permit) = permit else { break };
            if queue.send((next, permit)).is_err() {
                break;
            }
            match inputs.message().await {
                Ok(Some(message)) => next = message,
                Ok(None) | Err(_) => break,
            }
        }
        drop(queue);
    };
    tokio::join!(writing, reading);
}

/// It closed its input, or has ended: as for a shell, not an error of whoever types.
fn noted(taken: Result<(), Error>) {
    if let Err(error) = taken {
        tracing::debug!(%error, "input was not taken");
    }
}
