//! One more command in a running sandbox, for whoever asks the supervisor.
//!
//! It lives no longer than the stream of whoever asked: a command that nobody waits for could not be told from one that
//! the sandbox's own program started. What it left behind in another session stays, under the same gate.

use std::sync::Arc;

use clawsec_proto as pb;
use clawsec_sandbox::{Attachment, CommandRequest, Error, Joined, Output, Sandbox};
use pb::attach_output::Output as Told;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::host::status;
use crate::input::{self, Target};
use crate::streams::Answers;
use crate::validate;

/// Where the output goes.
type Sender = mpsc::Sender<Result<pb::AttachOutput, Status>>;

/// Starts the command of the first message and carries its bytes.
///
/// # Errors
/// Nothing was started, for this reason.
pub async fn serve(
    sandbox: Arc<Sandbox>,
    first: pb::AttachInput,
    inputs: Streaming<pb::AttachInput>,
) -> Result<Answers<pb::AttachOutput>, Status> {
    let start = first.exec.clone().unwrap_or_default();
    validate::exec(&start).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let request = CommandRequest {
        args: start.args,
        subject: start.subject,
        terminal: start.terminal,
        term: start.term,
    };
    let unstarted = sandbox.join(request).await.map_err(|error| status(&error))?;
    tracing::info!(sandbox = sandbox.name(), pid = unstarted.pid(), "a command was asked for");
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let pid = unstarted.pid();
        let started = pb::ExecStarted { pid, sandbox_pid: sandbox_pid(pid) };
        // The size is that of the terminal from the command's beginning.
        let target = Target::Command(unstarted.input());
        if let Some(size) = first.resize
            && let Err(error) = target.resize(size)
        {
            tracing::debug!(sandbox = sandbox.name(), %error, "the terminal's size was not set");
        }
        if tell(&sender, Told::Started(started)).await.is_err() {
            // Dropped before it was started: it ends by itself.
            return;
        }
        let (joined, output) = unstarted.start().await;
        let taking = tokio::spawn(input::take(target, first, inputs));
        carry(joined, output, &sender).await;
        taking.abort();
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Carries the output until the command has ended, or whoever asked is gone.
async fn carry(mut joined: Joined, mut output: Attachment, sender: &Sender) {
    let mut end = None;
    loop {
        let piece = tokio::select! {
            piece = output.next() => piece,
            ended = joined.ended(), if end.is_none() => {
                joined.finish_output();
                end = Some(ended);
                continue;
            }
            () = sender.closed() => break,
        };
        let sent = match piece {
            Some(Output::Stdout(bytes)) => tell(sender, Told::Stdout(bytes)).await,
            Some(Output::Stderr(bytes)) => tell(sender, Told::Stderr(bytes)).await,
            // It has closed its output; it may live on.
            None => {
                let ended = match end.take() {
                    Some(ended) => ended,
                    None => tokio::select! {
                        ended = joined.ended() => ended,
                        () = sender.closed() => break,
                    },
                };
                let last = match ended {
                    Ok(exit) => Ok(pb::AttachOutput { output: Some(Told::Exit(exit)) }),
                    Err(Error::Precondition(why)) => Err(Status::aborted(why)),
                    Err(error) => Err(status(&error)),
                };
                // Whoever left does not need to know.
                let _ = sender.send(last).await;
                return;
            }
        };
        if sent.is_err() {
            break;
        }
    }
    drop(output);
    if end.is_none() {
        joined.abandon().await;
    }
}

async fn tell(sender: &Sender, output: Told) -> Result<(), ()> {
    sender.send(Ok(pb::AttachOutput { output: Some(output) })).await.map_err(drop)
}

/// Its number in its own namespace; 0 when it is gone.
fn sandbox_pid(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}
