//! Questions of the gates, answered by the supervisor over the `Decide` stream.
//!
//! Each open question is a task of its own ([`crate::conversation`]) that owns its clock. Here is what they share:
//! which stream is in charge, who waits for which answer, and how many may be open. Whatever goes wrong ends as a
//! denial with a reason.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawsec_core::ask::{Asker, Inquiry, denial};
use clawsec_core::event::EventSink;
use clawsec_proto as pb;
use pb::loader_message::Message as ToSupervisor;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::clock::now_us;
use crate::conversation::{Conversation, Input};
use crate::tables::Tables;

/// Questions of one sandbox that may be open at a time, holds included. Beyond it, a question is denied: a sandbox must
/// not take all descriptors of the loader, of which each held exec has one.
pub const OPEN_QUESTIONS: usize = 10_240;
/// Bytes of these as they are sent, so that they do not fill the memory of the loader. A question has some hundred
/// bytes, or 300 KB with the longest arguments and names.
pub const OPEN_BYTES: usize = 64 * 1024 * 1024;
/// Questions of one sandbox that the supervisor has and did not answer yet, and their bytes (one may be larger). The others
/// wait here: behind the thousands that a sandbox can ask at once, the question of another one would wait for seconds.
pub const PUT_QUESTIONS: usize = 64;
const PUT_BYTES: usize = 1024 * 1024;
/// Messages that wait for a supervisor that does not read. Beyond it, its stream is closed. A new supervisor is told of
/// all that is held, at once.
const STREAM_BUFFER: usize = 8 * OPEN_QUESTIONS;
/// Ends of holds that are kept while the supervisor is away.
const UNDELIVERED: usize = OPEN_QUESTIONS;

/// The [`Asker`] of all gates. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

/// What the conversations need of the broker.
#[derive(Debug)]
pub struct Shared {
    tables: Arc<Tables>,
    state: Mutex<State>,
    stream: watch::Sender<Option<Stream>>,
    runtime: Handle,
    sink: Arc<dyn EventSinkDebug>,
}

/// An event sink that can stand in a `Debug` structure.
pub trait EventSinkDebug: EventSink + std::fmt::Debug {}
impl<T: EventSink + std::fmt::Debug> EventSinkDebug for T {}

/// The `Decide` stream in charge.
#[derive(Debug, Clone)]
pub struct Stream {
    number: u64,
    messages: mpsc::Sender<pb::LoaderMessage>,
}

#[derive(Debug, Default)]
struct State {
    last_question: u64,
    last_stream: u64,
    open: HashMap<u64, Open>,
    open_of: HashMap<String, Used>,
    undelivered: VecDeque<pb::LoaderMessage>,
}

/// What the open questions of a sandbox take.
#[derive(Debug, Default)]
struct Used {
    questions: usize,
    bytes: usize,
    put: usize,
    put_bytes: usize,
    // To be put, in this order.
    waiting: VecDeque<pb::Question>,
}

impl Used {
    fn has_room(&self, bytes: usize) -> bool {
        self.put == 0 || (self.put < PUT_QUESTIONS && self.put_bytes + bytes <= PUT_BYTES)
    }
}

#[derive(Debug)]
struct Open {
    sandbox: String,
    bytes: usize,
    // The supervisor has it and did not answer yet.
    is_put: bool,
    inbox: mpsc::UnboundedSender<Input>,
}

impl Broker {
    /// A broker whose conversations run on `runtime`.
    pub fn new(tables: Arc<Tables>, sink: Arc<dyn EventSinkDebug>, runtime: Handle) -> Self {
        let shared =
            Shared { tables, state: Mutex::default(), stream: watch::Sender::new(None), runtime, sink };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a new stream in charge. The one before it ends (its receiver closes), and every conversation asks again
    /// on the new one. Returns the number of the stream, for [`Broker::decide`] and [`Broker::detach`].
    pub fn attach(&self) -> (u64, mpsc::Receiver<pb::LoaderMessage>) {
        let (messages, receiver) = mpsc::channel(STREAM_BUFFER);
        let mut state = self.shared.lock();
        state.last_stream += 1;
        let number = state.last_stream;
        for message in state.undelivered.drain(..) {
            // The buffer is larger than the queue, and nobody else has the sender yet.
            let _ = messages.try_send(message);
        }
        // What was put is put again.
        for used in state.open_of.values_mut() {
            (used.put, used.put_bytes) = (0, 0);
            used.waiting.clear();
        }
        for open in state.open.values_mut() {
            open.is_put = false;
        }
        self.shared.stream.send_replace(Some(Stream { number, messages }));
        (number, receiver)
    }

    /// Says that a stream has ended. Does nothing when another one is in charge.
    pub fn detach(&self, number: u64) {
        self.shared.drop_stream(number);
    }

    /// Takes a decision from a stream. Decisions of a stream that is not in charge, and of questions that are not
    /// open, change nothing.
    pub fn decide(&self, number: u64, decision: pb::Decision) {
        let in_charge = self.shared.stream.borrow().as_ref().is_some_and(|stream| stream.number == number);
        if !in_charge {
            tracing::warn!(question = decision.question_id, "a decision of a replaced stream was ignored");
            return;
        }
        let mut state = self.shared.lock();
        self.shared.answered(&mut state, decision.question_id);
        match state.open.get(&decision.question_id) {
            // The conversation may have ended this instant; its question is then settled already.
            Some(open) => drop(open.inbox.send(Input::Decision(decision))),
            None => tracing::debug!(
                question = decision.question_id,
                "a decision came for a question that is not open"
            ),
        }
    }

    /// Denies every open question and hold of a sandbox.
    pub fn close(&self, sandbox: &str, why: &str) {
        let state = self.shared.lock();
        for open in state.open.values().filter(|open| open.sandbox == sandbox) {
            let _ = open.inbox.send(Input::Close(why.to_owned()));
        }
    }

    /// Questions and holds that are open.
    pub fn open_questions(&self) -> usize {
        self.shared.lock().open.len()
    }
}

impl Asker for Broker {
    fn ask(&self, mut question: pb::Question) -> Inquiry {
        let record = self.shared.tables.get(&question.sandbox);
        let mut state = self.shared.lock();
        state.last_question += 1;
        question.id = state.last_question;
        question.asked_us = now_us();
        let (inquiry, gate) = Inquiry::new(question.id);
        let refuse = |why: &str| {
            // The receiver is `inquiry`, which we hold.
            let _ = gate.decisions.send(denial(question.id, why));
        };
        let Some(record) = record else {
            refuse("the sandbox is being taken down");
            return inquiry;
        };
        question.epoch = record.epoch;
        let open = state.open_of.entry(question.sandbox.clone()).or_default();
        let bytes = question.encoded_len();
        if open.questions >= OPEN_QUESTIONS || open.bytes + bytes > OPEN_BYTES {
            drop(state);
            refuse("too many questions of this sandbox are open");
            self.shared.sink.lost("questions-full", 1);
            return inquiry;
        }
        open.questions += 1;
        open.bytes += bytes;
        let (inbox, inputs) = mpsc::unbounded_channel();
        let sandbox = question.sandbox.clone();
        state.open.insert(question.id, Open { sandbox, bytes, is_put: false, inbox });
        drop(state);
        let conversation = Conversation::begin(
            Arc::clone(&self.shared),
            question,
            gate,
            inputs,
            self.shared.stream.subscribe(),
            record.supervisor_grace_ms,
        );
        self.shared.runtime.spawn(conversation.run());
        inquiry
    }

