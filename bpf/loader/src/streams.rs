//! The long streams of the contract: decisions and events.

use std::pin::Pin;
use std::sync::Arc;

use clawsec_proto as pb;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use crate::broker::Broker;
use crate::spool::Spool;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves `Decide`. The stream takes over at once, before the supervisor says anything.
pub fn decide(
    broker: &Broker,
    mut decisions: Streaming<pb::SupervisorMessage>,
) -> Answers<pb::LoaderMessage> {
    let (number, questions) = broker.attach();
    tracing::info!(stream = number, "a supervisor decides");
    let broker = broker.clone();
    tokio::spawn(async move {
        loop {
            match decisions.message().await {
                Ok(Some(message)) => match message.message {
                    Some(pb::supervisor_message::Message::Decision(decision)) => {
                        broker.decide(number, decision);
                    }
                    None => tracing::warn!("an empty message of the supervisor was ignored"),
                },
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(%status, "the supervisor's stream broke");
                    break;
                }
            }
        }
        tracing::info!(stream = number, "a supervisor's stream ended");
        broker.detach(number);
    });
    let replaced =
        Status::aborted("this stream does not decide any more: it ended, or another one took over");
    Box::pin(ReceiverStream::new(questions).map(Ok).chain(tokio_stream::once(Err(replaced))))
}

/// Serves `Events`: everything that is not acknowledged, then what happens. Batches are made and forgotten on `work`: the
/// copies of some hundred events take near a millisecond, which a question on the connection's own thread would wait.
pub fn events(
    spool: &Arc<Spool>,
    mut acks: Streaming<pb::EventAck>,
    work: &Handle,
) -> Answers<pb::EventBatch> {
    let (batches, receiver) = mpsc::channel(4);
    let mut reader = spool.reader();
    work.spawn(async move {
        loop {
            let batch = tokio::select! {
                batch = reader.next() => batch,
                () = batches.closed() => return,
            };
            let Some(batch) = batch else {
                let replaced = Status::aborted("another stream of events took over");
                // A receiver that is gone does not need to know.
                let _ = batches.send(Err(replaced)).await;
                return;
            };
            if batches.send(Ok(batch)).await.is_err() {
                return;
            }
        }
    });
    let spool = Arc::clone(spool);
    work.spawn(async move {
        while let Ok(Some(ack)) = acks.message().await {
            spool.acknowledge(ack.sequence);
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}