    fn epoch(&self, sandbox: &str) -> u64 {
        self.shared.tables.epoch(sandbox)
    }
}

impl Shared {
    /// Epoch of a sandbox now.
    pub fn epoch(&self, sandbox: &str) -> u64 {
        self.tables.epoch(sandbox)
    }

    /// Sends on the stream in charge; false when there is none. A stream that does not read is closed.
    pub fn send(&self, message: ToSupervisor) -> bool {
        let number = {
            let stream = self.stream.borrow();
            let Some(stream) = stream.as_ref() else {
                return false;
            };
            let message = pb::LoaderMessage { message: Some(message) };
            match stream.messages.try_send(message) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::error!("the supervisor does not read its questions: its stream is closed");
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
            stream.number
        };
        self.drop_stream(number);
        false
    }

    /// Puts an open question to the supervisor, now or when it has answered others of the sandbox. If nobody is there,
    /// the next stream gets it, by another call.
    pub fn put(&self, question: pb::Question) {
        // A supervisor that remembers the hold answers nothing.
        if !question.hold_id.is_empty() {
            self.send(ToSupervisor::Question(question));
            return;
        }
        let mut state = self.lock();
        let Some(used) = state.open_of.get_mut(&question.sandbox) else { return };
        let sandbox = question.sandbox.clone();
        used.waiting.push_back(question);
        self.put_waiting(&mut state, &sandbox);
    }

    // There is room for others of its sandbox.
    fn answered(&self, state: &mut State, question: u64) {
        let Some(open) = state.open.get_mut(&question).filter(|open| open.is_put) else { return };
        open.is_put = false;
        let (sandbox, bytes) = (open.sandbox.clone(), open.bytes);
        if let Some(used) = state.open_of.get_mut(&sandbox) {
            used.put -= 1;
            used.put_bytes -= bytes;
        }
        self.put_waiting(state, &sandbox);
    }

    fn put_waiting(&self, state: &mut State, sandbox: &str) {
        let Some(used) = state.open_of.get_mut(sandbox) else { return };
        while let Some(first) = used.waiting.front() {
            let open = state.open.get_mut(&first.id).filter(|open| !open.is_put);
            if open.as_ref().is_some_and(|open| !used.has_room(open.bytes)) {
                return;
            }
            let question = used.waiting.pop_front();
            // It may have ended meanwhile.
            if let (Some(open), Some(question)) = (open, question)
                && self.send(ToSupervisor::Question(question))
            {
                open.is_put = true;
                used.put += 1;
                used.put_bytes += open.bytes;
            }
        }
    }

    /// Sends how a hold ended, or keeps it for the next stream.
    pub fn send_end(&self, message: ToSupervisor) {
        if self.send(message.clone()) {
            return;
        }
        let mut state = self.lock();
        if state.undelivered.len() == UNDELIVERED {
            state.undelivered.pop_front();
        }
        state.undelivered.push_back(pb::LoaderMessage { message: Some(message) });
    }

    /// Ends the bookkeeping of a question.
    pub fn finished(&self, question: u64) {
        let mut state = self.lock();
        self.answered(&mut state, question);
        let Some(open) = state.open.remove(&question) else {
            return;
        };
        if let Some(used) = state.open_of.get_mut(&open.sandbox) {
            used.questions -= 1;
            used.bytes -= open.bytes;
            if used.questions == 0 {
                state.open_of.remove(&open.sandbox);
            }
        }
    }

    fn drop_stream(&self, number: u64) {
        self.stream.send_if_modified(|stream| {
            let ours = stream.as_ref().is_some_and(|stream| stream.number == number);
            if ours {
                *stream = None;
            }
            ours
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
